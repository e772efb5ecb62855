//! What a configuration means once it has been read: no strings left to check.

use crate::consensus::{ChainId, KeyType};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

/// A configuration in which every reference resolves: each validator has its chain, each chain its own state
/// file and at most one consensus key per algorithm.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from.
    pub path: PathBuf,
    /// Every `[[chain]]`, in file order. Ids and state files are unique.
    pub chains: Vec<ChainConfig>,
    /// Every `[[validator]]`, in file order. There is at least one.
    pub validators: Vec<ValidatorConfig>,
    /// Every key of a `[[providers.softsign]]`, in file order.
    pub softsign: Vec<SoftsignConfig>,
}

impl Config {
    /// The chain with this id.
    pub fn chain(&self, id: &ChainId) -> Option<&ChainConfig> {
        self.chains.iter().find(|chain| chain.id == *id)
    }

    /// The key that signs blocks for `chain`: its Ed25519 key, else its secp256k1 key.
    ///
    /// tmkms signs with the account key of a chain that has no consensus key (`keyring.rs`); that is how Band's
    /// secp256k1 validators are configured, so the fallback stays. It depends on the configuration alone, never
    /// on which key can be loaded.
    pub fn consensus_key(&self, chain: &ChainId) -> Option<&SoftsignConfig> {
        let of_chain = |key: &&SoftsignConfig| key.chain_ids.contains(chain);
        let consensus = self.softsign.iter().filter(of_chain).find(|key| key.role == KeyRole::Consensus);
        consensus.or_else(|| self.softsign.iter().find(of_chain))
    }
}

/// A `[[chain]]`.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// `id`
    pub id: ChainId,
    /// `key_format`: how keys of this chain are shown.
    pub key_format: KeyFormat,
    /// `state_file`, or `./{id}_priv_validator_state.json`, relative to the working directory as in tmkms.
    pub state_file: PathBuf,
    /// `state_hook`
    pub state_hook: Option<HookConfig>,
    /// `allow_raw_bytes` (Highwater's own): whether Celestia's `SignRawBytes` is answered. Off by default.
    pub allow_raw_bytes: bool,
    /// Where the chain stands in the file.
    pub line: usize,
}

/// How a chain writes its public keys; for display only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// Bech32 with the chain's prefixes.
    Bech32 {
        /// For account addresses.
        account_key_prefix: String,
        /// For consensus public keys.
        consensus_key_prefix: String,
    },
    /// The JSON form of Cosmos SDK tools.
    CosmosJson,
    /// Upper-case hex of the raw key.
    Hex,
}

/// A program that says, at start, how far the chain has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookConfig {
    /// `cmd`: the program and its arguments. Not empty.
    pub command: Vec<String>,
    /// `timeout_secs`, 1 s by default.
    pub timeout: Duration,
    /// `fail_closed`: whether the chain stays closed when the hook gives no usable height. True by default.
    pub fail_closed: bool,
}

/// A `[[validator]]`: one node to dial and serve.
#[derive(Clone, Debug)]
pub struct ValidatorConfig {
    /// `addr`
    pub address: NodeAddress,
    /// `chain_id`: a chain of this configuration.
    pub chain_id: ChainId,
    /// `reconnect`: false ends the node's thread at its first lost link.
    pub reconnect: bool,
    /// `timeout`: how long a silent or stuck node is waited for. At least 10 s: three of CometBFT's pings.
    pub timeout: Duration,
    /// `max_height`: nothing above this height is signed for this node.
    pub max_height: Option<u64>,
    /// Where the validator stands in the file.
    pub line: usize,
}

/// How to reach a validator node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAddress {
    /// `tcp://[peerid@]host:port`
    Tcp {
        /// The node's peer id, if pinned.
        peer_id: Option<PeerId>,
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// Port, not 0.
        port: u16,
        /// `secret_key`: the file with the identity key for SecretConnection.
        identity_key: PathBuf,
    },
    /// `unix:///path`
    Unix {
        /// The socket's path.
        path: PathBuf,
    },
}

/// The address as it stands in a log line.
impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "tcp://{host}:{port}"),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A peer id: the first 20 bytes of SHA-256 of an Ed25519 identity key (CometBFT `p2p/key.go`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerId(pub [u8; 20]);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A `[[providers.softsign]]`: a key in a file.
#[derive(Clone, Debug)]
pub struct SoftsignConfig {
    /// `chain_ids`: chains of this configuration.
    pub chain_ids: Vec<ChainId>,
    /// `key_type` (or `type`).
    pub role: KeyRole,
    /// `key_format`: how the file is encoded.
    pub encoding: KeyEncoding,
    /// `path`
    pub path: PathBuf,
    /// Where the key stands in the file.
    pub line: usize,
}

impl SoftsignConfig {
    /// The algorithm that the role implies, as in tmkms: account keys are secp256k1, consensus keys Ed25519.
    pub fn key_type(&self) -> KeyType {
        match self.role {
            KeyRole::Account => KeyType::Secp256k1,
            KeyRole::Consensus => KeyType::Ed25519,
        }
    }
}

/// What tmkms calls the type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRole {
    /// A secp256k1 key. It signs blocks if the chain has no consensus key.
    Account,
    /// An Ed25519 key that signs blocks.
    Consensus,
}

/// How a softsign key file is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyEncoding {
    /// Base64 of the raw key.
    Base64,
    /// CometBFT's `priv_validator_key.json`.
    Json,
}

/// Something an operator should know about the configuration, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The line, counted from 1; 0 where the whole file is meant.
    pub line: usize,
    /// One sentence: what, and what to do.
    pub text: String,
}

impl Finding {
    /// `file:line: text`
    pub fn at(&self, path: &Path) -> String {
        match self.line {
            0 => format!("{}: {}", path.display(), self.text),
            line => format!("{}:{line}: {}", path.display(), self.text),
        }
    }
}
