//! The process that reads the configuration again, for a reload.
//!
//! The confined signer cannot: it may neither read new files nor ask the questions of `check`, and beside the
//! configuration lie PINs that it must never see. So a second process of this program looks at the file as `check`
//! does, and sends back what it found. It can read files, but neither write nor connect nor start anything. The signer
//! decides what to do.

use crate::{
    config::{Config, ConfigError, FixedParts, NodeAddress, ValidatorConfig},
    inspect::{self, Severity, Subject, Topic},
    process::{
        frames::{self, read_json, write_json},
        helper::{self, Helper},
        sandbox::{self, Switches},
    },
};
use highwater_core::consensus::{ChainId, PeerId};
use serde::{Deserialize, Serialize};
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// The hidden command that becomes the reader.
pub(crate) const READER_COMMAND: &str = "config-reader";
/// How long a look may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the reader found.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) enum Reading {
    /// The file cannot be read, or has these mistakes.
    Mistakes(Vec<String>),
    Good(NewConfig),
}

/// A configuration without mistakes.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct NewConfig {
    pub(super) fixed: FixedParts,
    nodes: Vec<NodeRow>,
    /// What would keep a signer with this configuration, or a part of it, from signing.
    pub(super) failures: Vec<Failure>,
    pub(super) warnings: Vec<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct Failure {
    pub(super) of: FailureOf,
    pub(super) text: String,
}

#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum FailureOf {
    Chain(String),
    Identity(PathBuf),
    Signer,
}

/// A [`ValidatorConfig`] on its way between the two processes.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct NodeRow {
    address: AddressRow,
    chain: String,
    reconnect: bool,
    timeout: Duration,
    max_height: Option<u64>,
    line: usize,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
enum AddressRow {
    Tcp { peer_id: Option<[u8; 20]>, host: String, port: u16, identity_key: PathBuf },
    Unix { path: PathBuf },
}

#[derive(Deserialize, Serialize)]
struct ReaderTask {
    path: PathBuf,
    switches: Switches,
}

/// The signer's side.
#[derive(Clone)]
pub(super) struct ConfigReader(Arc<Helper>);

impl ConfigReader {
    pub(super) fn start(config: &Config) -> io::Result<Self> {
        let helper = Helper::start(READER_COMMAND)?;
        let task = ReaderTask { path: config.path.clone(), switches: Switches::of(config) };
        write_json(&mut *helper.control(), &task)?;
        helper.control().set_read_timeout(Some(PATIENCE))?;
        helper.control().set_write_timeout(Some(PATIENCE))?;
        Ok(Self(Arc::new(helper)))
    }

    /// Reads the file as it is now. Waits for a disk.
    pub(super) fn read(&self) -> Reading {
        let mut control = self.0.control();
        let read = frames::ask(&mut *control).and_then(|()| read_json(&mut *control));
        read.unwrap_or_else(|error| {
            // A late answer would be mistaken for the answer to the next question.
            let _ = control.shutdown(std::net::Shutdown::Both);
            Reading::Mistakes(vec![format!(
                "the process that reads the configuration again does not answer ({error}): restart the signer instead"
            )])
        })
    }
}

/// The program of the hidden command. Ends with its control stream.
pub(crate) fn run() -> io::Result<()> {
    let mut control = helper::standard_input()?;
    let ReaderTask { path, switches } = read_json(&mut control)?;
    sandbox::confine_config_reader(switches).map_err(io::Error::other)?;
    while frames::is_asked(&mut control)? {
        write_json(&mut control, &look(&path))?;
    }
    Ok(())
}

/// The same reading and the same findings as in `check`, but for the audit file: it stays as it is and may be large, and
/// the signer, not a file, knows what it has signed.
fn look(path: &Path) -> Reading {
    // A pipe has been read already.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        let text =
            format!("{} is not a regular file, so it cannot be read again: restart the signer instead", path.display());
        return Reading::Mistakes(vec![text]);
    }
    let (config, warnings) = match Config::load(path) {
        Ok(read) => read,
        Err(ConfigError::Invalid { path, findings }) => {
            return Reading::Mistakes(findings.iter().map(|finding| finding.at(&path)).collect());
        }
        Err(error @ ConfigError::Unreadable { .. }) => return Reading::Mistakes(vec![error.to_string()]),
    };
    let (mut failures, mut texts) = (Vec::new(), Vec::new());
    for finding in inspect::look_without_audit(&config, &warnings).iter() {
        // The machine stays as it is, and a hook runs only at the start.
        if matches!(finding.topic, Topic::Hook | Topic::HookProgram | Topic::Machine) {
            continue;
        }
        match finding.severity {
            Severity::Ok => {}
            Severity::Warn => texts.push(finding.to_string()),
            Severity::Fail => {
                let of = match &finding.subject {
                    Subject::Chain(chain) => FailureOf::Chain(chain.to_string()),
                    Subject::Identity(path) => FailureOf::Identity(path.clone()),
                    Subject::Signer => FailureOf::Signer,
                };
                failures.push(Failure { of, text: finding.to_string() });
            }
        }
    }
    let nodes = config.validators.into_iter().map(NodeRow::of).collect();
    Reading::Good(NewConfig { fixed: config.fixed, nodes, failures, warnings: texts })
}

impl NewConfig {
    /// Its nodes. Fails if the reader sent what no configuration contains.
    pub(super) fn nodes(&self) -> io::Result<Vec<ValidatorConfig>> {
        self.nodes.iter().cloned().map(NodeRow::into_config).collect()
    }

    #[cfg(test)]
    pub(super) fn for_tests(config: Config, failures: Vec<Failure>) -> Self {
        let nodes = config.validators.into_iter().map(NodeRow::of).collect();
        Self { fixed: config.fixed, nodes, failures, warnings: Vec::new() }
    }
}

impl NodeRow {
    fn of(config: ValidatorConfig) -> Self {
        let ValidatorConfig { address, chain_id, reconnect, timeout, max_height, line } = config;
        let address = match address {
            NodeAddress::Tcp { peer_id, host, port, identity_key } => {
                AddressRow::Tcp { peer_id: peer_id.map(|PeerId(bytes)| bytes), host, port, identity_key }
            }
            NodeAddress::Unix { path } => AddressRow::Unix { path },
        };
        Self { address, chain: chain_id.to_string(), reconnect, timeout, max_height, line }
    }

    fn into_config(self) -> io::Result<ValidatorConfig> {
        let Self { address, chain, reconnect, timeout, max_height, line } = self;
        let address = match address {
            AddressRow::Tcp { peer_id, host, port, identity_key } => {
                NodeAddress::Tcp { peer_id: peer_id.map(PeerId), host, port, identity_key }
            }
            AddressRow::Unix { path } => NodeAddress::Unix { path },
        };
        let chain_id = ChainId::new(&chain).map_err(io::Error::other)?;
        Ok(ValidatorConfig { address, chain_id, reconnect, timeout, max_height, line })
    }
}
