//! The store over a disk that fails on demand.

use super::super::{
    header::tests::{THIS_FILE, sample_header},
    record::tests::sample,
};
use super::*;
use crate::consensus::{Hrs, Step};
use std::sync::{Arc, Mutex};

/// A disk whose content outlives the store. Every operation can be made to fail.
#[derive(Clone)]
struct TestDisk(Arc<Mutex<Inner>>);

struct Inner {
    content: [u8; FILE_BYTES],
    log: Vec<&'static str>,
    failing: Option<&'static str>,
    replaced: bool,
}

impl TestDisk {
    fn holding(mark: Mark) -> Self {
        let content = image(&sample(mark));
        Self(Arc::new(Mutex::new(Inner { content, log: Vec::new(), failing: None, replaced: false })))
    }

    fn act(&self, action: &'static str) -> io::Result<std::sync::MutexGuard<'_, Inner>> {
        let mut inner = self.0.lock().unwrap();
        inner.log.push(action);
        if inner.failing == Some(action) { Err(io::Error::other("played fault")) } else { Ok(inner) }
    }

    fn fail(&self, action: Option<&'static str>) {
        self.0.lock().unwrap().failing = action;
    }

    fn log(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap().log)
    }

    fn open(&self) -> Result<Store, StoreError> {
        let expected = sample_header();
        Store::open(Box::new(self.clone()), expected.identity(), expected.host())
    }
}

impl Disk for TestDisk {
    fn id(&mut self) -> io::Result<FileId> {
        Ok(THIS_FILE)
    }

    fn read_header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        header.copy_from_slice(&self.act("read header")?.content[..BLOCK_BYTES]);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        self.act("settle").map(drop)
    }

    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
        let inner = self.act("read")?;
        record.copy_from_slice(&inner.content[slot.offset()..slot.offset() + RECORD_BYTES]);
        Ok(())
    }

    fn write(&mut self, slot: Slot, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        let mut inner = self.act("write")?;
        inner.content[slot.offset()..slot.offset() + RECORD_BYTES].copy_from_slice(record);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.act("flush").map(drop)
    }

    fn still_named(&mut self) -> io::Result<bool> {
        Ok(!self.act("name")?.replaced)
    }
}

fn mark(height: u64) -> Mark {
    Mark::floor(Hrs { height, round: 0, step: Step::Prevote })
}

#[test]
fn opening_flushes_before_reading_and_writes_the_newest_record_again() {
    let disk = TestDisk::holding(mark(5));
    disk.open().unwrap();
    assert_eq!(disk.log(), ["settle", "read header", "read", "read", "write", "flush"]);
}

#[test]
fn every_mark_costs_one_look_back_one_write_one_flush_and_one_look_at_the_path() {
    let disk = TestDisk::holding(mark(5));
    let mut store = disk.open().unwrap();
    disk.log();
    assert_eq!(store.advance(mark(6)).unwrap().spend(), mark(6));
    assert_eq!(disk.log(), ["read", "write", "flush", "name"]);
    assert_eq!(store.current().unwrap().spend(), mark(6));
    assert_eq!(disk.log(), ["read", "name"]);
}

#[test]
fn marks_survive_and_alternate_between_the_slots() {
    let disk = TestDisk::holding(Mark::NEVER_SIGNED);
    for height in 1..10 {
        let mut store = disk.open().unwrap();
        store.advance(mark(height)).unwrap();
        let sequence = store.sequence();
        // `sample` has sequence 7, and its image holds a successor.
        assert_eq!(sequence, 8 + height);
        drop(store);
        let store = disk.open().unwrap();
        assert_eq!((store.mark(), store.sequence()), (&mark(height), sequence));
    }
}

#[test]
fn any_error_stops_the_store_for_the_life_of_the_process() {
    for fault in ["read", "write", "flush", "name"] {
        let disk = TestDisk::holding(mark(5));
        let mut store = disk.open().unwrap();
        disk.fail(Some(fault));
        assert!(matches!(store.advance(mark(6)), Err(StoreError::Io { .. })), "{fault}");
        disk.fail(None);
        assert!(matches!(store.advance(mark(7)), Err(StoreError::Stopped { .. })), "{fault}");
        assert!(matches!(store.current(), Err(StoreError::Stopped { .. })), "{fault}");
        // Memory does not run ahead of what was acknowledged.
        assert_eq!(store.mark(), &mark(5));
    }
}

#[test]
fn a_replaced_file_stops_the_store() {
    for ask in [|store: &mut Store| store.advance(mark(6)).map(drop), |store: &mut Store| store.current().map(drop)] {
        let disk = TestDisk::holding(mark(5));
        let mut store = disk.open().unwrap();
        disk.0.lock().unwrap().replaced = true;
        assert!(matches!(ask(&mut store), Err(StoreError::Replaced)));
        disk.0.lock().unwrap().replaced = false;
        assert!(matches!(ask(&mut store), Err(StoreError::Stopped { .. })));
    }
}

