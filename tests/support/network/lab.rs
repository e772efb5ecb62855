//! A place for one test: a directory, a deadline, and the processes in it with their output on file.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Far above what any test needs, even on a loaded machine.
const TEST_DEADLINE: Duration = Duration::from_secs(120);
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How much of every output a failed test shows.
const TAIL_LINES: usize = 40;

/// The scene of one test. Whatever goes wrong in it, the end of every output is shown.
pub struct Lab {
    dir: TempDir,
    deadline: Instant,
}

impl Lab {
    /// An empty directory; the clock starts now.
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("highwater-").tempdir().unwrap();
        fs::create_dir(dir.path().join("output")).unwrap();
        Self { dir, deadline: Instant::now() + TEST_DEADLINE }
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts a process. Its output is kept under `name`, after that of an earlier one of this name.
    pub fn spawn(&self, name: &str, command: &mut Command) -> Process {
        let output = |kind: &str| {
            let path = self.path(&format!("output/{name}.{kind}"));
            (File::options().create(true).append(true).open(&path).unwrap(), path)
        };
        let ((stdout, stdout_path), (stderr, stderr_path)) = (output("stdout"), output("stderr"));
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        let child = child.unwrap_or_else(|error| panic!("{name}: {command:?} does not start: {error}"));
        Process { name: name.into(), child, stdout: stdout_path, stderr: stderr_path }
    }

    /// Runs a program to its successful end and gives what it printed.
    pub fn run(&self, name: &str, command: &mut Command) -> String {
        let mut process = self.spawn(name, command);
        let status = self.wait_for_exit(&mut process);
        assert!(status.success(), "{name}: {command:?} ended with {status}");
        fs::read_to_string(&process.stdout).unwrap()
    }

    /// Waits for the end of a process.
    pub fn wait_for_exit(&self, process: &mut Process) -> ExitStatus {
        let what = format!("the end of {}", process.name);
        self.wait_for(&what, || process.child.try_wait().unwrap())
    }

    /// Asks `probe` again and again until it has an answer.
    pub fn wait_for<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        loop {
            if let Some(answer) = probe() {
                return answer;
            }
            assert!(Instant::now() < self.deadline, "waited for {what} until the test's {TEST_DEADLINE:?} were over");
            thread::sleep(POLL_INTERVAL);
        }
    }
}

/// The processes are gone by now: the guards of a test drop before its lab.
impl Drop for Lab {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        let mut outputs: Vec<_> = fs::read_dir(self.path("output")).into_iter().flatten().flatten().collect();
        outputs.sort_by_key(fs::DirEntry::path);
        for output in outputs {
            let text = read_lossy(&output.path());
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            eprintln!("--- the end of {} ---\n{tail}", output.file_name().display());
        }
    }
}

/// A running program. It is killed, by its id, when this goes out of scope.
pub struct Process {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// All that it has printed so far, and what earlier processes of its name had.
    pub fn output(&self) -> String {
        read_lossy(&self.stdout) + &read_lossy(&self.stderr)
    }

    /// Panics unless it still runs.
    pub fn assert_running(&mut self) {
        if let Some(status) = self.child.try_wait().unwrap() {
            panic!("{} is not meant to end, but ended with {status}", self.name);
        }
    }

    /// SIGKILL, and the wait until the process is gone.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM. `std` can only send SIGKILL.
    pub fn terminate(&mut self) {
        let status = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -TERM ended with {status}");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process is gone, which is all that is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A loopback port that nobody listens on, and that no other test of this run was given.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// A real CometBFT of this version, as `tests/install/cometbft.sh` installs it.
///
/// Without it there is nothing to test: that fails in CI, and elsewhere says so and passes.
pub fn cometbft(version: &str) -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache"));
    let binary = cache.join("highwater/cometbft").join(version).join("cometbft");
    if binary.is_file() {
        return Some(binary);
    }
    let missing = format!("there is no {}: run tests/install/cometbft.sh", binary.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{missing}");
    // Not `eprintln!`, which the test harness swallows when a test passes.
    let skipped = format!("\n*** SKIPPED: no test against CometBFT {version}: {missing} ***\n");
    std::io::stderr().write_all(skipped.as_bytes()).unwrap();
    None
}

/// A killed process may leave half a character at the end.
fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}
