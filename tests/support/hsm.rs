//! What the tests of keys in devices share: tokens that are made for one test, a plan of faults for them, and a look
//! at the processes below a signer.
#![allow(dead_code)]

use super::signer::Home;
use highwater_core::consensus::{KeyType, PublicKey};
use std::{
    env,
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};
use subtle_encoding::hex;
use tempfile::TempDir;

/// The user's PIN of every token.
pub const PIN: &str = "42424242";
const SO_PIN: &str = "87654321";
/// The paths where Debian and others install SoftHSM.
const SOFTHSM: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
];
/// Below the per-user cache, where `tests/install/kryoptic.sh` puts it.
const KRYOPTIC: &str = "highwater/kryoptic-1.5.4/libkryoptic_pkcs11.so";
/// What the faulty module reads, and where its plan is.
const TARGET_VARIABLE: &str = "HIGHWATER_FAULTY_TARGET";
const PLAN_VARIABLE: &str = "HIGHWATER_FAULTY_PLAN";
const PLAN: &str = "faults/faults.plan";
/// How often a tool tries: SoftHSM fails now and then while another process opens the same token.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// A PKCS#11 module with tokens of its own, in a directory that goes with it.
pub struct Hsm {
    dir: TempDir,
    module: PathBuf,
    profile: &'static str,
    /// The variable by which the module finds its configuration.
    variable: &'static str,
}

