//! A chain of real CometBFT nodes on loopback, with an application, and signers as an operator runs them.

pub mod app;
pub mod lab;
pub mod node;
pub mod rpc;
pub mod signer;
