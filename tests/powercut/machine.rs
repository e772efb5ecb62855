//! A virtual machine that runs the signer, and whose power can be cut.
//!
//! Its drive is a [`Drive`] of ours behind QEMU's NBD client, which caches nothing. So the memory of the machine goes with
//! the QEMU process, and what its kernel has not flushed is lost as on a real drive.

use crate::{
    drive::{Drive, Flush},
    initramfs::Initramfs,
    nbd::{self, FLUSH_TIME_MS, Plug},
    support::{
        mock_node::{MockNode, Session},
        random::Random,
    },
};
use std::{
    env,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};
use subtle_encoding::base64;
use tempfile::TempDir;

const QEMU: &str = "qemu-system-x86_64";
/// The chain that the machine signs for; `init.sh` names it too.
pub const CHAIN: &str = "test-chain";
/// The seed of its consensus key.
pub const SEED: [u8; 32] = [0x42; 32];
/// Room for a journal and a state file.
const DRIVE_SIZE: &str = "16M";
/// Room for the kernel, the signer and its locked pages.
const MEMORY: &str = "256M";
/// Far above what a boot takes, even on a loaded machine.
const BOOT_PATIENCE: Duration = Duration::from_secs(180);
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How much of the console a failed test shows.
const TAIL_LINES: usize = 40;

/// What `tests/install/powercut.sh` installs: without it there is nothing to test, which fails in CI, and elsewhere says
/// so and passes.
pub fn installed() -> Option<PathBuf> {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(env::var_os("HOME").unwrap()).join(".cache"));
    let parts = cache.join("highwater/powercut");
    let qemu = Command::new(QEMU).arg("--version").stdout(Stdio::null()).status();
    if parts.join("vmlinuz").is_file() && qemu.is_ok_and(|status| status.success()) {
        return Some(parts);
    }
    let missing = format!("there is no {QEMU} or no {}: run tests/install/powercut.sh", parts.display());
    assert!(env::var("CI").as_deref() != Ok("true"), "{missing}");
    // Not `eprintln!`, which the test harness swallows when a test passes.
    let mut stderr = io::stderr();
    writeln!(stderr, "\n*** SKIPPED: no power was cut: {missing} ***").unwrap();
    None
}

const DRIVE_IS_BACK: &str = "the drive is back after each cut";

/// A machine that is off.
pub struct Machine {
    dir: TempDir,
    kernel: PathBuf,
    drive: Option<Drive>,
    node: MockNode,
    boots: u64,
}

impl Machine {
    /// A machine with an empty ext4 file system and a validator node to dial.
    pub fn new(parts: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("highwater-power-").tempdir().unwrap();
        let node = MockNode::tcp().unwrap();
        fs::write(dir.path().join("initramfs"), initramfs(parts, &dir, node.socket().port())).unwrap();
        let drive = Drive::new(empty_ext4(&dir));
        Self { kernel: parts.join("vmlinuz"), dir, drive: Some(drive), node, boots: 0 }
    }

    /// Sets what a flush of its drive does from now on.
    pub fn set_flush(&mut self, flush: Flush) {
        self.drive.as_mut().expect(DRIVE_IS_BACK).set_flush(flush);
    }

    /// Switches it on.
    pub fn power_on(&mut self) -> Powered<'_> {
        let socket = self.dir.path().join(format!("drive.{}", self.boots));
        let listener = UnixListener::bind(&socket).unwrap();
        let mut drive = self.drive.take().expect(DRIVE_IS_BACK);
        let qemu = self.qemu(&socket).spawn().unwrap_or_else(|error| panic!("{QEMU} does not start: {error}"));
        let plug = Arc::<Plug>::default();
        let mut powered = Powered { machine: self, qemu, plug: Arc::clone(&plug), server: None };
        powered.machine.boots += 1;
        let stream = powered.drive_connection(&listener);
        powered.server = Some(thread::spawn(move || {
            nbd::serve(&stream, &mut drive, &plug).expect("QEMU speaks NBD");
            (drive, stream)
        }));
        powered
    }

    fn qemu(&self, drive: &Path) -> Command {
        // The power also goes when the test itself is killed: the signal comes when the thread that starts it ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", QEMU, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        // Emulated, so that it runs the same wherever the test does. The processor's random numbers spare it a wait.
        command.args(["-machine", "q35,accel=tcg", "-cpu", "qemu64,+rdrand", "-m", MEMORY]);
        command.args(["-serial", "stdio"]);
        command.arg("-kernel").arg(&self.kernel).arg("-initrd").arg(self.dir.path().join("initramfs"));
        let first = if self.boots == 0 { "first-boot" } else { "" };
        command.args(["-append", &format!("console=ttyS0 quiet panic=-1 random.trust_cpu=on {first}")]);
        let drive = drive.to_str().expect("a temporary directory has a plain name");
        command.args(["-blockdev", &format!("nbd,node-name=drive,server.type=unix,server.path={drive}")]);
        // Not QEMU's NVMe: it takes the kernel's FUA writes, and forgets that they are to be durable at once.
        command.args(["-device", "virtio-blk-pci,drive=drive,write-cache=on"]);
        // 10.0.2.2 is the loopback of this host.
        command.args(["-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile="]);
        let console = File::options().create(true).append(true).open(self.console()).unwrap();
        command.stdin(Stdio::null()).stdout(console.try_clone().unwrap()).stderr(console);
        command
    }

    fn console(&self) -> PathBuf {
        self.dir.path().join("console")
    }
}

