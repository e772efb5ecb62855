//! The audit file: a line of JSON for every decision. The lines of one chain are in the order in which the answers
//! left.
//!
//! | field | meaning |
//! | --- | --- |
//! | `time` | when the answer had left, in milliseconds since 1970 |
//! | `chain`, `node` | whose request it was |
//! | `key` | the consensus key that signed, or signed before |
//! | `type` | `proposal`, `prevote`, `precommit`, `raw-bytes`; `vote` if it could not be read |
//! | `height`, `round` | if the request has them |
//! | `block` | what a vote or proposal is for: `nil`, or the first bytes of the hash of the block |
//! | `result` | `signed`, `repeated`, `refused`, `failed`; `carried` |
//! | `reason`, `text` | why it was refused or failed |
//! | `count` | the number of decisions that the line stands for, if they have no lines of their own |
//! | `sequence` | the watermark's, which every new mark raises by one |
//!
//! The log of a device has lines of its own: [`super::device_log`].
//!
//! It is only a record: what is signed depends on the watermark alone. Signing never waits for it. Lines for signatures
//! are kept until they can be written, up to `ROOM` lines of each chain. If the process is killed, unwritten lines are
//! lost. The sequence shows that: the signer checks it at its start and logs a gap.
//!
//! A file that would become too large is rotated. The new file begins with what must not be lost: how far each key has
//! signed (`carried`).

use super::{
    event::{Source, kind_of},
    evidence::{Evidence, LINE_BEGINS},
    lanes::{Items, Kind, Lane, Lanes, Lost, Room, answer},
    quiet::Untold,
    stats::type_of,
};
use crate::{
    config::AuditLimits,
    process::lock::lock,
    record::keeper::{self, Files, Keeper, Order},
};
use highwater_core::{
    answer::{Event, Outcome},
    consensus::ChainId,
    privval::RequestKind,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tracing::{error, info, warn};

/// How many lines of a chain can wait for a slow or full disk.
const ROOM: Room = Room { signed: 16384, other: 1024 };
/// How long to wait before a failed write is tried again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before a failed rotation is tried again.
const ROTATE_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How much of the file's end is read to find the last line of a chain.
const TAIL_BYTES: u64 = 1024 * 1024;

/// Takes decisions for the audit file. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    lanes: Lanes<String>,
    reopen: Arc<AtomicBool>,
    /// Lines of the devices' own logs, each with what says whether they are in the file for good.
    device_lines: Arc<Mutex<Vec<DeviceLines>>>,
    path: Arc<Path>,
    /// The last sequence of each chain in the file when it was opened.
    last: Arc<BTreeMap<String, u64>>,
}

/// Lines, and where to say whether they are on the disk.
type DeviceLines = (String, SyncSender<bool>);

/// The open file, before anything is written to it. It must be opened before the signer is confined.
pub(crate) struct AuditFile {
    file: File,
    path: PathBuf,
    last: BTreeMap<String, u64>,
    evidence: Evidence,
    /// Whether the last line was cut off and could not be ended.
    torn: bool,
    limits: AuditLimits,
    keeper: Keeper,
}

/// One decision, as a line of the file.
#[derive(Default, Serialize)]
struct Decision<'a> {
    time: u64,
    chain: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    block: Option<String>,
    result: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

impl Decision<'_> {
    fn line(self) -> String {
        self.line_at(SystemTime::now())
    }

    fn line_at(mut self, at: SystemTime) -> String {
        let now = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.time = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let line = serde_json::to_string(&self).expect("numbers and strings have a JSON form") + "\n";
        debug_assert!(line.starts_with(LINE_BEGINS), "{line}");
        line
    }
}

/// The fields of a line that are read back.
#[derive(Deserialize)]
struct Known {
    chain: String,
    sequence: Option<u64>,
}

