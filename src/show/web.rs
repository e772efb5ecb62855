//! Plain HTTP for those who watch: the metrics endpoint, and the control socket that `highwater status` asks.
//!
//! It only reads. It runs on the control plane's one thread, takes few connections and short requests, and gives none
//! of them long: whatever comes in here, no signature waits for it.

use super::{metrics, status::Status, telemetry::Telemetry};
use highwater_core::hex::Hex;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::CONTENT_TYPE,
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeSet,
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

/// Connections at one time to each door. A scraper and an operator need one each, and strangers at the one door must not
/// take the other from the operator.
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
/// Where the configuration of the packaged service is.
const SERVICE_CONFIGURATION: &str = "/etc/highwater/tmkms.toml";

/// The name of the control socket of the signer with this configuration. Signers whose configurations or sockets share a
/// directory must not take each other's away, nor be taken for each other: it is made of the whole path of the
/// configuration. A link to that file is not followed, because it may lead elsewhere by the time somebody asks.
fn socket_name(configuration: &Path) -> String {
    let absolute = std::path::absolute(configuration).unwrap_or_else(|_| configuration.to_owned());
    let directory =
        absolute.parent().map(|directory| directory.canonicalize().unwrap_or_else(|_| directory.to_owned()));
    let path = directory.unwrap_or_default().join(absolute.file_name().unwrap_or_default());
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    format!("control-{}.sock", Hex(&digest[..4]))
}

/// Where the signer listens: in the directory that systemd gave it, else beside its configuration.
pub fn control_socket(runtime_directory: Option<OsString>, configuration: &Path) -> PathBuf {
    let first = |list: OsString| {
        list.as_bytes().split(|byte| *byte == b':').next().map(|path| PathBuf::from(OsStr::from_bytes(path)))
    };
    let directory = runtime_directory.filter(|list| !list.is_empty()).and_then(first);
    directory.unwrap_or_else(|| home_of(configuration).to_owned()).join(socket_name(configuration))
}

/// Where the signer with this configuration may listen, the likeliest first.
pub fn control_sockets(runtime_directory: Option<OsString>, configuration: &Path) -> Vec<PathBuf> {
    let mut places = vec![control_socket(runtime_directory, configuration), control_socket(None, configuration)];
    places.push(Path::new(RUNTIME_DIRECTORY).join(socket_name(configuration)));
    places.dedup();
    places
}

/// Where the packaged service listens, for whoever names no configuration and has none.
pub fn service_sockets(runtime_directory: Option<OsString>) -> Vec<PathBuf> {
    control_sockets(runtime_directory, Path::new(SERVICE_CONFIGURATION))
}

/// Control sockets in the directories of `places` that are not among them: other signers, perhaps.
pub fn other_sockets(places: &[PathBuf]) -> Vec<PathBuf> {
    let is_one = |name: &str| name.starts_with("control-") && name.ends_with(".sock");
    let directories: BTreeSet<_> = places.iter().filter_map(|place| place.parent()).collect();
    let found = directories.into_iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten();
    let found = found.filter(|entry| entry.file_name().to_str().is_some_and(is_one)).map(|entry| entry.path());
    found.filter(|path| !places.contains(path)).collect()
}

fn home_of(configuration: &Path) -> &Path {
    match configuration.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Serves what can be seen of a signer.
#[derive(Clone)]
pub struct Web {
    telemetry: Arc<Telemetry>,
    metrics: Arc<Semaphore>,
    control: Arc<Semaphore>,
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
        let [metrics, control] = [(); 2].map(|()| Arc::new(Semaphore::new(CONNECTIONS_MAX)));
        Self { telemetry, metrics, control }
    }

    /// Serves metrics, for ever.
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
            // Whatever a client does wrong, it hears about it from hyper or not at all.
            let _ = timeout(CONNECTION_MAX, server.serve_connection(TokioIo::new(stream), answer)).await;
        });
    }
}

/// Where a request came in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    /// Over the network: numbers, and whether all is well.
    Metrics,
    /// From this user on this machine: everything.
    Control,
}

async fn no_connection(error: &io::Error) {
    debug!("the metrics endpoint takes no connection: {error}");
    tokio::time::sleep(PAUSE).await;
}

fn answer(telemetry: &Arc<Telemetry>, door: Endpoint, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    const TEXT: &str = "text/plain; charset=utf-8";
    if request.method() != Method::GET {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
    }
    match (request.uri().path(), door) {
        ("/livez", _) => response(StatusCode::OK, TEXT, "alive\n"),
        // Why not is for the operator: it has paths, addresses and the words of devices.
        ("/readyz", _) => match telemetry.not_ready().is_empty() {
            true => response(StatusCode::OK, TEXT, "ready\n"),
            false => response(StatusCode::SERVICE_UNAVAILABLE, TEXT, "not ready\n"),
        },
        ("/metrics", _) => match metrics::encode(telemetry) {
            Ok(text) => response(StatusCode::OK, metrics::CONTENT_TYPE, text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the metrics cannot be written\n"),
        },
        ("/status", Endpoint::Control) => match serde_json::to_string(&Status::of(telemetry)) {
            Ok(text) => response(StatusCode::OK, "application/json", text),
            Err(_) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, "the status cannot be written\n"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_socket_is_where_systemd_says_else_at_home() {
        let configuration = Path::new("/home/tmkms.toml");
        let name = socket_name(configuration);
        for (variable, directory) in
            [(None, "/home"), (Some(""), "/home"), (Some("/run/a"), "/run/a"), (Some("/run/a:/run/b"), "/run/a")]
        {
            let path = Path::new(directory).join(&name);
            assert_eq!(control_socket(variable.map(Into::into), configuration), path, "{variable:?}");
        }
        let places = ["/home", "/run/highwater"].map(|directory| Path::new(directory).join(&name));
        assert_eq!(control_sockets(None, configuration), places);
    }

    #[test]
    fn every_configuration_has_a_socket_of_its_own_however_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("a")).unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        std::os::unix::fs::symlink("one.toml", path("a/current.toml")).unwrap();
        assert_eq!(socket_name(&path("a/one.toml")), socket_name(&path("link/../a/./one.toml")));
        assert_eq!(socket_name(&path("a/one.toml")), socket_name(&path("link/one.toml")));
        let all = ["a/one.toml", "a/two.toml", "one.toml", "a/current.toml"].map(|name| socket_name(&path(name)));
        assert_eq!(BTreeSet::from(all).len(), 4, "a link may lead elsewhere tomorrow");

        let ours = control_socket(Some(path("a").into()), &path("one.toml"));
        let other = control_socket(Some(path("a").into()), &path("two.toml"));
        for socket in [&ours, &other] {
            fs::write(socket, "").unwrap();
        }
        assert_eq!(other_sockets(&[ours]), [other]);
    }
}
