//! Confinement: limits what an attacker who takes over a process of the signer can do to the machine.
//!
//! | file | what |
//! | --- | --- |
//! | `limits` | core dumps, privileges |
//! | `memory` | pages with secrets |
//! | `landlock` | files and ports |
//! | `seccomp` | system calls |
//!
//! A [`Sandbox`] closes in three steps: [`begin`](Sandbox::begin) before reading anything but the configuration,
//! [`close`](Sandbox::close) before the first thread and the first access to a device, [`seal`](Sandbox::seal) before
//! the first node is dialled. `docs/sandbox.md` says what each step still allows.

mod landlock;
mod limits;
pub mod memory;
mod seccomp;

use crate::config::Config;
pub use landlock::ModuleLimits;
use serde::{Deserialize, Serialize};
use std::{fmt, fs, path::Path};

/// The settings of the configuration for confinement.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Switches {
    core_dumps: bool,
    no_landlock: bool,
    no_seccomp: bool,
    /// `require_sandbox`
    required: bool,
}

impl Switches {
    pub fn of(config: &Config) -> Self {
        let highwater = &config.highwater;
        Self {
            core_dumps: highwater.danger_core_dumps,
            no_landlock: highwater.danger_no_landlock,
            no_seccomp: highwater.danger_no_seccomp,
            required: highwater.require_sandbox,
        }
    }

    /// The same without limits on files and ports, to find out what a module lacks.
    pub fn without_landlock(self) -> Self {
        Self { no_landlock: true, ..self }
    }

    /// The same without limits on system calls, to find out what a module lacks.
    pub fn without_seccomp(self) -> Self {
        Self { no_seccomp: true, ..self }
    }
}

/// A part of the confinement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// No core dumps, and no debugger of the same user.
    CoreDumps,
    /// Limits on files and ports.
    Landlock,
    /// Keys stay out of swap.
    LockedMemory,
    /// Executed programs gain no privileges.
    NoNewPrivs,
    /// Limits on system calls.
    Seccomp,
}

impl Feature {
    /// Its label in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::CoreDumps => "core_dumps",
            Self::Landlock => "landlock",
            Self::LockedMemory => "locked_memory",
            Self::NoNewPrivs => "no_new_privs",
            Self::Seccomp => "seccomp",
        }
    }

    /// The consequence of its absence, for this reason.
    fn without(self, why: &str) -> &'static str {
        match self {
            Self::Landlock if why == landlock::FILES_ONLY => "TCP ports are not limited",
            Self::CoreDumps => "a crash can write keys to disk, and other processes of this user can read them",
            Self::Landlock => "files and ports are not limited",
            Self::LockedMemory => "keys can be swapped to disk",
            Self::NoNewPrivs => "set-user-id programs still grant privileges",
            Self::Seccomp => "system calls are not limited",
        }
    }
}

/// Whether each part is in force, or why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement(Vec<(Feature, Result<(), String>)>);

impl Confinement {
    pub fn features(&self) -> impl Iterator<Item = (Feature, bool)> {
        self.0.iter().map(|(feature, state)| (*feature, state.is_ok()))
    }

    /// One sentence for each part that is not in force.
    pub fn warnings(&self) -> Vec<String> {
        let missing = self.0.iter().filter_map(|(feature, state)| Some((feature, state.as_ref().err()?)));
        missing.map(|(feature, why)| format!("{}: {why}", feature.without(why))).collect()
    }
}

/// A signer's confinement while it is being put in force.
#[derive(Debug)]
pub struct Sandbox {
    switches: Switches,
    report: Confinement,
    /// The number of threads at the beginning, if known.
    threads_before: Option<usize>,
}

impl Sandbox {
    /// Disables core dumps, also of programs started from here.
    pub fn begin(config: &Config) -> Result<Self, SandboxError> {
        let mut sandbox =
            Self { switches: Switches::of(config), report: Confinement::default(), threads_before: threads() };
        let disabled_by = sandbox.switches.core_dumps.then_some("danger_core_dumps");
        sandbox.put(Feature::CoreDumps, disabled_by, limits::no_core_dumps)?;
        Ok(sandbox)
    }

