//! HTTP to a yubihsm-connector: a connection that is kept, and a deadline for everything.
//!
//! The threads that call this block. Each device has a small runtime of its own, which moves the bytes while its thread
//! waits. It must be made before the signer is confined: a confined process cannot make one.

use super::link_error::LinkError;
use crate::process::resolver::Resolver;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    body::Bytes,
    client::conn::http1::{Connection, SendRequest, handshake},
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpStream,
    runtime::{Builder, Runtime},
    task::yield_now,
    time::timeout_at,
};

/// How long one address of a connector may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Far more than a device's message (2 KiB) or a connector's status has.
const BODY_MAX_BYTES: usize = 16 * 1024;

/// A connector, and the connection to it.
pub(super) struct Http {
    host: String,
    port: u16,
    resolver: Resolver,
    runtime: Arc<Runtime>,
    connection: Option<Conversation>,
    /// Where the connector was reached last: asked first, without a look-up.
    known: Option<SocketAddr>,
    /// A look-up that has not ended yet. There is one at most.
    looked_up: Option<Receiver<io::Result<Vec<SocketAddr>>>>,
}

/// An open connection. Nothing moves on it but during a call.
struct Conversation {
    sender: SendRequest<Full<Bytes>>,
    driver: Pin<Box<Connection<TokioIo<TcpStream>, Full<Bytes>>>>,
    ended: bool,
}

/// The runtime of one device's connections.
pub(super) fn runtime() -> io::Result<Arc<Runtime>> {
    Ok(Arc::new(Builder::new_current_thread().enable_all().build()?))
}

impl Http {
    pub(super) fn new(host: String, port: u16, resolver: Resolver, runtime: Arc<Runtime>) -> Self {
        Self { host, port, resolver, runtime, connection: None, known: None, looked_up: None }
    }

    /// Has the connector pass a message to its device, and returns the answer.
    pub(super) fn post(&mut self, message: &[u8], deadline: Instant) -> Result<Vec<u8>, LinkError> {
        self.ask("POST", "/connector/api", message, deadline)
    }

    /// The connector's status.
    pub(super) fn status(&mut self, deadline: Instant) -> Result<Vec<u8>, LinkError> {
        self.ask("GET", "/connector/status", &[], deadline)
    }

    fn ask(&mut self, method: &str, path: &str, body: &[u8], deadline: Instant) -> Result<Vec<u8>, LinkError> {
        let host = self.authority();
        let request = || {
            let request = Request::builder().method(method).uri(path).header(HOST, &host);
            let request = request.header(CONTENT_TYPE, "application/octet-stream").body(Full::from(body.to_vec()));
            request.map_err(|error| LinkError::Broken(error.to_string()))
        };
        let kept = self.connection.take().filter(|kept| !kept.sender.is_closed());
        let answer = match kept {
            Some(kept) => self.exchange(kept, request()?, deadline),
            None => Err(LinkError::NotReached(io::ErrorKind::NotConnected.into())),
        };
        let (status, body) = match answer {
            // The connector had ended the connection, so the request was not sent.
            Err(LinkError::NotReached(_)) => {
                let fresh = self.connect(deadline)?;
                self.exchange(fresh, request()?, deadline)
            }
            other => other,
        }?;
        if status == StatusCode::OK { Ok(body) } else { Err(LinkError::Status { status: status.as_u16(), body }) }
    }

    /// Gives the connection up.
    pub(super) fn forget(&mut self) {
        self.connection = None;
    }

