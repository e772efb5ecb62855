//! Limits on a process as a whole.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// No core dumps, not even to a program that collects them, and no other process of this user that attaches or reads
/// our memory (`ptrace(2)`, `/proc/PID/mem`). What is started from here inherits only the first.
pub(super) fn no_core_dumps() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| format!("setrlimit(RLIMIT_CORE): {error}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| format!("prctl(PR_SET_DUMPABLE): {error}"))
}

/// Whatever is executed from here on gains no privileges by it.
pub(super) fn no_new_privs() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("prctl(PR_SET_NO_NEW_PRIVS): {error}"))
}