impl Hsm {
    /// SoftHSM without tokens; `None`, said loudly, where it is not installed.
    pub fn softhsm() -> Option<Self> {
        let module = SOFTHSM.iter().map(PathBuf::from).find(|path| path.exists());
        let installed = module.filter(|_| ["softhsm2-util", "pkcs11-tool"].into_iter().all(is_installed));
        let Some(module) = installed else {
            skip("SoftHSM or pkcs11-tool is missing: run tests/install/debian.sh softhsm2 opensc as root");
            return None;
        };
        let dir = Self::directory();
        let conf = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
            dir.path().join("tokens").display()
        );
        Some(Self { dir, module, profile: "softhsm2", variable: "SOFTHSM2_CONF" }.with_conf(&conf))
    }

    /// Kryoptic with one slot; `None`, said loudly, where it is not built.
    pub fn kryoptic() -> Option<Self> {
        let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
        let module = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache")).join(KRYOPTIC);
        if !module.exists() || !is_installed("pkcs11-tool") {
            skip(&format!("there is no {} or no pkcs11-tool: run tests/install/kryoptic.sh", module.display()));
            return None;
        }
        let hsm = Self { dir: Self::directory(), module, profile: "kryoptic", variable: "KRYOPTIC_CONF" };
        hsm.encode_points("Der");
        Some(hsm)
    }

    /// With a place for tokens and one for a plan of faults: a module reaches no more of it.
    fn directory() -> TempDir {
        let dir = tempfile::Builder::new().prefix("highwater-").tempdir().unwrap();
        for name in ["faults", "tokens"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        dir
    }

    /// Has Kryoptic show public points as `Der`, an OCTET STRING, or as raw `Bytes`.
    pub fn encode_points(&self, encoding: &str) {
        let database = self.path("tokens/token.sql");
        let text = format!(
            "[ec_point_encoding]\nencoding = {encoding:?}\n[[slots]]\nslot = 0\ndbtype = \"sqlite\"\ndbargs = {database:?}\n"
        );
        fs::write(self.path("hsm.conf"), text).unwrap();
    }

    fn with_conf(self, conf: &str) -> Self {
        fs::write(self.path("hsm.conf"), conf).unwrap();
        self
    }

    /// A path beside its tokens.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The module as it is.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// A new token, and on it a new key labelled `consensus`. The first in slot 0, the second in slot 1, and so on.
    pub fn token(&self, label: &str, slot_index: usize) -> PublicKey {
        let slot = slot_index.to_string();
        self.tool(&["--init-token", "--slot-index", &slot, "--label", label, "--so-pin", SO_PIN]);
        let so = ["--login", "--login-type", "so", "--so-pin", SO_PIN];
        self.tool(&[&["--init-pin", "--token-label", label, "--pin", PIN][..], &so].concat());
        self.generate(label, "consensus")
    }

    /// A new key on a token, made there by another program than Highwater.
    pub fn generate(&self, token: &str, label: &str) -> PublicKey {
        self.generate_with(token, label, &[])
    }

    /// The same, with more words for the other program.
    pub fn generate_with(&self, token: &str, label: &str, more: &[&str]) -> PublicKey {
        let shape = ["--keypairgen", "--key-type", "EC:edwards25519"];
        let output = self.tool(&[&shape[..], &["--label", label], more, &login(token)].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        let point = text.lines().find_map(|line| line.trim().strip_prefix("EC_POINT:")).expect("it shows the key");
        let point = hex::decode(point.trim()).unwrap();
        PublicKey::from_bytes(KeyType::Ed25519, &point[point.len() - 32..]).unwrap()
    }

    /// Puts the key of a `priv_validator_key.json` onto a token, as an operator does it.
    pub fn import(&self, token: &str, label: &str, id: &str, key_file: &Path) {
        let pin = self.path("import.pin");
        fs::write(&pin, PIN).unwrap();
        fs::set_permissions(&pin, Permissions::from_mode(0o600)).unwrap();
        let mut command = Command::new(super::binary::highwater());
        command.args(["pkcs11", "import", "-c", "/dev/null", "--label", label, "--id", id, "--token", token]);
        command.args(["--profile", self.profile, "--module"]).arg(&self.module);
        command.arg("--pin-file").arg(&pin).arg(key_file);
        self.retry(&mut command);
    }

    /// Logs in with the right PIN by another program, as an operator would.
    pub fn log_in(&self, token: &str) {
        self.tool(&[&["--list-objects"][..], &login(token)].concat());
    }

    /// Another token with the label of one that is there, and no key of the validator on it.
    pub fn twin(&self, label: &str) {
        let mut command = Command::new("softhsm2-util");
        command.args(["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN]);
        self.retry(&mut command);
    }

    /// An RSA key and another Ed25519 key with the label of the validator's.
    pub fn impostors(&self, token: &str, label: &str) {
        for kind in ["rsa:2048", "EC:edwards25519"] {
            let shape = ["--keypairgen", "--key-type", kind, "--label", label];
            self.tool(&[&shape[..], &login(token)].concat());
        }
    }

    /// Sends a wrong PIN by another program.
    pub fn log_in_wrongly(&self, token: &str) {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(&self.module).args(["--list-objects", "--login", "--token-label", token]);
        command.args(["--pin", "00000000"]).env(self.variable, self.path("hsm.conf"));
        assert!(!command.output().unwrap().status.success(), "the PIN is wrong");
    }

    fn tool(&self, words: &[&str]) -> Output {
        let mut command = Command::new("pkcs11-tool");
        command.arg("--module").arg(&self.module).args(words);
        self.retry(&mut command)
    }

    fn retry(&self, command: &mut Command) -> Output {
        command.env(self.variable, self.path("hsm.conf")).stdin(Stdio::null());
        for _ in 1..TRIES {
            let output = command.output().unwrap();
            if output.status.success() {
                return output;
            }
            thread::sleep(PAUSE);
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        output
    }

    /// A file with a PIN that only its owner reads.
    pub fn pin_file(&self, name: &str, pin: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, format!("{pin}\n")).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// The `[[providers.pkcs11]]` of a token. `pin` is TOML; each key has a chain, a label and the key to pin.
    pub fn provider(&self, module: &Path, token: &str, pin: &str, keys: &[(&str, &str, &PublicKey)]) -> String {
        let key = |(chain, label, key): &(&str, &str, &PublicKey)| {
            let key = String::from_utf8(hex::encode(key.as_bytes())).unwrap();
            format!("{{ chain_ids = [{chain:?}], label = {label:?}, type = \"consensus\", public_key = {key:?} }}")
        };
        let keys: Vec<_> = keys.iter().map(key).collect();
        format!(
            "[[providers.pkcs11]]\nprofile = {:?}\nmodule = {module:?}\ntoken = {{ label = {token:?} }}\npin = {pin}\n\
             {}keys = [{}]\n\n",
            self.profile,
            if module == self.module { String::new() } else { self.for_the_faulty_module() },
            keys.join(", ")
        )
    }

    /// What no profile knows of the faulty module: it has a plan, and loads another one.
    fn for_the_faulty_module(&self) -> String {
        let (plan, target) = (self.path("faults"), self.module.parent().unwrap());
        format!("files = [{plan:?}, {target:?}]\nenvironment = [{TARGET_VARIABLE:?}, {PLAN_VARIABLE:?}]\n")
    }

    /// The same with the PIN in a file.
    pub fn provider_with_file(&self, module: &Path, token: &str, keys: &[(&str, &str, &PublicKey)]) -> String {
        let pin = format!("{{ file = {:?} }}", self.pin_file("pin", PIN));
        self.provider(module, token, &pin, keys)
    }

    /// Has the signer of `home` find the tokens, and the faulty module find its target and its plan.
    pub fn equip(&self, home: Home) -> Home {
        home.env(self.variable, self.path("hsm.conf"))
            .env(TARGET_VARIABLE, &self.module)
            .env(PLAN_VARIABLE, self.path(PLAN))
    }

    /// What commands need to find the tokens, and the faulty module its target and its plan.
    pub fn variables(&self) -> [(&'static str, PathBuf); 3] {
        [
            (self.variable, self.path("hsm.conf")),
            (TARGET_VARIABLE, self.module.clone()),
            (PLAN_VARIABLE, self.path(PLAN)),
        ]
    }

    /// The plan of the faulty module.
    pub fn faults(&self) -> Faults {
        Faults { path: self.path(PLAN) }
    }
}

fn login(token: &str) -> [&str; 5] {
    ["--token-label", token, "--login", "--pin", PIN]
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

fn skip(why: &str) {
    assert!(env::var("CI").as_deref() != Ok("true"), "{why}");
    // Not `eprintln!`, which the test harness swallows when a test passes.
    std::io::stderr().write_all(format!("\n*** SKIPPED: {why} ***\n").as_bytes()).unwrap();
}

/// Our module that fails on command (`examples/faulty_pkcs11/`), as `cargo test` builds it.
pub fn faulty_module() -> PathBuf {
    let program = env::current_exe().unwrap();
    let module = program.parent().and_then(Path::parent).unwrap().join("examples/libfaulty_pkcs11.so");
    assert!(module.exists(), "there is no {}: run cargo build --example faulty_pkcs11", module.display());
    module
}

/// The faults that the faulty module is to play, in the words of `examples/faulty_pkcs11/`.
pub struct Faults {
    path: PathBuf,
}

impl Faults {
    /// Replaces the plan.
    pub fn plan(&self, lines: &[impl AsRef<str>]) {
        let lock = File::create(self.path.with_extension("lock")).unwrap();
        lock.lock().unwrap();
        let aside = self.path.with_extension("new");
        fs::write(&aside, lines.iter().map(|line| format!("{}\n", line.as_ref())).collect::<String>()).unwrap();
        fs::rename(aside, &self.path).unwrap();
    }

    /// How many lines of the plan are still to be played.
    pub fn left(&self) -> usize {
        fs::read_to_string(&self.path).unwrap_or_default().lines().count()
    }

    /// The calls so far and their faults, as `sign` or `sign flip`.
    pub fn log(&self) -> Vec<String> {
        fs::read_to_string(self.path.with_extension("log")).unwrap_or_default().lines().map(String::from).collect()
    }

    /// How often that happened. A call's name alone counts the call, whatever was done about it.
    pub fn count(&self, what: &str) -> usize {
        self.log().iter().filter(|line| *line == what || line.split(' ').next() == Some(what)).count()
    }
}

/// A process that this test did not start itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descendant {
    /// Its id.
    pub id: u32,
    /// Tells it from a later process with its id.
    started: String,
}

impl Descendant {
    /// The processes whose parent is `parent`.
    pub fn children_of(parent: u32) -> Vec<Self> {
        let ids = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        let is_child = |id: &u32| Stat::of(*id).is_some_and(|stat| stat.parent == parent);
        ids.filter(is_child).filter_map(|id| Some(Self { id, started: Stat::of(id)?.started })).collect()
    }

    /// The children that run a hidden command of `highwater`.
    pub fn children_with(parent: u32, command: &str) -> Vec<Self> {
        let words = |id: u32| fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let mut children = Self::children_of(parent);
        children.retain(|child| words(child.id).split('\0').nth(1) == Some(command));
        children
    }

    /// The process that reads the configuration of a signer again.
    pub fn reader_of(signer: u32) -> Self {
        let children = Self::children_with(signer, "config-reader");
        let [reader] = children.as_slice() else { panic!("one reader, not {children:?}") };
        reader.clone()
    }

    /// The spawner of a signer.
    pub fn spawner_of(signer: u32) -> Self {
        let children = Self::children_with(signer, "hsm-spawner");
        let [spawner] = children.as_slice() else { panic!("one spawner, not {children:?}") };
        spawner.clone()
    }

    /// The processes in which the modules of a signer run.
    pub fn modules_of(signer: u32) -> Vec<Self> {
        Self::children_of(Self::spawner_of(signer).id)
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        Stat::of(self.id).is_some_and(|stat| stat.started == self.started)
    }

    /// SIGKILL, by its id.
    pub fn kill(&self) {
        if self.is_running() {
            // It fails only if the process has just ended, which is all that is wanted.
            let _ = Command::new("kill").args(["-KILL", &self.id.to_string()]).stderr(Stdio::null()).status();
        }
    }

    /// Waits for the end of all; those that do not end in time are killed and returned.
    pub fn survivors(all: &[Self], patience: Duration) -> Vec<Self> {
        let deadline = Instant::now() + patience;
        while all.iter().any(Self::is_running) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
        let survivors: Vec<_> = all.iter().filter(|process| process.is_running()).cloned().collect();
        survivors.iter().for_each(Self::kill);
        survivors
    }
}

/// Fields of `/proc/ID/stat` (proc(5)).
struct Stat {
    parent: u32,
    started: String,
}

impl Stat {
    /// `None` for a zombie, which has ended.
    fn of(id: u32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name before it may hold anything.
        let (_, fields) = text.rsplit_once(") ")?;
        let fields: Vec<_> = fields.split(' ').collect();
        (fields[0] != "Z").then(|| Self { parent: fields[1].parse().unwrap(), started: fields[19].into() })
    }
}
