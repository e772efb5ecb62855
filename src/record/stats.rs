//! The counters of a running signer, for metrics and `status`.
//!
//! The thread that sent an answer updates them after it has left. They are atomics, or are behind a lock that only one
//! node or chain shares with a reader. On the way to a signature, nothing waits for them.

use super::histogram::Histogram;
use crate::process::lock::lock;
use highwater_core::{
    answer::{Event, Outcome},
    consensus::{Hrs, Step},
    privval::{Refusal, RequestKind},
};
use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The types of requests in metrics. A `vote` is one whose step could not be read.
pub(crate) const TYPES: [&str; 7] = ["ping", "precommit", "prevote", "proposal", "pub-key", "raw-bytes", "vote"];
/// The results that a request can have.
pub(crate) const RESULTS: [&str; 5] = ["answered", "failed", "refused", "repeated", "signed"];
/// The reasons why a request can be refused or fail. `block-against-block` should page somebody.
pub(crate) const REASONS: [&str; 13] = [
    "block-against-block",
    "block-against-nil",
    "conflicting-proposal",
    "key-unavailable",
    "malformed",
    "max-height",
    "nil-against-block",
    "not-permitted",
    "not-yet",
    "regression",
    "state-unusable",
    "watermark-without-digest",
    "wrong-chain",
];
/// How many refusals of each node are kept for `status`.
const REFUSALS_KEPT: usize = 5;

/// The counters of one node.
#[derive(Debug, Default)]
pub struct NodeStats {
    /// By [`TYPES`], then [`RESULTS`].
    requests: [[AtomicU64; RESULTS.len()]; TYPES.len()],
    /// By [`REASONS`].
    refusals: [AtomicU64; REASONS.len()],
    /// The time from a request that has been read to its written answer, without pings.
    pub answer_time: Histogram,
    connects: AtomicU64,
    /// When the link came up, in seconds since 1970; 0 while it is down.
    up_since: AtomicU64,
    /// When the link went down, in seconds since 1970; 0 while it is up, and before the first attempt to connect.
    down_since: AtomicU64,
    /// When the node last asked for a signature, in seconds since 1970; 0 for never.
    asked_at: AtomicU64,
    /// When the node last got a signature, in seconds since 1970; 0 for never.
    granted_at: AtomicU64,
    notes: Mutex<NodeNotes>,
}

/// Details about a node, for `status`.
#[derive(Clone, Debug, Default)]
pub struct NodeNotes {
    /// The node's peer id. Unix sockets have none.
    pub peer: Option<String>,
    /// When and why the link was last lost, or could not be made.
    pub lost: Option<(SystemTime, String)>,
    /// The last refusals, the newest last.
    pub refusals: VecDeque<(SystemTime, String)>,
}

impl NodeStats {
    pub fn link_up(&self, peer: Option<String>) {
        self.connects.fetch_add(1, Relaxed);
        self.notes().peer = peer;
        self.down_since.store(0, Relaxed);
        self.up_since.store(unix_seconds(SystemTime::now()).max(1), Relaxed);
    }

    /// Notes that the link was lost, or that an attempt to connect failed.
    pub fn link_down(&self, why: &str) {
        let now = SystemTime::now();
        self.up_since.store(0, Relaxed);
        // Every failed attempt comes here. The link is down since the first one.
        let _ = self.down_since.compare_exchange(0, unix_seconds(now).max(1), Relaxed, Relaxed);
        self.notes().lost = Some((now, why.to_owned()));
    }

    /// Since when the link is down, in seconds since 1970. `None` while it is up, and before the first attempt to
    /// connect.
    pub fn down_since(&self) -> Option<u64> {
        Some(self.down_since.load(Relaxed)).filter(|seconds| *seconds > 0)
    }

    /// When the node last asked for a signature, in seconds since 1970.
    pub fn asked_at(&self) -> Option<u64> {
        Some(self.asked_at.load(Relaxed)).filter(|at| *at > 0)
    }

