//! Every state in which a crash can leave the disk, through the real store.
//!
//! A history is a few lives of the store, one after another. At every operation the disk may fail, in every way in
//! which disks do; every life ends by a kill, which keeps the page cache, or by a power cut, which keeps any part of
//! what was not flushed. [`Choices`] walks through all histories: it runs the same code again and again, and each time
//! one of its questions is answered differently. After every end the store is opened again and held to what it
//! released.

use crate::{PROMISE, support::assurance::report};
use highwater_core::{
    consensus::{ChainId, Digest, Hrs, KeyType, PublicKey, Step, Target, Timestamp},
    watermark::{
        BLOCK_BYTES, Disk, FILE_BYTES, FileId, Header, HostId, Identity, Mark, Mode, RECORD_BYTES, Record,
        SignedMessage, Slot, Store, StoreError, image,
    },
};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

pub const HOST: HostId = HostId([9; 16]);

pub fn identity() -> Identity {
    let key = ed25519_dalek::SigningKey::from_bytes(&[0x42; 32]).verifying_key();
    let key = PublicKey::from_bytes(KeyType::Ed25519, key.as_bytes()).unwrap();
    Identity { chain: ChainId::new(crate::CHAIN).unwrap(), key }
}

/// A mark whose every byte depends on `height`, so that a torn record is never mistaken for a whole one.
pub fn mark(height: u64) -> Mark {
    let fill = u8::try_from(height).unwrap();
    let timestamp = Timestamp::new(i64::from(fill) * 0x0101_0101, u32::from(fill).into()).unwrap();
    let signed = SignedMessage { target: Target::Block, timestamp, digest: Digest([fill; 32]) };
    Mark { hrs: Hrs { height, round: u32::from(fill), step: Step::Precommit }, signed: Some(signed) }
}

/// The file that every disk here says it is.
pub const FILE: FileId = FileId { inode: 1, birth: None };

pub fn first_record(height: u64) -> Record {
    Record { mode: Mode::Active, sequence: 0, header: Header::new(HOST, identity(), FILE), mark: mark(height) }
}

/// Answers questions, and over many runs gives every combination of answers once.
#[derive(Default)]
struct Choices {
    /// The answers of this run, with the number of possible ones.
    answers: Vec<(usize, usize)>,
    asked: usize,
}

impl Choices {
    /// A number below `of`: 0 where nothing else was tried yet.
    fn pick(&mut self, of: usize) -> usize {
        if self.asked == self.answers.len() {
            self.answers.push((0, of));
        }
        let (answer, known) = self.answers[self.asked];
        assert_eq!(known, of, "the same answers lead to the same questions");
        self.asked += 1;
        answer
    }

    /// Prepares the next run; `false` if there is none.
    fn advance(&mut self) -> bool {
        self.asked = 0;
        while let Some((answer, of)) = self.answers.pop() {
            if answer + 1 < of {
                self.answers.push((answer + 1, of));
                return true;
            }
        }
        false
    }
}

/// How far a search goes.
struct Bounds {
    /// Lives before the last opening.
    lives: usize,
    /// Marks in each life.
    marks: u64,
    /// Where a record may be torn: after this many bytes.
    cuts: Vec<usize>,
    /// Whether operations fail; if not, a life ends before a flush or after its last mark.
    faults: bool,
    /// Whether a slot may rot after the last life.
    rot: bool,
}

/// Medium and page cache.
struct Device {
    platter: [u8; FILE_BYTES],
    cache: [u8; FILE_BYTES],
    /// The sector writes since the last flush, by offset.
    unsynced: Vec<(usize, [u8; RECORD_BYTES])>,
    choices: Choices,
    bounds: Arc<Bounds>,
    /// Nothing fails any more: this is the look at what is left.
    last_opening: bool,
    /// Something failed, or the process was killed, in this life.
    faulted: bool,
    /// A record was torn in this history.
    torn: bool,
}

#[derive(Clone)]
struct ModelDisk(Arc<Mutex<Device>>);

impl ModelDisk {
    fn device(&self) -> MutexGuard<'_, Device> {
        self.0.lock().unwrap()
    }
}

impl Device {
    /// Whether the operation fails, and in which of `ways`. One fault ends a life.
    fn fault(&mut self, ways: usize) -> Option<usize> {
        if self.last_opening || self.faulted || ways == 0 {
            return None;
        }
        let way = self.choices.pick(ways + 1).checked_sub(1)?;
        self.faulted = true;
        Some(way)
    }

