//! Which function of its module this process calls next, for whoever waits for it.
//!
//! A command waits for each call, not for all together, and never gives up on a login. Nobody watches a child that signs:
//! there it costs one load of a pointer, and signing does not report at all.

use std::sync::OnceLock;

/// The call that is never cut off: a login without an answer may count as a wrong PIN.
pub const LOGIN: &str = "log in";

type Watcher = Box<dyn Fn(&'static str) + Send + Sync>;

static WATCHER: OnceLock<Watcher> = OnceLock::new();

/// From now on, reports to `watcher` what is called, as in "to {call}". Only the first watcher of a process counts.
pub fn watch(watcher: impl Fn(&'static str) + Send + Sync + 'static) {
    let _ = WATCHER.set(Box::new(watcher));
}

/// Reports a call that is about to be made.
pub(crate) fn about_to(call: &'static str) {
    if let Some(watcher) = WATCHER.get() {
        watcher(call);
    }
}
