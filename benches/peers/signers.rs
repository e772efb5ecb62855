//! The signers that are compared, each as its users run it, in a home of its own with the same key.

use crate::mock_node::{MockNode, Session};
use ed25519_dalek::SigningKey;
use highwater_core::consensus::PublicKey;
use serde_json::json;
use std::{
    env,
    fs::{self, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU8, Ordering},
};
use subtle_encoding::{base64, hex};
use tempfile::TempDir;

/// The key of a signer, and the next one for the next: two signers of one key do not run beside each other.
pub fn next_seed() -> [u8; 32] {
    static NUMBER: AtomicU8 = AtomicU8::new(0);
    [NUMBER.fetch_add(1, Ordering::Relaxed); 32]
}
const TMKMS: &str = "tmkms-0.15.0/bin/tmkms";
const PRIV_VAL_SERVER: &str = "cometbft/v0.38.25/priv_val_server";

/// A program that signs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// CometBFT's `privval.FilePV` behind its own `cmd/priv_val_server`: one chain and one node for each process.
    FilePv,
    /// The binary of this build.
    Highwater,
    /// From the cargo registry, with softsign.
    Tmkms,
}

impl Program {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::FilePv => "CometBFT v0.38.25 FilePV",
            Self::Highwater => "Highwater",
            Self::Tmkms => "tmkms 0.15.0",
        }
    }

    /// Whether the mark of an answer survives a power cut.
    pub fn durable(self) -> &'static str {
        match self {
            Self::FilePv => "all but the last vote",
            Self::Highwater => "yes",
            Self::Tmkms => "no",
        }
    }

    /// Where it is; an error says how to get it.
    pub fn find(self) -> Result<PathBuf, String> {
        let (path, script) = match self {
            Self::FilePv => (cache().join(PRIV_VAL_SERVER), "priv-val-server.sh"),
            Self::Highwater => (env!("CARGO_BIN_EXE_highwater").into(), "none"),
            Self::Tmkms => (cache().join(TMKMS), "tmkms.sh"),
        };
        match path.is_file() {
            true => Ok(path),
            false => Err(format!("{} is not installed and left out: run tests/install/{script}", self.name())),
        }
    }
}

/// Where `tests/install` puts what it builds.
fn cache() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache")).join("highwater")
}

/// What a node's listener is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// Loopback TCP with SecretConnection.
    Tcp,
    /// A unix socket, in the clear.
    Unix,
}

impl Door {
    /// Its name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Unix => "unix",
        }
    }

    /// A listener; its socket file is `name` in `home`.
    pub fn listen(self, home: &Path, name: &str) -> MockNode {
        match self {
            Self::Tcp => MockNode::tcp().unwrap(),
            Self::Unix => MockNode::unix(&home.join(name)).unwrap(),
        }
    }
}

/// The id of the chain with this number.
pub fn chain_id(number: usize) -> String {
    format!("bench-{number}")
}

/// Keys, state and configuration of one signer, made where `parent` lies.
pub struct Home {
    directory: TempDir,
    program: Program,
    seed: [u8; 32],
}

impl Home {
    /// A home whose chains are served to the nodes at these addresses: chain by chain, and each node of a chain.
    pub fn new(program: Program, parent: &Path, chains: &[Vec<String>], seed: [u8; 32]) -> Self {
        let home = Self { directory: tempfile::tempdir_in(parent).unwrap(), program, seed };
        home.write("consensus.key", &base64::encode(seed));
        home.write("identity.key", &base64::encode([7; 32]));
        match program {
            Program::FilePv => home.write_filepv(),
            Program::Highwater | Program::Tmkms => {
                home.write("tmkms.toml", home.config(chains).as_bytes());
                // tmkms makes its own state.
                if program == Program::Highwater {
                    for number in 0..chains.len() {
                        let mut init = home.command(&["state", "init", "--never-signed", "--chain", &chain_id(number)]);
                        let made = init.stderr(Stdio::piped()).output().unwrap();
                        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
                    }
                }
            }
        }
        home
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Starts the signer. What it logs is thrown away, at the level that it has by itself.
    pub fn start(&self, chains: &[Vec<String>]) -> Running {
        let mut command = match self.program {
            Program::FilePv => {
                let mut command = Command::new(self.program.find().unwrap());
                command.args(["-chain-id", &chain_id(0), "-addr", &chains[0][0]]);
                command.arg("-priv-key").arg(self.path("key.json")).arg("-priv-state").arg(self.path("state.json"));
                command
            }
            Program::Highwater | Program::Tmkms => self.command(&["start"]),
        };
        Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.program.find().unwrap());
        command.args(words).arg("-c").arg(self.path("tmkms.toml")).current_dir(self.directory.path());
        command
    }

