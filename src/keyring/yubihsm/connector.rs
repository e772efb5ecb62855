//! The status of a yubihsm-connector.

use super::{http::Http, link_error::LinkError};
use crate::keyring::device::Trouble;
use std::time::Instant;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorStatus {
    /// `OK`, or `NO_DEVICE` if no device is plugged in.
    pub status: String,
    /// The connector's own version.
    pub version: String,
}

/// Asks the connector for its status. Uses no session of the device.
pub(super) fn status(http: &mut Http, deadline: Instant) -> Result<ConnectorStatus, Trouble> {
    let other =
        |why: &str| Trouble::Broken(format!("the program that listens there is not yubihsm-connector ({why})").into());
    match http.status(deadline) {
        Ok(body) => parse(&body).ok_or_else(|| other("it has no such status")),
        Err(LinkError::Status { status, .. }) => Err(other(&format!("HTTP status {status}"))),
        Err(LinkError::Broken(text)) => Err(other(&text)),
        Err(error) => Err(error.trouble()),
    }
}

fn parse(body: &[u8]) -> Option<ConnectorStatus> {
    let body = String::from_utf8_lossy(body);
    let field = |name: &str| {
        let (_, value) = body.lines().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name))?;
        let value = value.trim();
        (value.len() <= 64 && !value.contains(char::is_control)).then(|| value.to_owned())
    };
    Some(ConnectorStatus { status: field("status")?, version: field("version")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_nothing_else_is() {
        let body = b"status=OK\nserial=*\nversion=3.0.4\npid=1\naddress=127.0.0.1\nport=12345\n";
        assert_eq!(parse(body), Some(ConnectorStatus { status: "OK".into(), version: "3.0.4".into() }));
        for other in [&b""[..], b"<html>", b"status=OK\nversion=\x1b[2J", b"status=OK"] {
            assert_eq!(parse(other), None, "{other:?}");
        }
    }
}
