//! The real `highwater` in a directory of its own, under a deadline, and never with a secret in what it prints.

use super::binary;
use sha2::{Digest as _, Sha256, Sha512};
use std::{
    collections::BTreeMap,
    fs::{self, File, Permissions},
    io::Read as _,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use subtle_encoding::{base64, hex};
use tempfile::TempDir;

/// Far above what any single step takes, even on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(3);

thread_local! {
    static SEED: [u8; 32] = {
        let mut seed = [0; 32];
        File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut seed)).expect("random numbers");
        seed
    };
}

/// The seed of the consensus key of this test. Every test has another one: signers of one chain and key do not run beside
/// each other on one machine.
pub fn seed() -> [u8; 32] {
    SEED.with(|seed| *seed)
}

/// The chain of [`Home::with_chain`].
pub const CHAIN: &str = "test-1";

/// A directory in which commands run, with a `tmkms.toml` if the test writes one.
pub struct Home {
    dir: TempDir,
}

/// The output of a finished command.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Everything about a directory that a command can change.
pub struct Snapshot(BTreeMap<PathBuf, Seen>);

/// The visible state of a file or directory. Content is shown as a digest, so a failed test shows no secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    mode: u32,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    content: [u8; 32],
}

impl Home {
    pub fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("highwater-").tempdir().unwrap() }
    }

    /// A home with one chain, the key of [`seed`], a node on `node.sock`, and no state file: that is to be `watermark`.
    pub fn with_chain() -> Self {
        let home = Self::new();
        home.write("consensus.key", base64::encode(seed()));
        let socket = home.path("node.sock");
        home.write(
            "tmkms.toml",
            format!(
                "[[chain]]\nid = \"{CHAIN}\"\nkey_format = {{ type = \"hex\" }}\nstate_file = \"watermark\"\n\
                 [[validator]]\naddr = \"unix://{}\"\nchain_id = \"{CHAIN}\"\n\
                 [[providers.softsign]]\nchain_ids = [\"{CHAIN}\"]\npath = \"consensus.key\"\n",
                socket.display()
            ),
        );
        home
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Writes a file that only its owner can read.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        path
    }

    /// `highwater` with these words, in this directory.
    pub fn highwater(&self, words: &str) -> Command {
        let mut command = Command::new(binary::highwater());
        command.args(words.split_whitespace()).current_dir(self.dir.path()).env_remove("TMKMS_CONFIG_FILE");
        command
    }

    /// Runs `highwater` with these words to its end.
    pub fn run(&self, words: &str) -> Answer {
        self.finish(&mut self.highwater(words))
    }

    /// Runs a command to its end. What it prints has to fit into a pipe.
    pub fn finish(&self, command: &mut Command) -> Answer {
        self.finish_into(Stdio::piped(), command)
    }

    /// The same with standard output to somewhere else, from where nothing is read back.
    pub fn finish_into(&self, stdout: impl Into<Stdio>, command: &mut Command) -> Answer {
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::piped()).spawn();
        let mut guard = Guard(child.unwrap());
        let code = guard.wait().code().unwrap_or_else(|| panic!("{command:?} was killed by a signal"));
        let (mut stdout, mut stderr) = (String::new(), String::new());
        if let Some(mut pipe) = guard.0.stdout.take() {
            pipe.read_to_string(&mut stdout).unwrap();
        }
        guard.0.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        for text in [&stdout, &stderr] {
            self.assert_no_secret(text);
            assert!(!text.contains("panicked"), "{command:?}: {text}");
        }
        Answer { code, stdout, stderr }
    }

    /// Starts a command that runs until it is stopped. Its output goes to `name`.log.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Running<'_> {
        let log = self.path(&format!("{name}.log"));
        let file = File::create(&log).unwrap();
        let output = file.try_clone().unwrap();
        let child = command.stdin(Stdio::null()).stdout(output).stderr(file).spawn();
        Running { home: self, guard: Guard(child.unwrap()), log }
    }

    pub fn snapshot(&self) -> Snapshot {
        let mut found = BTreeMap::new();
        walk(self.dir.path(), &mut |path, metadata| {
            let content = if metadata.is_file() { fs::read(path).unwrap() } else { Vec::new() };
            let content = Sha256::digest(content).into();
            let modified = (metadata.mtime(), metadata.mtime_nsec());
            found.insert(path.into(), Seen { mode: metadata.mode(), modified, content });
        });
        Snapshot(found)
    }

    /// Checks that nothing was written since, not even the same content again.
    #[track_caller]
    pub fn assert_untouched(&self, before: &Snapshot, what: &str) {
        let now = self.snapshot().0;
        let differs = |path: &&PathBuf| now.get(*path) != before.0.get(*path);
        let changed: Vec<_> = now.keys().chain(before.0.keys()).filter(differs).collect();
        assert!(changed.is_empty(), "{what}: {changed:?}");
    }

    /// Checks that everything is as before, whatever was written in between.
    #[track_caller]
    #[allow(dead_code, reason = "not every test that shares this file asks")]
    pub fn assert_same(&self, before: &Snapshot, what: &str) {
        let mut before = Snapshot(before.0.clone());
        let now = self.snapshot().0;
        for (path, seen) in &mut before.0 {
            seen.modified = now.get(path).map_or(seen.modified, |now| now.modified);
        }
        self.assert_untouched(&before, what);
    }

    /// Checks that `text` shows neither [`seed`] nor the content of any `*.key` file here.
    pub fn assert_no_secret(&self, text: &str) {
        if let Some(trace) = self.secret_in(text) {
            panic!("a secret (as {trace}) is in: {text}");
        }
    }

    /// Which form of a secret is in `text`.
    pub fn secret_in(&self, text: &str) -> Option<String> {
        let mut secrets = vec![seed().to_vec(), Sha512::digest(seed()).to_vec()];
        walk(self.dir.path(), &mut |path, metadata| {
            if metadata.is_file() && path.extension().is_some_and(|extension| extension == "key") {
                let content = fs::read(path).unwrap();
                // Whatever it is encoded in; a file of JSON or rubbish is its own secret.
                secrets.push(base64::decode(content.trim_ascii()).unwrap_or(content));
            }
        });
        secrets.iter().filter(|secret| secret.len() >= 32).find_map(|secret| {
            // Half a seed is as bad as a whole one. 15 bytes end where a group of base64 does.
            let start = &secret[..15];
            let forms = [hex::encode(start), hex::encode_upper(start), base64::encode(start)];
            let forms = forms.map(|form| String::from_utf8(form).unwrap());
            let listed = format!("{:?}", &secret[..8]);
            let listed = listed.trim_matches(['[', ']']).to_owned();
            forms.into_iter().chain([listed]).find(|form| text.contains(form))
        })
    }
}

