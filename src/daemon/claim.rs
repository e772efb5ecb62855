//! One signer for a chain and key on one machine, whatever files it was given.
//!
//! A lock on the state file cannot see a second state file for the same key. So a signer also holds a name that
//! exists once on the machine: an abstract unix socket, which goes with the process however that ends, needs no
//! directory that everybody may write, and shows who holds it.
//!
//! Any user of the machine may take such a name. That keeps this signer from starting, and the error names the process
//! and its user, so that an operator can end it: a name that somebody else holds may be a second signer, and two signers
//! are worse than none. A name belongs to a network namespace: signers in two of them do not see each other.

use crate::{
    config::Config,
    daemon::StartError,
    state::{self, StateError, Theirs},
};
use highwater_core::{
    consensus::ChainId,
    hex::Hex,
    watermark::{FileError, Identity, StateFile},
};
use rustix::{
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
        sockopt::socket_peercred,
    },
};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fmt, io, os::fd::OwnedFd, thread, time::Duration};

/// What a signer has to itself before it starts or asks anything: the state files of its chains, and the machine-wide
/// names of their chains and keys. The names are held for as long as this lives.
pub struct Claims {
    states: BTreeMap<ChainId, Result<StateFile, StateError>>,
    names: Vec<Claim>,
}

/// Locks the state of every served chain. Fails if another signer is at work on one of them, or with the same chain and
/// key: the devices, ports and sockets of a working signer must not notice that a second one was started by mistake. And
/// before anything else that two of them would dispute: only this trouble has this exit code.
pub fn claim(config: &Config) -> Result<Claims, StartError> {
    let mut claims = Claims { states: BTreeMap::new(), names: Vec::new() };
    for chain in config.served_chains() {
        let state = match state::lock(&chain.watermark(), &Theirs::new(&chain.state_file)) {
            Err(StateError::File(error @ FileError::Locked { .. })) => return Err(StartError::locked(error)),
            // Whatever else is wrong with it concerns its own chain, and is reported when that is opened.
            Err(error) => Err(error),
            Ok(mut file) => match file.newest() {
                Ok(record) => {
                    let identity = record.header.identity();
                    // A file of another chain closes this one, and is claimed by its own.
                    if identity.chain == chain.id {
                        match Claim::take(identity) {
                            Ok(name) => claims.names.push(name),
                            Err(error) => return Err(StartError::claimed(&chain.id, error)),
                        }
                    }
                    Ok(file)
                }
                // Without a name it does not sign, even if it could be read in a moment.
                Err(error) => Err(StateError::Store { path: chain.watermark(), error }),
            },
        };
        claims.states.insert(chain.id.clone(), state);
    }
    Ok(claims)
}

impl Claims {
    /// The state file of that chain, which is opened once.
    pub(super) fn state(&mut self, chain: &ChainId) -> Result<StateFile, StateError> {
        self.states.remove(chain).expect("every served chain was claimed, and is opened once")
    }
}

/// The machine-wide name of a chain and key, held for as long as this lives.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "held, never used")] OwnedFd);

impl Claim {
    /// Takes the name of `identity`. Its holder may be a process that has just been killed, so it is asked for again for a
    /// short while.
    pub fn take(identity: &Identity) -> Result<Self, ClaimError> {
        const TRIES: u32 = 10;
        const PAUSE: Duration = Duration::from_millis(20);
        let address = SocketAddrUnix::new_abstract_name(&name_of(identity)).map_err(failed)?;
        for _ in 1..TRIES {
            match Self::take_name(&address)? {
                Some(claim) => return Ok(claim),
                None => thread::sleep(PAUSE),
            }
        }
        Self::take_name(&address)?.ok_or_else(|| ClaimError::Held { holder: holder_of(&address) })
    }

