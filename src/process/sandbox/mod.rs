//! Confinement: what the processes of a signer can still do to their machine, should anybody take one over.
//!
//! | file | what |
//! | --- | --- |
//! | `limits` | core dumps, privileges |
//! | `memory` | pages that hold secrets |
//! | `landlock` | files and ports |
//! | `seccomp` | system calls |
//!
//! A [`Sandbox`] closes in three steps: [`begin`](Sandbox::begin) before anything is read but the configuration,
//! [`close`](Sandbox::close) before there is a thread and before any device is asked, [`seal`](Sandbox::seal) before the
//! first node is dialled. `docs/sandbox.md` says what each leaves open.

mod landlock;
mod limits;
pub mod memory;
mod seccomp;

use crate::config::{Config, YubiHsmAdapter};
pub use landlock::ModuleLimits;
use serde::{Deserialize, Serialize};
use std::{fmt, fs, path::Path};

/// What the configuration says about confinement.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
pub struct Switches {
    /// `danger_core_dumps`
    core_dumps: bool,
    /// `danger_no_landlock`
    no_landlock: bool,
    /// `danger_no_seccomp`
    no_seccomp: bool,
    /// `require_sandbox`
    required: bool,
}

impl Switches {
    /// Those of `config`.
    pub fn of(config: &Config) -> Self {
        let own = &config.own;
        Self {
            core_dumps: own.danger_core_dumps,
            no_landlock: own.danger_no_landlock,
            no_seccomp: own.danger_no_seccomp,
            required: own.require_sandbox,
        }
    }
}

/// A part of the confinement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feature {
    /// No core dumps, and no debugger of the same user.
    CoreDumps,
    /// Limits on files and ports.
    Landlock,
    /// Keys are kept out of swap.
    LockedMemory,
    /// Nothing that is executed gains privileges.
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

    /// What is missing without it.
    fn without(self) -> &'static str {
        match self {
            Self::CoreDumps => "a crash can write keys to disk, and other processes of this user can read them",
            Self::Landlock => "files and ports are not limited",
            Self::LockedMemory => "keys can be swapped to disk",
            Self::NoNewPrivs => "set-user-id programs still give privileges",
            Self::Seccomp => "system calls are not limited",
        }
    }
}

/// Whether each part is in force, or why not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confinement(Vec<(Feature, Result<(), String>)>);

impl Confinement {
    /// Each part, and whether it is in force.
    pub fn features(&self) -> impl Iterator<Item = (Feature, bool)> {
        self.0.iter().map(|(feature, state)| (*feature, state.is_ok()))
    }

    /// A sentence for each part that is not in force.
    pub fn warnings(&self) -> Vec<String> {
        let missing = self.0.iter().filter_map(|(feature, state)| Some((feature, state.as_ref().err()?)));
        missing.map(|(feature, why)| format!("{}: {why}", feature.without())).collect()
    }
}

/// A signer's confinement while it comes into force.
#[derive(Debug)]
pub struct Sandbox {
    switches: Switches,
    report: Confinement,
    /// How many threads there were at the beginning, if that can be seen.
    threads_before: Option<usize>,
}

impl Sandbox {
    /// Ends core dumps, also of what is started from here.
    pub fn begin(config: &Config) -> Result<Self, SandboxError> {
        let mut sandbox =
            Self { switches: Switches::of(config), report: Confinement::default(), threads_before: threads() };
        let given_away = sandbox.switches.core_dumps.then_some("danger_core_dumps");
        sandbox.put(Feature::CoreDumps, given_away, limits::no_core_dumps)?;
        Ok(sandbox)
    }

    /// Limits files, ports and the worst of the system calls. No program is started from here on. Before any thread:
    /// Landlock would not reach one that is there.
    pub fn close(&mut self, config: &Config) -> Result<(), SandboxError> {
        let Switches { no_landlock, no_seccomp, .. } = self.switches;
        let threads_before = self.threads_before.unwrap_or(usize::MAX);
        self.put(Feature::NoNewPrivs, None, limits::no_new_privs)?;
        self.put(Feature::Landlock, no_landlock.then_some("danger_no_landlock"), || {
            // Threads that are there already would stay outside.
            match threads() {
                Some(now) if now > threads_before => Err("a thread was started too early: this is a bug".into()),
                _ => landlock::Policy::of_signer(config, &landlock::control_socket(config)).enforce(),
            }
        })?;
        self.put(Feature::Seccomp, no_seccomp.then_some("danger_no_seccomp"), || {
            seccomp::forbid_to_signer(has_usb(config))
        })
    }

    /// Leaves the system calls of a running signer. `secrets_locked` says whether its keys were kept out of swap.
    pub fn seal(&mut self, config: &Config, secrets_locked: bool) -> Result<Confinement, SandboxError> {
        let given_away = self.switches.core_dumps.then_some("danger_core_dumps");
        let limit = "the system locks no memory for us: raise RLIMIT_MEMLOCK (LimitMEMLOCK= of the systemd unit)";
        self.put(Feature::LockedMemory, given_away, || secrets_locked.then_some(()).ok_or_else(|| limit.into()))?;
        // If the first filter is not in force, the second will not be either, and that is said already.
        let has_first = self.report.0.contains(&(Feature::Seccomp, Ok(())));
        if has_first {
            self.report.0.retain(|(feature, _)| *feature != Feature::Seccomp);
            self.put(Feature::Seccomp, None, || seccomp::allow_signer(has_usb(config)))?;
        }
        self.report.0.sort();
        Ok(self.report.clone())
    }

