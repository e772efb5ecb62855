//! A mock validator node: the listening side of the privval protocol, as CometBFT plays it.
//!
//! Bind with [`MockNode::tcp`] or [`MockNode::unix`], give [`MockNode::address`] to a signer as its `addr`, wait for it
//! with [`MockNode::accept`], then ask. Everything here has a deadline. What the protocol allows is typed
//! ([`Session::ask_vote`]); what it forbids goes through [`Session::send_raw`], [`Session::write_plain`] and
//! [`Connection`].
//!
//! Needs nothing but `std`, `highwater` and what `highwater` itself is made of.
#![allow(dead_code, unreachable_pub)]

#[path = "messages.rs"]
pub mod messages;

pub use messages::*;

use ed25519_consensus::SigningKey;
use highwater_core::{
    consensus::{KeyType, PublicKey},
    hex::hex_of,
    privval::{
        frame::LengthPrefix,
        message::{
            Message, PingRequest, Proposal, PubKeyRequest, PubKeyResponse, RemoteSignerError, SignBytesRequest,
            SignProposalRequest, SignVoteRequest, Sum, Vote,
        },
    },
};
use prost::Message as _;
use std::{
    io::{self, BufRead as _, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};
use tendermint_p2p::secret_connection::{DATA_MAX_SIZE, SecretConnection, Version};

/// How long the node waits for a connection, an answer, or room to write. Far above what any of them takes, even on a
/// loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What a node gets for a request that can be refused: the signature's carrier, or the refusal.
pub type Answer<T> = Result<T, RemoteSignerError>;

/// A node's privval listener.
pub struct MockNode {
    listener: Listener,
    identity: [u8; 32],
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl MockNode {
    /// Listens on a free loopback port: `tcp://` with SecretConnection.
    pub fn tcp() -> io::Result<Self> {
        Self::tcp_at(([127, 0, 0, 1], 0).into())
    }

    /// Listens where an earlier node did.
    pub fn tcp_at(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Listener::Tcp(listener), identity: [9; 32] })
    }

    /// Listens on a socket file, in the clear.
    pub fn unix(path: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Listener::Unix(listener, path.into()), identity: [9; 32] })
    }

    /// The `addr` of a `[[validator]]` that leads here.
    pub fn address(&self) -> String {
        match &self.listener {
            Listener::Tcp(_) => format!("tcp://{}", self.socket()),
            Listener::Unix(_, path) => format!("unix://{}", path.display()),
        }
    }

    /// The same, pinned to this node's peer id.
    pub fn pinned_address(&self) -> String {
        format!("tcp://{}@{}", self.peer_id(), self.socket())
    }

    /// Host and port.
    ///
    /// # Panics
    /// For a unix node.
    pub fn socket(&self) -> SocketAddr {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().expect("a bound listener has an address"),
            Listener::Unix(..) => panic!("a unix node has no port"),
        }
    }

    /// The peer id by which a signer may pin this node: 40 hex digits.
    pub fn peer_id(&self) -> String {
        let key = SigningKey::from(self.identity).verification_key();
        let key = PublicKey::from_bytes(KeyType::Ed25519, key.as_ref()).expect("an Ed25519 key is one");
        hex_of(&key.address())
    }

    /// Waits for a signer and completes the handshake with it. Connections whose signer is gone are passed over, as
    /// nodes do since CometBFT v0.38.6.
    pub fn accept(&self) -> io::Result<Session> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.accept_raw(left)?.into_session() {
                Ok(session) => return Ok(session),
                Err(error) if left.is_zero() => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Waits for a connection and leaves it as it is; an error of kind `TimedOut` if none comes.
    pub fn accept_raw(&self, timeout: Duration) -> io::Result<Connection> {
        const POLL_INTERVAL: Duration = Duration::from_millis(2);
        let deadline = Instant::now() + timeout;
        loop {
            let accepted = match &self.listener {
                Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
                Listener::Unix(listener, _) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            };
            match accepted {
                Ok(stream) => return Connection::new(stream, self.identity),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                Err(_) if Instant::now() >= deadline => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "no signer has come"));
                }
                Err(_) => thread::sleep(POLL_INTERVAL),
            }
        }
    }
}

