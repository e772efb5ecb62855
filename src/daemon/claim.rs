//! Allows only one signer for a chain and key on a machine, whatever files it uses.
//!
//! A lock on the state file cannot detect a second state file for the same key. So a signer also holds a name that is
//! unique on the machine: an abstract unix socket. The kernel removes it whenever the process ends, it needs no
//! world-writable directory, and it shows its holder.
//!
//! Any user of the machine can take such a name and so keep this signer from starting. The error names the process and
//! its user, so that an operator can stop it: the holder may be a second signer, and two signers are worse than none. A
//! name belongs to a network namespace: signers in different namespaces do not see each other.

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

/// What a signer locks before it starts or opens anything: the state files of its chains, and the machine-wide names of
/// its chains and keys. The names are held until this is dropped.
pub struct Claims {
    states: BTreeMap<ChainId, Result<StateFile, StateError>>,
    names: Vec<Claim>,
}

/// Locks the state of every served chain. Fails if another signer uses one of them or the same chain and key. Call it
/// before anything else: a second signer that was started by mistake must not disturb the devices, ports and sockets of
/// the first, and only this error has its exit code.
pub fn claim(config: &Config) -> Result<Claims, StartError> {
    let mut claims = Claims { states: BTreeMap::new(), names: Vec::new() };
    for chain in config.served_chains() {
        let state = match state::lock(&chain.watermark(), &Theirs::new(&chain.state_file)) {
            Err(StateError::File(error @ FileError::Locked { .. })) => return Err(StartError::locked(error)),
            // Any other error concerns only this chain, and is reported when the chain is opened.
            Err(error) => Err(error),
            Ok(mut file) => match file.newest() {
                Ok(record) => {
                    let identity = record.header.identity();
                    // A file of another chain keeps this chain closed. The other chain claims its own.
                    if identity.chain == chain.id {
                        match Claim::take(identity) {
                            Ok(name) => claims.names.push(name),
                            Err(error) => return Err(StartError::claimed(&chain.id, error)),
                        }
                    }
                    Ok(file)
                }
                // Without a name the chain does not sign, even if a later read would succeed.
                Err(error) => Err(StateError::Store { path: chain.watermark(), error }),
            },
        };
        claims.states.insert(chain.id.clone(), state);
    }
    Ok(claims)
}

impl Claims {
    /// The state file of that chain. Call it once for each chain.
    pub(super) fn state(&mut self, chain: &ChainId) -> Result<StateFile, StateError> {
        self.states.remove(chain).expect("every served chain was claimed, and is opened once")
    }
}

/// The machine-wide name of a chain and key, held until this is dropped.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "held, never used")] OwnedFd);

impl Claim {
    /// Takes the name of `identity`. Retries for a short time, because the holder may be a process that was just
    /// killed.
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

    /// `None` if another process holds it.
    fn take_name(address: &SocketAddrUnix) -> Result<Option<Self>, ClaimError> {
        let socket = new_socket().map_err(failed)?;
        broken!("machine_lock_ignored" => return Ok(Some(Self(socket))));
        match bind(&socket, address) {
            Ok(()) => {}
            Err(Errno::ADDRINUSE) => return Ok(None),
            Err(error) => return Err(failed(error)),
        }
        // A signer that finds the name taken connects to find its holder. Nobody accepts, so every connection stays in
        // the queue.
        listen(&socket, QUEUE).map_err(failed)?;
        Ok(Some(Self(socket)))
    }
}

/// How many connections may ask for the holder of a name.
const QUEUE: i32 = 4096;

fn failed(error: Errno) -> ClaimError {
    ClaimError::Io(error.into())
}

fn new_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)
}

/// A digest, so that lists of the machine's sockets do not reveal the key.
fn name_of(identity: &Identity) -> Vec<u8> {
    let digest = Sha256::new()
        .chain_update(b"highwater signs for ")
        .chain_update(identity.chain.as_str())
        .chain_update(b" with ")
        .chain_update(identity.key.to_string())
        .finalize();
    format!("highwater/{}", Hex(&digest[..16])).into_bytes()
}

/// The holder of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Its process id, in our namespace.
    pub pid: i32,
    pub user: u32,
}

fn holder_of(address: &SocketAddrUnix) -> Option<Holder> {
    let socket = new_socket().ok()?;
    connect(&socket, address).ok()?;
    let credentials = socket_peercred(&socket).ok()?;
    Some(Holder { pid: credentials.pid.as_raw_nonzero().get(), user: credentials.uid.as_raw() })
}

/// Why a name cannot be claimed.
#[derive(Debug)]
pub enum ClaimError {
    /// Another process holds the name.
    Held {
        /// Unknown if the system does not show it.
        holder: Option<Holder>,
    },
    /// The system call failed.
    Io(io::Error),
}

impl fmt::Display for ClaimError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held { holder } => {
                f.write_str("another signer for this chain and key runs on this machine: ")?;
                match holder {
                    Some(Holder { pid, user }) => write!(f, "process {pid} of user {user}")?,
                    None => f.write_str("`ss -xlp` shows its process, with a socket @highwater/…")?,
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
    use highwater_core::consensus::{ChainId, KeyType, PublicKey};

    fn identity(chain: &str, seed: u8) -> Identity {
        let key: PublicKey = SecretKey::from_raw(KeyType::Ed25519, &[seed; 32]).unwrap().public_key();
        Identity { chain: ChainId::new(chain).unwrap(), key }
    }

    #[test]
    fn a_chain_and_key_are_claimed_once_and_do_not_block_others() {
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
    fn a_holder_keeps_its_name_after_many_requests() {
        let ours = identity("claim-test-3", 0x73);
        let _held = Claim::take(&ours).unwrap();
        let address = SocketAddrUnix::new_abstract_name(&name_of(&ours)).unwrap();
        for _ in 0..200 {
            assert!(holder_of(&address).is_some());
        }
        assert!(Claim::take_name(&address).unwrap().is_none());
    }
}
