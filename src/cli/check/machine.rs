//! The machine: whether its disk keeps what it is given, how long that takes, and whether its clock can be right.

use super::{devices::milliseconds, report::Report};
use crate::{
    cli::timing::percentile,
    config::{ChainConfig, Config},
    ops::sandbox::{Sandbox, memory},
    state,
};
use rustix::{
    fs::{Mode, OFlags, fdatasync, open, statfs},
    io::pwrite,
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Flushes by which a disk is judged.
const FLUSHES: usize = 20;
/// What is written before each: as much as a watermark.
const RECORD: [u8; 512] = [0; 512];
/// No disk that keeps what it is given is faster: one with power-loss protection takes some 45 µs.
const IMPLAUSIBLE: Duration = Duration::from_micros(15);
/// Above this a flush begins to cost votes on a chain with fast rounds.
const SLOW: Duration = Duration::from_millis(100);
/// How far ahead of this machine's clock the last signed message may be.
const CLOCK_TOLERANCE_SECONDS: i64 = 10;

/// What keeps nothing over a power cut, or cannot promise it, by the numbers of `statfs` (linux/magic.h).
const BAD_FILE_SYSTEMS: [(i64, &str, &str); 7] = [
    (0x0102_1994, "tmpfs", "it is gone with the next boot"),
    (0x8584_58f6, "ramfs", "it is gone with the next boot"),
    (0x794c_7630, "overlay", "it is gone with its container"),
    (0x6969, "NFS", "another machine can use the state at the same time, and its flush is a promise of that server"),
    (0xff53_4d42, "CIFS", "another machine can use the state at the same time"),
    (0xfe53_4d42, "SMB2", "another machine can use the state at the same time"),
    (0x0102_1997, "9p", "its flush is a promise of another machine"),
];
const FUSE: i64 = 0x6573_5546;

/// The directories of the states of all served chains.
fn directories(config: &Config) -> BTreeSet<PathBuf> {
    let directory = |chain: &ChainConfig| match chain.state_file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => ".".into(),
    };
    config.served_chains().map(directory).collect()
}

/// Whether the states are on something that lasts. Reads nothing and writes nothing.
pub(super) fn check_file_systems(config: &Config, report: &mut Report) {
    for directory in directories(config) {
        // A directory that is not there is told of with its state file.
        let Ok(found) = statfs(&directory) else { continue };
        let shown = directory.display();
        #[allow(clippy::unnecessary_cast, reason = "its width depends on the architecture")]
        let number = found.f_type as i64;
        match BAD_FILE_SYSTEMS.iter().find(|(known, ..)| *known == number & 0xffff_ffff) {
            Some((_, name, why)) => {
                report.fail(format!("{shown} is on {name}: {why}. Move `state_file` to a local disk"));
            }
            None if number == FUSE => report.warn(format!(
                "{shown} is on FUSE: whether it keeps what is flushed depends on its program. Move `state_file` to a local disk"
            )),
            None => {}
        }
    }
}

/// How long a flush takes where the states are, by a file without a name, of which nothing remains.
pub(super) fn measure_flushes(config: &Config, report: &mut Report) {
    for directory in directories(config) {
        let shown = directory.display();
        let Ok(times) = flushes(&directory) else {
            report.ok(format!("{shown}: its flush was not measured, because it makes no files without a name"));
            continue;
        };
        let [p50, p99] = [50, 99].map(|percent| percentile(&times, percent));
        let text = format!("{shown}: a flush takes {} (p99 {})", milliseconds(p50), milliseconds(p99));
        match p50 {
            p50 if p50 < IMPLAUSIBLE => report.warn(format!(
                "{text}, which no disk can keep: a virtual or misconfigured one may lose the watermark in a power cut"
            )),
            p50 if p50 > SLOW => report.warn(format!("{text}: every vote waits for one. Use a faster disk")),
            _ => report.ok(text),
        }
        report.disk(&directory, p50, p99);
    }
}

/// The times of some flushes, sorted.
fn flushes(directory: &Path) -> io::Result<Vec<Duration>> {
    let file = open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
    // As a state file is: the blocks are there already.
    pwrite(&file, &RECORD, 0)?;
    rustix::fs::fsync(&file)?;
    let mut times = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let begin = Instant::now();
        pwrite(&file, &RECORD, 0)?;
        fdatasync(&file)?;
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

/// What of the confinement this kernel has: found out by confining this process.
pub(super) fn check_sandbox(config: &Config, report: &mut Report) {
    let confine = || {
        let mut sandbox = Sandbox::begin(config)?;
        sandbox.close(config)?;
        let locks = sandbox.locks_secrets() && memory::lock(&Box::new([0_u8; 64]));
        sandbox.seal(config, locks)
    };
    match confine() {
        Err(error) => report.fail(error.to_string()),
        Ok(found) => {
            let warnings = found.warnings();
            if warnings.is_empty() {
                report.ok("the signer will be confined: system calls, files and ports, core dumps, locked memory");
            }
            warnings.into_iter().for_each(|warning| report.warn(warning));
        }
    }
}

/// A clock that is behind what was signed by it is wrong, or was.
pub(super) fn check_clock(config: &Config, report: &mut Report) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    for chain in config.served_chains() {
        let Some(signed) = state::show(&chain.watermark()).ok().and_then(|record| record.mark.signed) else { continue };
        let ahead = signed.timestamp.seconds().saturating_sub(now);
        if ahead > CLOCK_TOLERANCE_SECONDS {
            report.warn(format!(
                "chain {}: its last message has a time {ahead} s after this machine's clock. One of them is wrong: look at \
                 the clocks of this machine and of the node (`timedatectl`)",
                chain.id
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_are_measured_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        // Some file systems of build machines cannot do it; then there is nothing to measure.
        if let Ok(times) = flushes(directory.path()) {
            assert_eq!(times.len(), FLUSHES);
            assert!(times.is_sorted() && times[0] > Duration::ZERO);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
