//! What an operator sees of the program: its first lines, its answers to signals, its exit codes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};

#[test]
fn first_lines_name_every_address_and_sigterm_ends_with_zero() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = [
        "--listen",
        "127.0.0.1:0",
        "--listen",
        "[::1]:0",
        "--admin-listen",
        "127.0.0.1:0",
    ];
    let mut server = Running::start(command(dir.path()).args(listeners));
    let lines: Vec<String> = (0..3).map(|_| server.line()).collect();
    assert!(lines[0].starts_with("listening on http://127.0.0.1:"), "{lines:?}");
    assert!(lines[1].starts_with("listening on http://[::1]:"), "{lines:?}");
    assert!(lines[2].starts_with("try: curl http://127.0.0.1:"), "{lines:?}");
    let address = lines[0].strip_prefix("listening on http://").unwrap();
    assert!(get(address, "/health/ready").starts_with("HTTP/1.1 200"));

    server.signal(Signal::HUP);
    assert!(
        get(address, "/health/live").starts_with("HTTP/1.1 200"),
        "a reload ends nothing"
    );
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn an_interrupt_ends_with_zero_as_well() {
    let dir = tempfile::tempdir().unwrap();
    let listeners = ["serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    let mut server = Running::start(command(dir.path()).args(listeners));
    server.line();
    server.signal(Signal::INT);
    assert_eq!(server.exit_code(), Some(0));
}

#[test]
fn a_configuration_that_cannot_be_used_exits_with_two_and_names_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let output = finished(command(dir.path()).args(["--registration", "otp"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("say who in codes.sms or codes.email"),
        "{}",
        text(&output.stderr)
    );
    assert!(output.stdout.is_empty());

    let output = finished(command(dir.path()).env("BLIND_RELAY_DATA_DIRR", "x"));
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("BLIND_RELAY_DATA_DIR\n"),
        "{}",
        text(&output.stderr)
    );

    assert_eq!(finished(command(dir.path()).arg("--nonsense")).status.code(), Some(2));
}

#[test]
fn config_prints_origins_and_no_secrets() {
    let dir = tempfile::tempdir().unwrap();
    let url = "postgres://relay:hunter2@db/relay";
    let output = finished(command(dir.path()).arg("config").env("BLIND_RELAY_DATABASE_URL", url));
    let shown = text(&output.stdout);
    let wanted = "database_url = \"postgres://relay:****@db/relay\"  # environment BLIND_RELAY_DATABASE_URL\n";
    assert!(shown.contains(wanted), "{shown}");
    assert!(!shown.contains("hunter2"));
    assert_eq!(output.status.code(), Some(0));
}

#[test]
fn doctor_exits_with_one_when_a_check_failed() {
    let dir = tempfile::tempdir().unwrap();
    let well = finished(command(dir.path()).arg("doctor"));
    assert_eq!(well.status.code(), Some(0), "{}", text(&well.stdout));
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let ill = finished(command(dir.path()).arg("doctor").arg("--data-dir").arg(&file));
    assert_eq!(ill.status.code(), Some(1));
    assert!(
        text(&ill.stdout).contains("FAIL  data directory: "),
        "{}",
        text(&ill.stdout)
    );
}

#[test]
fn an_expired_certificate_and_an_open_key_stop_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
    let pair = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    params.not_after = rcgen::date_time_ymd(2001, 1, 1);
    std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    std::fs::write(&key, pair.serialize_pem()).unwrap();
    set_mode(&key, 0o600);
    let refusal = || {
        let output = finished(
            command(dir.path())
                .arg("--tls-cert")
                .arg(&cert)
                .arg("--tls-key")
                .arg(&key),
        );
        assert_eq!(output.status.code(), Some(1));
        text(&output.stderr)
    };
    assert!(refusal().contains("renew the certificate"), "{}", refusal());
    params.not_after = rcgen::date_time_ymd(4000, 1, 1);
    std::fs::write(&cert, params.self_signed(&pair).unwrap().pem()).unwrap();
    set_mode(&key, 0o644);
    assert!(refusal().contains("run: chmod 600 "), "{}", refusal());
}

/// A server process, killed if the test ends before it.
struct Running {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn exit_code(&mut self) -> Option<i32> {
        self.child.wait().unwrap().code()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_blind-relay"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BLIND_RELAY_")) {
        command.env_remove(name);
    }
    command.current_dir(dir);
    command
}

fn finished(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}
