//! A drive with a volatile write cache, and what a power cut leaves of it.

use crate::support::random::Random;
use std::mem;

/// The unit that the drive writes completely or not at all.
pub const SECTOR_BYTES: usize = 512;

/// ext4's superblock: two sectors under one checksum, so a tear between them is the end of the file system. That is no
/// business of the signer's: they are kept or lost together.
const SUPERBLOCK_SECTORS: [usize; 2] = [2, 3];

/// Whether a flush really flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flush {
    /// All earlier writes are on the medium.
    Honest,
    /// Nothing is: the drive says so, and keeps all in its cache.
    Lie,
}

/// A drive in memory: the medium, and a cache that goes with the power.
pub struct Drive {
    flush: Flush,
    medium: Vec<u8>,
    /// The medium under all that is in the cache: what a read sees.
    seen: Vec<u8>,
    /// Writes since the last flush, oldest first.
    cache: Vec<Write>,
}

struct Write {
    first_sector: usize,
    data: Vec<u8>,
}

impl Write {
    /// Each sector's number and content.
    fn sectors(&self) -> impl Iterator<Item = (usize, &[u8])> {
        (self.first_sector..).zip(self.data.chunks(SECTOR_BYTES))
    }
}

impl Drive {
    /// An honest drive that holds `image`.
    pub fn new(image: Vec<u8>) -> Self {
        assert!(image.len().is_multiple_of(SECTOR_BYTES), "a drive has whole sectors");
        Self { flush: Flush::Honest, seen: image.clone(), medium: image, cache: Vec::new() }
    }

    /// Sets what a flush does from now on.
    pub fn set_flush(&mut self, flush: Flush) {
        self.flush = flush;
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        self.medium.len() as u64
    }

    /// The content; `None` past the end.
    pub fn read(&self, offset: usize, length: usize) -> Option<&[u8]> {
        self.seen.get(offset..offset.checked_add(length)?)
    }

    /// Takes whole sectors into the cache; `None` if they are not whole or not on this drive.
    pub fn write(&mut self, offset: usize, data: Vec<u8>) -> Option<()> {
        if !offset.is_multiple_of(SECTOR_BYTES) || !data.len().is_multiple_of(SECTOR_BYTES) {
            return None;
        }
        self.seen.get_mut(offset..offset.checked_add(data.len())?)?.copy_from_slice(&data);
        self.cache.push(Write { first_sector: offset / SECTOR_BYTES, data });
        Some(())
    }

    /// Moves the cache to the medium, or says so.
    pub fn flush(&mut self) {
        if self.flush == Flush::Honest {
            for write in mem::take(&mut self.cache) {
                put(&mut self.medium, write.first_sector, &write.data);
            }
        }
    }

    /// The power goes. Returns how many writes had not been moved to the medium.
    ///
    /// An honest drive may have moved any part of its cache by then, in any order: each sector is left as it was at the
    /// last flush or as any write since then has made it. A liar keeps what it was given up to some moment, whatever it
    /// had to flush after that: so the file system is sound, and only what was promised is missing.
    pub fn cut(&mut self, random: &mut Random) -> usize {
        let mut cache = mem::take(&mut self.cache);
        let unflushed = cache.len();
        match self.flush {
            Flush::Honest => self.keep_some_sectors(&cache, random),
            Flush::Lie => {
                cache.truncate(random.index(unflushed + 1));
                cache.iter().for_each(|write| put(&mut self.medium, write.first_sector, &write.data));
            }
        }
        self.seen.copy_from_slice(&self.medium);
        unflushed
    }

