//! Answers one request, from its bytes to the response message. Only this file turns a node's bytes into an answer.

use crate::{
    chain::{Chain, Signed},
    consensus::Hrs,
    privval::{Choice, ParseError, Refusal, Request, RequestKind, message::Message, response},
};
use std::time::Duration;

/// Answers one message, given as the bytes after the length prefix. Refuses heights above `max_height`, this node's
/// limit, before the mark moves.
pub fn answer(chain: &Chain, body: &[u8], max_height: Option<u64>) -> Result<(Message, Event), Unanswerable> {
    let request = match Request::parse(body, chain.id()) {
        Ok(request) => request,
        Err(ParseError::Refused(kind, refusal)) => {
            return Ok((response::refused(kind, &refusal), Event::refused(kind, None, refusal)));
        }
        Err(ParseError::Unanswerable) => return Err(Unanswerable),
    };
    let (kind, hrs, choice) = (request.kind(), request.hrs(), request.choice());
    let answered = match (hrs, max_height) {
        (Some(Hrs { height, .. }), Some(max_height)) if height > max_height => {
            Err(Refusal::MaxHeight { height, max_height })
        }
        _ => answer_request(chain, request),
    };
    Ok(match answered {
        Ok(Answer { message, outcome, flush_time, sequence }) => {
            (message, Event { kind, hrs, choice, outcome, flush_time, sequence })
        }
        Err(refusal) => (response::refused(kind, &refusal), Event { choice, ..Event::refused(kind, hrs, refusal) }),
    })
}

/// The message for the node, and the data to record about it.
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

/// The bytes are not a request of any kind. CometBFT defines no answer to that, so the link must be closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unanswerable;

/// The result of a request, for the log, metrics and status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The kind of the request.
    pub kind: RequestKind,
    /// Height, round and step, if a vote or proposal could be read.
    pub hrs: Option<Hrs>,
    /// What that vote or proposal is for.
    pub choice: Option<Choice>,
    /// How it was answered.
    pub outcome: Outcome,
    /// How long the new mark took to become durable. `None` if the mark did not move.
    pub flush_time: Option<Duration>,
    /// The sequence of the mark that covers the answer. `None` if no mark does.
    pub sequence: Option<u64>,
}

/// How a request was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With an answer that needs no signature.
    Answered,
    /// With an error.
    Refused(Refusal),
    /// With a signature over a message that was signed before, for this node or another.
    Repeated,
    /// With a new signature.
    Signed,
}

impl Outcome {
    /// A short, stable name for logs and metrics.
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
    /// The event of a refused request.
    pub fn refused(kind: RequestKind, hrs: Option<Hrs>, refusal: Refusal) -> Self {
        Self { kind, hrs, choice: None, outcome: Outcome::Refused(refusal), flush_time: None, sequence: None }
    }
}

#[cfg(test)]
#[path = "answer_tests.rs"]
mod tests;
