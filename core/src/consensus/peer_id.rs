//! A node's peer id, derived from its identity key.

use crate::hex::Hex;
use std::fmt;

/// A peer id: the first 20 bytes of SHA-256 of an Ed25519 identity key (CometBFT `p2p/key.go`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PeerId(pub [u8; 20]);

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
