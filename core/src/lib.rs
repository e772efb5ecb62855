//! The part of Highwater that decides.

#[doc(hidden)]
#[macro_use]
pub mod broken;

pub mod answer;
pub mod chain;
pub mod consensus;
pub mod disk;
pub mod hex;
pub mod privval;
pub mod signer;
pub mod watermark;
