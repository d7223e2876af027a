//! The admin socket: a file that only the server's own user, or root, can connect to.
//!
//! Two things keep others out: the mode of the file, and the credentials that the kernel vouches for of whoever connects.
//! There are few connections, each for one request, and each has a time.

use std::convert::Infallible;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::admin::acts::Operator;
use crate::http::error::ApiError;
use crate::http::routes::Router;

/// Why there is no admin socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Another server answers there.
    #[error("another server answers at {}", .0.display())]
    InUse(PathBuf),
    /// Something else is there.
    #[error("{} is there and is no socket", .0.display())]
    NoSocket(PathBuf),
    /// Anyone may put something else in its place.
    #[error("anyone may write to {}", .0.display())]
    OpenDirectory(PathBuf),
    /// The system refused.
    #[error("cannot make {}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

impl SocketError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::InUse(_) => "give each server a data directory or an admin_socket of its own".to_owned(),
            Self::NoSocket(path) => format!("move {} away, or choose another admin_socket", path.display()),
            Self::OpenDirectory(_) => "put admin_socket into a directory of the server's own, of mode 0700".to_owned(),
            Self::Io { .. } => {
                "choose another admin_socket, of fewer than 100 characters in a directory that the server \
                                may write to, or \"off\""
                    .to_owned()
            }
        }
    }
}

/// A socket that is bound and does not serve yet.
pub struct AdminSocket {
    listener: UnixListener,
    file: SocketFile,
}

/// The file of a socket, removed when this is dropped.
pub struct SocketFile {
    path: PathBuf,
    /// Device and number of the file, so that no other server's is removed.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

impl AdminSocket {
    /// Binds. A file that a server left behind which did not end well is removed, if nobody answers there.
    pub async fn bind(path: &Path) -> Result<Self, SocketError> {
        let failed = |error| SocketError::Io {
            path: path.to_owned(),
            error,
        };
        let directory = path
            .parent()
            .filter(|parent| !parent.as_os_str().is_empty())
            .unwrap_or(Path::new("."));
        if fs::metadata(directory).map_err(failed)?.mode() & 0o002 != 0 {
            return Err(SocketError::OpenDirectory(directory.to_owned()));
        }
        remove_stale(path).await?;
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Until now the process's mask of modes decided; who was quick in between is asked who it is like everyone.
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        let identity = identity(path).map_err(failed)?;
        let file = SocketFile {
            path: path.to_owned(),
            identity,
        };
        Ok(Self { listener, file })
    }

    /// Serves until `stop`. Connections run on in `connections`. The file is the caller's, to be kept until the end.
    pub fn serve(
        self,
        router: Router,
        stop: CancellationToken,
        connections: TaskTracker,
    ) -> (SocketFile, impl Future<Output = ()> + Send) {
        let Self { listener, file } = self;
        (file, accept_all(listener, router, stop, connections))
    }
}

async fn accept_all(listener: UnixListener, router: Router, stop: CancellationToken, connections: TaskTracker) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    while let Some(Ok(place)) = stop.run_until_cancelled(Arc::clone(&places).acquire_owned()).await {
        match stop.run_until_cancelled(listener.accept()).await {
            None => return,
            Some(Ok((stream, _))) => {
                let router = router.clone();
                connections.spawn(async move {
                    // What comes of it is between hyper and whoever connected.
                    let _ = tokio::time::timeout(LIFETIME, serve_one(stream, router)).await;
                    drop(place);
                });
            }
            Some(Err(error)) => {
                tracing::warn!(kind = %error.kind(), "cannot accept connections to the admin socket, trying again");
                if stop.run_until_cancelled(tokio::time::sleep(BACK_OFF)).await.is_none() {
                    return;
                }
            }
        }
    }
}

