//! The audit file: a line of JSON for every decision, in the order in which the answers left.
//!
//! | field | meaning |
//! | --- | --- |
//! | `time` | when the answer had left, in milliseconds since 1970 |
//! | `chain`, `node` | whose request it was |
//! | `type` | `proposal`, `prevote`, `precommit`, `raw-bytes`; `vote` if it could not be read |
//! | `height`, `round` | if the request has them |
//! | `result` | `signed`, `repeated`, `refused`, `failed` |
//! | `reason`, `text` | why it was refused or failed |
//! | `sequence` | the watermark's, which every new mark raises by one |
//!
//! It is a record, not a guard: the watermark alone keeps from signing twice. Nobody waits for it, so a full disk or a kill
//! can lose its last lines. The sequence shows that: it is looked at when the signer starts, and a gap is told.

use super::stats::type_of;
use crate::{
    consensus::ChainId,
    node::{Event, Outcome},
    privval::RequestKind,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tracing::{error, warn};

/// Lines that wait for a slow disk; past that they are lost, and counted.
const QUEUE_LINES: usize = 4096;
/// How far back from its end the file is looked at for the last line of a chain.
const TAIL_BYTES: u64 = 1024 * 1024;

/// Where decisions are sent. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    lines: SyncSender<Line>,
    lost: Arc<AtomicU64>,
    path: Arc<Path>,
    /// The last sequence of each chain, when the file was opened.
    last: Arc<BTreeMap<String, u64>>,
}

/// The file, open, and nothing written yet. Opened before the signer is confined, which may not open it any more.
pub struct AuditFile {
    file: File,
    path: PathBuf,
    last: BTreeMap<String, u64>,
}

enum Line {
    Text(String),
    /// Answered once all that was sent before is in the file.
    Flush(SyncSender<()>),
    /// What follows goes to the file that the path names then.
    Reopen,
}

/// One decision, as it stands in the file.
#[derive(Serialize)]
struct Entry<'a> {
    time: u64,
    chain: &'a str,
    node: &'a str,
    r#type: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    round: Option<u32>,
    result: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

/// What is read back of a line.
#[derive(Deserialize)]
struct Known {
    chain: String,
    sequence: Option<u64>,
}

impl AuditFile {
    /// Opens the file, which only its owner can read, or makes it.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        let last = last_sequences(&mut file)?;
        Ok(Self { file, path: path.into(), last })
    }

    /// Starts the thread that writes it.
    pub fn start(self) -> io::Result<Audit> {
        let Self { file, path, last } = self;
        let (lines, queue) = sync_channel(QUEUE_LINES);
        let audit = Audit { lines, lost: Arc::default(), path: path.as_path().into(), last: Arc::new(last) };
        let lost = Arc::clone(&audit.lost);
        thread::Builder::new().name("audit".into()).spawn(move || write(file, &path, &queue, &lost))?;
        Ok(audit)
    }
}

