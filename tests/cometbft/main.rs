//! Highwater in the place of another signer: beside real CometBFT nodes, after tmkms and before it, byte for byte.
//!
//! | module | what is shown |
//! | --- | --- |
//! | `nodes` | real CometBFT nodes: blocks grow, whatever happens to the signer |
//! | `rule` | what each request is answered after each other one |
//! | `vectors` | signatures and answers that CometBFT computed |
//! | `tmkms` | the state of tmkms and of CometBFT's own signer, taken over and given back |
//! | `guided` | `highwater init --guided` at a terminal |
//! | `guide` | `docs/migrate-from-tmkms.md`, line by line |
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod guide;
mod guided;
mod nodes;
mod rule;
mod tmkms;
mod vectors;
