//! What is bound and opened for operators: the metrics port, the control socket, the audit file.

use super::{StartError, control::Control};
use crate::{
    config::Config,
    record::{audit::AuditFile, evidence::Evidence, keeper::Keeper},
    show::web::ControlSocket,
};
use std::{io, thread, time::Duration};
use tokio::net::TcpListener;
use tracing::warn;

/// An address that cannot be had keeps no validator from signing; the error is a warning. A program that has just used it
/// may need a moment to let it go; later it cannot be had any more, because a confined signer listens to nothing new.
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
            "there are no metrics until a restart: cannot listen at {address}, the `laddr` of [highwater.metrics]: \
             {error}. `ss -ltnp` names who does"
        )
    })
}

/// A signer without its control socket signs all the same.
pub(super) fn bind_control_socket(control: &Control, config: &Config) -> Option<ControlSocket> {
    let path = config.control_socket();
    let _inside = control.enter();
    match ControlSocket::bind(&path) {
        Ok(socket) => Some(socket),
        Err(error) => {
            warn!("`highwater status` will not work: cannot listen at {}: {error}", path.display());
            None
        }
    }
}

/// A file that cannot be written ends the start: who wants a record wants it from the first decision.
pub(super) fn open_audit(
    config: &Config,
    keeper: Option<Keeper>,
    evidence: Option<Evidence>,
) -> Result<Option<AuditFile>, StartError> {
    let (Some(path), Some(keeper)) = (&config.highwater.audit, keeper) else { return Ok(None) };
    let opened = match evidence {
        Some(evidence) => AuditFile::open_knowing(path, evidence),
        // The look could not have the file, so no chain was compared with it: even if it can be had now, that is not enough.
        None => AuditFile::open_knowing(path, Evidence::default())
            .and_then(|_| Err(io::Error::other("it could not be read a moment ago"))),
    };
    match opened {
        Ok(file) => Ok(Some(file.limited(config.highwater.audit_limits, keeper))),
        Err(error) => Err(StartError::Audit { path: path.clone(), error }),
    }
}
