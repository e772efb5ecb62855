//! `[[validator]]`: a node to dial and serve.

use super::{
    address::{Address, ignored_part},
    needs::{FileKind, FileReader, Needs},
    reader::{ConfigFindings, Located, Table, Value, chain_id},
};
use highwater_core::consensus::{ChainId, HEIGHT_MAX, PeerId};
use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

/// Default and minimum of `timeout`. CometBFT pings every 3.33 s, so a shorter time would cut healthy links
/// (`privval/signer_listener_endpoint.go`).
const NODE_TIMEOUT_SECONDS: u16 = 10;
/// Values of `protocol_version` that tmkms 0.15 accepts. They have no effect there either.
const PROTOCOL_VERSIONS: [&str; 2] = ["v0.34", "v0.38"];
/// Values of older releases of tmkms for nodes that speak another protocol (Amino).
const AMINO_VERSIONS: [&str; 2] = ["legacy", "v0.33"];

#[derive(Clone, Debug)]
pub struct ValidatorConfig {
    /// `addr`
    pub address: NodeAddress,
    /// A chain of this configuration.
    pub chain_id: ChainId,
    /// If false, the node's thread ends at the first lost link.
    pub reconnect: bool,
    /// How long to wait for a silent or stuck node. At least 10 s: three of CometBFT's pings.
    pub timeout: Duration,
    /// Nothing above this height is signed for this node.
    pub max_height: Option<u64>,
    /// The line of the section in the file.
    pub line: usize,
}

/// How to reach a validator node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeAddress {
    /// `tcp://[peerid@]host:port`
    Tcp {
        /// If pinned.
        peer_id: Option<PeerId>,
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// Not 0.
        port: u16,
        /// `secret_key`: the file with the identity key for SecretConnection.
        identity_key: PathBuf,
    },
    /// `unix:///path`
    Unix { path: PathBuf },
}

impl NodeAddress {
    /// The file with the identity key, for links that authenticate the signer.
    pub fn identity_key(&self) -> Option<&Path> {
        match self {
            Self::Tcp { identity_key, .. } => Some(identity_key),
            Self::Unix { .. } => None,
        }
    }

    /// What it needs from this machine.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        match self {
            Self::Tcp { host, port, identity_key, .. } => {
                needs.file(identity_key, "identity key", FileKind::Secret, FileReader::Signer);
                needs.dial(host, *port);
            }
            Self::Unix { .. } => {}
        }
        needs
    }
}

/// The address as log lines show it.
impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port, .. } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port, .. } => write!(f, "tcp://{host}:{port}"),
            Self::Unix { path } => write!(f, "unix://{}", path.display()),
        }
    }
}

impl ValidatorConfig {
    /// Whether both name the same node for the same chain.
    pub(super) fn is_same_node(&self, other: &Self) -> bool {
        let place = |address: &NodeAddress| match address {
            // Names of hosts have no case.
            NodeAddress::Tcp { .. } => address.to_string().to_ascii_lowercase(),
            NodeAddress::Unix { .. } => address.to_string(),
        };
        self.chain_id == other.chain_id && place(&self.address) == place(&other.address)
    }

    /// Whether both would serve that node alike.
    pub(super) fn has_settings_of(&self, other: &Self) -> bool {
        let way = |address: &NodeAddress| match address {
            NodeAddress::Tcp { peer_id, identity_key, .. } => (*peer_id, Some(identity_key.clone())),
            NodeAddress::Unix { .. } => (None, None),
        };
        (self.reconnect, self.timeout, self.max_height) == (other.reconnect, other.timeout, other.max_height)
            && way(&self.address) == way(&other.address)
    }