    fn keep_some_sectors(&mut self, cache: &[Write], random: &mut Random) {
        let mut sectors: Vec<_> = cache.iter().flat_map(Write::sectors).collect();
        // Stable: the versions of one sector stay in their order.
        sectors.sort_by_key(|(sector, _)| *sector);
        let mut version = 0;
        for versions in sectors.chunk_by(|(one, _), (other, _)| one == other) {
            let sector = versions[0].0;
            if sector != SUPERBLOCK_SECTORS[1] {
                version = random.index(versions.len() + 1);
            }
            if let Some(last) = version.checked_sub(1) {
                put(&mut self.medium, sector, versions[last].1);
            }
        }
    }
}

fn put(medium: &mut [u8], first_sector: usize, data: &[u8]) {
    medium[first_sector * SECTOR_BYTES..][..data.len()].copy_from_slice(data);
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECTORS: usize = 5;

    fn drive(flush: Flush) -> Drive {
        let mut drive = Drive::new(vec![0; SECTORS * SECTOR_BYTES]);
        drive.set_flush(flush);
        drive
    }

    /// Fills sectors with a mark.
    fn fill(drive: &mut Drive, first: usize, count: usize, mark: u8) {
        drive.write(first * SECTOR_BYTES, vec![mark; count * SECTOR_BYTES]).unwrap();
    }

    /// The mark in each sector.
    fn marks(drive: &Drive) -> [u8; SECTORS] {
        std::array::from_fn(|sector| drive.read(sector * SECTOR_BYTES, SECTOR_BYTES).unwrap()[0])
    }

    #[test]
    fn a_cut_leaves_any_version_since_the_last_flush_and_nothing_older() {
        let mut random = Random::new("drive");
        let mut found = [[false; 4]; 2];
        for _ in 0..200 {
            let mut drive = drive(Flush::Honest);
            fill(&mut drive, 0, 2, 1);
            drive.flush();
            fill(&mut drive, 0, 1, 2);
            fill(&mut drive, 0, 2, 3);
            assert_eq!(marks(&drive), [3, 3, 0, 0, 0]);
            assert_eq!(drive.cut(&mut random), 2);
            let left = marks(&drive);
            found[0][usize::from(left[0])] = true;
            found[1][usize::from(left[1])] = true;
        }
        assert_eq!(found, [[false, true, true, true], [false, true, false, true]]);
    }

    #[test]
    fn a_cut_tears_a_write_between_any_sectors_but_those_of_the_superblock() {
        let mut random = Random::new("drive");
        let mut torn = [false; SECTORS - 1];
        for _ in 0..200 {
            let mut drive = drive(Flush::Honest);
            fill(&mut drive, 0, SECTORS, 1);
            drive.cut(&mut random);
            let left = marks(&drive);
            (0..SECTORS - 1).for_each(|at| torn[at] |= left[at] != left[at + 1]);
        }
        assert_eq!(torn, [true, true, false, true]);
    }

    #[test]
    fn a_liar_loses_the_end_of_what_it_has_flushed_and_never_the_order() {
        let mut random = Random::new("drive");
        let mut found = [false; 4];
        for _ in 0..200 {
            let mut drive = drive(Flush::Lie);
            for sector in 0..3 {
                fill(&mut drive, sector, 1, 1);
                drive.flush();
            }
            drive.cut(&mut random);
            let kept = marks(&drive).iter().take_while(|mark| **mark == 1).count();
            assert_eq!(marks(&drive).iter().sum::<u8>(), u8::try_from(kept).unwrap());
            found[kept] = true;
        }
        assert_eq!(found, [true; 4]);
    }

    #[test]
    fn only_whole_sectors_of_the_drive_are_taken() {
        let mut drive = drive(Flush::Honest);
        for (offset, length) in [(1, SECTOR_BYTES), (0, SECTOR_BYTES - 1), (4 * SECTOR_BYTES, 2 * SECTOR_BYTES)] {
            assert!(drive.write(offset, vec![1; length]).is_none(), "{length} bytes at {offset}");
        }
        assert!(drive.read(4 * SECTOR_BYTES, 2 * SECTOR_BYTES).is_none());
        assert_eq!(marks(&drive), [0; SECTORS]);
    }
}
