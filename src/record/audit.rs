//! The audit file: a line of JSON for every decision, and within a chain in the order in which the answers left.
//!
//! | field | meaning |
//! | --- | --- |
//! | `time` | when the answer had left, in milliseconds since 1970 |
//! | `chain`, `node` | whose request it was |
//! | `key` | the consensus key that signed, or signed before |
//! | `type` | `proposal`, `prevote`, `precommit`, `raw-bytes`; `vote` if it could not be read |
//! | `height`, `round` | if the request has them |
//! | `result` | `signed`, `repeated`, `refused`, `failed`; `carried` |
//! | `reason`, `text` | why it was refused or failed |
//! | `count` | for how many decisions the line stands, if they have no line of their own |
//! | `sequence` | the watermark's, which every new mark raises by one |
//!
//! It is a record: the watermark alone decides what is signed. Nobody who signs waits for it. What was signed is kept
//! until it can be written, up to `ROOM` lines of each chain; a kill loses what had not been written by then. The
//! sequence shows that: it is looked at when the signer starts, and a gap is told.
//!
//! A file that would become too large is rotated, and a new one begins with what must not be forgotten: how far each
//! key has signed (`carried`).

use super::{
    evidence::{Evidence, LINE_BEGINS},
    lanes::{Items, Kind, Lane, Lanes, Lost, Room, answer},
    quiet::Untold,
    recorder::{Source, kind_of},
    stats::type_of,
};
use crate::{
    config::AuditLimits,
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
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tracing::{error, info, warn};

/// Lines of a chain that wait for a slow disk, or a full one.
const ROOM: Room = Room { signed: 16384, other: 1024 };
/// How long to wait before what a disk did not take is written again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long to wait before a rotation that failed is tried again.
const ROTATE_AGAIN_AFTER: Duration = Duration::from_secs(60);
/// How far back from its end the file is looked at for the last line of a chain.
const TAIL_BYTES: u64 = 1024 * 1024;

/// Where decisions are sent. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    lanes: Lanes<String>,
    reopen: Arc<AtomicBool>,
    path: Arc<Path>,
    /// The last sequence of each chain, when the file was opened.
    last: Arc<BTreeMap<String, u64>>,
}

/// The file, open, and nothing written yet. Opened before the signer is confined, which may not open it any more.
pub struct AuditFile {
    file: File,
    path: PathBuf,
    last: BTreeMap<String, u64>,
    evidence: Evidence,
    /// Its last line was cut off and could not be ended.
    torn: bool,
    limits: AuditLimits,
    keeper: Keeper,
}

/// One decision, as it stands in the file.
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
    fn line(mut self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.time = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        let line = serde_json::to_string(&self).expect("numbers and strings have a JSON form") + "\n";
        debug_assert!(line.starts_with(LINE_BEGINS), "{line}");
        line
    }
}

/// What is read back of a line.
#[derive(Deserialize)]
struct Known {
    chain: String,
    sequence: Option<u64>,
}

impl AuditFile {
    /// Opens the file, which only its owner can read, or makes it, and reads what it and those before it say.
    #[cfg(test)]
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::open_knowing(path, super::evidence::highest_signed(path)?)
    }

    /// The same for whoever has read already what it and those before it say was signed.
    pub fn open_knowing(path: &Path, evidence: Evidence) -> io::Result<Self> {
        let mut file = keeper::open(path)?;
        let limits = AuditLimits::default();
        let files = Files { path: path.into(), keep: limits.keep };
        let mut last =
            File::open(files.older(1)).map_or_else(|_| Ok(BTreeMap::new()), |mut older| last_sequences(&mut older))?;
        last.extend(last_sequences(&mut file)?);
        // A full disk keeps nobody from signing: then the first line that it takes ends the one before.
        let torn = end_last_line(&mut file).is_err();
        Ok(Self { file, path: path.into(), last, evidence, torn, limits, keeper: Keeper::Here(files) })
    }

    /// Has its size limited, and new files made by `keeper`.
    #[must_use]
    pub fn limited(self, limits: AuditLimits, keeper: Keeper) -> Self {
        Self { limits, keeper, ..self }
    }

    /// What it and those before it say was signed.
    #[cfg(test)]
    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    /// Starts the thread that writes it.
    pub fn start(self) -> io::Result<Audit> {
        let Self { file, path, last, evidence, torn, limits, keeper } = self;
        let audit = Audit {
            lanes: Lanes::new(ROOM),
            reopen: Arc::default(),
            path: path.as_path().into(),
            last: Arc::new(last),
        };
        let about = file.metadata()?;
        let writer = Writer {
            size: about.len(),
            // A pipe or a device is nothing to rotate.
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
    /// An answer has left.
    pub fn answered(&self, source: &Source, event: &Event) {
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
            result: event.outcome.name(),
            reason,
            text,
            sequence: event.sequence,
            ..Decision::default()
        };
        self.lanes.lane(&source.chain).put(kind_of(event), entry.line());
    }

    /// Decisions for a node that have no line of their own.
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

    /// Goes on in the file that has the name now, made if there is none: the old one has been moved away. Waits for
    /// nothing.
    pub fn reopen(&self) {
        self.reopen.store(true, Relaxed);
        self.lanes.wake();
    }

    /// Lines of each chain that are not in the file: the disk was too slow for them, or full.
    pub fn lost(&self) -> Vec<(ChainId, Lost)> {
        self.lanes.lost()
    }

    /// Says if the file did not end where the watermark of `chain` stands.
    pub fn look_for_gap(&self, chain: &ChainId, sequence: u64) {
        let path = self.path.display();
        match self.last.get(chain.as_str()) {
            Some(last) if *last != sequence => warn!(
                %chain,
                "the audit file {path} ends at sequence {last}, the watermark is at {sequence}: what was decided between \
                 them, or a command's change of the mark, is not in it"
            ),
            _ => {}
        }
    }

    /// Waits until all decisions are in the file, but not for long.
    pub fn finish(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        self.lanes.flush(PATIENCE);
    }
}

