//! A disk with a page cache, power cuts, failing operations, and a fuse that ends the process in the middle.

use super::super::dice::Dice;
use highwater_core::watermark::{BLOCK_BYTES, Disk, FILE_BYTES, FileId, Header, RECORD_BYTES, Record, Slot};
use std::{
    io,
    sync::{Arc, Mutex, MutexGuard},
};

/// The fate of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The process ends in it.
    Death,
    /// It fails, and the process goes on.
    Fault,
}

/// The file that every disk here says it is.
pub const FILE: FileId = FileId { inode: 1, birth: None };

/// A handle to the one disk of a world.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

/// State that outlives the process.
pub struct Platter {
    dice: Dice,
    /// What remains after a power cut.
    durable: [u8; FILE_BYTES],
    /// What a read returns.
    cache: [u8; FILE_BYTES],
    /// Writes that no flush has covered.
    dirty: Vec<(usize, [u8; RECORD_BYTES])>,
    /// Trouble, and how many operations come before it.
    plan: Option<(u64, Trouble)>,
    /// The process is dead: nothing that it still says leaves.
    pub dead: bool,
    /// An operation failed since the process began.
    failed: bool,
    /// Another file has the path.
    replaced: bool,
    /// A slot of another file is in it.
    mixed: bool,
}

impl SimDisk {
    /// A disk with this state file.
    pub fn new(content: [u8; FILE_BYTES], dice: Dice) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            dice,
            durable: content,
            cache: content,
            dirty: Vec::new(),
            plan: None,
            dead: false,
            failed: false,
            replaced: false,
            mixed: false,
        })))
    }

    /// Its inside.
    pub fn platter(&self) -> MutexGuard<'_, Platter> {
        self.0.lock().unwrap()
    }
}

impl Platter {
    /// Whether an operation has failed since the process began, and whether another file has the path.
    pub fn state(&self) -> (bool, bool) {
        (self.failed, self.replaced)
    }

    /// Another program renames its file over ours.
    pub fn replace(&mut self) {
        self.replaced = true;
    }

    /// An operation that is no operation of the disk: only a death can come in it. Whether anything has.
    pub fn tick_elsewhere(&mut self) -> bool {
        let failed = self.failed;
        let troubled = self.tick().is_err();
        self.failed = failed;
        troubled
    }

    /// Has `trouble` happen after `operations` more of them.
    pub fn plan(&mut self, operations: u64, trouble: Trouble) {
        self.plan = Some((operations, trouble));
    }

    /// Cancels planned faults that have not happened yet.
    pub fn forget_plan(&mut self) {
        self.plan = None;
    }

    /// A new process: it can do everything again.
    pub fn begin_process(&mut self) {
        (self.plan, self.dead, self.failed) = (None, false, false);
    }

    /// The power goes and comes back. What was not flushed is there, or not, or in part.
    pub fn cut_power(&mut self) {
        for (offset, record) in std::mem::take(&mut self.dirty) {
            let landed = match self.dice.below(3) {
                0 => 0,
                1 => RECORD_BYTES,
                _ => self.dice.index(RECORD_BYTES),
            };
            self.durable[offset..offset + landed].copy_from_slice(&record[..landed]);
        }
        self.cache = self.durable;
    }

    /// The file as it would be copied.
    pub fn copy(&self) -> [u8; FILE_BYTES] {
        self.cache
    }

    /// Another file in its place, all of it on the disk.
    pub fn put(&mut self, content: [u8; FILE_BYTES]) {
        (self.durable, self.cache) = (content, content);
        self.dirty.clear();
        (self.replaced, self.mixed) = (false, false);
    }

    /// One slot of another file in the place of ours.
    pub fn put_slot(&mut self, slot: Slot, content: &[u8; FILE_BYTES]) {
        let range = slot.offset()..slot.offset() + RECORD_BYTES;
        self.durable[range.clone()].copy_from_slice(&content[range.clone()]);
        self.cache[range.clone()].copy_from_slice(&content[range]);
        self.dirty.retain(|(offset, _)| *offset != slot.offset());
        self.mixed = true;
    }

