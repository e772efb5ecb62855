//! Keeps one node from filling the log and the audit file with requests that get no new signature.
//!
//! A new signature always has its line. A node can cause any number of other lines, so these are limited, separately
//! for each reason: a flood of one reason does not hide the first line of another. Equal lines are merged, and the
//! others are rate-limited. Lines that are left out are counted, and the count gets a line.

use highwater_core::{
    answer::{Event, Outcome},
    privval::RequestKind,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How many lines of one reason are written at once.
const BURST: u32 = 30;
/// After that, one line in this time. A second node of a busy chain that is always late stays below this rate.
const ONE_IN: Duration = Duration::from_millis(500);
/// For how long an equal line is not written again.
const AGAIN_AFTER: Duration = Duration::from_secs(30);

/// The recent lines of one node, by reason.
#[derive(Debug, Default)]
pub(crate) struct Quiet(BTreeMap<&'static str, Stream>);

/// The lines of one reason.
#[derive(Debug)]
struct Stream {
    last: Option<(Event, Instant)>,
    rate: Rate,
    untold: Untold,
}

/// How often something is written: a few times at once, then once in a while.
#[derive(Debug)]
pub(crate) struct Rate {
    burst: u32,
    one_in: Duration,
    /// How many lines can still be written at once.
    left: u32,
    refilled: Option<Instant>,
    untold: u32,
}

impl Rate {
    /// Allows `burst` lines at once, then one in the time `one_in`.
    pub(crate) const fn new(burst: u32, one_in: Duration) -> Self {
        Self { burst, one_in, left: burst, refilled: None, untold: 0 }
    }

    /// Counts one event. If it is to be written now, returns how many events there were since the last one written.
    pub(crate) fn tells(&mut self, now: Instant) -> Option<u32> {
        let since = now.saturating_duration_since(*self.refilled.get_or_insert(now));
        let more = u32::try_from(since.as_millis() / self.one_in.as_millis()).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(self.burst);
            self.refilled = Some(now);
        }
        self.untold = self.untold.saturating_add(1);
        self.left = self.left.checked_sub(1)?;
        Some(std::mem::take(&mut self.untold))
    }
}

/// Decisions without a line of their own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Untold {
    pub count: u64,
    /// Their result: an [`Outcome::name`].
    pub result: &'static str,
}

impl Quiet {
    /// Whether this event gets a line. Counts it if not.
    pub(crate) fn tells(&mut self, event: &Event, now: Instant) -> bool {
        if event.outcome == Outcome::Signed {
            return true;
        }
        let stream = self.0.entry(reason(event)).or_insert_with(Stream::new);
        let tells = !stream.is_equal(event, now) && stream.rate.tells(now).is_some();
        if tells {
            stream.last = Some((event.clone(), now));
        } else if event.kind != RequestKind::Ping {
            // Pings are all equal, and only a verbose log has them.
            stream.untold.count += 1;
            stream.untold.result = event.outcome.name();
        }
        tells
    }

    /// The decisions without a line since the last call, by their reason.
    pub(crate) fn take_untold(&mut self) -> Vec<(&'static str, Untold)> {
        let mut taken = Vec::new();
        for (reason, stream) in &mut self.0 {
            if stream.untold.count > 0 {
                taken.push((*reason, std::mem::take(&mut stream.untold)));
            }
        }
        taken
    }
}

impl Stream {
    fn new() -> Self {
        Self { last: None, rate: Rate::new(BURST, ONE_IN), untold: Untold::default() }
    }

    /// Whether the event's line would differ from the last one only in its time.
    fn is_equal(&self, event: &Event, now: Instant) -> bool {
        self.last.as_ref().is_some_and(|(last, at)| {
            let same = (&last.outcome, last.hrs, last.choice, last.kind)
                == (&event.outcome, event.hrs, event.choice, event.kind);
            same && now.saturating_duration_since(*at) < AGAIN_AFTER
        })
    }
}

/// The reason under which an event is limited.
fn reason(event: &Event) -> &'static str {
    match &event.outcome {
        Outcome::Refused(refusal) => refusal.name(),
        Outcome::Answered => event.kind.name(),
        other => other.name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_core::{
        consensus::{Hrs, Step},
        privval::{Choice, Refusal},
    };

    fn event(height: u64, outcome: Outcome) -> Event {
        let hrs = Some(Hrs { height, round: 0, step: Step::Prevote });
        Event { kind: RequestKind::Vote, hrs, choice: None, outcome, flush_time: None, sequence: None }
    }

    fn refused(height: u64) -> Event {
        event(height, Outcome::Refused(Refusal::MaxHeight { height, max_height: 0 }))
    }

    #[test]
    fn equal_lines_are_merged_until_they_are_old() {
        let (mut quiet, begin) = (Quiet::default(), Instant::now());
        let told = |quiet: &mut Quiet, after: u64| quiet.tells(&refused(1), begin + Duration::from_secs(after));
        let all = [0, 1, 29, 30, 31, 59, 60].map(|after| told(&mut quiet, after));
        assert_eq!(all, [true, false, false, true, false, false, true]);
        assert!(quiet.tells(&refused(2), begin + Duration::from_secs(60)), "another height is another line");
        let nil = Event { choice: Some(Choice::Nil), ..refused(2) };
        assert!(quiet.tells(&nil, begin + Duration::from_secs(60)), "another block is another line");
        let untold = Untold { count: 4, result: "refused" };
        assert_eq!(quiet.take_untold(), [("max-height", untold)]);
        assert_eq!(quiet.take_untold(), []);
    }

    #[test]
    fn a_rate_counts_what_is_not_written() {
        let (mut rate, begin) = (Rate::new(2, Duration::from_secs(10)), Instant::now());
        let told = [0, 1, 2, 3, 10, 11, 100, 101, 102].map(|after| rate.tells(begin + Duration::from_secs(after)));
        assert_eq!(told, [Some(1), Some(1), None, None, Some(3), None, Some(2), Some(1), None]);
    }

    #[test]
    fn a_flood_is_cut_down_to_its_rate_and_hides_no_other_reason_and_no_signature() {
        let (mut quiet, begin) = (Quiet::default(), Instant::now());
        let mut told = 0;
        for number in 0..500_000_u64 {
            let now = begin + Duration::from_micros(20 * number);
            told += u32::from(quiet.tells(&refused(number), now));
            told += u32::from(quiet.tells(&event(number, Outcome::Repeated), now));
        }
        // Ten seconds of two floods.
        assert!((60..=2 * (30 + 21)).contains(&told), "{told}");
        let ping = Event { kind: RequestKind::Ping, ..event(1, Outcome::Answered) };
        assert_eq!((0..1000).filter(|_| quiet.tells(&ping, begin)).count(), 1);
        let untold: u64 = quiet.take_untold().iter().map(|(_, untold)| untold.count).sum();
        assert_eq!(untold, 1_000_000 - u64::from(told));
        let end = begin + Duration::from_secs(10);
        assert!(quiet.tells(&event(1, Outcome::Refused(Refusal::Malformed("a"))), end));
        assert!((0..10_000).all(|height| quiet.tells(&event(height, Outcome::Signed), end)));
    }
}
