//! What became of one request: the words of log, metrics, status and audit file.

use crate::{
    consensus::{ChainId, Hrs},
    privval::{Refusal, RequestKind},
};
use std::time::Duration;
use tracing::{debug, info, warn};

/// What became of a request, for log, metrics and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Which kind of request.
    pub kind: RequestKind,
    /// Height, round and step, if it has them.
    pub hrs: Option<Hrs>,
    /// What it got.
    pub outcome: Outcome,
    /// How long a new mark took to become durable.
    pub flush_time: Option<Duration>,
    /// The number of the mark that covers the answer.
    pub sequence: Option<u64>,
}

/// What a request got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer without a signature.
    Answered,
    /// An error.
    Refused(Refusal),
    /// A signature that it, or another node, had got before.
    Repeated,
    /// A new signature.
    Signed,
}

impl Outcome {
    /// A short name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Refused(refusal) => match refusal {
                Refusal::KeyUnavailable(_) | Refusal::NotYet(_) | Refusal::StateUnusable(_) => "failed",
                _ => "refused",
            },
            Self::Repeated => "repeated",
            Self::Signed => "signed",
        }
    }
}

impl Event {
    /// A request that was refused.
    pub fn refused(kind: RequestKind, hrs: Option<Hrs>, refusal: Refusal) -> Self {
        Self { kind, hrs, outcome: Outcome::Refused(refusal), flush_time: None, sequence: None }
    }

    /// Writes a line.
    pub fn log(&self, chain: &ChainId, node: &str, took: Duration) {
        let request = self.hrs.map_or(self.kind.name(), |hrs| hrs.step.name());
        let (height, round) = (self.hrs.map(|hrs| hrs.height), self.hrs.map(|hrs| hrs.round));
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let verdict = self.outcome.name();
        match &self.outcome {
            Outcome::Refused(refusal) => {
                warn!(%chain, node, request, height, round, us, reason = refusal.name(), "{verdict}: {refusal}");
            }
            _ if self.kind == RequestKind::Ping => debug!(%chain, node, request, us, "{verdict}"),
            _ => info!(%chain, node, request, height, round, us, "{verdict}"),
        }
    }
}