    /// Whether anything has happened that makes the file unverifiable: a torn record, or a slot of another file.
    pub fn may_be_damaged(&self) -> bool {
        let header = Header::decode(self.cache[..BLOCK_BYTES].try_into().expect("a block")).expect("nobody tears it");
        let torn = |slot: Slot| {
            let range = slot.offset()..slot.offset() + RECORD_BYTES;
            Record::decode(self.cache[range].try_into().expect("the length of a record"), &header).is_err()
        };
        self.mixed || torn(Slot::First) || torn(Slot::Second)
    }

    /// The file has verified: what was put into it makes no difference.
    pub fn verified(&mut self) {
        self.mixed = false;
    }

    /// Counts an operation. An error if it is the one that fails, or if the process is dead.
    pub fn tick(&mut self) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("the process is dead"));
        }
        match &mut self.plan {
            Some((0, trouble)) => {
                let trouble = *trouble;
                self.plan = None;
                self.dead = trouble == Trouble::Death;
                self.failed = true;
                Err(io::Error::from_raw_os_error(5))
            }
            Some((operations, _)) => {
                *operations -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn write_to_cache(&mut self, offset: usize, record: &[u8; RECORD_BYTES]) {
        self.cache[offset..offset + RECORD_BYTES].copy_from_slice(record);
        self.dirty.push((offset, *record));
    }

    /// A flush that fails may have written some of it, and the kernel takes all of it for written: a second flush reports
    /// success. A process that dies in it leaves the rest to the kernel.
    fn fail_flush(&mut self) {
        if self.dead {
            return;
        }
        for (offset, record) in std::mem::take(&mut self.dirty) {
            if self.dice.percent(50) {
                self.durable[offset..offset + RECORD_BYTES].copy_from_slice(&record);
            }
        }
    }
}

impl Disk for SimDisk {
    fn id(&mut self) -> io::Result<FileId> {
        Ok(FILE)
    }

    fn read_header(&mut self, header: &mut [u8; BLOCK_BYTES]) -> io::Result<()> {
        header.copy_from_slice(&self.platter().cache[..BLOCK_BYTES]);
        Ok(())
    }

    fn settle(&mut self) -> io::Result<()> {
        self.flush()
    }

    fn read(&mut self, slot: Slot, record: &mut [u8; RECORD_BYTES]) -> io::Result<()> {
        let mut platter = self.platter();
        platter.tick()?;
        record.copy_from_slice(&platter.cache[slot.offset()..slot.offset() + RECORD_BYTES]);
        Ok(())
    }

    fn write(&mut self, slot: Slot, record: &[u8; RECORD_BYTES]) -> io::Result<()> {
        let mut platter = self.platter();
        let offset = slot.offset();
        if platter.dead {
            return platter.tick();
        }
        if let Err(error) = platter.tick() {
            // All of it, none of it, or its beginning.
            let written = match platter.dice.below(3) {
                0 => 0,
                1 => RECORD_BYTES,
                _ => platter.dice.index(RECORD_BYTES),
            };
            let mut page = [0; RECORD_BYTES];
            page.copy_from_slice(&platter.cache[offset..offset + RECORD_BYTES]);
            page[..written].copy_from_slice(&record[..written]);
            platter.write_to_cache(offset, &page);
            return Err(error);
        }
        platter.write_to_cache(offset, record);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut platter = self.platter();
        if platter.dead {
            return platter.tick();
        }
        if let Err(error) = platter.tick() {
            platter.fail_flush();
            return Err(error);
        }
        for (offset, record) in std::mem::take(&mut platter.dirty) {
            platter.durable[offset..offset + RECORD_BYTES].copy_from_slice(&record);
        }
        Ok(())
    }

    fn still_named(&mut self) -> io::Result<bool> {
        let mut platter = self.platter();
        platter.tick()?;
        Ok(!platter.replaced)
    }
}
