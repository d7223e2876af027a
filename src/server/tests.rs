use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::config::parse_toml;

fn config(dir: &Path, more: &str) -> Config {
    let dir = dir.join("data");
    let text = format!(
        "listen = '127.0.0.1:0'\nadmin_listen = '127.0.0.1:0'\ndata_dir = '{}'\n{more}",
        dir.display()
    );
    parse_toml(&text).unwrap_or_else(|error| panic!("{error}"))
}

async fn get(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn binds_serves_and_stops() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    let server = Server::bind(&config).await.unwrap();
    let (address, admin) = (server.addresses().unwrap()[0], server.admin_address().unwrap());
    assert_eq!(server.urls().unwrap(), [format!("http://{address}")]);
    let shutdown = CancellationToken::new();
    let serving = tokio::spawn(server.serve(shutdown.clone(), CancellationToken::new()));
    assert!(get(address, "/health/ready").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/health/live").await.starts_with("HTTP/1.1 200"));
    assert!(get(address, "/metrics").await.starts_with("HTTP/1.1 404"));
    assert!(get(admin, "/metrics").await.starts_with("HTTP/1.1 200"));

    let idle = TcpStream::connect(address).await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(10), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    drop(idle);
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn a_session_that_does_not_end_is_cut_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(&config(dir.path(), "drain_secs = 1")).await.unwrap();
    server.lifecycle.sessions.spawn(std::future::pending::<()>());
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let error = server.serve(shutdown, CancellationToken::new()).await.err().unwrap();
    assert!(error.to_string().contains("1 sessions open"), "{error}");
}

#[tokio::test]
async fn an_address_in_use_names_the_setting() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = config(dir.path(), "");
    config.admin_listen = taken.local_addr().unwrap();
    let error = Server::bind(&config).await.err().unwrap();
    assert!(format!("{error:#}").contains("(admin_listen)"), "{error:#}");
}

#[tokio::test]
async fn an_open_pepper_stops_the_start() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "");
    drop(Server::bind(&config).await.unwrap());
    let pepper = config.data_dir.join("pepper");
    std::fs::set_permissions(&pepper, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = Server::bind(&config).await.err().unwrap();
    assert!(error.to_string().contains("run: chmod 600"), "{error}");
}

#[tokio::test]
async fn tells_where_it_listens_and_what_to_try() {
    let dir = tempfile::tempdir().unwrap();
    let config = config(dir.path(), "tls_self_signed = true");
    let server = Server::bind(&config).await.unwrap();
    let url = server.urls().unwrap().remove(0);
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let text = first_thing_to_try(&config, "https://0.0.0.0:80");
    assert!(text.contains("ca-cert.pem https://127.0.0.1:80/health/ready"), "{text}");
}

#[tokio::test]
async fn a_server_that_must_not_go_on_stops_in_order_and_fails() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::bind(&config(dir.path(), "")).await.unwrap();
    let (address, give_up) = (server.addresses().unwrap()[0], server.lifecycle.give_up.clone());
    let serving = tokio::spawn(server.serve(CancellationToken::new(), CancellationToken::new()));
    assert!(get(address, "/health/ready").await.starts_with("HTTP/1.1 200"));
    give_up.cancel();
    let ended = tokio::time::timeout(Duration::from_secs(10), serving)
        .await
        .unwrap()
        .unwrap();
    assert!(ended.unwrap_err().to_string().contains("start it again"));
    assert!(TcpStream::connect(address).await.is_err());
}