impl AuditFile {
    /// Opens the file, or creates one that only its owner can read. Reads what it and the older files show as signed.
    #[cfg(test)]
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        Self::open_knowing(path, super::evidence::highest_signed(path)?)
    }

    /// Opens the file, or creates one that only its owner can read. `evidence` is what it and the older files show as
    /// signed.
    pub(crate) fn open_knowing(path: &Path, evidence: Evidence) -> io::Result<Self> {
        let mut file = keeper::open(path)?;
        let limits = AuditLimits::default();
        let files = Files { path: path.into(), keep: limits.keep };
        let mut last =
            File::open(files.older(1)).map_or_else(|_| Ok(BTreeMap::new()), |mut older| last_sequences(&mut older))?;
        last.extend(last_sequences(&mut file)?);
        // A full disk does not stop signing. The first line that it takes then also ends this one.
        let torn = end_last_line(&mut file).is_err();
        Ok(Self { file, path: path.into(), last, evidence, torn, limits, keeper: Keeper::Here(files) })
    }

    /// Limits its size, and has `keeper` create new files.
    #[must_use]
    pub(crate) fn limited(self, limits: AuditLimits, keeper: Keeper) -> Self {
        Self { limits, keeper, ..self }
    }

    #[cfg(test)]
    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Starts the thread that writes the file.
    pub(crate) fn start(self) -> io::Result<Audit> {
        let Self { file, path, last, evidence, torn, limits, keeper } = self;
        let audit = Audit {
            lanes: Lanes::new(ROOM),
            reopen: Arc::default(),
            device_lines: Arc::default(),
            path: path.as_path().into(),
            last: Arc::new(last),
        };
        let about = file.metadata()?;
        let writer = Writer {
            size: about.len(),
            // A pipe or a device cannot be rotated.
            max_bytes: limits.max_bytes.filter(|_| about.is_file()),
            file,
            path,
            keeper,
            evidence,
            backlog: Vec::new(),
            failed_at: torn.then(Instant::now),
            rotate_at: Instant::now(),
        };
        let at_work = audit.clone();
        thread::Builder::new().name("audit".into()).spawn(move || writer.run(&at_work))?;
        Ok(audit)
    }
}

impl Audit {
    /// Records an answer that has left.
    pub fn answered(&self, source: &Source, event: &Event, at: SystemTime) {
        if matches!(event.kind, RequestKind::Ping | RequestKind::PubKey) {
            return;
        }
        let (reason, text) = match &event.outcome {
            Outcome::Refused(refusal) => (refusal.name(), Some(refusal.to_string())),
            _ => ("", None),
        };
        let signed = matches!(event.outcome, Outcome::Signed | Outcome::Repeated);
        let entry = Decision {
            chain: source.chain.as_str(),
            key: source.key.as_deref().filter(|_| signed).unwrap_or_default(),
            node: &source.node,
            r#type: type_of(event),
            height: event.hrs.map(|hrs| hrs.height),
            round: event.hrs.map(|hrs| hrs.round),
            block: event.choice.map(|choice| choice.to_string()),
            result: event.outcome.name(),
            reason,
            text,
            sequence: event.sequence,
            ..Decision::default()
        };
        self.lanes.lane(&source.chain).put(kind_of(event), entry.line_at(at));
    }

    /// Records how many decisions for a node have no line of their own.
    pub fn untold(&self, source: &Source, reason: &str, untold: Untold) {
        if untold.result == Outcome::Answered.name() {
            return;
        }
        let entry = Decision {
            chain: source.chain.as_str(),
            node: &source.node,
            result: untold.result,
            reason: if reason == untold.result { "" } else { reason },
            count: Some(untold.count),
            ..Decision::default()
        };
        self.lanes.lane(&source.chain).put(Kind::Other, entry.line());
    }

    /// Records what a device's own log says. What is returned says whether the lines are on the disk; only then may the
    /// device forget them. Waits for nothing.
    pub fn device_log(&self, lines: String) -> Receiver<bool> {
        let (done, written) = sync_channel(1);
        lock(&self.device_lines).push((lines, done));
        self.lanes.wake();
        written
    }

    /// Continues in the file that has the name now, or creates it: the old one was moved away. Waits for nothing.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
        self.lanes.wake();
    }

    /// For each chain, the lines that are missing from the file because the disk was too slow or full.
    pub fn lost(&self) -> Vec<(ChainId, Lost)> {
        self.lanes.lost()
    }

    /// Logs a warning if the file does not end at the watermark of `chain`.
    pub fn look_for_gap(&self, chain: &ChainId, sequence: u64) {
        if let Some(last) = self.last.get(chain.as_str())
            && *last != sequence
        {
            warn!(
                %chain,
                "the audit file {} ends at sequence {last}, the watermark is at {sequence}: the decisions between \
                 them, or a command's change of the mark, are missing from it",
                self.path.display()
            );
        }
    }

    /// Waits until all decisions are in the file, at most one second.
    pub fn finish(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        self.lanes.flush(PATIENCE);
    }
}