    /// When the node last got a signature, in seconds since 1970.
    pub fn granted_at(&self) -> Option<u64> {
        Some(self.granted_at.load(Relaxed)).filter(|at| *at > 0)
    }

    /// Since when the link is up, in seconds since 1970.
    pub fn up_since(&self) -> Option<u64> {
        Some(self.up_since.load(Relaxed)).filter(|seconds| *seconds > 0)
    }

    /// How often the link came up.
    pub fn connects(&self) -> u64 {
        self.connects.load(Relaxed)
    }

    /// Counts an answer that has left.
    pub fn answered(&self, event: &Event, took: Duration) {
        let kind = type_of(event);
        let result = event.outcome.name();
        if let (Some(kind), Some(result)) = (position(&TYPES, kind), position(&RESULTS, result)) {
            self.requests[kind][result].fetch_add(1, Relaxed);
        }
        if event.kind != RequestKind::Ping {
            self.answer_time.observe(took);
        }
        if !matches!(event.kind, RequestKind::Ping | RequestKind::PubKey) {
            let now = unix_seconds(SystemTime::now());
            self.asked_at.store(now, Relaxed);
            if matches!(event.outcome, Outcome::Signed | Outcome::Repeated) {
                self.granted_at.store(now, Relaxed);
            }
        }
        if let Outcome::Refused(refusal) = &event.outcome {
            self.refused(refusal);
        }
    }

    fn refused(&self, refusal: &Refusal) {
        if let Some(reason) = position(&REASONS, refusal.name()) {
            self.refusals[reason].fetch_add(1, Relaxed);
        }
        let refusals = &mut self.notes().refusals;
        if refusals.len() == REFUSALS_KEPT {
            refusals.pop_front();
        }
        refusals.push_back((SystemTime::now(), refusal.to_string()));
    }

    /// The number of requests by type and result, including zeros.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        TYPES.into_iter().zip(&self.requests).flat_map(|(kind, counts)| {
            RESULTS.into_iter().zip(counts).map(move |(result, count)| (kind, result, count.load(Relaxed)))
        })
    }

    /// The number of refusals by reason, including zeros.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(&self.refusals).map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    /// Details for `status`.
    pub fn notes(&self) -> MutexGuard<'_, NodeNotes> {
        lock(&self.notes)
    }
}

/// The watermark and the counters of one chain.
#[derive(Debug, Default)]
pub struct ChainStats {
    height: AtomicU64,
    round: AtomicU32,
    step: AtomicU8,
    /// When it last signed a proposal, a prevote and a precommit, in seconds since 1970; 0 for never.
    signed_at: [AtomicU64; 3],
    /// The time from the write of a mark to the end of its flush.
    pub flush_time: Histogram,
    closed: AtomicBool,
    why_closed: Mutex<Option<String>>,
}

impl ChainStats {
    pub fn mark(&self, hrs: Hrs) {
        self.height.store(hrs.height, Relaxed);
        self.round.store(hrs.round, Relaxed);
        self.step.store(hrs.step.number(), Relaxed);
    }

    /// Counts an answer that has left.
    pub fn answered(&self, event: &Event) {
        if let (Outcome::Signed, Some(hrs)) = (&event.outcome, event.hrs) {
            self.mark(hrs);
            self.signed_at[index(hrs.step)].store(unix_seconds(SystemTime::now()), Relaxed);
        }
        if let Some(flush_time) = event.flush_time {
            self.flush_time.observe(flush_time);
        }
        if let Outcome::Refused(why @ Refusal::StateUnusable(_)) = &event.outcome {
            self.close(why);
        }
    }

    /// The last mark. Its three parts are read one after the other: while a vote is signed, they can come from two
    /// marks.
    pub fn last(&self) -> (u64, u32, u8) {
        (self.height.load(Relaxed), self.round.load(Relaxed), self.step.load(Relaxed))
    }

