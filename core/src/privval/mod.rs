//! The privval protocol: a validator node's requests and the answers to them. Pure: no I/O, no clock, no keys.
//!
//! | file | what |
//! | --- | --- |
//! | `frame` | the length prefix and the size limits |
//! | `message` | the protobuf union of all versions |
//! | `request` | a message from a node, validated: all later code can rely on it |
//! | `sign_bytes` | what a key signs |
//! | `response` | a message to a node |
//! | `refusal` | the reason why a request gets no signature, and its code |

pub mod frame;
pub mod message;
mod refusal;
mod request;
pub mod response;
mod sign_bytes;

pub use refusal::{ErrorCode, Refusal};
pub use request::{Extension, ParseError, ProposalRequest, RawBytesRequest, Request, RequestKind, VoteRequest};
pub use sign_bytes::{
    Canonical, CanonicalBlockId, Choice, MessageKind, SignBytes, extension_sign_bytes, raw_sign_bytes,
};
