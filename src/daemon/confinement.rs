//! The three steps of the confinement, as a start takes them and as `check` tries them.

use crate::{
    config::Config,
    process::sandbox::{Confinement, Sandbox, SandboxError, memory},
};

/// Takes the last step: locks the keys into memory, unless the configuration gives that up, and leaves the system calls
/// of a running signer.
pub(super) fn seal(
    mut sandbox: Sandbox,
    config: &Config,
    lock_secrets: impl FnOnce() -> bool,
) -> Result<Confinement, SandboxError> {
    let locked = sandbox.locks_secrets() && lock_secrets();
    sandbox.seal(config, locked)
}

/// Confines this process as `start` does, to find out what this kernel has of it. Nothing else comes between the steps.
pub(crate) fn rehearse(config: &Config) -> Result<Confinement, SandboxError> {
    let mut sandbox = Sandbox::begin(config)?;
    sandbox.close(config)?;
    seal(sandbox, config, || memory::lock(&Box::new([0_u8; 64])))
}