    /// When a message of each step was last signed, in seconds since 1970; `None` for never since the start.
    pub fn signed_at(&self) -> impl Iterator<Item = (Step, Option<u64>)> {
        [Step::Propose, Step::Prevote, Step::Precommit].into_iter().map(|step| {
            let at = self.signed_at[index(step)].load(Relaxed);
            (step, (at > 0).then_some(at))
        })
    }

    /// Notes why the chain does not sign. The first reason is kept.
    pub fn close(&self, why: &Refusal) {
        if !self.closed.swap(true, Relaxed) {
            *self.why() = Some(why.to_string());
        }
    }

    /// Notes why the chain does not sign yet. The last reason is kept.
    pub fn wait(&self, why: &Refusal) {
        *self.why() = Some(why.to_string());
        self.closed.store(true, Relaxed);
    }

    /// Notes that the chain signs from now on.
    pub fn open(&self) {
        self.closed.store(false, Relaxed);
        *self.why() = None;
    }

    /// Why the chain does not sign. `None` if it does.
    pub fn why_closed(&self) -> Option<String> {
        if self.closed.load(Relaxed) { self.why().clone() } else { None }
    }

    fn why(&self) -> MutexGuard<'_, Option<String>> {
        lock(&self.why_closed)
    }
}

fn index(step: Step) -> usize {
    usize::from(step.number()) - 1
}

/// The type of a request, one of [`TYPES`]. For a vote or proposal it depends on the step.
pub(crate) fn type_of(event: &Event) -> &'static str {
    match (event.hrs.map(|hrs| hrs.step), event.kind) {
        (Some(Step::Propose), _) | (None, RequestKind::Proposal) => "proposal",
        (Some(Step::Prevote), _) => "prevote",
        (Some(Step::Precommit), _) => "precommit",
        (None, RequestKind::Ping) => "ping",
        (None, RequestKind::PubKey) => "pub-key",
        (None, RequestKind::SignBytes) => "raw-bytes",
        (None, RequestKind::Vote) => "vote",
    }
}

fn position(names: &[&str], name: &str) -> Option<usize> {
    names.iter().position(|known| *known == name)
}