#[test]
fn no_fault_while_opening_lets_the_store_open() {
    for fault in ["settle", "read", "write", "flush"] {
        let disk = TestDisk::holding(mark(5));
        disk.fail(Some(fault));
        assert!(matches!(disk.open(), Err(StoreError::Io { .. })), "{fault}");
    }
}

#[test]
fn a_rotten_slot_is_refused_and_the_survivor_is_named() {
    for slot in [Slot::First, Slot::Second] {
        let disk = TestDisk::holding(mark(5));
        disk.open().unwrap().advance(mark(6)).unwrap();
        disk.0.lock().unwrap().content[slot.offset() + 44] ^= 1;
        let Err(StoreError::Damaged(damage)) = disk.open() else { panic!("{slot:?} opened") };
        assert!(damage.survivor().is_some());
        assert!(damage.to_string().contains("fails its checksum"), "{damage}");
    }
}

#[test]
fn slots_that_contradict_each_other_are_refused() {
    let write = |disk: &TestDisk, slot: Slot, record: &Record| {
        let bytes = record.encode();
        disk.0.lock().unwrap().content[slot.offset()..slot.offset() + RECORD_BYTES].copy_from_slice(&bytes);
    };
    // `sample` has sequence 7, so the image holds 7 (second slot) and 8 (first slot).
    let base = sample(mark(5));
    let of_another_file = Header::new(HostId([1; 16]), base.header.identity().clone(), THIS_FILE);
    let contradictions = [
        ("successive", Record { sequence: 10, ..base.clone() }),
        ("successive", Record { sequence: 7, ..base.clone() }),
        ("below", base.next(mark(4), Mode::Active)),
        ("belongs to another state file", Record { header: of_another_file, ..base.next(mark(5), Mode::Active) }),
    ];
    for (expected, record) in contradictions {
        let disk = TestDisk::holding(mark(5));
        write(&disk, Slot::First, &record);
        let Err(StoreError::Damaged(damage)) = disk.open() else { panic!("{record:?} opened") };
        assert!(damage.to_string().contains(expected), "{damage}");
        assert_eq!(damage.survivor(), Some(mark(5)));
    }
}

#[test]
fn a_file_whose_count_would_run_out_is_refused_and_ends_no_process() {
    let disk = TestDisk::holding(mark(5));
    disk.0.lock().unwrap().content = image(&Record { sequence: u64::MAX - 1, ..sample(mark(5)) });
    let Err(StoreError::Damaged(damage)) = disk.open() else { panic!("it opened") };
    assert!(damage.to_string().contains("impossible value"), "{damage}");
}

#[test]
fn of_two_marks_at_one_place_the_newer_survives() {
    let timestamp = crate::consensus::Timestamp::ZERO;
    let signed = super::super::mark::SignedMessage {
        target: crate::consensus::Target::Block,
        timestamp,
        digest: crate::consensus::Digest([1; 32]),
    };
    let newer = Mark { signed: Some(signed), ..mark(5) };
    let survivor = |first, second| match newer_of(Ok(first), Ok(second)) {
        Err(StoreError::Damaged(damage)) => damage.survivor(),
        other => panic!("{other:?}"),
    };
    assert_eq!(survivor(Record { sequence: 10, ..sample(newer) }, sample(mark(5))), Some(newer));
    // Neither is newer: the first slot counts.
    assert_eq!(survivor(sample(newer), sample(mark(5))), Some(newer));
}

#[test]
fn damage_names_each_broken_slot_and_what_survives() {
    let whole = || Ok(sample(mark(5)));
    let (survives, lost) = ("the mark that survives is ", "no mark survives");
    for (first, second, words) in [
        (Err(RecordError::Blank), whole(), ["the first slot is blank; ", survives]),
        (whole(), Err(RecordError::Fields), ["the second slot holds an impossible value; ", survives]),
        (
            Err(RecordError::Checksum),
            Err(RecordError::NotARecord),
            ["the first slot fails its checksum and the second slot holds something else; ", lost],
        ),
    ] {
        let Err(StoreError::Damaged(damage)) = newer_of(first, second) else { panic!("{words:?} verifies") };
        let text = damage.to_string();
        assert!(text.starts_with(words[0]) && text.contains(words[1]), "{text}");
    }
}

