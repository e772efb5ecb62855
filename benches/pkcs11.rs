//! What the way through Highwater adds to a PKCS#11 device, socket to socket, interleaved in one run.
//!
//! Bare: `C_SignInit`, `C_Sign` and one durable write, in turn, in one process. Path: a prevote asked over a unix socket
//! and answered by `highwater start`, with its own process for the device, verification, and the flush beside the
//! device's work. Once in a closed loop, once with 2 ms of idle before each request, as a validator has it.

#![allow(missing_docs, clippy::print_stdout, clippy::unwrap_used)]

#[path = "../tests/support/mock_node.rs"]
mod mock_node;

use highwater::{
    config::pkcs11::{
        profile::Profile,
        spec::{ObjectSelector, TokenSelector},
    },
    keyring::pkcs11::{
        token::{Pin, Token},
        token_key::TokenKey,
    },
    provision::pkcs11::KeyName,
};
use highwater_core::{consensus::KeyType, hex::hex_of};
use mock_node::{MockNode, Session, prevote};
use std::{
    env,
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use zeroize::Zeroizing;

const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
const CHAIN: &str = "bench-1";
const PIN: &str = "1234";
const BLOCKS: usize = 20;
const BLOCK: usize = 50;
/// Set in the process that measures: SoftHSM reads its configuration from the environment.
const MEASURES: &str = "HIGHWATER_BENCH_HOME";

fn main() {
    if !Path::new(MODULE).is_file() {
        println!("SKIPPED: there is no {MODULE}; as root, run: apt-get install softhsm2");
        return;
    }
    match env::var_os(MEASURES) {
        Some(home) => measure(Path::new(&home)),
        None => prepare(),
    }
}

/// Makes a token and measures in a process of its own.
fn prepare() {
    // Beside the build, not in /tmp: that may be memory, where a flush costs nothing.
    let home = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = |name: &str| home.path().join(name);
    fs::create_dir(path("tokens")).unwrap();
    fs::write(path("softhsm2.conf"), format!("directories.tokendir = {}\n", path("tokens").display())).unwrap();
    let words = ["--init-token", "--free", "--label", "bench", "--so-pin", "12345678", "--pin", PIN];
    let made = Command::new("softhsm2-util").args(words).env("SOFTHSM2_CONF", path("softhsm2.conf")).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let measured = Command::new(env::current_exe().unwrap())
        .env("SOFTHSM2_CONF", path("softhsm2.conf"))
        .env(MEASURES, home.path())
        .status()
        .unwrap();
    assert!(measured.success());
}

fn measure(home: &Path) {
    let mut bare = Bare::new(home);
    let mut path = SignerPath::new(home, &bare.key);
    println!("{} signatures each, in blocks of {BLOCK} in turn; µs", BLOCKS * BLOCK);
    for (name, idle) in [("closed loop", Duration::ZERO), ("2 ms of idle", Duration::from_millis(2))] {
        let (mut bare_times, mut path_times) = (Vec::new(), Vec::new());
        for _ in 0..BLOCKS {
            bare_times.extend((0..BLOCK).map(|_| time(idle, || bare.once())));
            path_times.extend((0..BLOCK).map(|_| time(idle, || path.once())));
        }
        let (bare, path) = (median(&mut bare_times), median(&mut path_times));
        let added = path - bare;
        println!("{name:<14} bare {bare:>7.1}  path {path:>7.1}  ratio {:.2}  difference {added:.1}", path / bare);
    }
}

fn time(idle: Duration, act: impl FnOnce()) -> Duration {
    if !idle.is_zero() {
        thread::sleep(idle);
    }
    let begin = Instant::now();
    act();
    begin.elapsed()
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// The device and the disk, and nothing else.
struct Bare {
    token: Token,
    key: TokenKey,
    file: File,
    count: u64,
}

impl Bare {
    fn new(home: &Path) -> Self {
        let token = TokenSelector::Label("bench".into());
        let profile = Profile::builtin("softhsm2").unwrap();
        let pin = Pin::new(Zeroizing::new(PIN.as_bytes().to_vec()));
        let token = Token::open_for_changes(Path::new(MODULE), &token, &profile, Some(&pin)).unwrap();
        let name = KeyName { id: vec![1], label: "consensus".into() };
        token.generate(&name, KeyType::Ed25519, false).unwrap();
        let key = token.find_key(&ObjectSelector::Id(vec![1]), KeyType::Ed25519).unwrap();
        let file = OpenOptions::new().write(true).create_new(true).open(home.join("floor")).unwrap();
        file.write_all_at(&[0; 8192], 0).unwrap();
        file.sync_all().unwrap();
        Self { token, key, file, count: 0 }
    }

    fn once(&mut self) {
        self.count += 1;
        self.token.sign(&self.key, &[7; 120]).unwrap();
        self.file.write_all_at(&[self.count.to_le_bytes()[0]; 512], (self.count % 2) * 4096).unwrap();
        self.file.sync_data().unwrap();
    }
}

/// A node, a socket, and the signer that an operator runs.
struct SignerPath {
    session: Session,
    signer: Child,
    height: i64,
}

impl SignerPath {
    fn new(home: &Path, key: &TokenKey) -> Self {
        let config = write_config(home, key);
        let node = MockNode::unix(&home.join("node.sock")).unwrap();
        let highwater = || Command::new(env!("CARGO_BIN_EXE_highwater"));
        let made = highwater().args(["state", "init", "--never-signed", "-c"]).arg(&config).output().unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut command = highwater();
        let signer = command.args(["start", "-c"]).arg(&config).stderr(Stdio::null()).spawn().unwrap();
        let session = node.accept().unwrap();
        let mut path = Self { session, signer, height: 0 };
        path.once();
        path
    }

    fn once(&mut self) {
        self.height += 1;
        self.session.ask_vote(CHAIN, prevote(self.height, 0, Some(7))).unwrap().unwrap();
    }
}

impl Drop for SignerPath {
    fn drop(&mut self) {
        let _ = self.signer.kill();
        let _ = self.signer.wait();
    }
}

fn write_config(home: &Path, key: &TokenKey) -> PathBuf {
    let pin = home.join("pin");
    fs::write(&pin, PIN).unwrap();
    fs::set_permissions(&pin, fs::Permissions::from_mode(0o600)).unwrap();
    let public = hex_of(key.public_key().unwrap().as_bytes());
    let text = format!(
        r#"
[[chain]]
id = "{CHAIN}"
key_format = {{ type = "hex" }}
state_file = "{state}"
[[validator]]
addr = "unix://{socket}"
chain_id = "{CHAIN}"
[[providers.pkcs11]]
profile = "softhsm2"
module = "{MODULE}"
token = {{ label = "bench" }}
pin = {{ file = "{pin}" }}
keys = [{{ chain_ids = ["{CHAIN}"], id = "01", type = "consensus", public_key = "{public}" }}]
"#,
        state = home.join("state").display(),
        socket = home.join("node.sock").display(),
        pin = pin.display(),
    );
    let config = home.join("tmkms.toml");
    fs::write(&config, text).unwrap();
    config
}
