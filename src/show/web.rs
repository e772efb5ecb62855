//! Plain HTTP: the metrics endpoint, and the control socket for `highwater status`.
//!
//! It only reads. It runs on the control plane's one thread, and limits the number of connections, the length of
//! requests and their time: whatever comes in here, no signature waits for it.

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
    fs, io,
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

/// The limit for connections at one time, for each of the two. A scraper and an operator need one each, and strangers
/// at the metrics endpoint must not block the operator's control socket.
const CONNECTIONS_MAX: usize = 16;
/// The limit for a request line and its headers.
const HEAD_MAX_BYTES: usize = 8 * 1024;
/// How long a connection may last, with all its requests.
const CONNECTION_MAX: Duration = Duration::from_secs(60);
/// How long the head of a request may take to arrive.
const HEAD_WITHIN: Duration = Duration::from_secs(5);
/// How long to wait when the system has no more descriptors.
const PAUSE: Duration = Duration::from_secs(1);

/// Serves a signer's metrics and status.
#[derive(Clone)]
pub struct Web {
    telemetry: Arc<Telemetry>,
    metrics: Arc<Semaphore>,
    control: Arc<Semaphore>,
}

/// A control socket. Its file is removed when this is dropped.
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ControlSocket {
    /// Listens at `path` and replaces a socket that an earlier process left there. Only this user can connect. The
    /// caller holds the state files, so no other signer of this home is running.
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
        // If it stays, the next start replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

impl Web {
    pub fn new(telemetry: Arc<Telemetry>) -> Self {
        let [metrics, control] = [(); 2].map(|()| Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        Self { telemetry, metrics, control }
    }

    /// Serves the metrics endpoint, for ever.
    pub async fn serve_metrics(self, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.connection(stream, Endpoint::Metrics),
                Err(error) => no_connection(&error).await,
            }
        }
    }

    /// Serves the control socket, for ever.
    pub async fn serve_control(self, socket: ControlSocket) {
        loop {
            match socket.listener.accept().await {
                Ok((stream, _)) => self.connection(stream, Endpoint::Control),
                Err(error) => no_connection(&error).await,
            }
        }
    }

    /// Serves a connection on a task of its own, unless there are too many.
    fn connection(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, door: Endpoint) {
        let (connections, name) = match door {
            Endpoint::Metrics => (&self.metrics, "metrics endpoint"),
            Endpoint::Control => (&self.control, "control socket"),
        };
        let Ok(permit) = Arc::clone(connections).try_acquire_owned() else {
            debug!("too many connections to the {name}");
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
            // hyper answers a client's mistakes, or closes the connection.
            let _ = timeout(CONNECTION_MAX, server.serve_connection(TokioIo::new(stream), answer)).await;
        });
    }
}

/// Where a request came in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    /// The metrics endpoint, on the network: shows numbers and whether all is well.
    Metrics,
    /// The control socket, for this user on this machine: shows everything.
    Control,
}

async fn no_connection(error: &io::Error) {
    debug!("cannot accept a connection to the metrics endpoint or the control socket: {error}");
    tokio::time::sleep(PAUSE).await;
}

fn answer(telemetry: &Arc<Telemetry>, door: Endpoint, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if request.method() != Method::GET {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
    }
    match (request.uri().path(), door) {
        ("/livez", _) => response(StatusCode::OK, TEXT, "alive\n"),
        // The reasons are only for the operator: they hold paths, addresses and texts of devices.
        ("/readyz", _) => {
            if telemetry.not_ready().is_empty() {
                response(StatusCode::OK, TEXT, "ready\n")
            } else {
                response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n")
            }
        }
        ("/metrics", _) => match metrics::encode(telemetry) {
            Ok(text) => response(StatusCode::OK, metrics::CONTENT_TYPE, text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "cannot write the metrics\n"),
        },
        ("/status", Endpoint::Control) => match serde_json::to_string(&Status::of(telemetry)) {
            Ok(text) => response(StatusCode::OK, "application/json", text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "cannot write the status\n"),
        },
        _ => response(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /livez and /readyz\n"),
    }
}

fn response(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
