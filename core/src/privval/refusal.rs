//! Refusals: answers without a signature, on a connection that stays open.
//!
//! CometBFT prints `signerEndpoint returned error #<code>: <description>`, skips the vote and does not ask
//! again (`privval/retry_signer_client.go`). No node interprets the code: it is for operators.

use crate::consensus::{ChainId, Conflict, Hrs};
use std::fmt;

/// The `code` of a `RemoteSignerError`. Stable: monitoring may match on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum ErrorCode {
    /// Another message was, or may have been, signed for this height, round and step.
    DoubleSign = 100,
    /// The chain has moved past this height, round or step.
    Regression = 101,
    /// The request is for another chain than this connection serves.
    WrongChain = 102,
    /// The key cannot sign now, because of its device, connector or key file.
    KeyUnavailable = 104,
    /// The height is above the configured `max_height`.
    MaxHeight = 105,
    /// The watermark cannot be read or written.
    StateUnusable = 106,
    /// The request is one that no honest node sends.
    Malformed = 107,
    /// The configuration does not allow the request, or Highwater never serves it.
    NotPermitted = 108,
}

/// Why a request gets no signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// [`ErrorCode::DoubleSign`]
    DoubleSign {
        /// Height, round and step of both messages.
        hrs: Hrs,
        /// How the message conflicts with the one at the mark.
        conflict: Conflict,
    },
    /// [`ErrorCode::KeyUnavailable`], with the reason.
    KeyUnavailable(String),
    /// [`ErrorCode::Malformed`], with what is wrong.
    Malformed(&'static str),
    /// [`ErrorCode::MaxHeight`]
    MaxHeight {
        /// The requested height.
        height: u64,
        /// The highest height that the node may ask for.
        max_height: u64,
    },
    /// [`ErrorCode::NotPermitted`], with the whole sentence for the node.
    NotPermitted(&'static str),
    /// [`ErrorCode::StateUnusable`], with the reason. The signer keeps trying to open the chain.
    NotYet(String),
    /// [`ErrorCode::Regression`]
    Regression {
        /// The requested height, round and step.
        asked: Hrs,
        /// The watermark.
        last: Hrs,
    },
    /// [`ErrorCode::StateUnusable`], with the reason. Lasts until a restart.
    StateUnusable(String),
    /// [`ErrorCode::WrongChain`]
    WrongChain {
        /// The chain that this connection serves.
        ours: ChainId,
        /// The requested chain, if its id is a valid one.
        asked: Option<Box<ChainId>>,
    },
}

impl Refusal {
    /// The code in the answer to the node.
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

    /// A short, stable name for logs and metrics.
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

/// The `description` in the answer to the node and in our log.
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
                write!(f, "this connection serves chain {ours} only, and the node asks for a chain with an invalid id")
            }
        }
    }
}