    fn exchange(
        &mut self,
        mut conversation: Conversation,
        request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<(StatusCode, Vec<u8>), LinkError> {
        let exchange = async { timeout_at(deadline.into(), conversation.exchange(request)).await };
        let answer = self.runtime.block_on(exchange).map_err(|_| LinkError::Late)?;
        // After any error the connection is dropped: an answer may still be on its way.
        if answer.is_ok() {
            self.connection = Some(conversation);
        }
        answer
    }

    /// As it stands in the configuration.
    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Connects to the first of the connector's addresses that answers.
    pub(super) fn connect_now(&mut self, deadline: Instant) -> Result<(), LinkError> {
        if self.connection.as_ref().is_none_or(|kept| kept.sender.is_closed()) {
            self.connection = Some(self.connect(deadline)?);
        }
        Ok(())
    }

    fn connect(&mut self, deadline: Instant) -> Result<Conversation, LinkError> {
        if let Some(known) = self.known
            && let Ok(conversation) = self.connect_to(known, deadline)
        {
            return Ok(conversation);
        }
        let mut last = LinkError::NotReached(io::ErrorKind::NotFound.into());
        for address in self.addresses(deadline)? {
            match self.connect_to(address, deadline) {
                Ok(conversation) => return Ok(conversation),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect_to(&mut self, address: SocketAddr, deadline: Instant) -> Result<Conversation, LinkError> {
        let until = deadline.min(Instant::now() + CONNECT_TIMEOUT);
        let opened = self.runtime.block_on(async { timeout_at(until.into(), open(address)).await });
        let opened = opened.map_err(|_| LinkError::NotReached(io::ErrorKind::TimedOut.into()))?;
        self.known = Some(address);
        opened
    }

    fn addresses(&mut self, deadline: Instant) -> Result<Vec<SocketAddr>, LinkError> {
        if let Ok(address) = self.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(address, self.port)]);
        }
        // A look-up has no deadline of its own, so it gets a thread that can be left behind.
        let answer = match self.looked_up.take() {
            Some(answer) => answer,
            None => self.look_up().map_err(LinkError::NotReached)?,
        };
        match answer.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(addresses) => addresses.map_err(LinkError::NotReached),
            Err(RecvTimeoutError::Timeout) => {
                // Whoever asks next waits for the same thread.
                self.looked_up = Some(answer);
                Err(LinkError::Late)
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(LinkError::NotReached(io::Error::other("the look-up of its host name broke off")))
            }
        }
    }

    fn look_up(&self) -> io::Result<Receiver<io::Result<Vec<SocketAddr>>>> {
        let (host, port, resolver) = (self.host.clone(), self.port, self.resolver.clone());
        let (found, answer) = sync_channel(1);
        let look_up = move || drop(found.try_send(resolver.resolve(&host, port)));
        thread::Builder::new().name("look-up".into()).spawn(look_up)?;
        Ok(answer)
    }
}

async fn open(address: SocketAddr) -> Result<Conversation, LinkError> {
    let stream = TcpStream::connect(address).await.map_err(LinkError::NotReached)?;
    stream.set_nodelay(true).map_err(LinkError::NotReached)?;
    let (sender, driver) = handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    Ok(Conversation { sender, driver: Box::pin(driver), ended: false })
}

impl Conversation {
    /// Sends a request, and moves the bytes of the connection until the whole answer is there.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> Result<(StatusCode, Vec<u8>), LinkError> {
        let Self { sender, driver, ended } = self;
        // Lets the runtime see what came on the connection while nothing moved on it: its end above all.
        yield_now().await;
        let mut asked = false;
        let mut answer = pin!(async {
            let answer = sender.send_request(request).await.map_err(|error| broken(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), BODY_MAX_BYTES).collect().await;
            let body = body.map_err(|error| LinkError::Broken(error.to_string()))?;
            Ok((status, body.to_bytes().to_vec()))
        });
        poll_fn(|context| {
            // The answer itself says why the connection ended, if it did.
            *ended = *ended || driver.as_mut().poll(context).is_ready();
            if *ended && !asked {
                // Nothing of the request was sent.
                return Poll::Ready(Err(LinkError::NotReached(io::ErrorKind::NotConnected.into())));
            }
            asked = true;
            match answer.as_mut().poll(context) {
                Poll::Pending if *ended => Poll::Ready(Err(LinkError::Broken("the connection ended".into()))),
                other => other,
            }
        })
        .await
    }
}

/// The cause stands behind hyper's own words, which do not name it. A canceled request was not sent.
fn broken(error: &hyper::Error) -> LinkError {
    if error.is_canceled() {
        return LinkError::NotReached(io::ErrorKind::NotConnected.into());
    }
    let cause = std::error::Error::source(error);
    LinkError::Broken(cause.map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}")))
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