/// A connection before, or without, a handshake.
pub struct Connection {
    stream: Stream,
    identity: [u8; 32],
}

impl Connection {
    fn new(stream: Stream, identity: [u8; 32]) -> io::Result<Self> {
        match &stream {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(false)?;
                stream.set_nodelay(true)?;
            }
            Stream::Unix(stream) => stream.set_nonblocking(false)?,
        }
        stream.set_timeouts(PATIENCE)?;
        Ok(Self { stream, identity })
    }

    /// Does the node's half of the handshake; over unix there is none.
    pub fn into_session(self) -> io::Result<Session> {
        let raw = self.stream.try_clone()?;
        let (wire, signer) = match self.stream {
            Stream::Tcp(stream) => {
                let connection = SecretConnection::new(stream, SigningKey::from(self.identity), Version::V0_34)
                    .map_err(|error| io::Error::other(error.to_string()))?;
                let signer = connection.remote_pubkey().peer_id().to_string().to_lowercase();
                (Wire::Secret(Box::new(connection)), Some(signer))
            }
            Stream::Unix(stream) => (Wire::Plain(stream), None),
        };
        Ok(Session { stream: BufReader::with_capacity(DATA_MAX_SIZE, wire), raw, signer })
    }

    /// Writes bytes as they are.
    pub fn write_plain(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads exactly `length` bytes as they are.
    pub fn read_plain(&mut self, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// Waits until the signer has ended the connection; `false` if it has not within `timeout`.
    pub fn ends_within(&mut self, timeout: Duration) -> io::Result<bool> {
        self.stream.ends_within(timeout)
    }

    /// A handle to the same connection.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { stream: self.stream.try_clone()?, identity: self.identity })
    }
}

/// A signer that the node can ask.
pub struct Session {
    /// Buffered by a whole chunk: tendermint-p2p panics when it reads into less.
    stream: BufReader<Wire>,
    raw: Stream,
    signer: Option<String>,
}

impl Session {
    /// The signer's peer id; unix has none.
    pub fn signer(&self) -> Option<&str> {
        self.signer.as_deref()
    }

    /// Sends a request and waits for its answer.
    pub fn ask(&mut self, message: impl Into<Message>) -> io::Result<Message> {
        self.send(message)?;
        self.receive()
    }

    /// Sends a message in one write.
    pub fn send(&mut self, message: impl Into<Message>) -> io::Result<()> {
        let mut frame = Vec::new();
        message.into().encode_frame(&mut frame);
        self.send_raw(&frame)
    }

    /// Sends bytes as the content of SecretConnection frames: one for every 1024 bytes or part of it. Over unix they
    /// travel as they are.
    pub fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Writes bytes past the encryption.
    pub fn write_plain(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.raw.write_all(bytes)
    }

    /// Waits for the next message. One that a node would not take is an error.
    pub fn receive(&mut self) -> io::Result<Message> {
        /// What every node before v0.40 accepts (CometBFT `privval/signer_endpoint.go`).
        const RESPONSE_MAX_BYTES: usize = 10_240;
        let mut prefix = LengthPrefix::default();
        let length = loop {
            let mut byte = [0];
            self.stream.read_exact(&mut byte)?;
            if let Some(length) = prefix.push(byte[0]).map_err(io::Error::other)? {
                break length;
            }
        };
        if length > RESPONSE_MAX_BYTES {
            return Err(io::Error::other(format!("the signer announces {length} bytes: no node takes that")));
        }
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        Message::decode(body.as_slice()).map_err(io::Error::other)
    }

    /// Pings.
    pub fn ping(&mut self) -> io::Result<()> {
        match self.ask(Sum::PingRequest(PingRequest {}))?.sum {
            Some(Sum::PingResponse(_)) => Ok(()),
            other => Err(unexpected("a ping", &other)),
        }
    }

    /// Asks for the consensus key of `chain`.
    pub fn ask_pub_key(&mut self, chain: &str) -> io::Result<Answer<PubKeyResponse>> {
        match self.ask(Sum::PubKeyRequest(PubKeyRequest { chain_id: chain.into() }))?.sum {
            Some(Sum::PubKeyResponse(PubKeyResponse { pub_key: None, error: Some(error), .. })) => Ok(Err(error)),
            Some(Sum::PubKeyResponse(response)) if response.error.is_none() => Ok(Ok(response)),
            other => Err(unexpected("a public-key request", &other)),
        }
    }

