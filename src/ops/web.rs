//! Plain HTTP for those who watch: the metrics endpoint, and the control socket that `highwater status` asks.
//!
//! It only reads. It runs on the control plane's one thread, takes few connections and short requests, and gives none
//! of them long: whatever comes in here, no signature waits for it.

use super::{metrics, status::Status, telemetry::Telemetry};
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::Semaphore,
    time::timeout,
};
use tracing::debug;

/// Connections at one time, to all of it. A scraper and an operator need two.
const CONNECTIONS_MAX: usize = 16;
/// A request line and its headers.
const HEAD_MAX_BYTES: usize = 8 * 1024;
/// How long a connection may last, with all its requests.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// How long the head of a request may take to come.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait when the system has no more descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Names the directory that systemd has made for this service (RuntimeDirectory=).
pub const RUNTIME_VARIABLE: &str = "RUNTIME_DIRECTORY";
/// Where that directory is, for whoever asks without its environment.
const RUNTIME_DIRECTORY: &str = "/run/highwater";
const SOCKET_NAME: &str = "control.sock";

/// Where the signer listens: in the directory that systemd gave it, else beside its configuration.
pub fn control_socket(runtime_directory: Option<OsString>, home: &Path) -> PathBuf {
    let first = |list: OsString| {
        list.as_bytes().split(|byte| *byte == b':').next().map(|path| PathBuf::from(OsStr::from_bytes(path)))
    };
    let directory = runtime_directory.filter(|list| !list.is_empty()).and_then(first);
    directory.unwrap_or_else(|| home.to_owned()).join(SOCKET_NAME)
}

/// Where a signer may listen, the likeliest first.
pub fn control_sockets(runtime_directory: Option<OsString>, home: &Path) -> Vec<PathBuf> {
    let mut places = vec![control_socket(runtime_directory, home), control_socket(None, home)];
    places.push(Path::new(RUNTIME_DIRECTORY).join(SOCKET_NAME));
    places.dedup();
    places
}

/// Serves what can be seen of a signer.
#[derive(Clone)]
pub struct Web {
    telemetry: Arc<Telemetry>,
    connections: Arc<Semaphore>,
}

/// A control socket. Its file goes with it.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens at `path`, in place of a socket that an earlier process left there. Only this user can connect. The caller
    /// holds the state files, so no other signer of this home is running.
    pub fn bind(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket()) {
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        Ok(Self { listener, path: path.into() })
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // One that stays is replaced at the next start.
        let _ = fs::remove_file(&self.path);
    }
}

impl Web {
    /// Shows `telemetry`.
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        Self { telemetry, connections: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }
    }

    /// Serves metrics, for ever.
    pub async fn serve_metrics(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.connection(stream, Door::Metrics),
                Err(error) => no_connection(&error).await,
            }
        }
    }

    /// Serves the control socket, for ever.
    pub async fn serve_control(self, socket: ControlSocket) {
        loop {
            match socket.listener.accept().await {
                Ok((stream, _)) => self.connection(stream, Door::Control),
                Err(error) => no_connection(&error).await,
            }
        }
    }

    /// Serves a connection on a task of its own, unless there are too many.
    fn connection(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, door: Door) {
        let Ok(permit) = Arc::clone(&self.connections).try_acquire_owned() else {
            debug!("too many connections to the metrics endpoint");
            return;
        };
        let telemetry = Arc::clone(&self.telemetry);
        tokio::spawn(async move {
            let _permit = permit;
            let answer = service_fn(|request| {
                let response = answer(&telemetry, door, &request);
                async { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN).max_buf_size(HEAD_MAX_BYTES);
            // Whatever a client does wrong, it hears about it from hyper or not at all.
            let _ = timeout(CONNECTION_MAX, server.serve_connection(TokioIo::new(stream), answer)).await;
        });
    }
}

/// Where a request came in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    /// Over the network: numbers, and whether all is well.
    Metrics,
    /// From this user on this machine: everything.
    Control,
}

async fn no_connection(error: &io::Error) {
    debug!("the metrics endpoint takes no connection: {error}");
    tokio::time::sleep(PAUSE).await;
}

fn answer(telemetry: &Arc<Telemetry>, door: Door, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if request.method() != Method::GET {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
    }
    match (request.uri().path(), door) {
        ("/livez", _) => response(StatusCode::OK, TEXT, "alive\n"),
        ("/readyz", _) => match readiness(telemetry) {
            None => response(StatusCode::OK, TEXT, "ready\n"),
            Some(missing) => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, missing),
        },
        ("/metrics", _) => match metrics::encode(telemetry) {
            Ok(text) => response(StatusCode::OK, metrics::CONTENT_TYPE, text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be written\n"),
        },
        ("/status", Door::Control) => match serde_json::to_string(&Status::of(telemetry)) {
            Ok(text) => response(StatusCode::OK, "application/json", text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the status cannot be written\n"),
        },
        _ => response(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /livez and /readyz\n"),
    }
}

/// What is missing, a line each.
fn readiness(telemetry: &Telemetry) -> Option<String> {
    let chains = telemetry.not_ready();
    let line = |chain: &dyn std::fmt::Display, missing: &String| format!("{chain}: {missing}\n");
    let lines = chains.iter().flat_map(|(chain, missing)| missing.iter().map(move |missing| line(chain, missing)));
    (!chains.is_empty()).then(|| lines.collect())
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_socket_is_where_systemd_says_else_at_home() {
        let home = Path::new("/home");
        for (variable, path) in [
            (None, "/home/control.sock"),
            (Some(""), "/home/control.sock"),
            (Some("/run/a"), "/run/a/control.sock"),
            (Some("/run/a:/run/b"), "/run/a/control.sock"),
        ] {
            assert_eq!(control_socket(variable.map(Into::into), home), Path::new(path), "{variable:?}");
        }
        let places = ["/home/control.sock", "/run/highwater/control.sock"].map(PathBuf::from);
        assert_eq!(control_sockets(None, home), places);
    }
}
