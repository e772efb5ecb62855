//! The three steps of the confinement, as in a start and as rehearsed by `check`.

use crate::{
    config::Config,
    process::sandbox::{Confinement, Sandbox, SandboxError, memory},
};

/// The last step: locks the keys into memory, unless the configuration disables that, and allows only the system calls
/// of a running signer.
pub(super) fn seal(
    mut sandbox: Sandbox,
    config: &Config,
    lock_secrets: impl FnOnce() -> bool,
) -> Result<Confinement, SandboxError> {
    let locked = sandbox.locks_secrets() && lock_secrets();
    sandbox.seal(config, locked)
}

/// Confines this process as `start` does, to find out what this kernel supports. Does nothing else between the steps.
pub(crate) fn rehearse(config: &Config) -> Result<Confinement, SandboxError> {
    let mut sandbox = Sandbox::begin(config)?;
    sandbox.close(config)?;
    seal(sandbox, config, || memory::lock(&Box::new([0_u8; 64])))
}
