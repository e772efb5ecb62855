//! What a configuration means once it has been read: no strings left to check.

use super::OwnConfig;
use crate::config::pkcs11::{
    profile::Profile,
    spec::{ObjectSelector, TokenSelector},
};
use highwater_core::{
    consensus::{ChainId, KeyType, PublicKey},
    hex::Hex,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};
use zeroize::Zeroizing;

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
    /// Every `[[providers.pkcs11]]`, in file order. No two have the same module and token.
    pub pkcs11: Vec<Pkcs11Config>,
    /// Every `[[providers.yubihsm]]`, in file order. No two have the same adapter, serial number and auth key.
    pub yubihsm: Vec<YubiHsmConfig>,
    /// `[highwater]`
    pub own: OwnConfig,
}

impl Config {
    /// The chain with this id.
    pub fn chain(&self, id: &ChainId) -> Option<&ChainConfig> {
        self.chains.iter().find(|chain| chain.id == *id)
    }

    /// The key that signs blocks for `chain`: its Ed25519 key, else its secp256k1 key, whichever provider has it. Where
    /// it is on several YubiHSMs, this is the first of them.
    ///
    /// tmkms signs with the account key of a chain that has no consensus key (`keyring.rs`); that is how Band's
    /// secp256k1 validators are configured, so the fallback stays. It depends on the configuration alone, never
    /// on which key can be loaded.
    pub fn consensus_key(&self, chain: &ChainId) -> Option<KeyConfig<'_>> {
        let of_chain = || self.keys().filter(|key| key.chain_ids().contains(chain));
        of_chain().find(|key| key.role() == KeyRole::Consensus).or_else(|| of_chain().next())
    }

    /// Every chain that has a validator node.
    pub fn served_chains(&self) -> impl Iterator<Item = &ChainConfig> {
        let is_served = |chain: &&ChainConfig| self.validators.iter().any(|validator| validator.chain_id == chain.id);
        self.chains.iter().filter(is_served)
    }

    /// Every key of every provider.
    pub fn keys(&self) -> impl Iterator<Item = KeyConfig<'_>> {
        let pkcs11 = self.pkcs11.iter().enumerate().flat_map(|(provider_index, provider)| {
            let key = move |(key_index, key)| KeyConfig::Pkcs11 { provider, provider_index, key, key_index };
            provider.keys.iter().enumerate().map(key)
        });
        let yubihsm = self.yubihsm.iter().enumerate().flat_map(|(provider_index, provider)| {
            let key = move |(key_index, key)| KeyConfig::YubiHsm { provider, provider_index, key, key_index };
            provider.keys.iter().enumerate().map(key)
        });
        self.softsign.iter().map(KeyConfig::Softsign).chain(pkcs11).chain(yubihsm)
    }
}

/// A key of any provider.
#[derive(Clone, Copy, Debug)]
pub enum KeyConfig<'a> {
    /// A key on a token.
    Pkcs11 {
        /// Its token.
        provider: &'a Pkcs11Config,
        /// Where `provider` stands in [`Config::pkcs11`].
        provider_index: usize,
        /// The key.
        key: &'a Pkcs11Key,
        /// Where `key` stands in [`Pkcs11Config::keys`].
        key_index: usize,
    },
    /// A key in a file.
    Softsign(&'a SoftsignConfig),
    /// A key on a YubiHSM 2.
    YubiHsm {
        /// Its device.
        provider: &'a YubiHsmConfig,
        /// Where `provider` stands in [`Config::yubihsm`].
        provider_index: usize,
        /// The key.
        key: &'a YubiHsmKey,
        /// Where `key` stands in [`YubiHsmConfig::keys`].
        key_index: usize,
    },
}

