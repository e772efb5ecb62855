//! Inspects the directories of the state files, whether files can be made and last there, and the clock.

use super::{Look, Severity, Subject, Topic, accessible, directory_of};
use crate::state;
use highwater_core::watermark::FILE_BYTES;
use rustix::{
    fs::{Access, FallocateFlags, Mode, OFlags, fallocate, open, statfs, statvfs},
    io::Errno,
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

/// The size of a state file.
const NEEDED_BYTES: u64 = FILE_BYTES as u64;
/// How far ahead of this machine's clock the last signed message may be.
const CLOCK_TOLERANCE_SECONDS: i64 = 10;

/// File systems that lose their files, or cannot promise to keep them, by their `statfs` numbers (linux/magic.h).
const BAD_FILE_SYSTEMS: [(i64, &str, &str); 8] = [
    (0x0102_1994, "tmpfs", "the state is lost at the next boot"),
    (0x8584_58f6, "ramfs", "the state is lost at the next boot"),
    (0x794c_7630, "overlay", "the state is lost with its container"),
    (
        0x6969,
        "NFS",
        "another machine can use the state at the same time, and only that server can promise that a flush is durable",
    ),
    (0xff53_4d42, "CIFS", "another machine can use the state at the same time"),
    (0xfe53_4d42, "SMB2", "another machine can use the state at the same time"),
    (0x0102_1997, "9p", "only another machine can promise that a flush is durable"),
    (0x6573_5546, "FUSE", "whether a flush is durable depends on its program"),
];
const TO_A_LOCAL_DISK: &str = "move `state_file` to a local disk";

impl Look<'_> {
    /// None of these findings keeps a signer from signing now. If a state is lost with its disk, the next start misses it and
    /// refuses.
    pub(super) fn at_disks(&mut self) {
        let directories = self.config.served_chains().map(|chain| directory_of(&chain.watermark()).to_owned());
        let about = (&Subject::Signer, Topic::Machine);
        for directory in directories.collect::<BTreeSet<PathBuf>>() {
            let shown = directory.display();
            // A missing directory is reported with its state file.
            if !directory.is_dir() {
                continue;
            }
            if let Some((name, why)) = bad_file_system(&directory) {
                self.findings.push(Severity::Warn, about, format!("{shown} is on {name}: {why}"), TO_A_LOCAL_DISK);
            }
            if let Err(error) = has_place(&directory) {
                let what = format!("cannot make a state file in {shown}: {error}");
                let remedy = match error.raw_os_error().map(Errno::from_raw_os_error) {
                    Some(Errno::NOSPC | Errno::DQUOT) => "free space on that disk before anything else needs it",
                    Some(Errno::ROFS) => "mount it read-write",
                    _ => "let the user that runs highwater write to it, for `highwater state init` and `import`",
                };
                self.findings.push(Severity::Warn, about, what, remedy);
            }
        }
    }

    /// If the clock is behind the time of the last signed message, it is wrong now or was wrong then.
    pub(super) fn at_clock(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        for chain in self.config.served_chains() {
            let record = state::show(&chain.watermark()).ok();
            let Some(signed) = record.and_then(|record| record.mark.signed) else { continue };
            let ahead = signed.timestamp.seconds().saturating_sub(now);
            if ahead > CLOCK_TOLERANCE_SECONDS {
                self.findings.push(
                    Severity::Warn,
                    (&Subject::Chain(chain.id.clone()), Topic::Machine),
                    format!(
                        "its last message has a time {ahead} s ahead of this machine's clock, so one of them is wrong"
                    ),
                    "check the clocks of this machine and of the node (`timedatectl`)",
                );
            }
        }
    }
}

fn bad_file_system(directory: &Path) -> Option<(&'static str, &'static str)> {
    #[allow(clippy::unnecessary_cast, reason = "its width depends on the architecture")]
    let number = statfs(directory).ok()?.f_type as i64 & 0xffff_ffff;
    BAD_FILE_SYSTEMS.iter().find(|(known, ..)| *known == number).map(|(_, name, why)| (*name, *why))
}

/// Whether a state file could be made. Makes a file without a name, which leaves nothing behind. On a file system without
/// such files, only checks permissions and free space.
fn has_place(directory: &Path) -> io::Result<()> {
    let nameless = open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR);
    let tried = nameless.and_then(|file| fallocate(&file, FallocateFlags::empty(), 0, NEEDED_BYTES));
    match tried {
        Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL | Errno::NOSYS) => {
            accessible(directory, Access::WRITE_OK | Access::EXEC_OK)?;
            let disk = statvfs(directory)?;
            if disk.f_blocks > 0 && disk.f_bavail.saturating_mul(disk.f_frsize) < NEEDED_BYTES {
                return Err(Errno::NOSPC.into());
            }
            Ok(())
        }
        tried => Ok(tried?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_looked_for_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        has_place(directory.path()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
        assert!(has_place(&directory.path().join("none")).is_err());
    }

    #[test]
    fn file_systems_are_told_by_their_numbers() {
        // proc is on no list, and the machine that runs this has it.
        assert_eq!(bad_file_system(Path::new("/proc")), None);
        assert_eq!(bad_file_system(Path::new("/nonexistent")), None);
    }
}
