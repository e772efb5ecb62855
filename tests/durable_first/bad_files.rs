//! State files that changed while the signer was stopped, and disks that take no more.
//!
//! What is tried elsewhere: changed bits, other lengths and slots of two times in `core/tests/durable_first`; a missing or empty
//! file, a file of another chain, a second process and a file renamed over ours in `tests/fail_closed/state.rs`; another key, open
//! permissions and a retired file in `tests/commands/state.rs`; tmkms writing over ours in `tests/cometbft/tmkms.rs`.

use crate::{
    CHAIN, PROMISE,
    history::{Ask, History},
    support::{
        assurance::report,
        mock_node::MockNode,
        signer::{Home, Signer},
        skip::skip,
    },
};
use highwater_core::watermark::{self, BLOCK_BYTES, FILE_BYTES, HostId, StateFile};
use std::{
    fs,
    os::unix::fs::symlink,
    path::PathBuf,
    process::{Command, Stdio},
};

/// Damage to the state file of a stopped signer, and the message of the next start. The file is at height 3.
type Case = (&'static str, fn(&Home), &'static str);

const CASES: [Case; 10] = [
    (
        "a copy of our own file",
        |home| {
            let (path, copy) = (home.state_file(CHAIN), home.path("copy"));
            fs::copy(&path, &copy).unwrap();
            fs::rename(copy, path).unwrap();
        },
        "is a copy of a state file, made at 3/0/precommit",
    ),
    (
        "a file of another machine",
        |home| {
            let path = home.state_file(CHAIN);
            let newest = StateFile::open(&path).unwrap().newest().unwrap();
            fs::remove_file(&path).unwrap();
            watermark::create(&path, HostId([0xee; 16]), newest.header.identity(), newest.mark).unwrap();
        },
        "was written on another machine, at 3/0/precommit",
    ),
    ("the second half is gone", |home| cut(home, 2 * BLOCK_BYTES as u64), "the second slot is blank"),
    ("all but 100 bytes are gone", |home| cut(home, 100), "its header fails its checksum"),
    ("a byte too many", |home| cut(home, FILE_BYTES as u64 + 1), "it has 12289 bytes, a state file has 12288"),
    ("nothing but zeros", |home| fs::write(home.state_file(CHAIN), [0; FILE_BYTES]).unwrap(), "no mark survives"),
    (
        "one slot of an older copy",
        |home| {
            let path = home.state_file(CHAIN);
            let mut content = fs::read(&path).unwrap();
            let older = fs::read(home.path("older")).unwrap();
            content[BLOCK_BYTES..2 * BLOCK_BYTES].copy_from_slice(&older[BLOCK_BYTES..2 * BLOCK_BYTES]);
            fs::write(path, content).unwrap();
        },
        "the two slots are not successive",
    ),
    (
        "a newer format",
        |home| {
            let path = home.state_file(CHAIN);
            let mut content = fs::read(&path).unwrap();
            content[8] = 3;
            fs::write(path, content).unwrap();
        },
        "was written by a newer Highwater: this version does not know its format 3. Nothing is wrong with the file",
    ),
    (
        "a link to nothing",
        |home| {
            fs::remove_file(home.state_file(CHAIN)).unwrap();
            symlink("/nonexistent/state", home.state_file(CHAIN)).unwrap();
        },
        "is a link that leads nowhere: is its disk mounted?",
    ),
    (
        "a directory",
        |home| {
            fs::remove_file(home.state_file(CHAIN)).unwrap();
            fs::create_dir(home.state_file(CHAIN)).unwrap();
        },
        "is not a regular file",
    ),
];

fn cut(home: &Home, length: u64) {
    fs::OpenOptions::new().write(true).open(home.state_file(CHAIN)).unwrap().set_len(length).unwrap();
}

#[test]
fn a_file_that_changed_while_the_signer_was_stopped_is_refused_with_its_reason() {
    for (name, change, says) in CASES {
        let home = Home::new();
        let node = MockNode::unix(&home.path("node.sock")).unwrap();
        let home = home.chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
        let mut signer = home.start();
        let mut session = node.accept().unwrap();
        for height in 1..=3 {
            for ask in Ask::round(height, 7) {
                ask.ask(&mut session, CHAIN, &mut History::default()).unwrap().unwrap();
            }
            if height == 1 {
                fs::copy(home.state_file(CHAIN), home.path("older")).unwrap();
            }
        }
        signer.sigkill();
        change(&home);
        let mut signer = home.start();
        // A disk that is not mounted may be so later; the others need a person.
        let exit = if name == "a link to nothing" { 74 } else { 65 };
        assert_eq!(signer.exit_code(), Some(exit), "{name}");
        assert!(signer.log().contains(says), "{name}: {}", signer.log());
    }
    report(
        PROMISE,
        "state files changed while the signer was stopped, each refused with its reason",
        CASES.len() as u64,
    );
}

