//! Highwater: a remote signer for CometBFT validators.
pub mod config;
pub mod consensus;
pub mod privval;
pub mod watermark;
