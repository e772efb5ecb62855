//! State files that changed while nobody looked, and disks that take no more.
//!
//! What is tried elsewhere: a missing or empty file, a file of another chain, a second process and a file renamed over
//! ours in `tests/fail_closed/state.rs`; another key, open permissions and a retired file in `tests/commands/state.rs`;
//! tmkms writing over ours in `tests/cometbft/tmkms.rs`.

use crate::{
    CHAIN, PROMISE,
    crash_states::{FILE, HOST, first_record, identity, mark},
    history::{Ask, History},
    support::{
        assurance::report,
        mock_node::MockNode,
        signer::{Home, Signer},
        skip::skip,
    },
};
use highwater::watermark::{
    self, BLOCK_BYTES, Disk, FILE_BYTES, FileId, HostId, RECORD_BYTES, Slot, StateFile, Store, StoreError, image,
};
use std::{
    fs::{self, Permissions},
    io,
    ops::RangeInclusive,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

/// A disk without faults.
#[derive(Clone)]
struct Memory(Arc<Mutex<[u8; FILE_BYTES]>>);

impl Memory {
    fn holding(content: [u8; FILE_BYTES]) -> Self {
        Self(Arc::new(Mutex::new(content)))
    }

    fn content(&self) -> [u8; FILE_BYTES] {
        *self.0.lock().unwrap()
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(Box::new(self.clone()), &identity(), HOST)
    }
}

impl Disk for Memory {
    fn id(&mut self) -> io::Result<FileId> {
        Ok(FILE)
    }

    fn read_header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        header.copy_from_slice(&self.content()[..BLOCK_BYTES]);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
        record.copy_from_slice(&self.content()[slot.offset()..slot.offset() + RECORD_BYTES]);
        Ok(())
    }

    fn write(&mut self, slot: Slot, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        self.0.lock().unwrap()[slot.offset()..slot.offset() + RECORD_BYTES].copy_from_slice(record);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn still_named(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

fn sign(store: &mut Store, heights: RangeInclusive<u64>) {
    for height in heights {
        store.advance(mark(height)).unwrap();
    }
}

/// A file that has seen marks 1 to `last`.
fn file_at(last: u64) -> [u8; FILE_BYTES] {
    let disk = Memory::holding(image(&first_record(1)));
    let mut store = disk.open().unwrap();
    sign(&mut store, 2..=last);
    disk.content()
}

#[test]
fn a_changed_bit_anywhere_in_a_record_is_refused() {
    let content = file_at(4);
    let mut flips = 0;
    for slot in [BLOCK_BYTES, 2 * BLOCK_BYTES] {
        for bit in 0..8 * RECORD_BYTES {
            let mut changed = content;
            changed[slot + bit / 8] ^= 1 << (bit % 8);
            let opened = Memory::holding(changed).open();
            assert!(matches!(opened, Err(StoreError::Damaged(_))), "slot at {slot}, bit {bit}");
            flips += 1;
        }
    }
    // What lies between the records is never looked at.
    for byte in
        (BLOCK_BYTES + RECORD_BYTES..2 * BLOCK_BYTES).chain(2 * BLOCK_BYTES + RECORD_BYTES..FILE_BYTES).step_by(7)
    {
        let mut changed = content;
        changed[byte] ^= 0xff;
        assert_eq!(Memory::holding(changed).open().unwrap().mark(), &mark(4), "byte {byte}");
    }
    report(PROMISE, "single bits changed in a state file's records, each refused", flips);
}

#[test]
fn a_file_of_any_other_length_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    fs::write(&path, file_at(4)).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    let mut file = StateFile::open(&path).unwrap();
    let inside = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mut newest = |length: usize| {
        inside.set_len(length as u64).unwrap();
        file.newest()
    };
    assert_eq!(newest(FILE_BYTES).unwrap().mark, mark(4));
    for length in [FILE_BYTES + 1, FILE_BYTES + RECORD_BYTES, 2 * FILE_BYTES] {
        assert!(newest(length).is_err(), "{length}");
    }
    for length in (0..FILE_BYTES).rev() {
        assert!(matches!(newest(length), Err(StoreError::Damaged(_))), "{length}");
    }
    report(PROMISE, "other lengths of a state file, each refused", FILE_BYTES as u64 + 3);
}

#[test]
fn slots_of_two_different_times_are_refused_unless_together_they_are_a_whole_older_file() {
    const TIMES: u64 = 8;
    let files: Vec<_> = (1..=TIMES).map(file_at).collect();
    let mut mixed = 0;
    for first in &files {
        for second in &files {
            let mut mix = *first;
            mix[2 * BLOCK_BYTES..].copy_from_slice(&second[2 * BLOCK_BYTES..]);
            match (Memory::holding(mix).open(), files.iter().position(|file| *file == mix)) {
                // The limit that the README names: a whole older file looks like the newest one.
                (Ok(store), Some(time)) => assert_eq!(store.mark(), &mark(time as u64 + 1)),
                (Err(StoreError::Damaged(_)), None) => mixed += 1,
                (opened, time) => panic!("{:?} of the file at {time:?}", opened.map(|store| *store.mark())),
            }
        }
    }
    assert!(mixed > TIMES, "{mixed}");
    let readme = include_str!("../../README.md");
    assert!(readme.contains("Know about an older copy") && readme.contains("`highwater state raise --height H`"));
    report(PROMISE, "slots of two different times in one file, each pair refused", mixed);
}

#[test]
fn an_older_file_written_into_ours_at_work_is_noticed_before_anything_is_written_over_it() {
    for age in 1..=5 {
        let disk = Memory::holding(file_at(6));
        let mut store = disk.open().unwrap();
        *disk.0.lock().unwrap() = file_at(age);
        assert!(matches!(store.advance(mark(7)), Err(StoreError::Overwritten)), "{age}");
        drop(store);
        match disk.open() {
            // The slot that was not written back held the record before, whatever else was put there.
            Ok(store) => assert_eq!(store.mark(), &mark(6), "{age}"),
            Err(StoreError::Damaged(damage)) => assert_eq!(damage.survivor(), Some(mark(6)), "{age}"),
            Err(error) => panic!("{error}"),
        }
    }
    report(PROMISE, "older files written into ours at work, each noticed with the next request", 5);
}

// The running signer.

/// What happens to the state file of a stopped signer, and what the next start says. The file is at height 3.
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

    /// What a shell does with the disk before it becomes the signer, or instead.
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

    /// What the commands of `then` print.
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
