//! `tmkms.toml`
mod model;
pub use model::*;