impl Snapshot {
    /// How many files and directories there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// A process that goes when this does, by its id.
pub struct Guard(pub Child);

impl Guard {
    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_for("the end of a process", || self.0.try_wait().unwrap())
    }

    /// SIGTERM, and the wait for the end. `std` can only send SIGKILL.
    pub fn terminate(&mut self) -> ExitStatus {
        let id = self.0.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status().unwrap();
        assert!(killed.success(), "kill -TERM {id} ended with {killed}");
        self.wait()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Both fail only if the process is gone, which is all that is wanted.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process that runs until it is stopped.
pub struct Running<'a> {
    home: &'a Home,
    guard: Guard,
    log: PathBuf,
}

impl Running<'_> {
    /// Its process.
    #[allow(dead_code, reason = "not every test that shares this file asks")]
    pub fn id(&self) -> u32 {
        self.guard.0.id()
    }

    /// All that it has printed so far.
    pub fn log(&self) -> String {
        let text = String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned();
        self.home.assert_no_secret(&text);
        text
    }

    /// The first line with `words` in it.
    pub fn wait_for_line(&mut self, words: &str) -> String {
        let what = format!("{words:?} in {}", self.log.display());
        wait_for(&what, || {
            let text = self.log();
            let line = text.lines().find(|line| line.contains(words)).map(str::to_owned);
            if line.is_none()
                && let Some(status) = self.guard.0.try_wait().unwrap()
                && !self.log().contains(words)
            {
                panic!("it ended with {status} before {words:?}: {text}");
            }
            line
        })
    }

    /// SIGTERM, and the wait for the end.
    pub fn terminate(mut self) -> ExitStatus {
        let status = self.guard.terminate();
        self.log();
        status
    }
}

impl Answer {
    /// That it ended with `code` and that each text has all of its fragments, which `|` separates. A text without
    /// fragments has to be empty.
    #[track_caller]
    pub fn assert(&self, code: i32, stdout: &str, stderr: &str) {
        assert_eq!(self.code, code, "{self:#?}");
        for (text, fragments) in [(&self.stdout, stdout), (&self.stderr, stderr)] {
            assert_eq!(text.is_empty(), fragments.is_empty(), "{self:#?}");
            for fragment in fragments.split('|') {
                assert!(text.contains(fragment), "{fragment:?} is not in {self:#?}");
            }
        }
    }
}

/// Asks `probe` again and again until it has an answer.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = probe() {
            return answer;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(POLL_INTERVAL);
    }
}

fn walk(directory: &Path, see: &mut impl FnMut(&Path, &fs::Metadata)) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::symlink_metadata(&path).unwrap();
        see(&path, &metadata);
        if metadata.is_dir() {
            walk(&path, see);
        }
    }
}
