//! Writes the result of each request to the log and to the audit file, on a thread of its own.
//!
//! Writing a line costs more than the decision, and waking the thread that writes it costs a system call. So the thread
//! that answers a node only puts the event into the lane of its chain. While there are events, the recorder looks there
//! every few milliseconds: a busy signer wakes it a hundred times a second, not once for every vote. The recorder waits
//! for nothing itself: the log drops lines that are not read, and the audit file has its own lanes.

use super::{
    audit::Audit,
    clock,
    event::{Source, kind_of},
    lanes::{Lane, Lanes, Lost, Room, answer},
    quiet::Quiet,
};
use crate::process::lock::lock;
use highwater_core::{answer::Event, consensus::ChainId, privval::RequestKind};
use std::{
    collections::VecDeque,
    fmt::Write as _,
    io,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};
use tracing::warn;

/// How many events of a chain can wait for the recorder, which takes them every [`GATHER`].
const ROOM: Room = Room { signed: 4096, other: 512 };
/// How long the recorder lets events gather.
const GATHER: Duration = Duration::from_millis(10);
/// How often it writes how many requests have no line.
const UNTOLD_EVERY: Duration = Duration::from_secs(30);

/// Takes the events of one node.
pub struct Tape {
    source: Source,
    lane: Arc<Lane<Answered>>,
    untold: AtomicU64,
    /// Used only by the recorder.
    quiet: Mutex<Quiet>,
}

/// The thread that records events. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    lanes: Lanes<Answered>,
    tapes: Arc<Mutex<Vec<Arc<Tape>>>>,
    /// Those of nodes that are no longer served, until their last counts are told.
    ended: Arc<Mutex<Vec<Arc<Tape>>>>,
}

/// The result of a request.
struct Answered {
    tape: Arc<Tape>,
    event: Event,
    took: Duration,
    /// When the answer had left.
    at: SystemTime,
}

impl Tape {
    /// Records an answer that has left. Waits for nothing.
    pub fn answered(self: &Arc<Self>, event: Event, took: Duration) {
        let kind = kind_of(&event);
        self.lane.put(kind, Answered { tape: Arc::clone(self), event, took, at: SystemTime::now() });
    }

    pub fn source(&self) -> &Source {
        &self.source
    }

    /// How many requests have no line of their own in the log and the audit file, because they were too many or equal
    /// to others.
    pub fn untold(&self) -> u64 {
        self.untold.load(Relaxed)
    }

    fn quiet(&self) -> MutexGuard<'_, Quiet> {
        lock(&self.quiet)
    }
}

impl Recorder {
    pub fn start(audit: Option<Audit>) -> io::Result<Self> {
        let recorder = Self { lanes: Lanes::new(ROOM), tapes: Arc::default(), ended: Arc::default() };
        let at_work = recorder.clone();
        thread::Builder::new().name("recorder".into()).spawn(move || at_work.run(audit.as_ref()))?;
        Ok(recorder)
    }

    /// Makes a tape for the events of one node.
    pub fn tape(&self, source: Source) -> Arc<Tape> {
        let lane = self.lanes.lane(&source.chain);
        let tape = Arc::new(Tape { source, lane, untold: AtomicU64::new(0), quiet: Mutex::default() });
        self.tapes().push(Arc::clone(&tape));
        tape
    }

    /// Stops counting for a node that is no longer served. What has no line yet is still told.
    pub fn forget(&self, tape: &Arc<Tape>) {
        self.tapes().retain(|kept| !Arc::ptr_eq(kept, tape));
        lock(&self.ended).push(Arc::clone(tape));
    }

    /// For each chain, the events that are in neither the log nor the audit file, because too many came at once.
    pub fn lost(&self) -> Vec<(ChainId, Lost)> {
        self.lanes.lost()
    }

    /// The tapes of all nodes, with their counts of requests without a line.
    pub fn tapes(&self) -> MutexGuard<'_, Vec<Arc<Tape>>> {
        lock(&self.tapes)
    }

    /// Waits until all events are recorded, at most one second.
    pub fn finish(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        self.lanes.flush(PATIENCE);
    }

    fn run(&self, audit: Option<&Audit>) {
        let mut spare = VecDeque::new();
        let (mut has_untold, mut told_untold) = (false, Instant::now());
        loop {
            // Without new counts there is no reason to wake up.
            let patience = if has_untold { UNTOLD_EVERY } else { Duration::MAX };
            self.lanes.wait(patience, || false);
            let flushes = self.lanes.asked_to_flush();
            if flushes.is_empty() {
                thread::sleep(GATHER);
            }
            let now = Instant::now();
            self.lanes.take(&mut spare, |_, _, entry| has_untold |= !record(&entry, now, audit));
            if has_untold && (!flushes.is_empty() || now - told_untold >= UNTOLD_EVERY) {
                let ended = lock(&self.ended).clone();
                for tape in self.tapes().iter().chain(&ended) {
                    record_untold(tape, audit);
                }
                (has_untold, told_untold) = (false, now);
            }
            if !has_untold {
                // Its node may still be answering its last request, or that event wait in the lane.
                lock(&self.ended).retain(|tape| Arc::strong_count(tape) > 1);
            }
            answer(flushes);
        }
    }
}

