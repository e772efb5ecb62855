//! Refusals: an answer that carries no signature, on a connection that stays open.
//!
//! CometBFT prints `signerEndpoint returned error #<code>: <description>`, skips the vote and does not ask
//! again (`privval/retry_signer_client.go`). No node interprets the code; the codes are for operators.

use crate::consensus::{ChainId, Conflict, Hrs};
use std::fmt;

/// The `code` of a `RemoteSignerError`. Stable: monitoring may match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ErrorCode {
    /// Another message was already signed for this height, round and step.
    DoubleSign = 100,
    /// The chain has moved past this height, round or step.
    Regression = 101,
    /// The request is for another chain than this connection serves.
    WrongChain = 102,
    /// The key cannot sign now: device, connector or key file.
    KeyUnavailable = 104,
    /// The height is above the configured `max_height`.
    MaxHeight = 105,
    /// The watermark cannot be read or written.
    StateUnusable = 106,
    /// No honest node sends this.
    Malformed = 107,
    /// The configuration does not allow it, or Highwater never does it.
    NotPermitted = 108,
}

/// Why a request gets no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// [`ErrorCode::DoubleSign`]
    DoubleSign {
        /// Height, round and step of both messages.
        hrs: Hrs,
        /// What speaks against it.
        conflict: Conflict,
    },
    /// [`ErrorCode::KeyUnavailable`]
    KeyUnavailable(String),
    /// [`ErrorCode::Malformed`]
    Malformed(&'static str),
    /// [`ErrorCode::MaxHeight`]
    MaxHeight {
        /// The height asked for.
        height: u64,
        /// The highest allowed.
        max_height: u64,
    },
    /// [`ErrorCode::NotPermitted`]
    NotPermitted(&'static str),
    /// [`ErrorCode::StateUnusable`], and it is seen to that this passes.
    NotYet(String),
    /// [`ErrorCode::Regression`]
    Regression {
        /// What was asked for.
        asked: Hrs,
        /// The watermark.
        last: Hrs,
    },
    /// [`ErrorCode::StateUnusable`]
    StateUnusable(String),
    /// [`ErrorCode::WrongChain`]
    WrongChain {
        /// The chain that this connection serves.
        ours: ChainId,
        /// The chain that was asked for, if that is a name that a chain can have.
        asked: Option<Box<ChainId>>,
    },
}

impl Refusal {
    /// The code that goes to the node.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::DoubleSign { .. } => ErrorCode::DoubleSign,
            Self::KeyUnavailable(_) => ErrorCode::KeyUnavailable,
            Self::Malformed(_) => ErrorCode::Malformed,
            Self::MaxHeight { .. } => ErrorCode::MaxHeight,
            Self::NotPermitted(_) => ErrorCode::NotPermitted,
            Self::Regression { .. } => ErrorCode::Regression,
            Self::NotYet(_) | Self::StateUnusable(_) => ErrorCode::StateUnusable,
            Self::WrongChain { .. } => ErrorCode::WrongChain,
        }
    }

    /// A short name for logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::DoubleSign { conflict, .. } => conflict.name(),
            Self::KeyUnavailable(_) => "key-unavailable",
            Self::Malformed(_) => "malformed",
            Self::MaxHeight { .. } => "max-height",
            Self::NotPermitted(_) => "not-permitted",
            Self::NotYet(_) => "not-yet",
            Self::Regression { .. } => "regression",
            Self::StateUnusable(_) => "state-unusable",
            Self::WrongChain { .. } => "wrong-chain",
        }
    }
}

/// The `description` that goes to the node and into our log.
impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DoubleSign { hrs, conflict } => write!(f, "double sign refused at {hrs}: {conflict}"),
            Self::KeyUnavailable(why) => write!(f, "the key cannot sign: {why}"),
            Self::Malformed(what) => write!(f, "malformed request: {what}"),
            Self::MaxHeight { height, max_height } => {
                write!(f, "height {height} is above max_height {max_height}")
            }
            Self::NotPermitted(what) => f.write_str(what),
            Self::NotYet(why) => write!(f, "the chain is not open yet: {why}"),
            Self::Regression { asked, last } => {
                let what = if asked.height < last.height {
                    "height"
                } else if asked.round < last.round {
                    "round"
                } else {
                    "step"
                };
                write!(f, "{what} regression refused: asked for {asked}, the watermark is at {last}")
            }
            Self::StateUnusable(why) => write!(f, "the watermark is unusable: {why}"),
            Self::WrongChain { ours, asked: Some(asked) } => {
                write!(f, "this connection serves chain {ours} only, and the node asks for chain {asked}")
            }
            Self::WrongChain { ours, asked: None } => {
                write!(f, "this connection serves chain {ours} only, and the node asks for one without a proper id")
            }
        }
    }
}