/// Shows the end of what the machine has said.
impl Drop for Machine {
    fn drop(&mut self) {
        if thread::panicking() {
            let text = fs::read(self.console()).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let lines: Vec<_> = text.lines().collect();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            eprintln!("--- the end of the machine's console ---\n{tail}");
        }
    }
}

/// A machine that is on. Its QEMU is killed, by its id, when this goes out of scope.
pub struct Powered<'a> {
    machine: &'a mut Machine,
    qemu: Child,
    plug: Arc<Plug>,
    /// Gives the connection back too: if it closed before QEMU is gone, the machine would see an I/O error first.
    server: Option<JoinHandle<(Drive, UnixStream)>>,
}

impl Powered<'_> {
    fn drive_connection(&mut self, listener: &UnixListener) -> UnixStream {
        listener.set_nonblocking(true).unwrap();
        let stream = self.wait_for("QEMU to reach for its drive", |_| match listener.accept() {
            Ok((stream, _)) => Some(stream),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("{error}"),
        });
        stream.set_nonblocking(false).unwrap();
        stream
    }

    /// Waits until the signer has come up and shaken hands with the node.
    pub fn wait_for_signer(&mut self) -> Session {
        self.wait_for("the signer", |machine| {
            // A connection of the machine before the cut may still be in the queue.
            machine.node.accept_raw(POLL_INTERVAL).ok()?.into_session().ok()
        })
    }

    fn wait_for<T>(&mut self, what: &str, mut probe: impl FnMut(&Machine) -> Option<T>) -> T {
        let deadline = Instant::now() + BOOT_PATIENCE;
        loop {
            if let Some(found) = probe(self.machine) {
                return found;
            }
            if let Some(status) = self.qemu.try_wait().unwrap() {
                panic!("waited for {what}, but QEMU ended with {status}");
            }
            assert!(Instant::now() < deadline, "waited {BOOT_PATIENCE:?} for {what}");
            thread::sleep(POLL_INTERVAL);
        }
    }

    /// Waits for a moment at which there is something to lose: a write whose flush has just begun.
    pub fn wait_for_unflushed_write(&self, random: &mut Random) {
        const PATIENCE: Duration = Duration::from_secs(2);
        const POLL_INTERVAL: Duration = Duration::from_micros(100);
        let deadline = Instant::now() + PATIENCE;
        while !self.plug.has_unflushed() && Instant::now() < deadline {
            thread::sleep(POLL_INTERVAL);
        }
        thread::sleep(Duration::from_millis(random.below(FLUSH_TIME_MS)));
    }

    /// Cuts the power. Returns how many writes had not been flushed.
    pub fn cut(mut self, random: &mut Random) -> usize {
        self.plug.pull();
        self.qemu.kill().unwrap();
        self.qemu.wait().unwrap();
        // Its end of the socket is closed by now, so the server ends.
        let (mut drive, _) = self.server.take().expect("taken once").join().expect("the drive itself never fails");
        let unflushed = drive.cut(random);
        self.machine.drive = Some(drive);
        unflushed
    }
}

impl Drop for Powered<'_> {
    fn drop(&mut self) {
        // Both fail only if the process is gone, which is all that is wanted.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn empty_ext4(dir: &TempDir) -> Vec<u8> {
    let image = dir.path().join("image");
    // 4 KiB blocks, as on every real machine; so small a file system would have less.
    run(Command::new("mke2fs").args(["-q", "-t", "ext4", "-b", "4096"]).arg(&image).arg(DRIVE_SIZE));
    fs::read(&image).unwrap()
}

/// BusyBox, the modules of drive and network card, and the signer with its libraries, its keys and a node on `port`.
fn initramfs(parts: &Path, dir: &TempDir, port: u16) -> Vec<u8> {
    let mut initramfs = Initramfs::default();
    for directory in ["/dev", "/disk", "/proc"] {
        initramfs.directory(directory);
    }
    initramfs.file("/init", 0o755, include_str!("init.sh"));
    initramfs.file("/busybox", 0o755, fs::read(parts.join("busybox")).unwrap());
    let mut modules: Vec<_> = fs::read_dir(parts.join("modules")).unwrap().map(|entry| entry.unwrap().path()).collect();
    modules.sort();
    for module in modules {
        let name = module.file_name().unwrap().to_str().unwrap();
        initramfs.file(&format!("/modules/{name}"), 0o644, fs::read(&module).unwrap());
    }

    let signer = env!("CARGO_BIN_EXE_highwater");
    // Without its debugging information it is a tenth of the size.
    let stripped = dir.path().join("signer");
    run(Command::new("strip").arg("-o").arg(&stripped).arg(signer));
    initramfs.file("/bin/highwater", 0o755, fs::read(&stripped).unwrap());
    for library in libraries(signer) {
        initramfs.file(&library, 0o755, fs::read(&library).unwrap());
    }
    initramfs.file("/etc/machine-id", 0o444, "5f3c9e0a7d214b68a1c4e2f09b7d3586\n");
    initramfs.file("/highwater/consensus.key", 0o600, base64::encode(SEED));
    initramfs.file("/highwater/identity.key", 0o600, base64::encode([7; 32]));
    initramfs.file("/highwater/tmkms.toml", 0o600, include_str!("tmkms.toml").replace("PORT", &port.to_string()));
    initramfs.finish()
}

/// The shared libraries of a program, as the loader finds them.
fn libraries(program: &str) -> Vec<String> {
    let listed = run(Command::new("ldd").arg(program));
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
