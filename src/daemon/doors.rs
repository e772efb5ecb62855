//! Opens what operators use: the metrics port, the control socket, the audit file.

use super::{StartError, control::Control};
use crate::{
    config::Config,
    record::{audit::AuditFile, evidence::Evidence, keeper::Keeper},
    show::web::ControlSocket,
};
use std::{io, thread, time::Duration};
use tokio::net::TcpListener;
use tracing::warn;

/// A failure does not keep validators from signing; the error becomes a warning. Retries, because a program that just
/// used the address may need a moment to release it. Later is too late: a confined signer cannot listen on a new port.
pub(super) fn bind_metrics(control: &Control, config: &Config) -> Result<Option<TcpListener>, String> {
    const TRIES: u32 = 5;
    const PAUSE: Duration = Duration::from_millis(100);
    let Some(address) = config.highwater.metrics else { return Ok(None) };
    let mut bound = control.block_on(TcpListener::bind(address));
    for _ in 1..TRIES {
        if bound.is_ok() {
            break;
        }
        thread::sleep(PAUSE);
        bound = control.block_on(TcpListener::bind(address));
    }
    bound.map(Some).map_err(|error| {
        format!(
            "there are no metrics until a restart: cannot listen on {address}, the `laddr` of [highwater.metrics]: \
             {error}. `ss -ltnp` shows which process does"
        )
    })
}

/// A failure does not keep the signer from signing.
pub(super) fn bind_control_socket(control: &Control, config: &Config) -> Option<ControlSocket> {
    let path = config.control_socket();
    let _inside = control.enter();
    match ControlSocket::bind(&path) {
        Ok(socket) => Some(socket),
        Err(error) => {
            warn!("`highwater status` will not work: cannot listen on {}: {error}", path.display());
            None
        }
    }
}

/// A failure ends the start: an audit must contain every decision from the first.
pub(super) fn open_audit(
    config: &Config,
    keeper: Option<Keeper>,
    evidence: Option<Evidence>,
) -> Result<Option<AuditFile>, StartError> {
    let (Some(path), Some(keeper)) = (&config.highwater.audit, keeper) else { return Ok(None) };
    let opened = match evidence {
        Some(evidence) => AuditFile::open_knowing(path, evidence),
        // The earlier check could not read the file, so no chain was compared with it. Being able to read it now is not
        // enough.
        None => AuditFile::open_knowing(path, Evidence::default())
            .and_then(|_| Err(io::Error::other("it could not be read a moment ago"))),
    };
    match opened {
        Ok(file) => Ok(Some(file.limited(config.highwater.audit_limits, keeper))),
        Err(error) => Err(StartError::Audit { path: path.clone(), error }),
    }
}