/// Writes a line for an event, unless its node is over its limit. Returns false if the event was counted instead.
fn record(entry: &Answered, now: Instant, audit: Option<&Audit>) -> bool {
    let Answered { tape, event, took, at } = entry;
    if tape.quiet().tells(event, now) {
        // The line has the time of the answer, not that of this thread, which may come to it later.
        clock::at(*at, || super::event::log(event, &tape.source.chain, &tape.source.node, *took));
        if let Some(audit) = audit {
            audit.answered(&tape.source, event, *at);
        }
        return true;
    }
    if event.kind == RequestKind::Ping {
        return true;
    }
    tape.untold.fetch_add(1, Relaxed);
    false
}

fn record_untold(tape: &Tape, audit: Option<&Audit>) {
    let untold = tape.quiet().take_untold();
    let Source { chain, node, .. } = &tape.source;
    let mut all = String::new();
    for (reason, untold) in &untold {
        let _ = write!(all, "{}{} {reason}", if all.is_empty() { "" } else { ", " }, untold.count);
        if let Some(audit) = audit {
            audit.untold(&tape.source, reason, *untold);
        }
    }
    if !untold.is_empty() {
        let requests: u64 = untold.iter().map(|(_, untold)| untold.count).sum();
        warn!(
            %chain, %node, requests,
            "requests of this node without their own log lines, because they were too many or too similar: {all}. New \
             signatures always have their own line"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::audit::AuditFile;
    use highwater_core::answer::Outcome;
    use highwater_core::{
        consensus::{Hrs, Step},
        privval::Refusal,
    };

    fn tape(recorder: &Recorder, chain: &str) -> Arc<Tape> {
        let chain = ChainId::new(chain).unwrap();
        recorder.tape(Source { chain, key: Some("ed25519:00".into()), node: "unix:///a".into() })
    }

    fn event(height: u64, outcome: Outcome) -> Event {
        let hrs = Some(Hrs { height, round: 0, step: Step::Prevote });
        Event { kind: RequestKind::Vote, hrs, choice: None, outcome, flush_time: None, sequence: Some(height) }
    }

    fn refused(height: u64) -> Event {
        event(height, Outcome::Refused(Refusal::MaxHeight { height, max_height: 0 }))
    }

    fn lines(path: &std::path::Path) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_signature_is_told_in_its_order_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = AuditFile::open(&path).unwrap().start().unwrap();
        let recorder = Recorder::start(Some(audit.clone())).unwrap();
        let tape = tape(&recorder, "test-1");
        (0..1000).for_each(|height| tape.answered(event(height, Outcome::Signed), Duration::ZERO));
        recorder.finish();
        audit.finish();
        let heights: Vec<_> = lines(&path).iter().map(|line| line["height"].as_u64().unwrap()).collect();
        assert_eq!(heights, (0..1000).collect::<Vec<_>>());
        assert!(recorder.lost().iter().all(|(_, lost)| *lost == [0, 0]));
    }

    #[test]
    fn the_counts_of_a_node_that_is_removed_are_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = AuditFile::open(&path).unwrap().start().unwrap();
        let recorder = Recorder::start(Some(audit.clone())).unwrap();
        let removed = tape(&recorder, "test-1");
        (0..100).for_each(|height| removed.answered(refused(height), Duration::ZERO));
        // Until its events were taken.
        while removed.untold() == 0 {
            thread::sleep(GATHER);
        }
        recorder.forget(&removed);
        assert!(recorder.tapes().is_empty());
        drop(removed);
        recorder.finish();
        audit.finish();
        let told: u64 = lines(&path).iter().map(|line| line["count"].as_u64().unwrap_or(1)).sum();
        assert_eq!(told, 100);
        let ended = Instant::now();
        while !lock(&recorder.ended).is_empty() {
            assert!(ended.elapsed() < Duration::from_secs(5), "a tape is kept after its last counts");
            recorder.finish();
        }
    }

    /// A hostile node of one chain asks as fast as it can, while two others sign. The file has a line for each
    /// signature, and a few lines with counts that add up for the hostile node.
    #[test]
    fn a_flood_costs_no_signature_its_line_and_is_told_in_numbers() {
        const SIGNED: u64 = 800;
        const REFUSED: u64 = 200_000;
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = AuditFile::open(&path).unwrap().start().unwrap();
        let recorder = Recorder::start(Some(audit.clone())).unwrap();
        let hostile = tape(&recorder, "flooded-1");
        let honest = ["flooded-1", "calm-1"].map(|chain| tape(&recorder, chain));
        thread::scope(|scope| {
            scope.spawn(|| (0..REFUSED).for_each(|height| hostile.answered(refused(height), Duration::ZERO)));
            for tape in &honest {
                scope.spawn(move || {
                    for height in 0..SIGNED {
                        tape.answered(event(height, Outcome::Signed), Duration::ZERO);
                        thread::sleep(Duration::from_micros(200));
                    }
                });
            }
        });
        recorder.finish();
        audit.finish();
        let lines = lines(&path);
        for chain in ["flooded-1", "calm-1"] {
            let is_signed = |line: &&serde_json::Value| line["chain"] == chain && line["result"] == "signed";
            assert_eq!(lines.iter().filter(is_signed).count() as u64, SIGNED, "{chain}");
        }
        let refused = lines.iter().filter(|line| line["result"] == "refused");
        let told: Vec<_> = refused.map(|line| line["count"].as_u64().unwrap_or(1)).collect();
        let lost: u64 = recorder.lost().iter().map(|(_, [signed, other])| signed * REFUSED + other).sum();
        assert_eq!(told.iter().sum::<u64>() + lost, REFUSED, "each is written, counted, or lost and counted");
        assert!(told.len() < 100, "{} lines", told.len());
        assert!(hostile.untold() > 0 && honest.iter().all(|tape| tape.untold() == 0));
    }
}
