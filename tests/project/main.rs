//! The project itself: documents, packaging, and the tests of the tests.
//!
//! | module | what is shown |
//! | --- | --- |
//! | `docs` | documents tell the truth |
//! | `examples` | documents show what the program prints |
//! | `packaging` | what `packaging/` promises |
//! | `honest` | what is not checked is said, and fails in CI |
//! | `house` | the plan of the rooms: who imports whom |
//! | `readme` | the README's figures and lines are true |
//! | `broken_variants` | the tests notice deliberate bugs |
#![allow(clippy::unwrap_used, clippy::print_stderr, unreachable_pub, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod broken_variants;
mod docs;
mod examples;
mod honest;
mod house;
mod packaging;
mod readme;