    /// Asks for the signature of a prevote or precommit.
    pub fn ask_vote(&mut self, chain: &str, vote: Vote) -> io::Result<Answer<Vote>> {
        let request = SignVoteRequest { vote: Some(vote), chain_id: chain.into(), skip_extension_signing: false };
        self.ask_vote_request(request)
    }

    /// The same for a whole request.
    pub fn ask_vote_request(&mut self, request: SignVoteRequest) -> io::Result<Answer<Vote>> {
        match self.ask(Sum::SignVoteRequest(request))?.sum {
            Some(Sum::SignedVoteResponse(response)) => either(response.vote, response.error),
            other => Err(unexpected("a vote", &other)),
        }
    }

    /// Asks for the signature of a proposal.
    pub fn ask_proposal(&mut self, chain: &str, proposal: Proposal) -> io::Result<Answer<Proposal>> {
        let request = SignProposalRequest { proposal: Some(proposal), chain_id: chain.into() };
        match self.ask(Sum::SignProposalRequest(request))?.sum {
            Some(Sum::SignedProposalResponse(response)) => either(response.proposal, response.error),
            other => Err(unexpected("a proposal", &other)),
        }
    }

    /// Asks for the signature of Celestia raw bytes, or of v1 `SignBytes` if only the first field is set.
    pub fn ask_bytes(&mut self, request: SignBytesRequest) -> io::Result<Answer<Vec<u8>>> {
        match self.ask(Sum::SignBytesRequest(request))?.sum {
            Some(Sum::SignBytesResponse(response)) => {
                either(Some(response.signature).filter(|signature| !signature.is_empty()), response.error)
            }
            other => Err(unexpected("raw bytes", &other)),
        }
    }

    /// Waits until the signer has ended the connection; `false` if it has not within `timeout`. What it still says is
    /// thrown away.
    pub fn ends_within(&mut self, timeout: Duration) -> io::Result<bool> {
        self.raw.ends_within(timeout)
    }

    /// Whether the signer has sent something that is not read yet, or ends the connection, within `timeout`.
    pub fn speaks_within(&mut self, timeout: Duration) -> io::Result<bool> {
        self.raw.set_timeouts(timeout)?;
        let spoken = match self.stream.fill_buf() {
            Ok(_) => Ok(true),
            Err(error) if is_timeout(&error) => Ok(false),
            Err(error) => Err(error),
        };
        self.raw.set_timeouts(PATIENCE)?;
        spoken
    }

    /// Ends the connection.
    pub fn close(self) {
        self.raw.close();
    }
}

/// A carrier or a refusal, never both and never neither.
fn either<T>(carrier: Option<T>, error: Option<RemoteSignerError>) -> io::Result<Answer<T>> {
    match (carrier, error) {
        (Some(carrier), None) => Ok(Ok(carrier)),
        (None, Some(error)) => Ok(Err(error)),
        (Some(_), Some(_)) => Err(io::Error::other("the answer holds a signature and an error")),
        (None, None) => Err(io::Error::other("the answer holds neither a signature nor an error")),
    }
}

fn unexpected(asked: &str, got: &Option<Sum>) -> io::Error {
    io::Error::other(format!("{asked} was answered by {got:?}"))
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    fn set_timeouts(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))
            }
        }
    }

    fn ends_within(&mut self, timeout: Duration) -> io::Result<bool> {
        let deadline = Instant::now() + timeout;
        let ended = loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break false;
            }
            self.set_timeouts(left)?;
            match self.read(&mut [0; 4096]) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => break false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break true,
            }
        };
        self.set_timeouts(PATIENCE)?;
        Ok(ended)
    }

    fn close(&self) {
        // An error means that the connection is gone already.
        let _ = match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(buffer),
            Self::Unix(stream) => stream.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

enum Wire {
    Plain(UnixStream),
    Secret(Box<SecretConnection<TcpStream>>),
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Secret(connection) => connection.read(buffer),
        }
    }
}

impl Write for Wire {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(buffer),
            Self::Secret(connection) => connection.write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