    /// None if another process has it.
    fn take_name(address: &SocketAddrUnix) -> Result<Option<Self>, ClaimError> {
        let socket = new_socket().map_err(failed)?;
        broken!("machine_lock_ignored" => return Ok(Some(Self(socket))));
        match bind(&socket, address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        // A signer that finds the name taken connects to learn whose it is. Nobody accepts, so each of them stays in the
        // queue.
        listen(&socket, QUEUE).map_err(failed)?;
        Ok(Some(Self(socket)))
    }
}

/// How many may ask who holds a name.
const QUEUE: i32 = 4096;

fn failed(error: Errno) -> ClaimError {
    ClaimError::Io(error.into())
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// A list of the machine's sockets shows the name, so it says nothing about the key.
fn name_of(identity: &Identity) -> Vec<u8> {
    let digest = Sha256::new()
        .chain_update(b"highwater signs for ")
        .chain_update(identity.chain.as_str())
        .chain_update(b" with ")
        .chain_update(identity.key.to_string())
        .finalize();
    format!("highwater/{}", Hex(&digest[..16])).into_bytes()
}

/// Who holds a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process, as this one sees it.
    pub pid: i32,
    /// Its user.
    pub user: u32,
}

fn holder_of(address: &SocketAddrUnix) -> Option<Holder> {
    let socket = new_socket().ok()?;
    connect(&socket, address).ok()?;
    let credentials = socket_peercred(&socket).ok()?;
    Some(Holder { pid: credentials.pid.as_raw_nonzero().get(), user: credentials.uid.as_raw() })
}

/// Why there is no claim.
#[derive(Debug)]
pub enum ClaimError {
    /// Another process holds it.
    Held {
        /// Which process, if the system shows it.
        holder: Option<Holder>,
    },
    /// The system gives no socket.
    Io(io::Error),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { holder } => {
                f.write_str("another signer for this chain and key runs on this machine: ")?;
                match holder {
                    Some(Holder { pid, user }) => write!(f, "process {pid} of user {user}")?,
                    None => f.write_str("`ss -xlp` names its process, at a socket @highwater/…")?,
                }
                f.write_str(". Two signers with one key sign twice. Stop it first")
            }
            Self::Io(error) => write!(f, "cannot take the machine-wide name of a chain and key: {error}"),
        }
    }
}

impl std::error::Error for ClaimError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Held { .. } => None,
            Self::Io(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keyring::softsign::SecretKey;
    use highwater_core::consensus::{ChainId, PublicKey};
    use zeroize::Zeroizing;

    fn identity(chain: &str, seed: u8) -> Identity {
        let key: PublicKey = SecretKey::Ed25519Seed(Box::new(Zeroizing::new([seed; 32]))).public_key();
        Identity { chain: ChainId::new(chain).unwrap(), key }
    }

    #[test]
    fn a_chain_and_key_are_claimed_once_and_others_beside_them() {
        let ours = identity("claim-test-1", 0x71);
        let held = Claim::take(&ours).unwrap();
        let error = Claim::take(&ours).unwrap_err();
        let pid = i32::try_from(std::process::id()).unwrap();
        let user = rustix::process::getuid().as_raw();
        assert!(
            matches!(error, ClaimError::Held { holder: Some(holder) } if holder == Holder { pid, user }),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("process {pid} of user {user}")), "{error}");
        let _another_key = Claim::take(&identity("claim-test-1", 0x72)).unwrap();
        let _another_chain = Claim::take(&identity("claim-test-2", 0x71)).unwrap();
        drop(held);
        Claim::take(&ours).unwrap();
    }

    #[test]
    fn a_holder_that_many_have_asked_still_keeps_its_name() {
        let ours = identity("claim-test-3", 0x73);
        let _held = Claim::take(&ours).unwrap();
        let address = SocketAddrUnix::new_abstract_name(&name_of(&ours)).unwrap();
        for _ in 0..200 {
            assert!(holder_of(&address).is_some());
        }
        assert!(Claim::take_name(&address).unwrap().is_none());
    }
}