#[test]
fn every_error_says_what_to_look_at_or_do() {
    let blank = newer_of(Err(RecordError::Blank), Err(RecordError::Blank)).unwrap_err();
    for (error, words) in [
        (blank, "is damaged: the first slot is blank and"),
        (StoreError::Copy { mark: mark(5) }, "is a copy of a state file, made at 5/0/prevote"),
        (
            StoreError::Newer { what: NewerFeature::Mode, number: 2 },
            "does not know its mode 2. Nothing is wrong with the file",
        ),
        (StoreError::Overwritten, "overwritten by another program"),
        (StoreError::ForeignChain { found: "other".into() }, "belongs to chain other"),
        (StoreError::ForeignHost { mark: mark(5) }, "`highwater state import FILE`"),
        (
            StoreError::ForeignKey { found: "a".into(), ours: "b".into() },
            "belongs to key a, the configuration names key b",
        ),
        (StoreError::io("flush")(io::Error::other("no")), "cannot flush: no"),
        (StoreError::Replaced, "replaced by another file"),
        (StoreError::Retired { mark: mark(5) }, "`highwater state export`"),
        (StoreError::Stopped { why: "cannot flush".into() }, "until a restart: it cannot flush"),
    ] {
        assert!(error.to_string().contains(words), "{error}");
        let source = std::error::Error::source(&error).map(ToString::to_string);
        assert_eq!(source, matches!(error, StoreError::Io { .. }).then(|| "no".to_owned()));
    }
}

#[test]
fn a_file_of_another_chain_key_or_host_is_refused() {
    let disk = TestDisk::holding(mark(5));
    let header = sample_header();
    let (ours, host) = (header.identity(), header.host());
    let open = |identity: &Identity, host| Store::open(Box::new(disk.clone()), identity, host).err();
    let other_chain = Identity { chain: crate::consensus::ChainId::new("other").unwrap(), ..ours.clone() };
    assert!(matches!(open(&other_chain, host), Some(StoreError::ForeignChain { .. })));
    let key = k256::ecdsa::SigningKey::from_slice(&[1; 32]).unwrap();
    let other_key = Identity { key: crate::consensus::PublicKey::from(*key.verifying_key()), ..ours.clone() };
    assert!(matches!(open(&other_key, host), Some(StoreError::ForeignKey { .. })));
    assert!(matches!(open(ours, HostId([1; 16])), Some(StoreError::ForeignHost { .. })));
    assert!(open(ours, host).is_none());
}

#[test]
fn a_copy_of_a_file_is_no_file_of_ours() {
    let disk = TestDisk::holding(mark(5));
    let header = sample_header();
    let original = Header::new(header.host(), header.identity().clone(), FileId { inode: 1, ..THIS_FILE });
    disk.0.lock().unwrap().content = image(&Record { header: original, ..sample(mark(5)) });
    assert!(matches!(disk.open(), Err(StoreError::Copy { mark: copied }) if copied == mark(5)));
}

#[test]
fn what_a_newer_highwater_wrote_is_neither_damaged_nor_an_invitation_to_begin_anew() {
    let disk = TestDisk::holding(mark(5));
    disk.0.lock().unwrap().content[9] = 1;
    let error = disk.open().err().unwrap();
    assert!(matches!(error, StoreError::Newer { what: NewerFeature::Format, .. }), "{error}");
    assert!(!error.to_string().contains("state init"), "{error}");
}

#[test]
fn whoever_writes_into_a_file_in_use_stops_its_store() {
    let older = image(&sample(mark(1)));
    for repeats in [false, true] {
        let disk = TestDisk::holding(mark(5));
        let mut store = disk.open().unwrap();
        store.advance(mark(6)).unwrap();
        disk.0.lock().unwrap().content = older;
        let result = if repeats { store.current() } else { store.advance(mark(7)) };
        assert!(matches!(result, Err(StoreError::Overwritten)), "{result:?}");
        assert!(matches!(store.advance(mark(8)), Err(StoreError::Stopped { .. })));
        // The next start does not continue from what was written there.
        match disk.open() {
            Ok(store) => assert_eq!(store.mark(), &mark(6)),
            Err(StoreError::Damaged(damage)) => assert_eq!(damage.survivor(), Some(mark(6))),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_retired_file_is_refused() {
    let disk = TestDisk::holding(mark(5));
    disk.open().unwrap().retire().unwrap();
    assert!(matches!(disk.open(), Err(StoreError::Retired { mark: retired }) if retired == mark(5)));
}

#[test]
#[should_panic(expected = "only moves forward")]
fn a_mark_never_moves_back() {
    let _ = TestDisk::holding(mark(5)).open().unwrap().advance(mark(5));
}

#[test]
fn a_full_disk_may_pass_and_a_replaced_file_does_not() {
    let full = StoreError::Io { action: "write", error: io::ErrorKind::StorageFull.into() };
    let denied = StoreError::Io { action: "write", error: io::ErrorKind::PermissionDenied.into() };
    assert!(full.may_pass() && !denied.may_pass() && !StoreError::Replaced.may_pass());
}