/// A line that was taken out of its lane.
struct Line {
    lane: Arc<Lane<String>>,
    kind: Kind,
    text: String,
}

/// The thread that writes the file.
struct Writer {
    file: File,
    size: u64,
    max_bytes: Option<u64>,
    path: PathBuf,
    keeper: Keeper,
    /// A new file begins with this.
    evidence: Evidence,
    /// Lines for signatures that the disk has not taken. While there are any, no other lines are taken out of the
    /// lanes: these fill up, and lose refusals first.
    backlog: Vec<Line>,
    failed_at: Option<Instant>,
    /// When a file that is too large may be rotated.
    rotate_at: Instant,
}

impl Writer {
    fn run(mut self, audit: &Audit) {
        const LOOK_EVERY: Duration = Duration::from_millis(50);
        let mut spare = Items::new();
        loop {
            let waits = self.failed_at.is_some_and(|at| at.elapsed() < AGAIN_AFTER);
            if waits {
                thread::sleep(LOOK_EVERY);
            } else if self.backlog.is_empty() {
                audit.lanes.wait(Duration::MAX, || audit.reopen.load(Relaxed) || !lock(&audit.device_lines).is_empty());
            }
            if audit.reopen.swap(false, Relaxed) {
                self.reopen();
            }
            let flushes = audit.lanes.asked_to_flush();
            if waits && flushes.is_empty() {
                continue;
            }
            let mut lines = std::mem::take(&mut self.backlog);
            if lines.is_empty() || !flushes.is_empty() {
                audit.lanes.take(&mut spare, |lane, kind, text| {
                    lines.push(Line { lane: Arc::clone(lane), kind, text });
                });
            }
            self.write(lines);
            // Not under the lock, which a device's thread takes.
            let of_devices = std::mem::take(&mut *lock(&audit.device_lines));
            for (lines, done) in of_devices {
                // The device's thread may have gone.
                let _ = done.try_send(self.write_for_good(&lines));
            }
            if !flushes.is_empty() {
                // A flush is requested only before the process ends, which loses these lines.
                for line in self.backlog.drain(..) {
                    line.lane.lose(line.kind, 1);
                }
            }
            answer(flushes);
        }
    }

    fn write(&mut self, mut lines: Vec<Line>) {
        let length: usize = lines.iter().map(|line| line.text.len()).sum();
        if !self.has_room(length as u64) {
            // The file is too large already and cannot be rotated. Only signatures are still written.
            lines.retain(|line| {
                let stays = line.kind == Kind::Signed;
                line.lane.lose(line.kind, u64::from(!stays));
                stays
            });
        }
        if lines.is_empty() {
            return;
        }
        let mut bytes = self.ends_torn_line(length);
        lines.iter().for_each(|line| bytes.extend_from_slice(line.text.as_bytes()));
        match self.file.write_all(&bytes) {
            Ok(()) => {
                self.wrote(bytes.len());
                for line in lines.iter().filter(|line| line.kind == Kind::Signed) {
                    // Fails only for a file that names too many chains, which this process does not write.
                    let _ = self.evidence.look_at(line.text.as_bytes());
                }
            }
            Err(why) => self.failed(lines, &why),
        }
    }

