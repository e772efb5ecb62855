//! What surrounds the signer in operation. Nothing here is waited for on the way from a request to its answer.

pub mod log;
pub mod panic;