pub(crate) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::consensus::Conflict;

    fn event(kind: RequestKind, step: Option<Step>, outcome: Outcome) -> Event {
        let hrs = step.map(|step| Hrs { height: 7, round: 2, step });
        Event { kind, hrs, choice: None, outcome, flush_time: None, sequence: None }
    }

    fn refused(conflict: Conflict) -> Outcome {
        let hrs = Hrs { height: 7, round: 2, step: Step::Prevote };
        Outcome::Refused(Refusal::DoubleSign { hrs, conflict })
    }

    #[test]
    fn every_answer_is_counted_once_under_its_type_and_result() {
        let stats = NodeStats::default();
        let took = Duration::from_millis(1);
        for (kind, step, outcome, place) in [
            (RequestKind::Ping, None, Outcome::Answered, ("ping", "answered")),
            (RequestKind::PubKey, None, Outcome::Answered, ("pub-key", "answered")),
            (RequestKind::Proposal, Some(Step::Propose), Outcome::Signed, ("proposal", "signed")),
            (RequestKind::Vote, Some(Step::Prevote), Outcome::Signed, ("prevote", "signed")),
            (RequestKind::Vote, Some(Step::Precommit), Outcome::Repeated, ("precommit", "repeated")),
            (RequestKind::Vote, None, Outcome::Refused(Refusal::Malformed("a")), ("vote", "refused")),
            (RequestKind::SignBytes, None, Outcome::Signed, ("raw-bytes", "signed")),
            (RequestKind::Vote, Some(Step::Prevote), refused(Conflict::BlockAgainstBlock), ("prevote", "refused")),
            (
                RequestKind::Proposal,
                None,
                Outcome::Refused(Refusal::KeyUnavailable("a".into())),
                ("proposal", "failed"),
            ),
        ] {
            let count = || stats.requests().find(|(kind, result, _)| (*kind, *result) == place).unwrap().2;
            let sum = || stats.requests().map(|(_, _, count)| count).sum::<u64>();
            let before = (count(), sum());
            stats.answered(&event(kind, step, outcome), took);
            assert_eq!((count(), sum()), (before.0 + 1, before.1 + 1), "{place:?}");
        }
        assert_eq!(stats.answer_time.snapshot().count, 8, "all but the ping");
        let reasons: Vec<_> = stats.refusals().filter(|(_, count)| *count > 0).collect();
        assert_eq!(reasons, [("block-against-block", 1), ("key-unavailable", 1), ("malformed", 1)]);
    }

    #[test]
    fn every_refusal_has_a_reason_that_is_counted() {
        let conflicts = [
            Conflict::BlockAgainstBlock,
            Conflict::BlockAgainstNil,
            Conflict::NilAgainstBlock,
            Conflict::Proposal,
            Conflict::Unknown,
        ];
        let hrs = Hrs { height: 7, round: 2, step: Step::Prevote };
        let others = [
            Refusal::KeyUnavailable(String::new()),
            Refusal::Malformed(""),
            Refusal::MaxHeight { height: 1, max_height: 0 },
            Refusal::NotPermitted(""),
            Refusal::NotYet(String::new()),
            Refusal::Regression { asked: hrs, last: hrs },
            Refusal::StateUnusable(String::new()),
            Refusal::WrongChain { ours: highwater_core::consensus::ChainId::new("a").unwrap(), asked: None },
        ];
        let doubles = conflicts.map(|conflict| Refusal::DoubleSign { hrs, conflict });
        let mut names: Vec<_> = doubles.iter().chain(&others).map(Refusal::name).collect();
        names.sort_unstable();
        assert_eq!(names, REASONS);
    }

    #[test]
    fn only_the_last_refusals_are_kept() {
        let stats = NodeStats::default();
        for height in 0..20 {
            let why = Outcome::Refused(Refusal::MaxHeight { height, max_height: 0 });
            stats.answered(&event(RequestKind::Vote, Some(Step::Prevote), why), Duration::ZERO);
        }
        let notes = stats.notes();
        assert_eq!(notes.refusals.len(), REFUSALS_KEPT);
        assert!(notes.refusals.back().unwrap().1.contains("height 19"));
    }

    #[test]
    fn a_link_is_up_between_its_coming_and_its_loss() {
        let stats = NodeStats::default();
        assert_eq!(stats.up_since(), None);
        stats.link_up(Some("peer".into()));
        assert!(stats.up_since().is_some() && stats.connects() == 1);
        stats.link_down("gone");
        assert_eq!((stats.up_since(), stats.notes().lost.clone().unwrap().1.as_str()), (None, "gone"));
    }

    #[test]
    fn a_chain_shows_its_mark_and_why_it_stopped() {
        let stats = ChainStats::default();
        stats.answered(&event(RequestKind::Vote, Some(Step::Precommit), Outcome::Signed));
        assert_eq!(stats.last(), (7, 2, 3));
        let signed: Vec<_> = stats.signed_at().map(|(_, at)| at.is_some()).collect();
        assert_eq!(signed, [false, false, true]);
        stats.answered(&event(RequestKind::Vote, Some(Step::Prevote), refused(Conflict::Unknown)));
        assert_eq!((stats.last(), stats.why_closed()), ((7, 2, 3), None), "a refusal changes nothing");
        let broken = Outcome::Refused(Refusal::StateUnusable("disk full".into()));
        stats.answered(&event(RequestKind::Vote, Some(Step::Prevote), broken));
        assert!(stats.why_closed().unwrap().contains("disk full"));
    }
}