impl<'a> KeyConfig<'a> {
    /// The chains it signs for.
    pub fn chain_ids(self) -> &'a [ChainId] {
        match self {
            Self::Pkcs11 { key, .. } => &key.chain_ids,
            Self::Softsign(key) => &key.chain_ids,
            Self::YubiHsm { key, .. } => &key.chain_ids,
        }
    }

    /// Its role.
    pub fn role(self) -> KeyRole {
        match self {
            Self::Pkcs11 { key, .. } => key.role,
            Self::Softsign(key) => key.role,
            Self::YubiHsm { key, .. } => key.role,
        }
    }

    /// Where it stands in the file.
    pub fn line(self) -> usize {
        match self {
            Self::Pkcs11 { key, .. } => key.line,
            Self::Softsign(key) => key.line,
            Self::YubiHsm { key, .. } => key.line,
        }
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

impl ChainConfig {
    /// Where the watermark is: beside `state_file`, which is tmkms's own.
    pub fn watermark(&self) -> PathBuf {
        crate::state::beside(&self.state_file)
    }
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
        write!(f, "{}", Hex(&self.0))
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

/// A `[[providers.pkcs11]]`: one token of one PKCS#11 module.
#[derive(Clone, Debug)]
pub struct Pkcs11Config {
    /// `profile`
    pub profile: Profile,
    /// `profile` as it is written: a name or a path.
    pub profile_text: String,
    /// `module`, or the first path of the profile that exists, or else its first path. Absolute.
    pub module: PathBuf,
    /// `token`
    pub token: TokenSelector,
    /// `pin`; there is one unless the profile logs in by a protected path.
    pub pin: Option<PinSource>,
    /// `keys`
    pub keys: Vec<Pkcs11Key>,
    /// `files`: what the module may read and write beside what its profile names. Absolute.
    pub files: Vec<PathBuf>,
    /// `environment`: variables that the module gets beside those that its profile names.
    pub environment: Vec<String>,
    /// Where the section stands in the file.
    pub line: usize,
}

/// An entry of `keys` of a `[[providers.pkcs11]]`.
#[derive(Clone, Debug)]
pub struct Pkcs11Key {
    /// `chain_ids`: chains of this configuration.
    pub chain_ids: Vec<ChainId>,
    /// `id` or `label`
    pub object: ObjectSelector,
    /// `type` (or `key_type`); the profile supports its algorithm.
    pub role: KeyRole,
    /// `public_key`: what every signature is verified against. Of the role's algorithm.
    pub public_key: PublicKey,
    /// Where the key stands in the file.
    pub line: usize,
}

/// A `[[providers.yubihsm]]`: one YubiHSM 2, as one of its authentication keys sees it.
#[derive(Clone, Debug)]
pub struct YubiHsmConfig {
    /// `adapter`
    pub adapter: YubiHsmAdapter,
    /// `auth.key`: the object id of the authentication key.
    pub auth_key: u16,
    /// `auth.password` or `auth.password_file`
    pub password: PasswordSource,
    /// `serial_number`: ten digits. Without it any device will do.
    pub serial_number: Option<String>,
    /// `keys`
    pub keys: Vec<YubiHsmKey>,
    /// Where the section stands in the file.
    pub line: usize,
}

/// What messages call the device.
impl fmt::Display for YubiHsmConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("YubiHSM")?;
        if let Some(serial) = &self.serial_number {
            write!(f, " {serial}")?;
        }
        write!(f, " {}", self.adapter)
    }
}

/// How a YubiHSM 2 is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum YubiHsmAdapter {
    /// Through a yubihsm-connector, which speaks plain HTTP.
    Http {
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// Port, not 0.
        port: u16,
    },
    /// Directly. Only in a build with the feature `usb`.
    Usb {
        /// `timeout_ms`: how long one transfer may take.
        timeout_ms: u64,
    },
}

/// In words that follow the name of a device.
impl fmt::Display for YubiHsmAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { host, port } if host.contains(':') => write!(f, "at tcp://[{host}]:{port}"),
            Self::Http { host, port } => write!(f, "at tcp://{host}:{port}"),
            Self::Usb { .. } => f.write_str("on USB"),
        }
    }
}

/// An entry of `keys` of a `[[providers.yubihsm]]`.
#[derive(Clone, Debug)]
pub struct YubiHsmKey {
    /// `chain_ids`: chains of this configuration.
    pub chain_ids: Vec<ChainId>,
    /// `key`: the object id.
    pub id: u16,
    /// `type` (or `key_type`).
    pub role: KeyRole,
    /// Where the key stands in the file.
    pub line: usize,
}

/// Where the password of an authentication key is found.
#[derive(Clone)]
pub enum PasswordSource {
    /// In this file, without the white space at its end.
    File(PathBuf),
    /// In the configuration itself, all of it.
    Inline(Secret),
}

/// Without the password.
impl fmt::Debug for PasswordSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Inline(_) => f.write_str("the configuration"),
        }
    }
}

/// Where the PIN of a token is found. It can be sent to a child process; then an inline PIN travels too.
#[derive(Clone, Deserialize, Serialize)]
pub enum PinSource {
    /// In the systemd credential of this name, a file of `$CREDENTIALS_DIRECTORY`.
    Credential(String),
    /// In this environment variable.
    Env(String),
    /// To be read from this file descriptor, which is open at start.
    Fd(i32),
    /// In this file.
    File(PathBuf),
    /// In the configuration itself.
    Inline(Secret),
}

/// Without the PIN.
impl fmt::Debug for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Without the PIN, in words that follow "the PIN is in".
impl fmt::Display for PinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Credential(name) => write!(f, "the credential {name}"),
            Self::Env(name) => write!(f, "the environment variable {name}"),
            Self::Fd(number) => write!(f, "the file descriptor {number}"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Inline(_) => f.write_str("the configuration"),
        }
    }
}

/// A secret that stands in the configuration itself. It has no `Debug`, and its serialised form shows it.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes `text` as a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The secret text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::new)
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

impl KeyRole {
    /// The algorithm that the role implies, as in tmkms.
    pub fn key_type(self) -> KeyType {
        match self {
            Self::Account => KeyType::Secp256k1,
            Self::Consensus => KeyType::Ed25519,
        }
    }
}

/// The word that stands for it in the configuration.
impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Account => "account",
            Self::Consensus => "consensus",
        })
    }
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
pub struct ConfigFinding {
    /// The line, counted from 1; 0 where the whole file is meant.
    pub line: usize,
    /// One sentence: what, and what to do.
    pub text: String,
}

impl ConfigFinding {
    /// `file:line: text`
    pub fn at(&self, path: &Path) -> String {
        match self.line {
            0 => format!("{}: {}", path.display(), self.text),
            line => format!("{}:{line}: {}", path.display(), self.text),
        }
    }
}
