//! What a running signer counts, for metrics and `status`.
//!
//! All of it is written after an answer has left, by the thread that sent it, into atomics or into a lock that only its
//! own node or chain shares with a reader. Nothing here is ever waited for on the way to a signature.

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

/// What a request is called in metrics. A `vote` is one whose step could not be read.
pub const TYPES: [&str; 7] = ["ping", "precommit", "prevote", "proposal", "pub-key", "raw-bytes", "vote"];
/// What it can get.
pub const RESULTS: [&str; 5] = ["answered", "failed", "refused", "repeated", "signed"];
/// Why it can be refused, or fail. `block-against-block` is the one that should wake somebody up.
pub const REASONS: [&str; 13] = [
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
/// How many refusals a node remembers, for `status`.
const REFUSALS_KEPT: usize = 5;

/// What one node has asked for.
#[derive(Debug, Default)]
pub struct NodeStats {
    /// By [`TYPES`], then [`RESULTS`].
    requests: [[AtomicU64; RESULTS.len()]; TYPES.len()],
    /// By [`REASONS`].
    refusals: [AtomicU64; REASONS.len()],
    /// From a request that has been read to an answer that has been written. Pings are not in it.
    pub answer_time: Histogram,
    /// How often the link came up.
    connects: AtomicU64,
    /// Seconds since 1970 at which the link came up; 0 while it is down.
    up_since: AtomicU64,
    /// The same for when it went down; 0 while it is up, and before it has been dialled.
    down_since: AtomicU64,
    /// When something to sign was last asked for, in seconds since 1970; 0 for never.
    asked_at: AtomicU64,
    /// When a signature was last given.
    granted_at: AtomicU64,
    notes: Mutex<NodeNotes>,
}

/// What a person wants to read about a node.
#[derive(Clone, Debug, Default)]
pub struct NodeNotes {
    /// Who is at the other end; unix sockets do not say.
    pub peer: Option<String>,
    /// Why the link was lost the last time, and when.
    pub lost: Option<(SystemTime, String)>,
    /// The last refusals, the newest last.
    pub refusals: VecDeque<(SystemTime, String)>,
}

impl NodeStats {
    /// The link is up.
    pub fn link_up(&self, peer: Option<String>) {
        self.connects.fetch_add(1, Relaxed);
        self.notes().peer = peer;
        self.down_since.store(0, Relaxed);
        self.up_since.store(unix_seconds(SystemTime::now()).max(1), Relaxed);
    }

    /// The link is down, or never came up.
    pub fn link_down(&self, why: &str) {
        let now = SystemTime::now();
        self.up_since.store(0, Relaxed);
        // Every attempt that fails comes here; it is down since the first.
        let _ = self.down_since.compare_exchange(0, unix_seconds(now).max(1), Relaxed, Relaxed);
        self.notes().lost = Some((now, why.to_owned()));
    }

    /// Since when the link is down, in seconds since 1970, if it has been dialled.
    pub fn down_since(&self) -> Option<u64> {
        Some(self.down_since.load(Relaxed)).filter(|seconds| *seconds > 0)
    }

    /// When something to sign was last asked for, in seconds since 1970.
    pub fn asked_at(&self) -> Option<u64> {
        Some(self.asked_at.load(Relaxed)).filter(|at| *at > 0)
    }

    /// When a signature was last given, in seconds since 1970.
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

    /// An answer has left.
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

    /// Every type, result and count of requests, zeros too.
    pub fn requests(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
        let of_type = |(kind, counts): (&'static str, &[AtomicU64; RESULTS.len()])| {
            let counts: Vec<_> =
                RESULTS.iter().zip(counts).map(|(result, n)| (kind, *result, n.load(Relaxed))).collect();
            counts
        };
        TYPES.into_iter().zip(&self.requests).flat_map(of_type)
    }

    /// Every reason and count of refusals, zeros too.
    pub fn refusals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        REASONS.into_iter().zip(&self.refusals).map(|(reason, count)| (reason, count.load(Relaxed)))
    }

    /// What a person wants to read.
    pub fn notes(&self) -> MutexGuard<'_, NodeNotes> {
        lock(&self.notes)
    }
}

/// How far one chain has come.
#[derive(Debug, Default)]
pub struct ChainStats {
    height: AtomicU64,
    round: AtomicU32,
    step: AtomicU8,
    /// When it last signed a proposal, a prevote and a precommit: seconds since 1970, 0 for never.
    signed_at: [AtomicU64; 3],
    /// From the write of a mark to the end of its flush.
    pub flush_time: Histogram,
    closed: AtomicBool,
    why_closed: Mutex<Option<String>>,
}

impl ChainStats {
    /// The mark is there.
    pub fn mark(&self, hrs: Hrs) {
        self.height.store(hrs.height, Relaxed);
        self.round.store(hrs.round, Relaxed);
        self.step.store(hrs.step.number(), Relaxed);
    }

    /// An answer has left.
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

    /// The last mark. Its three parts are read one after the other: while a vote is signed they may be of two marks.
    pub fn last(&self) -> (u64, u32, u8) {
        (self.height.load(Relaxed), self.round.load(Relaxed), self.step.load(Relaxed))
    }

    /// When a message of each step was last signed, in seconds since 1970; `None` for never since the start.
    pub fn signed_at(&self) -> impl Iterator<Item = (Step, Option<u64>)> {
        let at = |step| (step, Some(self.signed_at[index(step)].load(Relaxed)).filter(|at| *at > 0));
        [Step::Propose, Step::Prevote, Step::Precommit].into_iter().map(at)
    }

    /// The chain signs nothing any more, or never did.
    pub fn close(&self, why: &Refusal) {
        if !self.closed.swap(true, Relaxed) {
            *self.why() = Some(why.to_string());
        }
    }

    /// The chain does not sign yet. The last reason counts.
    pub fn wait(&self, why: &Refusal) {
        *self.why() = Some(why.to_string());
        self.closed.store(true, Relaxed);
    }

    /// The chain signs from now on.
    pub fn open(&self) {
        self.closed.store(false, Relaxed);
        *self.why() = None;
    }

    /// Why the chain signs nothing, if that is so.
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

/// A vote or proposal goes by its step.
pub fn type_of(event: &Event) -> &'static str {
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

/// Seconds since 1970.
pub fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::consensus::Conflict;

    fn event(kind: RequestKind, step: Option<Step>, outcome: Outcome) -> Event {
        let hrs = step.map(|step| Hrs { height: 7, round: 2, step });
        Event { kind, hrs, outcome, flush_time: None, sequence: None }
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