    /// Writes lines of a device's log. Returns whether they are on the disk: if not, the device keeps them.
    fn write_for_good(&mut self, lines: &str) -> bool {
        if self.failed_at.is_some_and(|at| at.elapsed() < AGAIN_AFTER) {
            return false;
        }
        // Where there is none, they are written all the same, as signatures are: the device stops without room for more.
        self.has_room(lines.len() as u64);
        let mut bytes = self.ends_torn_line(lines.len());
        bytes.extend_from_slice(lines.as_bytes());
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => self.wrote(bytes.len()),
            Err(why) => self.failed(Vec::new(), &why),
        }
        self.failed_at.is_none()
    }

    /// What the next write begins with, and room for that many bytes more: a failed write may have left part of a line.
    fn ends_torn_line(&self, more: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(more + 1);
        if self.failed_at.is_some() && self.file.metadata().map_or(true, |about| about.len() > 0) {
            bytes.push(b'\n');
        }
        bytes
    }

    fn wrote(&mut self, bytes: usize) {
        self.size += bytes as u64;
        if self.failed_at.take().is_some() {
            info!("the audit file {} is written again", self.path.display());
        }
    }

    fn failed(&mut self, lines: Vec<Line>, why: &io::Error) {
        if self.failed_at.is_none() {
            error!(
                "cannot write to the audit file {}: {why}. Up to {} lines for signatures of each chain are kept for \
                 it; refusals are lost",
                self.path.display(),
                ROOM.signed
            );
        }
        self.failed_at = Some(Instant::now());
        for line in lines {
            match line.kind {
                Kind::Signed => self.backlog.push(line),
                Kind::Other => line.lane.lose(Kind::Other, 1),
            }
        }
    }

    /// Rotates the file if it has no room for `bytes` more. Returns whether there is room.
    fn has_room(&mut self, bytes: u64) -> bool {
        let Some(max) = self.max_bytes.filter(|max| self.size > 0 && self.size + bytes > *max) else { return true };
        if Instant::now() >= self.rotate_at {
            match self.keeper.ask(Order::Rotate) {
                Ok(file) => {
                    self.begin(file);
                    return true;
                }
                Err(why) => {
                    self.rotate_at = Instant::now() + ROTATE_AGAIN_AFTER;
                    error!(
                        "the audit file {} has reached its {} MiB and cannot be rotated: {why}. The signer tries again \
                         every minute; at twice that size it writes only signatures and \
                         the logs of devices",
                        self.path.display(),
                        max >> 20
                    );
                }
            }
        }
        self.size + bytes <= 2 * max
    }

    fn reopen(&mut self) {
        match self.keeper.ask(Order::Reopen) {
            Ok(file) => {
                self.begin(file);
                info!("reopened the audit file {}", self.path.display());
            }
            Err(why) => {
                error!("cannot reopen the audit file {}: {why}. The old one stays in use", self.path.display());
            }
        }
    }

    /// Continues in `file`. An empty file begins with what the older ones show as signed.
    fn begin(&mut self, file: File) {
        self.size = file.metadata().map_or(0, |about| about.len());
        self.file = file;
        if self.size > 0 {
            return;
        }
        let carried: String = self.evidence.all().iter().map(carried).collect();
        match self.file.write_all(carried.as_bytes()) {
            Ok(()) => self.size = carried.len() as u64,
            // The older files still show the same, as long as they exist.
            Err(why) => error!("cannot write the first lines of the audit file {}: {why}", self.path.display()),
        }
    }
}

fn carried(highest: &super::evidence::Highest) -> String {
    let entry = Decision {
        chain: &highest.chain,
        key: &highest.key,
        r#type: highest.hrs.step.name(),
        height: Some(highest.hrs.height),
        round: Some(highest.hrs.round),
        result: "carried",
        ..Decision::default()
    };
    entry.line()
}

/// Ends the last line, so that one that was cut off does not swallow the next line.
fn end_last_line(file: &mut File) -> io::Result<()> {
    let about = file.metadata()?;
    if !about.is_file() || about.len() == 0 {
        return Ok(());
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    if last != *b"\n" { file.write_all(b"\n") } else { Ok(()) }
}

/// The sequence in the last line of each chain near the end of the file.
fn last_sequences(file: &mut File) -> io::Result<BTreeMap<String, u64>> {
    let length = file.metadata()?.len();
    // A pipe or a device has no end to read.
    if !file.metadata()?.is_file() {
        return Ok(BTreeMap::new());
    }
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let mut last = BTreeMap::new();
    for line in tail.split(|byte| *byte == b'\n') {
        if let Ok(Known { chain, sequence: Some(sequence) }) = serde_json::from_slice(line) {
            last.insert(chain, sequence);
        }
    }
    Ok(last)
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
