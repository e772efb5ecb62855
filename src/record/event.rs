//! Who asked, what is worth keeping, and the log line of a request.

use super::lanes::Kind;
use highwater_core::{
    answer::{Event, Outcome},
    consensus::ChainId,
    privval::RequestKind,
};
use std::{sync::Arc, time::Duration};
use tracing::{debug, field, info, warn};

/// Logs the result of a request, with what a vote was for: which node voted nil is then a search.
pub(crate) fn log(event: &Event, chain: &ChainId, node: &str, took: Duration) {
    let request = event.hrs.map_or(event.kind.name(), |hrs| hrs.step.name());
    let (height, round) = (event.hrs.map(|hrs| hrs.height), event.hrs.map(|hrs| hrs.round));
    let choice = event.choice.map(field::display);
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let verdict = event.outcome.name();
    match &event.outcome {
        Outcome::Refused(refusal) => {
            warn!(%chain, node, request, height, round, block = choice, us, reason = refusal.name(), "{verdict}: {refusal}");
        }
        _ if event.kind == RequestKind::Ping => debug!(%chain, node, request, us, "{verdict}"),
        _ => info!(%chain, node, request, height, round, block = choice, us, "{verdict}"),
    }
}

/// The chain and the node that send requests.
#[derive(Clone, Debug)]
pub struct Source {
    pub chain: ChainId,
    /// The chain's consensus key, if it is known.
    pub key: Option<String>,
    /// The node's address.
    pub node: Arc<str>,
}

/// New signatures must not be lost. Other events are lost first.
pub(super) fn kind_of(event: &Event) -> Kind {
    if event.outcome == Outcome::Signed { Kind::Signed } else { Kind::Other }
}