    /// One configuration for tmkms and Highwater.
    fn config(&self, chains: &[Vec<String>]) -> String {
        let ids: Vec<_> = (0..chains.len()).map(chain_id).collect();
        let path = |name: &str| self.path(name);
        let key = path("consensus.key");
        let mut text =
            format!("[[providers.softsign]]\nchain_ids = {ids:?}\nkey_type = \"consensus\"\npath = {key:?}\n");
        for (id, nodes) in ids.iter().zip(chains) {
            let state = path(&format!("{id}.state"));
            text += &format!("[[chain]]\nid = {id:?}\nkey_format = {{ type = \"hex\" }}\nstate_file = {state:?}\n");
            for address in nodes {
                let identity = path("identity.key");
                text += &format!(
                    "[[validator]]\naddr = {address:?}\nchain_id = {id:?}\nreconnect = true\nsecret_key = {identity:?}\n\
                     protocol_version = \"v0.34\"\n"
                );
            }
        }
        text
    }

    fn write_filepv(&self) {
        let key = SigningKey::from_bytes(&self.seed);
        let public = key.verifying_key().to_bytes();
        let address = PublicKey::from(key.verifying_key()).address();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let key = json!({
            "address": text(hex::encode_upper(address)),
            "pub_key": { "type": "tendermint/PubKeyEd25519", "value": text(base64::encode(public)) },
            "priv_key": { "type": "tendermint/PrivKeyEd25519", "value": text(base64::encode([self.seed, public].concat())) },
        });
        self.write("key.json", key.to_string().as_bytes());
        self.write("state.json", json!({ "height": "0", "round": 0, "step": 0 }).to_string().as_bytes());
    }

    fn write(&self, name: &str, content: &[u8]) {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), Permissions::from_mode(0o600)).unwrap();
    }
}

/// A process that is killed, by its id, when this goes out of scope.
pub struct Running(Child);

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A signer at work, with a session to each of its nodes: chain by chain.
pub struct Served {
    /// Ended before its home goes.
    pub processes: Vec<Running>,
    _homes: Vec<Home>,
    /// With the id of the chain that each may ask for.
    pub sessions: Vec<(Session, String)>,
    /// Whose signatures these have to be. `None` if they are none.
    pub key: Option<PublicKey>,
}

impl Served {
    /// Starts `program` for `chains` chains with `nodes` nodes each and waits until all of them are served. `None` if it
    /// cannot serve so many.
    pub fn start(program: Program, door: Door, parent: &Path, chains: usize, nodes: usize) -> Option<Self> {
        // One process for everything, but for the one that knows a single chain and a single node.
        let (processes, chains) = match program {
            Program::FilePv if nodes > 1 => return None,
            Program::FilePv => (chains, 1),
            Program::Highwater | Program::Tmkms => (1, chains),
        };
        let seed = next_seed();
        let key = Some(PublicKey::from(SigningKey::from_bytes(&seed).verifying_key()));
        let mut served = Self { processes: Vec::new(), _homes: Vec::new(), sessions: Vec::new(), key };
        for _ in 0..processes {
            served.add(program, door, parent, (chains, nodes), seed).unwrap();
        }
        Some(served)
    }

    /// A session whose other end is a thread that signs nothing.
    pub fn by_this_process(session: Session, chain: String) -> Self {
        Self { processes: Vec::new(), _homes: Vec::new(), sessions: vec![(session, chain)], key: None }
    }

    fn add(
        &mut self,
        program: Program,
        door: Door,
        parent: &Path,
        (chains, nodes): (usize, usize),
        seed: [u8; 32],
    ) -> io::Result<()> {
        let sockets = tempfile::tempdir_in(parent)?;
        let listen = |chain, node| door.listen(sockets.path(), &format!("{chain}.{node}"));
        let listeners: Vec<Vec<_>> =
            (0..chains).map(|chain| (0..nodes).map(|node| listen(chain, node)).collect()).collect();
        let addresses: Vec<Vec<_>> =
            listeners.iter().map(|nodes| nodes.iter().map(MockNode::address).collect()).collect();
        let home = Home::new(program, parent, &addresses, seed);
        self.processes.push(home.start(&addresses));
        self._homes.push(home);
        for (chain, nodes) in listeners.iter().enumerate() {
            for node in nodes {
                self.sessions.push((node.accept()?, chain_id(chain)));
            }
        }
        Ok(())
    }
}