/// A line that has been taken out of its lane.
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
    /// What a new file begins with.
    evidence: Evidence,
    /// What was signed and the disk has not taken. While there is some nothing else is taken out: the lanes fill, and
    /// refusals are the first that they have no room for.
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
                audit.lanes.wait(Duration::MAX, || audit.reopen.load(Relaxed));
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
            if !flushes.is_empty() {
                // Whoever flushes is about to go, and this with him.
                self.backlog.drain(..).for_each(|line| line.lane.lose(line.kind, 1));
            }
            answer(flushes);
        }
    }

    fn write(&mut self, mut lines: Vec<Line>) {
        let length: usize = lines.iter().map(|line| line.text.len()).sum();
        if !self.has_room(length as u64) {
            // It is too large already and cannot be rotated: what was signed is still written.
            lines.retain(|line| {
                let stays = line.kind == Kind::Signed;
                line.lane.lose(line.kind, u64::from(!stays));
                stays
            });
        }
        if lines.is_empty() {
            return;
        }
        // What a failed write has left behind is no whole line.
        let torn = self.failed_at.is_some() && self.file.metadata().map_or(true, |about| about.len() > 0);
        let mut bytes = if torn { b"\n".to_vec() } else { Vec::with_capacity(length) };
        lines.iter().for_each(|line| bytes.extend_from_slice(line.text.as_bytes()));
        match self.file.write_all(&bytes) {
            Ok(()) => {
                self.size += bytes.len() as u64;
                if self.failed_at.take().is_some() {
                    info!("the audit file {} is written again", self.path.display());
                }
                let signed = lines.iter().filter(|line| line.kind == Kind::Signed);
                // One that names too many chains is not begun by this process.
                signed.for_each(|line| drop(self.evidence.look_at(line.text.as_bytes())));
            }
            Err(why) => self.failed(lines, &why),
        }
    }

    fn failed(&mut self, lines: Vec<Line>, why: &io::Error) {
        if self.failed_at.is_none() {
            error!(
                "the audit file {} cannot be written: {why}. What is signed is kept for it, {} lines of each chain; \
                 refusals are not",
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

    /// Makes room for that many bytes. Whether there is some.
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
                        "the audit file {} has reached its {} MiB and cannot be rotated: {why}. It is tried again every \
                         minute; at twice that size nothing but what is signed is written",
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
                info!("the audit file {} was opened again", self.path.display());
            }
            Err(why) => {
                error!("the audit file {} cannot be opened again: {why}. The old one is used on", self.path.display());
            }
        }
    }

    /// Goes on in that file. An empty one begins with what those before it say.
    fn begin(&mut self, file: File) {
        self.size = file.metadata().map_or(0, |about| about.len());
        self.file = file;
        if self.size > 0 {
            return;
        }
        let carried: String = self.evidence.all().iter().map(carried).collect();
        match self.file.write_all(carried.as_bytes()) {
            Ok(()) => self.size = carried.len() as u64,
            // The older files say it too, as long as they are there.
            Err(why) => error!("the audit file {} cannot be begun: {why}", self.path.display()),
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

/// A line that a kill has cut off must not swallow the first one that follows it.
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
    // A pipe or device has no end to look at.
    if !file.metadata()?.is_file() {
        return Ok(BTreeMap::new());
    }
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
    let mut tail = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut tail)?;
    let known = tail.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Known>(line).ok());
    Ok(known.filter_map(|known| Some((known.chain, known.sequence?))).collect())
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
