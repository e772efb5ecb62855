//! What a yubihsm-connector says of itself. As much HTTP as that takes.

use super::client::{connect, not_reached};
use crate::{keyring::device::Trouble, process::resolver::Resolver};
use std::{
    io::{self, Read as _, Write as _},
    time::Duration,
};

/// Far above what a status has.
const ANSWER_MAX_BYTES: u64 = 8192;
/// How long each read and write may take.
const TIMEOUT: Duration = Duration::from_secs(3);

/// What a connector answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectorStatus {
    /// `OK`, or `NO_DEVICE` where none is plugged in.
    pub status: String,
    /// The connector's own version.
    pub version: String,
}

/// Asks the connector. Blocks for some seconds at most. Takes nothing from the device.
pub(super) fn status(host: &str, port: u16, resolver: &Resolver) -> Result<ConnectorStatus, Trouble> {
    let answer = get(host, port, resolver).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Trouble::Late,
        _ => not_reached(error),
    })?;
    parse(&answer).ok_or_else(|| Trouble::Broken("what listens there is no yubihsm-connector".into()))
}

fn get(host: &str, port: u16, resolver: &Resolver) -> io::Result<String> {
    let mut stream = connect(resolver.resolve(host, port)?)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let request = format!("GET /connector/status HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut reader) = (Vec::new(), stream.take(ANSWER_MAX_BYTES));
    let mut chunk = [0; 1024];
    while !is_whole(&answer) {
        match reader.read(&mut chunk)? {
            0 => break,
            read => answer.extend_from_slice(&chunk[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Whether an answer has the length that it announces. One that announces none ends with its connection.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().filter_map(|line| line.split_once(':'));
    let mut length = length.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.next().and_then(|(_, value)| value.trim().parse().ok()).is_some_and(|length: usize| body.len() >= length)
}

fn parse(answer: &str) -> Option<ConnectorStatus> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    if head.lines().next()?.split(' ').nth(1)? != "200" {
        return None;
    }
    let field = |name: &str| {
        let value = body.lines().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name));
        let is_plain = |value: &&str| value.len() <= 64 && !value.contains(char::is_control);
        value.map(|(_, value)| value.trim()).filter(is_plain).map(str::to_owned)
    };
    Some(ConnectorStatus { status: field("status")?, version: field("version")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_and_nothing_else_is() {
        let body = "status=OK\nserial=*\nversion=3.0.4\npid=1\naddress=127.0.0.1\nport=12345\n";
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(parse(&answer), Some(ConnectorStatus { status: "OK".into(), version: "3.0.4".into() }));
        assert!(is_whole(answer.as_bytes()) && !is_whole(&answer.as_bytes()[..answer.len() - 1]));
        for other in ["", "HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n<html>", "SSH-2.0\r\n\r\nstatus=OK"]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