    /// How much of a sector arrives: none of it, all of it, or its first or last bytes.
    fn part(&mut self, sector: &mut [u8], new: &[u8; RECORD_BYTES]) {
        let cuts = self.bounds.cuts.len();
        match self.choices.pick(2 + 2 * cuts) {
            0 => {}
            1 => sector.copy_from_slice(new),
            torn => {
                self.torn = true;
                let cut = self.bounds.cuts[(torn - 2) / 2];
                let range = if torn % 2 == 0 { 0..cut } else { cut..RECORD_BYTES };
                sector[range.clone()].copy_from_slice(&new[range]);
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(way) = self.fault(if self.bounds.faults { 5 } else { 1 }) else {
            for (offset, sector) in std::mem::take(&mut self.unsynced) {
                self.platter[offset..offset + RECORD_BYTES].copy_from_slice(&sector);
            }
            return Ok(());
        };
        match way {
            // Killed before it, or a kernel that keeps the pages dirty.
            0 => {}
            // Written, and still reported as failed.
            1 => self.write_back(|_, sector, new| sector.copy_from_slice(new)),
            // The pages are lost and marked clean: they read as written, and no later flush writes them.
            2 => self.unsynced.clear(),
            // The same, and then the cache was dropped.
            3 => {
                self.unsynced.clear();
                self.cache = self.platter;
            }
            // Some of it arrived, and the rest reads as written.
            _ => self.write_back(Self::part),
        }
        Err(io::Error::other("played fault of a flush"))
    }

    fn write_back(&mut self, arrive: fn(&mut Self, &mut [u8], &[u8; RECORD_BYTES])) {
        for (offset, new) in std::mem::take(&mut self.unsynced) {
            let mut platter = self.platter;
            arrive(self, &mut platter[offset..offset + RECORD_BYTES], &new);
            self.platter = platter;
        }
    }

    /// A slot may rot, on the platter or in the cache. Whether one does. From here on nothing fails.
    fn rot(&mut self) -> bool {
        self.last_opening = true;
        let ways = if self.bounds.rot { 1 + 2 * ROT.len() } else { 1 };
        let Some(way) = self.choices.pick(ways).checked_sub(1) else { return false };
        let offset = [BLOCK_BYTES, 2 * BLOCK_BYTES][way % 2];
        ROT[way / 2](&mut self.cache[offset..offset + RECORD_BYTES]);
        true
    }

    /// The power goes: any part of what was not flushed arrives, the cache is gone.
    fn cut_power(&mut self) {
        self.write_back(Self::part);
        self.cache = self.platter;
    }
}

impl Disk for ModelDisk {
    fn id(&mut self) -> io::Result<FileId> {
        Ok(FILE)
    }

    fn read_header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        header.copy_from_slice(&self.device().cache[..BLOCK_BYTES]);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        self.device().flush()
    }

    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
        let mut device = self.device();
        let ways = usize::from(device.bounds.faults);
        if device.fault(ways).is_some() {
            return Err(io::Error::other("played fault of a read"));
        }
        record.copy_from_slice(&device.cache[slot.offset()..slot.offset() + RECORD_BYTES]);
        Ok(())
    }

    fn write(&mut self, slot: Slot, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        let mut device = self.device();
        let range = slot.offset()..slot.offset() + RECORD_BYTES;
        let mut sector: [u8; RECORD_BYTES] = device.cache[range.clone()].try_into().unwrap();
        let ways = usize::from(device.bounds.faults);
        let failed = device.fault(ways).is_some();
        match failed {
            true => device.part(&mut sector, record),
            false => sector = *record,
        }
        device.cache[range].copy_from_slice(&sector);
        device.unsynced.push((slot.offset(), sector));
        if failed { Err(io::Error::other("played fault of a write")) } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.device().flush()
    }

    fn still_named(&mut self) -> io::Result<bool> {
        let mut device = self.device();
        let ways = if device.bounds.faults { 2 } else { 0 };
        match device.fault(ways) {
            None => Ok(true),
            Some(0) => Ok(false),
            Some(_) => Err(io::Error::other("played fault of a look-up")),
        }
    }
}

/// What came of a search.
#[derive(Debug, Default)]
struct Found {
    histories: u64,
    /// Openings after a crash.
    states: u64,
    refused: u64,
}

fn open(disk: &ModelDisk) -> Result<Store, StoreError> {
    Store::open(Box::new(disk.clone()), &identity(), HOST)
}