async fn serve_one(stream: UnixStream, router: Router) {
    let Ok(peer) = stream.peer_cred() else { return };
    let own = rustix::process::geteuid().as_raw();
    let operator = may_act(peer.uid(), own).then_some(Operator { uid: peer.uid() });
    if operator.is_none() {
        tracing::warn!("another user than the server's own was turned away from the admin socket");
    }
    let service = service_fn(move |mut request: Request<Incoming>| {
        let router = router.clone();
        async move {
            let Some(operator) = operator else {
                return Ok::<Response, Infallible>(NOT_YOURS.into_response());
            };
            request.extensions_mut().insert(operator);
            match router.oneshot(request.map(Body::new)).await {
                Ok(response) => Ok(response),
                Err(never) => match never {},
            }
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .keep_alive(false)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD);
    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

/// Whether a user may act as the operator of a server that runs as `own`.
fn may_act(uid: u32, own: u32) -> bool {
    uid == own || uid == 0
}

/// Removes a socket at which nobody answers. Anything else that is there stays.
async fn remove_stale(path: &Path) -> Result<(), SocketError> {
    let failed = |error| SocketError::Io {
        path: path.to_owned(),
        error,
    };
    // Of the link itself, if it is one: what it points at is somebody else's.
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NoSocket(path.to_owned())),
        Ok(_) => {}
    }
    match tokio::time::timeout(ANSWER_TIMEOUT, UnixStream::connect(path)).await {
        // One that does not get to accepting is alive as well.
        Ok(Ok(_)) | Err(_) => Err(SocketError::InUse(path.to_owned())),
        Ok(Err(error)) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path).map_err(failed),
        Ok(Err(error)) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(Err(error)) => Err(failed(error)),
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let meta = fs::symlink_metadata(path)?;
    Ok((meta.dev(), meta.ino()))
}

const CONNECTIONS: usize = 16;
/// Of a connection, its request included.
const LIFETIME: Duration = Duration::from_secs(90);
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
const MAX_HEADERS: usize = 32;
/// hyper does not work with less.
const MAX_HEAD: usize = 8 * 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const BACK_OFF: Duration = Duration::from_millis(200);
const NOT_YOURS: ApiError = ApiError::new(
    StatusCode::FORBIDDEN,
    "not_the_operator",
    "only the user that runs the server, or root, may use this",
);

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn the_socket_is_for_its_owner_alone_and_goes_with_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let socket = AdminSocket::bind(&path).await.unwrap();
        assert_eq!(mode(&path), 0o600);
        let stop = CancellationToken::new();
        let (file, serving) = socket.serve(axum::Router::new(), stop.clone(), TaskTracker::new());
        let serving = tokio::spawn(serving);
        UnixStream::connect(&path).await.unwrap();
        stop.cancel();
        serving.await.unwrap();
        drop(file);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        // A listener that is dropped without more leaves its file behind, as a killed server does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let first = AdminSocket::bind(&path).await.unwrap();
        let Err(refused) = AdminSocket::bind(&path).await else {
            panic!("two servers at one socket")
        };
        assert!(matches!(refused, SocketError::InUse(_)), "{refused}");
        assert!(refused.remedy().contains("admin_socket"), "{}", refused.remedy());
        assert!(UnixStream::connect(&path).await.is_ok(), "the first one goes on");
        drop(first);
    }

    #[tokio::test]
    async fn whatever_else_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        fs::write(&path, "somebody's").unwrap();
        let link = dir.path().join("link.sock");
        std::os::unix::fs::symlink(dir.path().join("elsewhere.sock"), &link).unwrap();
        let directory = dir.path().join("directory.sock");
        fs::create_dir(&directory).unwrap();
        for there in [&path, &link, &directory] {
            assert!(matches!(
                AdminSocket::bind(there).await.err().unwrap(),
                SocketError::NoSocket(_)
            ));
        }
        assert_eq!(fs::read(&path).unwrap(), b"somebody's");
    }

    #[tokio::test]
    async fn a_directory_that_anyone_may_write_to_and_a_long_path_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), Permissions::from_mode(0o707)).unwrap();
        let refused = AdminSocket::bind(&dir.path().join("admin.sock")).await.err().unwrap();
        assert!(refused.remedy().contains("of mode 0700"), "{}", refused.remedy());
        fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
        let long = dir.path().join("a".repeat(120));
        let refused = AdminSocket::bind(&long).await.err().unwrap();
        assert!(refused.remedy().contains("fewer than 100"), "{refused}");
    }

    #[tokio::test]
    async fn another_servers_socket_is_not_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.sock");
        let first = AdminSocket::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        // So that the number of the file is not used again.
        let _kept = fs::File::create(dir.path().join("kept")).unwrap();
        let second = AdminSocket::bind(&path).await.unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn t24_the_server_and_root_may_act_and_nobody_else() {
        assert!(may_act(1000, 1000));
        assert!(may_act(0, 1000));
        assert!(!may_act(1001, 1000));
        assert!(!may_act(1000, 0));
    }
}
