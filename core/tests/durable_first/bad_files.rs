//! State files with changed bits, with other lengths, with slots of two times, and files written into ours at work.

use crate::{
    PROMISE,
    assurance::report,
    crash_states::{FILE, HOST, first_record, identity, mark},
};
use highwater_core::watermark::{
    BLOCK_BYTES, Disk, FILE_BYTES, FileId, RECORD_BYTES, Slot, StateFile, Store, StoreError, image,
};
use std::{
    fs::{self, Permissions},
    io,
    ops::RangeInclusive,
    os::unix::fs::PermissionsExt as _,
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
    let readme = include_str!("../../../README.md");
    assert!(readme.contains("Detect every older copy") && readme.contains("`highwater state raise --height H`"));
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