/// Opens what a crash left, and checks it. What it reads may be released at once: a repeat needs no further flush.
fn open_after_crash(
    disk: &ModelDisk,
    released: &mut Mark,
    asked: u64,
    rotten: bool,
    found: &mut Found,
) -> Option<Store> {
    found.states += 1;
    match open(disk) {
        Ok(mut store) => {
            let mark_found = *store.mark();
            assert!(!rotten, "a rotten slot was passed over: opened at {mark_found:?}");
            assert!(mark_found.hrs >= released.hrs, "opened at {mark_found:?}, released was {released:?}");
            assert!(mark_found.hrs > released.hrs || mark_found == *released, "another message at the same place");
            assert!(mark_found.hrs.height <= asked && mark_found == mark(mark_found.hrs.height), "{mark_found:?}");
            if let Ok(durable) = store.current() {
                *released = durable.spend();
            }
            Some(store)
        }
        Err(StoreError::Damaged(damage)) => {
            found.refused += 1;
            let device = disk.device();
            assert!(device.torn || rotten, "refused, although every sector is whole: {damage}");
            if let Some(survivor) = damage.survivor() {
                assert!(survivor.hrs.height <= asked && survivor == mark(survivor.hrs.height), "{survivor:?}");
            }
            None
        }
        Err(StoreError::Io { .. }) => {
            assert!(disk.device().faulted, "nothing had failed");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// One life: marks until the end or the first error, after which nothing more may be released.
fn live(mut store: Store, marks: u64, released: &mut Mark, asked: &mut u64) {
    for _ in 0..marks {
        *asked += 1;
        let next = mark(*asked);
        match store.advance(next) {
            Ok(durable) => *released = durable.spend(),
            Err(_) => {
                assert!(matches!(store.advance(mark(*asked + 1)), Err(StoreError::Stopped { .. })));
                assert!(matches!(store.current(), Err(StoreError::Stopped { .. })));
                return;
            }
        }
    }
}

/// One history, as `choices` say.
fn run(choices: Choices, bounds: &Arc<Bounds>, found: &mut Found) -> Choices {
    let content = image(&first_record(1));
    let disk = ModelDisk(Arc::new(Mutex::new(Device {
        platter: content,
        cache: content,
        unsynced: Vec::new(),
        choices,
        bounds: Arc::clone(bounds),
        last_opening: false,
        faulted: false,
        torn: false,
    })));
    let (mut released, mut asked) = (mark(1), 1);
    for _ in 0..bounds.lives {
        if let Some(store) = open_after_crash(&disk, &mut released, asked, false, found) {
            live(store, bounds.marks, &mut released, &mut asked);
        }
        let mut device = disk.device();
        device.faulted = false;
        if device.choices.pick(2) == 1 {
            device.cut_power();
        }
    }
    let rotten = disk.device().rot();
    open_after_crash(&disk, &mut released, asked, rotten, found);
    found.histories += 1;
    std::mem::take(&mut disk.device().choices)
}

/// All histories within `bounds`.
fn search(bounds: Bounds) -> Found {
    let bounds = Arc::new(bounds);
    let mut found = Found::default();
    let mut choices = Choices::default();
    loop {
        choices = run(choices, &bounds, &mut found);
        if !choices.advance() {
            return found;
        }
    }
}

/// What can become of a sector by itself.
const ROT: [fn(&mut [u8]); 3] = [|sector| sector[44] ^= 0x10, |sector| sector.fill(0), |sector| sector.fill(0xff)];

#[test]
fn no_crash_takes_the_store_below_a_released_mark_whatever_fails_in_two_lives() {
    let found = search(Bounds { lives: 2, marks: 2, cuts: vec![200], faults: true, rot: false });
    assert!(found.refused > 0 && found.refused < found.states, "{found:?}");
    report(PROMISE, "histories of crashes and disk faults over two lives of the store", found.histories);
    report(PROMISE, "openings of the store after a crash, each held to what was released", found.states);
}

#[test]
fn a_rotten_slot_is_never_passed_over_whatever_went_before() {
    let found = search(Bounds { lives: 1, marks: 3, cuts: vec![8, 200, 511], faults: true, rot: true });
    assert!(found.refused > 0 && found.refused < found.states, "{found:?}");
    report(PROMISE, "histories at whose end one of the slots rots, or none", found.histories);
}

#[test]
fn no_power_cut_that_tears_a_record_at_any_byte_takes_the_store_below_a_released_mark() {
    let cuts: Vec<_> = (1..RECORD_BYTES).collect();
    let found = search(Bounds { lives: 1, marks: 3, cuts, faults: false, rot: false });
    assert!(found.refused > 0 && found.refused < found.states, "{found:?}");
    report(PROMISE, "power cuts in the middle of a record, at every byte and from both ends", found.histories);
}