    /// Limits files and ports, and forbids the most dangerous system calls. No program can be started afterwards. Call
    /// it before any thread is started: Landlock does not limit existing threads.
    pub fn close(&mut self, config: &Config) -> Result<(), SandboxError> {
        let Switches { no_landlock, no_seccomp, .. } = self.switches;
        let threads_before = self.threads_before.unwrap_or(usize::MAX);
        self.put(Feature::NoNewPrivs, None, limits::no_new_privs)?;
        self.put(Feature::Landlock, no_landlock.then_some("danger_no_landlock"), || {
            // Existing threads would not be limited.
            match threads() {
                Some(now) if now > threads_before => Err("a thread was started too early: this is a bug".into()),
                _ => landlock::Policy::of_signer(config).enforce(),
            }
        })?;
        self.put(Feature::Seccomp, no_seccomp.then_some("danger_no_seccomp"), || {
            seccomp::forbid_to_signer(config.needs().usb)
        })
    }

    /// Allows only the system calls of a running signer. `secrets_locked` says whether its keys are locked into memory.
    pub fn seal(&mut self, config: &Config, secrets_locked: bool) -> Result<Confinement, SandboxError> {
        let disabled_by = self.switches.core_dumps.then_some("danger_core_dumps");
        self.put(Feature::LockedMemory, disabled_by, || {
            secrets_locked.then_some(()).ok_or_else(|| memory::why_not_locked(memory::limit()).into())
        })?;
        // If the first filter is not in force, the second will not be either, and the report says so already.
        let has_first = self.report.0.contains(&(Feature::Seccomp, Ok(())));
        if has_first {
            self.report.0.retain(|(feature, _)| *feature != Feature::Seccomp);
            self.put(Feature::Seccomp, None, || seccomp::allow_signer(config.needs().usb))?;
        }
        self.report.0.sort();
        Ok(self.report.clone())
    }

    /// Whether keys must be kept out of swap.
    pub fn locks_secrets(&self) -> bool {
        !self.switches.core_dumps
    }

    /// Puts a part in force, unless a switch of the configuration disables it.
    fn put(
        &mut self,
        feature: Feature,
        disabled_by: Option<&str>,
        enforce: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), SandboxError> {
        let state = match disabled_by {
            Some(switch) => Err(format!("{switch} = true")),
            None => enforce(),
        };
        if let (Err(why), None, true) = (&state, disabled_by, self.switches.required) {
            return Err(SandboxError { feature, why: why.clone() });
        }
        self.report.0.push((feature, state));
        Ok(())
    }
}

/// Confines the HSM spawner process, which keeps PINs, as far as its task allows.
pub fn confine_spawner(switches: Switches) -> Result<(), String> {
    harden(switches)?;
    switches.demand(switches.no_landlock, landlock::confine_spawner)?;
    switches.demand(switches.no_seccomp, seccomp::forbid_to_spawner)
}

/// Confines the process that starts and restarts a name's lookup process. It reads nothing from the network.
pub fn confine_name_keeper(switches: Switches) -> Result<(), String> {
    confine_spawner(switches)
}

/// The files that the result of a lookup depends on.
pub fn name_service_files() -> impl Iterator<Item = &'static Path> {
    landlock::NAME_SERVICE.iter().map(Path::new)
}

/// Confines the child of a token, before it loads its module: loading and initialising a module already runs the
/// vendor's code. Returns whether its files are limited.
pub fn confine_module(switches: Switches, limits: &ModuleLimits<'_>) -> Result<bool, String> {
    harden(switches)?;
    let mut limited = false;
    switches.demand(switches.no_landlock, || {
        let enforced = landlock::Policy::of_module(limits).enforce();
        limited = enforced.as_ref().err().is_none_or(|why| why == landlock::FILES_ONLY);
        enforced
    })?;
    switches.demand(switches.no_seccomp, || seccomp::forbid_to_module(limits.network, limits.sockets))?;
    Ok(limited)
}

