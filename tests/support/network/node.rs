//! A CometBFT node: its home directory, its configuration, its process.

use super::{
    lab::{Lab, Process, free_port},
    rpc::{Rpc, public_key},
};
use highwater_core::consensus::{ChainId, PublicKey};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the log of a sound node never holds, in lower case: signs of two signatures for one vote, or of a node
/// that has given up.
const ALARMS: [&str; 5] =
    ["conflicting", "consensus failure", "byzantine behavior", "attempting to add evidence", "non-deterministic"];
/// Refusals of the signer stand in the node's log too. They are no alarm: there is no such signature.
const REFUSED: &str = "failed signing";

/// A node on loopback ports, with fresh keys and, at first, a chain of its own.
pub struct Node<'a> {
    lab: &'a Lab,
    binary: &'a Path,
    name: String,
    home: PathBuf,
    p2p_port: u16,
    /// Its RPC server.
    pub rpc: Rpc,
}

impl<'a> Node<'a> {
    /// Creates the home directory.
    pub fn init(lab: &'a Lab, binary: &'a Path, name: &str) -> Self {
        let home = lab.path(name);
        lab.run(&format!("{name}-init"), Command::new(binary).arg("init").arg("--home").arg(&home));
        let rpc = Rpc { port: free_port() };
        let node = Self { lab, binary, name: name.into(), home, p2p_port: free_port(), rpc };
        node.configure("rpc", "laddr", &format!("\"tcp://127.0.0.1:{}\"", node.rpc.port));
        node.configure("p2p", "laddr", &format!("\"tcp://127.0.0.1:{}\"", node.p2p_port));
        node.configure("p2p", "pex", "false");
        node.configure("p2p", "addr_book_strict", "false");
        node.configure("p2p", "allow_duplicate_ip", "true");
        node.configure("consensus", "timeout_commit", "\"10ms\"");
        node.configure("consensus", "peer_gossip_sleep_duration", "\"10ms\"");
        node
    }

    /// Sets a key of `config.toml`; those above the first section have the section `""`.
    pub fn configure(&self, section: &str, key: &str, value: &str) {
        let path = self.home.join("config/config.toml");
        let text = fs::read_to_string(&path).unwrap();
        let (mut section_here, mut found) = ("", false);
        let with_value = |line| {
            section_here = str::strip_prefix(line, '[').map_or(section_here, |name| name.trim_end_matches(']'));
            let is_meant = section_here == section && line.split(" = ").next() == Some(key);
            found |= is_meant;
            if is_meant { format!("{key} = {value}\n") } else { format!("{line}\n") }
        };
        let text: String = text.lines().map(with_value).collect();
        assert!(found, "{} has a [{section}] {key}", path.display());
        fs::write(path, text).unwrap();
    }

    /// The node's genesis file.
    pub fn genesis(&self) -> Value {
        self.read_json("config/genesis.json")
    }

    /// Puts the node onto another chain.
    pub fn set_genesis(&self, genesis: &Value) {
        fs::write(self.home.join("config/genesis.json"), genesis.to_string()).unwrap();
    }

    /// The node's consensus key.
    pub fn public_key(&self) -> PublicKey {
        public_key(&self.read_json("config/priv_validator_key.json"))
    }

    /// Has the node wait for a remote signer at `address`, and takes its own key file away.
    /// CometBFT makes itself another key, which no validator set knows.
    pub fn use_signer(&self, address: &str) -> PathBuf {
        let key_file = self.lab.path(&format!("{}_key.json", self.name));
        fs::rename(self.home.join("config/priv_validator_key.json"), &key_file).unwrap();
        self.configure("", "priv_validator_laddr", &format!("\"{address}\""));
        key_file
    }

    /// `id@host:port`, by which other nodes dial it.
    pub fn p2p_address(&self) -> String {
        let mut command = Command::new(self.binary);
        let id = self.lab.run(&format!("{}-id", self.name), command.arg("show-node-id").arg("--home").arg(&self.home));
        format!("{}@127.0.0.1:{}", id.trim(), self.p2p_port)
    }

    /// Starts the node with the application at `proxy_app`.
    pub fn start(&self, proxy_app: &str) -> Process {
        let mut command = Command::new(self.binary);
        command.arg("start").arg("--home").arg(&self.home).arg("--proxy_app").arg(proxy_app);
        self.lab.spawn(&self.name, &mut command)
    }

    /// Waits until the block at `height` is there, and gives the height then.
    pub fn wait_for_height(&self, process: &mut Process, height: u64) -> u64 {
        self.lab.wait_for(&format!("block {height} on {}", self.name), || {
            process.assert_running();
            self.rpc.height().filter(|now| *now >= height)
        })
    }

    /// Waits for so many more blocks, and gives the height then.
    pub fn wait_for_blocks(&self, process: &mut Process, blocks: u64) -> u64 {
        let now = self.wait_for_height(process, 0);
        self.wait_for_height(process, now + blocks)
    }

    /// Panics if the log speaks of two signatures for one vote, or of a halt.
    pub fn assert_no_alarm(&self, process: &Process) {
        for line in process.output().lines().filter(|line| !line.contains(REFUSED)) {
            let line = line.to_lowercase();
            assert!(!ALARMS.iter().any(|alarm| line.contains(alarm)), "{} logged: {line}", self.name);
        }
    }

    /// Every vote that it got signed, by height, round and type: block, signature, extension and time in brief.
    /// Needs the log level `debug`.
    pub fn signed_votes(&self, process: &Process) -> BTreeMap<String, String> {
        // `vote="Vote{0:095C31AB6101 1/00/SIGNED_MSG_TYPE_PREVOTE(Prevote) 0D8CB7B026E9 4329757D99C3 …}"`
        let output = process.output();
        let pushed = output.lines().filter(|line| line.contains("signed and pushed vote"));
        let votes = pushed.map(|line| {
            let (_, vote) = line.split_once("vote=\"Vote{").unwrap();
            let mut words = vote.splitn(3, ' ').skip(1).map(String::from);
            (words.next().unwrap(), words.next().unwrap())
        });
        votes.collect()
    }

    fn read_json(&self, path: &str) -> Value {
        serde_json::from_slice(&fs::read(self.home.join(path)).unwrap()).unwrap()
    }
}

/// The id of the chain that a genesis file founds.
pub fn chain_id(genesis: &Value) -> ChainId {
    ChainId::new(genesis["chain_id"].as_str().unwrap()).unwrap()
}

/// The consensus parameters that hold `vote_extensions_enable_height`, if this version has it: `abci`, and
/// `feature` from v1 on.
pub fn extension_params(consensus_params: &mut Value) -> Option<&mut Value> {
    let section = ["abci", "feature"].into_iter().find(|name| consensus_params.get(name).is_some())?;
    consensus_params[section].get_mut("vote_extensions_enable_height")
}