    /// Whether keys are to be kept out of swap.
    pub fn locks_secrets(&self) -> bool {
        !self.switches.core_dumps
    }

    /// Puts a part into force, unless the configuration gives it away.
    fn put(
        &mut self,
        feature: Feature,
        given_away: Option<&str>,
        enforce: impl FnOnce() -> Result<(), String>,
    ) -> Result<(), SandboxError> {
        let state = match given_away {
            Some(switch) => Err(format!("{switch} = true")),
            None => enforce(),
        };
        if let (Err(why), None, true) = (&state, given_away, self.switches.required) {
            return Err(SandboxError { feature, why: why.clone() });
        }
        self.report.0.push((feature, state));
        Ok(())
    }
}

/// Confines the process that starts the children of tokens, as far as one can be that must do so: it keeps PINs.
pub fn confine_spawner(switches: Switches) -> Result<(), String> {
    harden(switches)?;
    switches.demand(switches.no_landlock, landlock::confine_spawner)?;
    switches.demand(switches.no_seccomp, seccomp::forbid_to_spawner)
}

/// Confines the process that starts, and starts again, the one that looks up a name. It reads nothing from the network.
pub fn confine_name_keeper(switches: Switches) -> Result<(), String> {
    confine_spawner(switches)
}

/// The files on which an answer to a lookup depends.
pub fn name_service_files() -> impl Iterator<Item = &'static Path> {
    landlock::NAME_SERVICE.iter().map(Path::new)
}

/// Confines the child of a token, before its module is loaded: what a module does while it is loaded and initialised
/// is the vendor's code as much as the rest.
pub fn confine_module(switches: Switches, limits: &ModuleLimits<'_>) -> Result<(), String> {
    harden(switches)?;
    switches.demand(switches.no_landlock, || landlock::Policy::of_module(limits).enforce())?;
    switches.demand(switches.no_seccomp, || seccomp::forbid_to_module(limits.network, limits.sockets))
}

/// Confines a process that resolves one name. With `udp` it may ask by UDP, to any port: no kernel limits that.
pub fn confine_resolver(switches: Switches, udp: bool) -> Result<(), String> {
    harden(switches)?;
    switches.demand(switches.no_landlock, || landlock::Policy::of_resolver().enforce())?;
    switches.demand(switches.no_seccomp, || seccomp::forbid_to_resolver(udp))
}

/// Whether one of the paths is, or lies in, the other.
pub fn overlap(a: &Path, b: &Path) -> bool {
    landlock::overlap(a, b)
}

fn has_usb(config: &Config) -> bool {
    config.yubihsm.iter().any(|provider| matches!(provider.adapter, YubiHsmAdapter::Usb { .. }))
}

/// How many threads this process has.
fn threads() -> Option<usize> {
    Some(fs::read_dir("/proc/self/task").ok()?.count())
}

/// Confines the process that makes and renames audit files: nothing but the directory of `audit`.
pub fn confine_audit_keeper(switches: Switches, audit: &Path) -> Result<(), String> {
    harden(switches)?;
    switches.demand(switches.no_landlock, || landlock::Policy::of_audit_keeper(audit).enforce())?;
    switches.demand(switches.no_seccomp, seccomp::forbid_to_audit_keeper)
}

fn harden(switches: Switches) -> Result<(), String> {
    switches.demand(switches.core_dumps, limits::no_core_dumps)?;
    switches.demand(false, limits::no_new_privs)
}

impl Switches {
    /// Puts a part into force, unless it was given away. That it cannot be is an error where the sandbox is required;
    /// elsewhere the signer, on the same kernel, has said so.
    fn demand(self, given_away: bool, enforce: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        if given_away {
            return Ok(());
        }
        enforce().or_else(|why| if self.required { Err(why) } else { Ok(()) })
    }
}

/// A part of the confinement that is required and cannot be had.
#[derive(Debug, PartialEq, Eq)]
pub struct SandboxError {
    /// Which.
    pub feature: Feature,
    /// Why not.
    pub why: String,
}

impl fmt::Display for SandboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[highwater] has `require_sandbox`, and {}: {}", self.feature.without(), self.why)
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
        let features: Vec<_> = lenient.report.features().collect();
        assert_eq!(features, [(Feature::Landlock, false), (Feature::Seccomp, true)]);

        let error = sandbox(true).put(Feature::Landlock, None, missing).unwrap_err().to_string();
        assert!(error.contains("require_sandbox") && error.contains("no Landlock"), "{error}");
    }

    #[test]
    fn what_the_configuration_gives_away_is_not_tried_and_always_told() {
        let mut sandbox = sandbox(true);
        let never = || unreachable!("it was given away");
        sandbox.put(Feature::CoreDumps, Some("danger_core_dumps"), never).unwrap();
        let warnings = sandbox.report.warnings();
        assert!(warnings.len() == 1 && warnings[0].ends_with(": danger_core_dumps = true"), "{warnings:?}");
        assert_eq!(Switches { required: true, ..Switches::default() }.demand(true, never), Ok(()));
    }
}
