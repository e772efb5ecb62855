//! Highwater as an operator runs it: a throw-away home with keys, state and a `tmkms.toml`, and a process.

use highwater_core::consensus::{KeyType, PublicKey};
use serde_json::Value;
use std::{
    cell::Cell,
    ffi::OsString,
    fs::{self, File, Permissions},
    io::Read as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};
use subtle_encoding::base64;
use tempfile::TempDir;

/// Far above what any wait here takes, even on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL_INTERVAL: Duration = Duration::from_millis(5);
/// How much of the log a failed test shows.
const TAIL_LINES: usize = 60;

const START: [&str; 3] = ["start", "--log-format", "json"];

/// A home under construction, then in use.
pub struct Home {
    dir: TempDir,
    config: String,
    chains: Vec<String>,
    environment: Vec<(String, OsString)>,
}

impl Home {
    /// An empty home with an identity key.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("highwater-").tempdir().unwrap();
        let home = Self { dir, config: String::new(), chains: Vec::new(), environment: Vec::new() };
        home.write_secret("identity.key", [7; 32]);
        home
    }

    /// A path in the home.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the watermark of `chain` is.
    pub fn state_file(&self, chain: &str) -> PathBuf {
        self.path(&format!("{chain}.state.highwater"))
    }

    /// The `state_file` of `chain`: tmkms's, where a tombstone stands.
    pub fn tmkms_file(&self, chain: &str) -> PathBuf {
        self.path(&format!("{chain}.state"))
    }

    /// Where the key of `chain` is.
    pub fn key_file(&self, chain: &str) -> PathBuf {
        self.path(&format!("{chain}.key"))
    }

    /// The public consensus key of `chain`.
    pub fn public_key(&self, chain: &str) -> PublicKey {
        let seed = seed(self.chains.iter().position(|id| id == chain).unwrap());
        let key = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key();
        PublicKey::from_bytes(KeyType::Ed25519, key.as_bytes()).unwrap()
    }

    /// Adds a chain with a key of its own. `extra` is TOML.
    pub fn chain(self, id: &str, extra: &str) -> Self {
        self.write_secret(&format!("{id}.key"), seed(self.chains.len()));
        let key = self.key_file(id);
        let provider = format!("[[providers.softsign]]\nchain_ids = [\"{id}\"]\npath = {key:?}\n");
        self.chain_with_key(id, extra, &provider)
    }

    /// Adds a chain whose key is wherever the TOML in `provider` says.
    pub fn chain_with_key(mut self, id: &str, extra: &str, provider: &str) -> Self {
        self.config += &format!(
            "[[chain]]\nid = \"{id}\"\nkey_format = {{ type = \"hex\" }}\nstate_file = {state:?}\n{extra}\n{provider}\n",
            state = self.tmkms_file(id),
        );
        self.chains.push(id.into());
        self
    }

    /// Sets a variable for every command.
    pub fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Adds a node of `chain`. `extra` is TOML.
    pub fn node(mut self, address: &str, chain: &str, extra: &str) -> Self {
        self.config += &format!("[[validator]]\naddr = \"{address}\"\nchain_id = \"{chain}\"\n{extra}\n");
        if address.starts_with("tcp://") {
            self.config += &format!("secret_key = {:?}\n\n", self.path("identity.key"));
        }
        self
    }

    /// Writes the configuration alone.
    pub fn write_config(&self) {
        fs::write(self.path("tmkms.toml"), &self.config).unwrap();
    }

    /// Writes the configuration and makes the state of every chain.
    pub fn init(self) -> Self {
        self.write_config();
        for chain in &self.chains {
            let mut command = self.command(&["state", "init", "--never-signed", "--chain", chain]);
            let output = command.output().unwrap();
            assert!(output.status.success(), "state init: {}", String::from_utf8_lossy(&output.stderr));
        }
        self
    }

    /// Starts the signer. Each start has a log of its own.
    pub fn start(&self) -> Signer {
        self.start_as(self.command(&START))
    }

    /// The same by a shell that first does what `script` says, and then becomes the signer.
    pub fn start_in_shell(&self, script: &str) -> Signer {
        let signer = self.command(&START);
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{script}\nexec \"$0\" \"$@\"")).arg(signer.get_program());
        command.args(signer.get_args()).envs(self.environment.iter().cloned());
        self.start_as(command)
    }

    fn start_as(&self, mut command: Command) -> Signer {
        let log = (0..).map(|number| self.path(&format!("log.{number}"))).find(|path| !path.exists()).unwrap();
        let stderr = File::create_new(&log).unwrap();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        Signer { child, log }
    }

    /// The mark of `chain` as `state show` tells it: height, round, step.
    pub fn mark(&self, chain: &str) -> (i64, i64, String) {
        let output = self.command(&["state", "show", "--json", "--chain", chain]).output().unwrap();
        assert!(output.status.success(), "state show: {}", String::from_utf8_lossy(&output.stderr));
        let shown: Value = serde_json::from_slice(&output.stdout).unwrap();
        let number = |name: &str| shown[name].as_i64().unwrap();
        (number("height"), number("round"), shown["step"].as_str().unwrap().into())
    }

    /// `highwater` with these words and this home's configuration.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(super::binary::highwater());
        command.args(words).arg("-c").arg(self.path("tmkms.toml")).envs(self.environment.iter().cloned());
        command
    }

    fn write_secret(&self, name: &str, seed: [u8; 32]) {
        let path = self.path(name);
        fs::write(&path, base64::encode(seed)).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    }
}

thread_local! {
    static FIRST_SEED: Cell<[u8; 32]> = {
        let mut seed = [0; 32];
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut seed)).expect("random numbers");
        Cell::new(seed)
    };
}

/// The seed of the key of the chain at this place. Every test has other keys: signers of one chain and key do not run
/// beside each other on one machine.
pub fn seed(index: usize) -> [u8; 32] {
    let mut seed = FIRST_SEED.get();
    seed[31] ^= u8::try_from(index).unwrap();
    seed
}

/// Has this test use the key of `tests/vectors`, as long as the guard lives.
#[allow(dead_code)]
pub fn use_key_of_vectors() -> MutexGuard<'static, ()> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    FIRST_SEED.set([0x42; 32]);
    guard
}

/// A running signer. It is killed, by its id, when this goes out of scope.
pub struct Signer {
    child: Child,
    log: PathBuf,
}

impl Signer {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        read_lossy(&self.log)
    }

    /// Waits until it has logged `text`.
    pub fn wait_for_log(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(text) {
            self.assert_running();
            assert!(Instant::now() < deadline, "the signer never logged {text:?}");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Panics unless it still runs.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("the signer is not meant to end, but ended with {status}");
        }
    }

    /// SIGKILL, and the wait until the process is gone.
    pub fn sigkill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM. `std` can only send SIGKILL.
    pub fn sigterm(&self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -TERM ended with {status}");
    }

    /// Waits for the end and gives the exit code.
    pub fn exit_code(&mut self) -> Option<i32> {
        self.wait().code()
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the signer does not end");
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Signer {
    fn drop(&mut self) {
        // Both fail only if the process is gone, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("--- the end of the signer's log ---");
            eprintln!("{}", lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"));
        }
    }
}

/// A killed process may leave half a character at the end.
fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
