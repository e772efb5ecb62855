//! Measures the machine: the flush time of its disks, and the confinement that its kernel supports.

use super::{devices::milliseconds, report::Report};
use crate::{cli::timing::percentile, config::Config, daemon::confinement};
use rustix::{
    fs::{Mode, OFlags, fdatasync, open},
    io::{Errno, pwrite},
};
use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Number of flushes to measure.
const FLUSHES: usize = 20;
/// Written before each flush; as long as a watermark.
const RECORD: [u8; 512] = [0; 512];
/// No honest disk is faster: one with power-loss protection takes some 45 µs.
const IMPLAUSIBLE: Duration = Duration::from_micros(15);
/// A slower flush begins to cost votes on a chain with fast rounds.
const SLOW: Duration = Duration::from_millis(100);

/// The directories of the state files of all served chains.
fn directories(config: &Config) -> BTreeSet<PathBuf> {
    let mut directories = BTreeSet::new();
    for chain in config.served_chains() {
        directories.insert(match chain.state_file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
            _ => ".".into(),
        });
    }
    directories
}

/// Measures a flush in the directories of the state files, with a file without a name, which leaves no trace.
pub(super) fn measure_flushes(config: &Config, report: &mut Report) {
    for directory in directories(config) {
        let shown = directory.display();
        let times = match flushes(&directory) {
            Ok(times) => times,
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => {
                report
                    .ok(format!("{shown}: flush not measured: this file system does not support files without a name"));
                continue;
            }
            // Reported already.
            Err(_) if !directory.is_dir() => continue,
            Err(error) => {
                report.warn(format!("{shown}: flush not measured: {}", io::Error::from(error)));
                continue;
            }
        };
        let [p50, p99] = [50, 99].map(|percent| percentile(&times, percent));
        let text = format!("{shown}: a flush takes {} (p99 {})", milliseconds(p50), milliseconds(p99));
        match p50 {
            p50 if p50 < IMPLAUSIBLE => report.warn(format!(
                "{text}, too fast for a real flush: a virtual or misconfigured disk may lose the watermark in a power cut"
            )),
            p50 if p50 > SLOW => report.warn(format!("{text}: every vote waits for a flush. Use a faster disk")),
            _ => report.ok(text),
        }
        report.disk(&directory, p50, p99);
    }
}

/// The times of [`FLUSHES`] flushes, sorted.
fn flushes(directory: &Path) -> Result<Vec<Duration>, Errno> {
    let file = open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)?;
    // As in a state file, the blocks are already allocated.
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

/// Finds out which parts of the confinement this kernel supports, by confining this process.
pub(super) fn check_sandbox(config: &Config, report: &mut Report) {
    match confinement::rehearse(config) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flushes_are_measured_without_a_trace() {
        let directory = tempfile::tempdir().unwrap();
        // Some file systems of build machines do not support it; then there is nothing to measure.
        if let Ok(times) = flushes(directory.path()) {
            assert_eq!(times.len(), FLUSHES);
            assert!(times.is_sorted() && times[0] > Duration::ZERO);
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
