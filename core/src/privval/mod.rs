//! The privval protocol: what a validator node asks and what it is told. Pure: no I/O, no clock, no keys.
//!
//! | file | what |
//! | --- | --- |
//! | `frame` | the length prefix and the size limits |
//! | `message` | the protobuf union of all versions |
//! | `request` | a message from a node, checked: everything downstream can rely on it |
//! | `sign_bytes` | what a key signs |
//! | `response` | a message to a node |
//! | `refusal` | why there is no signature, and the code for it |

pub mod frame;
pub mod message;
mod refusal;
mod request;
pub mod response;
mod sign_bytes;

pub use refusal::{ErrorCode, Refusal};
pub use request::{Extension, ParseError, ProposalRequest, RawBytesRequest, Request, RequestKind, VoteRequest};
pub use sign_bytes::{Canonical, CanonicalBlockId, MessageKind, SignBytes, extension_sign_bytes, raw_sign_bytes};
