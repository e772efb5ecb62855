//! Two slots of anything: a store opens only on a whole file of our own, at the newest of its marks, and goes on from
//! there; otherwise it names the highest mark that survives.
#![no_main]

#[path = "../support/sample.rs"]
mod sample;

use highwater_core::{consensus::{HEIGHT_MAX, Hrs}, watermark::{BLOCK_BYTES, Disk, FILE_BYTES, FileId, Header, Mark, Mode, RECORD_BYTES, Record, RecordError, Slot, Store, StoreError}};
use libfuzzer_sys::fuzz_target;
use std::{
    io,
    sync::{Arc, Mutex},
};

/// Where the fields of a record end; what follows is zero.
const FIELDS_BYTES: usize = 128;
/// Where the fields of a header end, with a key as short as any is today.
const HEADER_BYTES: usize = 192;

#[derive(Clone)]
struct MemoryDisk(Arc<Mutex<[u8; FILE_BYTES]>>);

impl MemoryDisk {
    fn slot(&self, slot: Slot) -> [u8; RECORD_BYTES] {
        let content = self.0.lock().expect("no panic is survived");
        content[slot.offset()..][..RECORD_BYTES].try_into().expect("a slot has room for a record")
    }

    fn header(&self) -> Result<Header, RecordError> {
        let content = self.0.lock().expect("no panic is survived");
        Header::decode(content[..BLOCK_BYTES].try_into().expect("a file has a header"))
    }

    fn record(&self, slot: Slot) -> Result<Record, RecordError> {
        Record::decode(&self.slot(slot), &self.header()?)
    }

    fn open(&self) -> Result<Store, StoreError> {
        Store::open(Box::new(self.clone()), &sample::identity(), sample::HOST)
    }
}

impl Disk for MemoryDisk {
    fn id(&mut self) -> io::Result<FileId> {
        Ok(sample::FILE)
    }

    fn read_header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        header.copy_from_slice(&self.0.lock().expect("no panic is survived")[..BLOCK_BYTES]);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
        *record = self.slot(slot);
        Ok(())
    }

    fn write(&mut self, slot: Slot, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        self.0.lock().expect("no panic is survived")[slot.offset()..][..RECORD_BYTES].copy_from_slice(record);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn still_named(&mut self) -> io::Result<bool> {
        Ok(true)
    }
}

/// A file with these fields. Bits of `flags` say which slots get a good checksum, without which nothing interesting would
/// ever be read, and whether the header is ours (0), or of the first of the fields (4, with a good checksum 12).
fn file(flags: u8, fields: &[u8]) -> MemoryDisk {
    let mut content = [0; FILE_BYTES];
    let (header, fields) = if flags & 4 == 0 {
        content[..BLOCK_BYTES].copy_from_slice(&sample::header().encode());
        (&[][..], fields)
    } else {
        fields.split_at(fields.len().min(HEADER_BYTES))
    };
    content[..header.len()].copy_from_slice(header);
    if flags & 12 == 12 {
        sample::seal(&mut content[..BLOCK_BYTES]);
    }
    let digest: [u8; 32] = content[BLOCK_BYTES - 32..BLOCK_BYTES].try_into().expect("a digest");
    let (first, second) = fields.split_at(fields.len().min(FIELDS_BYTES));
    for (bit, slot, fields) in [(1, Slot::First, first), (2, Slot::Second, second)] {
        let record = &mut content[slot.offset()..][..RECORD_BYTES];
        let length = fields.len().min(RECORD_BYTES);
        record[..length].copy_from_slice(&fields[..length]);
        if flags & bit != 0 {
            record[24..56].copy_from_slice(&digest);
            sample::seal(record);
        }
    }
    MemoryDisk(Arc::new(Mutex::new(content)))
}

fn go_on(disk: &MemoryDisk, mut store: Store) {
    let before = *store.mark();
    let mark = Mark::floor(Hrs::end_of(before.hrs.height + 1));
    assert_eq!(store.advance(mark).expect("memory does not fail").spend(), mark);
    drop(store);
    let store = disk.open().unwrap_or_else(|error| panic!("what was written {error}"));
    assert_eq!(*store.mark(), mark);
    let kept = [Slot::First, Slot::Second].map(|slot| disk.record(slot).map(|record| record.mark));
    assert!(kept.contains(&Ok(before)) && kept.contains(&Ok(mark)));
}

fuzz_target!(|data: &[u8]| {
    let Some((flags, fields)) = data.split_first() else { return };
    let disk = file(*flags, fields);
    let records: Vec<Record> =
        [Slot::First, Slot::Second].iter().filter_map(|slot| disk.record(*slot).ok()).collect();
    let highest = records.iter().map(|record| record.mark.hrs).max();
    let newest = records.iter().max_by_key(|record| record.sequence);
    let before = *disk.0.lock().expect("no panic is survived");
    let ours = sample::header();
    match (disk.open(), newest) {
        (Ok(store), Some(newest)) => {
            assert_eq!(records.len(), 2);
            assert_eq!((store.mark(), store.sequence()), (&newest.mark, newest.sequence));
            assert_eq!(Some(newest.mark.hrs), highest);
            assert!(newest.header.identity() == ours.identity() && newest.header.host() == ours.host());
            assert!(newest.header.file().is(&sample::FILE));
            assert!(newest.mode == Mode::Active);
            assert_eq!(*disk.0.lock().expect("no panic is survived"), before);
            // Above the highest height there is no mark, and above the highest sequence no record.
            if store.mark().hrs.height < HEIGHT_MAX && store.sequence() < u64::MAX / 2 {
                go_on(&disk, store);
            }
        }
        (Err(StoreError::Damaged(damage)), _) => {
            assert_eq!(damage.survivor().map(|mark| mark.hrs), highest);
            assert!(!damage.to_string().is_empty());
        }
        (Err(StoreError::Newer { .. }), _) => {}
        (Err(StoreError::ForeignChain { .. }), Some(newest)) => {
            assert!(newest.header.identity().chain != ours.identity().chain);
        }
        (Err(StoreError::ForeignKey { .. }), Some(newest)) => {
            assert!(newest.header.identity().key != ours.identity().key);
        }
        (Err(StoreError::ForeignHost { mark }), Some(newest)) => {
            assert!(newest.header.host() != ours.host() && newest.mark == mark);
        }
        (Err(StoreError::Copy { mark }), Some(newest)) => {
            assert!(!newest.header.file().is(&sample::FILE) && newest.mark == mark);
        }
        (Err(StoreError::Retired { mark }), Some(newest)) => {
            assert!(newest.mode == Mode::Retired && newest.mark == mark);
        }
        (Ok(_), None) => panic!("a store opened without a record"),
        (Err(error), _) => panic!("{error}"),
    }
    if disk.open().is_err() {
        assert_eq!(*disk.0.lock().expect("no panic is survived"), before, "a file that is refused is left as it is");
    }
});