/// Confines a process that resolves one name. With `udp` it may send UDP to any port: Landlock cannot limit that.
pub fn confine_resolver(switches: Switches, udp: bool) -> Result<(), String> {
    harden(switches)?;
    switches.demand(switches.no_landlock, || landlock::Policy::of_resolver().enforce())?;
    switches.demand(switches.no_seccomp, || seccomp::forbid_to_resolver(udp))
}

/// The number of threads of this process.
fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

/// Confines the process that makes and renames audit files to the directory of `audit`.
pub fn confine_audit_keeper(switches: Switches, audit: &Path) -> Result<(), String> {
    harden(switches)?;
    switches.demand(switches.no_landlock, || landlock::Policy::of_audit_keeper(audit).enforce())?;
    switches.demand(switches.no_seccomp, seccomp::forbid_to_audit_keeper)
}

/// Confines the process that reads the configuration again: it may read any file, and do nothing else.
pub fn confine_config_reader(switches: Switches) -> Result<(), String> {
    harden(switches)?;
    switches.demand(switches.no_landlock, || landlock::Policy::of_config_reader().enforce())?;
    switches.demand(switches.no_seccomp, seccomp::forbid_to_config_reader)
}

fn harden(switches: Switches) -> Result<(), String> {
    switches.demand(switches.core_dumps, limits::no_core_dumps)?;
    switches.demand(false, limits::no_new_privs)
}

impl Switches {
    /// Puts a part in force, unless it is disabled. A failure is an error only if the sandbox is required; otherwise
    /// the signer, on the same kernel, has already logged it.
    fn demand(self, disabled: bool, enforce: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        if disabled {
            return Ok(());
        }
        enforce().or_else(|why| if self.required { Err(why) } else { Ok(()) })
    }
}

/// A part of the confinement that is required but not available.
#[derive(Debug, PartialEq, Eq)]
pub struct SandboxError {
    pub feature: Feature,
    pub why: String,
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[highwater] has `require_sandbox`, and {}: {}", self.feature.without(&self.why), self.why)
    }
}

impl std::error::Error for SandboxError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn sandbox(required: bool) -> Sandbox {
        let switches = Switches { required, ..Switches::default() };
        Sandbox { switches, report: Confinement::default(), threads_before: None }
    }

    #[test]
    fn a_part_that_is_missing_is_a_warning_or_ends_the_start() {
        let missing = || Err("this kernel has no Landlock".to_owned());
        let mut lenient = sandbox(false);
        lenient.put(Feature::Landlock, None, missing).unwrap();
        lenient.put(Feature::Seccomp, None, || Ok(())).unwrap();
        assert_eq!(lenient.report.warnings(), ["files and ports are not limited: this kernel has no Landlock"]);
        let mut partial = sandbox(false);
        partial.put(Feature::Landlock, None, || Err(landlock::FILES_ONLY.into())).unwrap();
        assert!(
            partial.report.warnings()[0].starts_with("TCP ports are not limited: this kernel's Landlock limits files")
        );
        let features: Vec<_> = lenient.report.features().collect();
        assert_eq!(features, [(Feature::Landlock, false), (Feature::Seccomp, true)]);

        let error = sandbox(true).put(Feature::Landlock, None, missing).unwrap_err().to_string();
        assert!(error.contains("require_sandbox") && error.contains("no Landlock"), "{error}");
    }

    #[test]
    fn disabled_parts_are_not_tried_and_always_reported() {
        let mut sandbox = sandbox(true);
        let never = || unreachable!("it is disabled");
        sandbox.put(Feature::CoreDumps, Some("danger_core_dumps"), never).unwrap();
        let warnings = sandbox.report.warnings();
        assert!(warnings.len() == 1 && warnings[0].ends_with(": danger_core_dumps = true"), "{warnings:?}");
        assert_eq!(Switches { required: true, ..Switches::default() }.demand(true, never), Ok(()));
    }
}
