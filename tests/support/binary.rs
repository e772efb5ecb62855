//! Which `highwater` the tests run: the one that cargo has just built, or the one that `HIGHWATER_BINARY` names.

use std::{env, path::PathBuf};

/// Its path.
pub fn highwater() -> PathBuf {
    env::var_os("HIGHWATER_BINARY").map_or_else(|| env!("CARGO_BIN_EXE_highwater").into(), PathBuf::from)
}
