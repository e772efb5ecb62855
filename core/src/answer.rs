//! One request answered, from its bytes to the message that goes back: what a node's bytes become here, and nowhere else.

use crate::{
    chain::{Chain, Signed},
    consensus::Hrs,
    privval::{ParseError, Refusal, Request, RequestKind, message::Message, response},
};
use std::time::Duration;

/// Answers one message. Above `max_height` nothing is signed for this node: its limit refuses before the mark moves.
pub fn answer(chain: &Chain, body: &[u8], max_height: Option<u64>) -> Result<(Message, Event), Unanswerable> {
    let request = match Request::parse(body, chain.id()) {
        Ok(request) => request,
        Err(ParseError::Refused(kind, refusal)) => {
            return Ok((response::refused(kind, &refusal), Event::refused(kind, None, refusal)));
        }
        Err(ParseError::Unanswerable) => return Err(Unanswerable),
    };
    let (kind, hrs) = (request.kind(), request.hrs());
    let answered = match (hrs, max_height) {
        (Some(Hrs { height, .. }), Some(max_height)) if height > max_height => {
            Err(Refusal::MaxHeight { height, max_height })
        }
        _ => answer_request(chain, request),
    };
    Ok(match answered {
        Ok(Answer { message, outcome, flush_time, sequence }) => {
            (message, Event { kind, hrs, outcome, flush_time, sequence })
        }
        Err(refusal) => (response::refused(kind, &refusal), Event::refused(kind, hrs, refusal)),
    })
}

/// What leaves for the node, and what is recorded of it.
struct Answer {
    message: Message,
    outcome: Outcome,
    flush_time: Option<Duration>,
    sequence: Option<u64>,
}

impl Answer {
    fn without_mark(message: Message, outcome: Outcome) -> Self {
        Self { message, outcome, flush_time: None, sequence: None }
    }

    fn with_mark(message: Message, signed: &Signed) -> Self {
        let outcome = if signed.repeated { Outcome::Repeated } else { Outcome::Signed };
        Self { message, outcome, flush_time: signed.flush_time, sequence: Some(signed.sequence) }
    }
}

fn answer_request(chain: &Chain, request: Request) -> Result<Answer, Refusal> {
    Ok(match request {
        Request::Ping => Answer::without_mark(response::ping(), Outcome::Answered),
        Request::PubKey => Answer::without_mark(response::pub_key(&chain.public_key()?), Outcome::Answered),
        Request::RawBytes(request) => {
            Answer::without_mark(response::raw_bytes(&chain.sign_raw_bytes(&request)?), Outcome::Signed)
        }
        Request::Proposal(request) => {
            let signed = chain.sign_proposal(&request)?;
            Answer::with_mark(response::proposal(request.echo, &signed.signature), &signed)
        }
        Request::Vote(request) => {
            let signed = chain.sign_vote(&request)?;
            let extension = signed.extension_signature.as_ref();
            Answer::with_mark(response::vote(request.echo, signed.timestamp, &signed.signature, extension), &signed)
        }
    })
}

/// Bytes that are no request of any kind. CometBFT knows no answer to them, so the link ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswerable;

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
}
