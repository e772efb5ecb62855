//! Why a device was not reached, whichever way leads to it.

use crate::{keyring::device::Trouble, process::refused};
use std::io;

/// Why a message got no answer.
#[derive(Debug)]
pub(super) enum LinkError {
    /// The deadline passed. The device may have got the message.
    Late,
    /// There is no connection, so the device did not get the message.
    NotReached(io::Error),
    /// There is no such device on USB, or it cannot be opened: how, and what to do.
    NoDevice(String),
    /// The connection ended. The device may have got the message.
    Broken(String),
    /// The connector answered, but not with an answer of the device.
    Status { status: u16, body: Vec<u8> },
}

impl LinkError {
    /// As the trouble of a device.
    pub(super) fn trouble(self) -> Trouble {
        match self {
            Self::Late => Trouble::Late,
            Self::NotReached(error) => {
                let advice = refused::advice(&error).unwrap_or("is yubihsm-connector running there?");
                let text = format!("cannot reach its connector ({error}): {advice}").into();
                if error.kind() == io::ErrorKind::TimedOut { Trouble::Unreached(text) } else { Trouble::Broken(text) }
            }
            Self::NoDevice(text) => Trouble::Broken(text.into()),
            Self::Broken(text) => Trouble::Broken(format!("the connection broke off ({text})").into()),
            Self::Status { status, body } => {
                let body = String::from_utf8_lossy(&body);
                let said = body.trim();
                let said = if said.is_empty() { String::new() } else { format!(", and said: {said}") };
                let text = format!(
                    "its connector answered with the HTTP status {status} instead of the device's answer{said}: is the \
                     device plugged in, and is this the address of yubihsm-connector?"
                );
                Trouble::Broken(text.into())
            }
        }
    }
}
