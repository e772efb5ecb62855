//! Simulated YubiHSM 2s, each a process of its own behind its own connector, with faults on request.
//!
//! `tests/yubihsm-device/src/main.rs` describes them and their faults.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::OnceLock,
    thread,
    time::{Duration, Instant},
};
use subtle_encoding::hex;
use tempfile::TempDir;

/// The password of the device's authentication key.
pub const PASSWORD: &str = "correct horse battery staple";
const PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A device with an Ed25519 key and a secp256k1 key as objects 1 and 2, and the authentication key 1.
pub struct Device {
    /// It ends with its standard input, or, by its id, when this goes out of scope.
    child: Child,
    dir: TempDir,
    connector: SocketAddr,
    control: SocketAddr,
}

/// Starts a device whose keys both have this secret. `None`, and a loud word, if there is none to start.
pub fn start(seed: &[u8; 32], options: &[&str]) -> Option<Device> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let binary = match BINARY.get_or_init(build) {
        Ok(binary) => binary,
        Err(why) => {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}, and CI skips nothing");
            say(&format!("SKIPPED: there is no simulated YubiHSM: {why}"));
            return None;
        }
    };
    let dir = tempfile::Builder::new().prefix("highwater-").tempdir().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    };
    file("seed", &hex::encode(seed));
    file("password", format!("{PASSWORD}\n").as_bytes());
    let mut command = Command::new(binary);
    command.current_dir(dir.path()).args([
        "--auth",
        "1",
        "password",
        "--ed25519",
        "1",
        "seed",
        "--secp256k1",
        "2",
        "seed",
    ]);
    let stderr = fs::File::create(dir.path().join("log")).unwrap();
    let mut child = command.args(options).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(stderr).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (connector, control) = line.trim_end().split_once(' ').expect("a device says where it listens");
    Some(Device { child, dir, connector: connector.parse().unwrap(), control: control.parse().unwrap() })
}

fn build() -> Result<PathBuf, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/install/yubihsm-device.sh");
    let output = Command::new(&script).output().map_err(|error| format!("{}: {error}", script.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8(output.stdout).unwrap().trim_end().into())
}

impl Device {
    /// A `[[providers.yubihsm]]` for this device, with its Ed25519 key for `chain`.
    pub fn provider(&self, chain: &str) -> String {
        self.provider_with(chain, "key = 1, type = \"consensus\"")
    }

    /// The same with another key.
    pub fn provider_with(&self, chain: &str, key: &str) -> String {
        format!(
            "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"{}\" }}\n\
             auth = {{ key = 1, password_file = {:?} }}\nkeys = [{{ chain_ids = [\"{chain}\"], {key} }}]\n",
            self.address(),
            self.password_file(),
        )
    }

    /// The file with its password.
    pub fn password_file(&self) -> PathBuf {
        self.dir.path().join("password")
    }

    /// Where its connector listens.
    pub fn address(&self) -> String {
        format!("tcp://{}", self.connector)
    }

    /// Puts another password into the file that the signer reads. The device keeps its own.
    pub fn spoil_password_file(&self) {
        fs::write(self.dir.path().join("password"), "incorrect horse\n").unwrap();
    }

    /// Puts the right password back.
    pub fn mend_password_file(&self) {
        fs::write(self.dir.path().join("password"), format!("{PASSWORD}\n")).unwrap();
    }

    /// Asks for a fault, such as `drop/1`.
    pub fn fault(&self, route: &str) {
        self.ask("POST", route);
    }

    /// Has the connector end, and waits until it has.
    pub fn take_down(&self) {
        self.fault("down");
        self.wait_until("down", || TcpStream::connect(self.connector).is_err());
    }

    /// Has the connector listen again, and waits until it does.
    pub fn bring_up(&self) {
        self.fault("up");
        self.wait_until("up", || TcpStream::connect(self.connector).is_ok());
    }

    /// How often something happened: `commands`, `connections`, `session-requests`, `sessions`, `signatures`.
    pub fn count(&self, name: &str) -> u64 {
        let log = self.ask("GET", "log");
        let count = log.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        count.unwrap_or_else(|| panic!("no {name} in {log}")).parse().unwrap()
    }

    /// SIGKILL, and the wait until the process is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn ask(&self, method: &str, route: &str) -> String {
        let mut stream = TcpStream::connect(self.control).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(format!("{method} /fault/{route} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{method} {route}: {answer}");
        answer
    }

    fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done() {
            assert!(Instant::now() < deadline, "the connector at {} never went {what}", self.connector);
            thread::sleep(POLL_INTERVAL);
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // Both fail only if the process is gone, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Past the test harness, which swallows what a test that passes prints.
pub fn say(text: &str) {
    std::io::stderr().write_all(format!("\n*** {text} ***\n").as_bytes()).unwrap();
}
