//! Limits on the whole process.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};

/// Disables core dumps, even to a collector program, and keeps other processes of this user from attaching to or
/// reading our memory (`ptrace(2)`, `/proc/PID/mem`). Programs started from here inherit only the first.
pub(super) fn no_core_dumps() -> Result<(), String> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, none).map_err(|error| format!("setrlimit(RLIMIT_CORE): {error}"))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|error| format!("prctl(PR_SET_DUMPABLE): {error}"))
}

/// Programs executed from now on cannot gain privileges.
pub(super) fn no_new_privs() -> Result<(), String> {
    rustix::thread::set_no_new_privs(true).map_err(|error| format!("prctl(PR_SET_NO_NEW_PRIVS): {error}"))
}
