//! Tells what became of each request, to the log and to the audit file, from a thread of its own.
//!
//! Writing a line costs more than deciding, and waking the thread that writes it costs a system call. So the thread that
//! answers a node only puts the event into a queue, and the recorder looks at the queue every few milliseconds while
//! there is something in it: a busy signer wakes it a hundred times a second, not once for every vote.

use super::audit::Audit;
use crate::{consensus::ChainId, node::Event};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

/// Events that wait for the recorder; past that they are lost, and counted.
const QUEUE_EVENTS: usize = 1024;
/// How long the recorder lets events gather.
const GATHER: Duration = Duration::from_millis(10);

/// Where events are sent. Cheap to clone.
#[derive(Clone)]
pub struct Recorder {
    queue: SyncSender<Item>,
    lost: Arc<AtomicU64>,
}

#[allow(clippy::large_enum_variant, reason = "nearly all are events, and none shall cost an allocation")]
enum Item {
    Event(Entry),
    /// Answered once all that was sent before has been told.
    Finish(SyncSender<()>),
}

/// Whose requests they are.
#[derive(Debug)]
pub struct Source {
    /// The chain.
    pub chain: ChainId,
    /// Its consensus key, if that is known.
    pub key: Option<String>,
    /// The address of the node.
    pub node: Arc<str>,
}

/// What became of a request.
struct Entry {
    source: Arc<Source>,
    event: Event,
    took: Duration,
}

impl Recorder {
    /// Starts the recorder.
    pub fn start(audit: Option<Audit>) -> io::Result<Self> {
        let (queue, items) = sync_channel(QUEUE_EVENTS);
        thread::Builder::new().name("recorder".into()).spawn(move || run(&items, audit.as_ref()))?;
        Ok(Self { queue, lost: Arc::default() })
    }

    /// An answer has left. Waits for nothing.
    pub fn answered(&self, source: &Arc<Source>, event: Event, took: Duration) {
        let entry = Entry { source: Arc::clone(source), event, took };
        if self.queue.try_send(Item::Event(entry)).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }

    /// Events that are in no log: too many came at once.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }

    /// Waits until all events have been told, but not for long.
    pub fn finish(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let (done, told) = sync_channel(1);
        if self.queue.try_send(Item::Finish(done)).is_ok() {
            let _ = told.recv_timeout(PATIENCE);
        }
    }
}

fn run(items: &Receiver<Item>, audit: Option<&Audit>) {
    while let Ok(first) = items.recv() {
        if let Item::Event(_) = first {
            thread::sleep(GATHER);
        }
        for item in std::iter::once(first).chain(items.try_iter()) {
            match item {
                Item::Event(entry) => {
                    let Entry { source, event, took } = entry;
                    event.log(&source.chain, &source.node, took);
                    if let Some(audit) = audit {
                        audit.answered(&source, &event);
                    }
                }
                Item::Finish(done) => {
                    let _ = done.try_send(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        node::Outcome,
        ops::audit::AuditFile,
        privval::{Refusal, RequestKind},
    };

    #[test]
    fn every_event_is_told_in_its_order_before_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let audit = AuditFile::open(&path).unwrap().start().unwrap();
        let recorder = Recorder::start(Some(audit.clone())).unwrap();
        let chain = ChainId::new("test-1").unwrap();
        let source = Arc::new(Source { chain, key: None, node: "unix:///a".into() });
        for height in 0..1000 {
            let outcome = Outcome::Refused(Refusal::MaxHeight { height, max_height: 0 });
            let event = Event { kind: RequestKind::Vote, hrs: None, outcome, flushed_in: None, sequence: None };
            recorder.answered(&source, event, Duration::ZERO);
        }
        recorder.finish();
        audit.finish();
        assert_eq!(recorder.lost(), 0);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 1000);
        for (height, line) in text.lines().enumerate() {
            assert!(line.contains(&format!("height {height} is above")), "{line}");
        }
    }
}