impl Audit {
    /// An answer has left.
    pub fn answered(&self, chain: &ChainId, node: &str, event: &Event) {
        if matches!(event.kind, RequestKind::Ping | RequestKind::PubKey) {
            return;
        }
        let (reason, text) = match &event.outcome {
            Outcome::Refused(refusal) => (Some(refusal.name()), Some(refusal.to_string())),
            _ => (None, None),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let entry = Entry {
            time: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            chain: chain.as_str(),
            node,
            r#type: type_of(event),
            height: event.hrs.map(|hrs| hrs.height),
            round: event.hrs.map(|hrs| hrs.round),
            result: event.outcome.name(),
            reason,
            text,
            sequence: event.sequence,
        };
        let line = serde_json::to_string(&entry).expect("numbers and strings have a JSON form") + "\n";
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.lines.try_send(Line::Text(line)) {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Has the thread open the file anew, for whoever has moved it away. Waits for nothing.
    pub fn reopen(&self) {
        let _ = self.lines.try_send(Line::Reopen);
    }

    /// Lines that are not in the file: the disk was too slow for them, or full.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
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
        let (done, written) = sync_channel(1);
        if self.lines.try_send(Line::Flush(done)).is_ok() {
            let _ = written.recv_timeout(PATIENCE);
        }
    }
}

fn write(file: File, path: &Path, queue: &Receiver<Line>, lost: &AtomicU64) {
    let mut file = BufWriter::new(file);
    while let Ok(first) = queue.recv() {
        let mut lines = 0;
        let mut waiting = Vec::new();
        let mut result = Ok(());
        for line in std::iter::once(first).chain(queue.try_iter().take(QUEUE_LINES)) {
            match line {
                Line::Text(text) => {
                    lines += 1;
                    result = result.and_then(|()| file.write_all(text.as_bytes()));
                }
                Line::Flush(done) => waiting.push(done),
                Line::Reopen => {
                    result = result.and_then(|()| file.flush());
                    match AuditFile::open(path) {
                        Ok(opened) => file = BufWriter::new(opened.file),
                        Err(why) => error!("cannot open the audit file {} anew: {why}", path.display()),
                    }
                }
            }
        }
        if let Err(why) = result.and_then(|()| file.flush()) {
            lost.fetch_add(lines, Relaxed);
            error!("{lines} lines are not in the audit file {}: {why}", path.display());
            // What a failed write has left behind would be written again, after a hole.
            file = BufWriter::new(file.into_parts().0);
        }
        for done in waiting {
            let _ = done.try_send(());
        }
    }
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
mod tests {
    use super::*;
    use crate::{
        consensus::{Conflict, Hrs, Step},
        privval::Refusal,
    };
    use std::fs;

    fn event(height: u64, outcome: Outcome, sequence: Option<u64>) -> Event {
        let hrs = Hrs { height, round: 1, step: Step::Precommit };
        Event { kind: RequestKind::Vote, hrs: Some(hrs), outcome, flushed_in: None, sequence }
    }

    #[test]
    fn every_decision_becomes_a_line_and_the_last_sequence_is_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let [one, two] = ["test-1", "test-2"].map(|id| ChainId::new(id).unwrap());
        for start in 0..2 {
            let audit = AuditFile::open(&path).unwrap().start().unwrap();
            let hrs = Hrs { height: 7, round: 1, step: Step::Precommit };
            let refusal = Refusal::DoubleSign { hrs, conflict: Conflict::BlockAgainstBlock };
            audit.answered(&one, "unix:///a", &event(7, Outcome::Signed, Some(5 + start)));
            audit.answered(&two, "unix:///b", &event(8, Outcome::Signed, Some(90)));
            audit.answered(&one, "unix:///a", &event(7, Outcome::Refused(refusal), None));
            audit.answered(&one, "unix:///a", &Event { kind: RequestKind::Ping, ..event(7, Outcome::Answered, None) });
            audit.finish();
            assert_eq!(audit.lost(), 0);
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 6);
        let expected = serde_json::json!({
            "time": lines[2]["time"], "chain": "test-1", "node": "unix:///a", "type": "precommit", "height": 7,
            "round": 1, "result": "refused", "reason": "block-against-block",
            "text": "double sign refused at 7/1/precommit: another block was signed there"
        });
        assert_eq!((&lines[2], &lines[3]["sequence"]), (&expected, &6.into()));
        let last = AuditFile::open(&path).unwrap().last;
        assert_eq!(last, [("test-1".to_owned(), 6), ("test-2".to_owned(), 90)].into());
    }

    #[test]
    fn a_line_that_was_cut_off_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        fs::write(&path, "{\"chain\":\"a\",\"sequence\":3}\n{\"chain\":\"a\",\"sequ").unwrap();
        assert_eq!(AuditFile::open(&path).unwrap().last, [("a".to_owned(), 3)].into());
    }

    #[test]
    fn a_full_disk_costs_lines_and_is_counted() {
        let audit = AuditFile::open(Path::new("/dev/full")).unwrap().start().unwrap();
        for height in 0..10 {
            audit.answered(&ChainId::new("a").unwrap(), "n", &event(height, Outcome::Signed, Some(height)));
        }
        audit.finish();
        assert_eq!(audit.lost(), 10);
    }
}