    /// Reads a `[[validator]]`. Returns its chain separately, so that checks can use it if the rest has a mistake.
    pub(super) fn read(
        table: &mut Table<'_>,
        findings: &mut ConfigFindings<'_>,
    ) -> (Option<Located<ChainId>>, Option<Self>) {
        let address = node_address(table, findings);
        let chain = table.require("chain_id", "the id of the [[chain]] that the node belongs to", findings);
        let chain = chain.and_then(|value| chain_id(value, findings));
        let reconnect = table.get("reconnect", findings).and_then(|value| value.bool(findings));
        let timeout = table.get("timeout", findings).and_then(|value| node_timeout(value, findings));
        let max_height = table.get("max_height", findings).map(|value| max_height(value, findings));
        if let Some(value) = table.get("protocol_version", findings) {
            check_protocol_version(value, findings);
        }

        let chain_id = chain.as_ref().map(|chain| chain.value.clone());
        let validator = address.zip(chain_id).map(|(address, chain_id)| Self {
            address,
            chain_id,
            reconnect: reconnect.unwrap_or(true),
            timeout: Duration::from_secs(timeout.unwrap_or(NODE_TIMEOUT_SECONDS).into()),
            max_height: max_height.flatten(),
            line: table.line(),
        });
        (chain, validator)
    }
}

fn node_address(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<NodeAddress> {
    let secret_key = table.get("secret_key", findings).map(|value| value.path(findings));
    let value = table.require("addr", "the node's address, for example \"tcp://10.0.0.1:26658\"", findings)?;
    let text = value.string(findings)?;
    let address = Address::parse(text);
    if let Ok(address) = &address {
        warn_of_address(value, text, address, findings);
    }
    match address {
        Ok(Address::Tcp { peer_id, host, port }) => {
            if secret_key.is_none() {
                let text = "a tcp address needs `secret_key`, the file with the identity key of this signer: make one with \
                            `highwater init`, for example secrets/kms-identity.key, and name it here";
                value.reject(text, findings);
            }
            Some(NodeAddress::Tcp { peer_id, host, port, identity_key: secret_key.flatten()? })
        }
        Ok(Address::Unix { path }) => Some(NodeAddress::Unix { path }),
        Err(error) => {
            value.reject(error, findings);
            None
        }
    }
}

/// Warns of an address that tmkms takes too, and that may not be meant so.
fn warn_of_address(value: Value<'_>, text: &str, address: &Address, findings: &mut ConfigFindings<'_>) {
    if ignored_part(text).is_some() {
        value.caution("what follows the address is ignored, as in tmkms: remove it", findings);
    }
    let Address::Tcp { host, .. } = address else { return };
    if host.parse().is_ok_and(|host: IpAddr| host.is_unspecified()) {
        let text = format_args!(
            "a node listens on {host}, but here it means this machine: write the node's own address, or 127.0.0.1 if the node \
             is on this machine"
        );
        value.caution(text, findings);
    }
}

fn node_timeout(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<u16> {
    let seconds = value.u16(findings)?;
    if seconds < NODE_TIMEOUT_SECONDS {
        let text = format!(
            "{seconds} s is raised to {NODE_TIMEOUT_SECONDS} s: a node pings every 3.33 s, and a shorter time would cut \
             healthy links"
        );
        value.caution(text, findings);
    }
    Some(seconds.max(NODE_TIMEOUT_SECONDS))
}

/// A height, in a string as in tmkms, or as an integer.
fn max_height(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<u64> {
    if value.is_integer() {
        let height = value.u64(findings)?;
        value.caution(
            format_args!("tmkms refuses an integer here: write \"{height}\" if you may go back to tmkms"),
            findings,
        );
        return Some(height);
    }
    let height = value.string(findings)?.parse().ok().filter(|height| *height <= HEIGHT_MAX);
    if height.is_none() {
        value.reject(format_args!("expected a height from 0 to {HEIGHT_MAX} in quotes"), findings);
    }
    height
}

fn check_protocol_version(value: Value<'_>, findings: &mut ConfigFindings<'_>) {
    let Some(version) = value.string(findings) else { return };
    if AMINO_VERSIONS.contains(&version) {
        let text = format!(
            "nodes with the protocol {version:?} (Tendermint 0.33 and older) cannot be served: upgrade the node to 0.34 or \
             later, then remove this line"
        );
        value.reject(text, findings);
    } else if !PROTOCOL_VERSIONS.contains(&version) {
        value.caution("no effect: Highwater recognises the node's version from its messages", findings);
    }
}