/// A home whose state file is on a small disk of its own, which only the processes of [`on_own_disk`] see.
struct OwnDisk {
    home: Home,
    node: MockNode,
    disk: PathBuf,
}

impl OwnDisk {
    /// Says why, if this system has no such disks for us.
    fn new() -> Option<Self> {
        let tried = Command::new("unshare").args(["-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]).output().unwrap();
        if !tried.status.success() {
            let why = String::from_utf8_lossy(&tried.stderr).into_owned();
            skip(&format!("full and read-only disks: no mount in a namespace of our own: {}", why.trim()));
            return None;
        }
        let home = Home::new();
        let node = MockNode::unix(&home.path("node.sock")).unwrap();
        let home = home.chain(CHAIN, "").node(&node.address(), CHAIN, "");
        home.write_config();
        let disk = home.path("disk");
        fs::create_dir(&disk).unwrap();
        let (config, state) = (home.path("tmkms.toml"), home.tmkms_file(CHAIN));
        let text = fs::read_to_string(&config).unwrap();
        let own = text.replace(state.to_str().unwrap(), disk.join("state").to_str().unwrap());
        assert_ne!(own, text);
        fs::write(config, own).unwrap();
        Some(Self { home, node, disk })
    }

    /// Shell commands that change the disk before, or instead of, executing the signer.
    fn script(&self, then: &str) -> String {
        let (disk, config) = (self.disk.display(), self.home.path("tmkms.toml"));
        format!(
            "exec unshare -rm sh -c 'set -e
            disk={disk}
            mount -t tmpfs -o size=64k tmpfs $disk
            init() {{ \"$0\" state init --never-signed -c {config:?}; }}
            fill() {{ cat /dev/zero >$disk/rest 2>/dev/null || true; }}
            {then}' \"$0\" \"$@\""
        )
    }

    fn start(&self, before: &str) -> Signer {
        self.home.start_in_shell(&self.script(&format!("{before}\nexec \"$0\" \"$@\"")))
    }

    /// The output of the commands in `then`.
    fn run(&self, then: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-c", &self.script(then), env!("CARGO_BIN_EXE_highwater")]).stdin(Stdio::null());
        let output = command.output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

#[test]
fn a_full_disk_keeps_nobody_from_signing_because_the_file_has_its_place() {
    let Some(own) = OwnDisk::new() else { return };
    let _signer = own.start("init >/dev/null; fill");
    let mut session = own.node.accept().unwrap();
    let mut history = History::default();
    for height in 1..=20 {
        for ask in Ask::round(height, 7) {
            ask.ask(&mut session, CHAIN, &mut history).unwrap().unwrap();
            ask.conflicting().ask(&mut session, CHAIN, &mut history).unwrap().unwrap_err();
        }
    }
    report(PROMISE, "messages signed on a full disk", history.len());
}

#[test]
fn no_state_file_is_made_on_a_full_disk_and_no_half_is_left() {
    let Some(own) = OwnDisk::new() else { return };
    let said = own.run("fill\ninit || echo code $?\nls $disk");
    assert!(said.contains("No space left on device"), "{said}");
    assert!(said.contains("code 73") || said.contains("code 74"), "{said}");
    assert!(said.contains("rest") && !said.contains("\nstate"), "{said}");
}

#[test]
fn a_read_only_disk_is_refused_with_its_reason() {
    let Some(own) = OwnDisk::new() else { return };
    let mut signer = own.start("init >/dev/null; mount -o remount,bind,ro $disk");
    assert_eq!(signer.exit_code(), Some(74), "a disk may be well again: the service is restarted");
    assert!(signer.log().contains("Read-only file system"), "{}", signer.log());
    let said = own.run("mount -o remount,bind,ro $disk\ninit || echo code $?");
    assert!(said.contains("Read-only file system") && said.contains("code 7"), "{said}");
    report(PROMISE, "starts and new files refused on a read-only disk", 2);
}
