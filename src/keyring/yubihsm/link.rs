//! The way to a device: through a connector, or over USB. Carries messages and knows nothing of what they hold.

use super::{
    connector::{self, ConnectorStatus},
    http::{self, Http},
};
use crate::{
    config::YubiHsmAdapter,
    keyring::device::Trouble,
    process::{refused, resolver::Resolver},
};
use std::{io, time::Instant};

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

/// The way to a device.
pub(super) enum Link {
    Http(Http),
    Usb(super::usb::Usb),
    /// It cannot be had. Says why.
    None(String),
}

impl Link {
    /// Connects to nothing yet. Must be made before the signer is confined.
    pub(super) fn new(adapter: &YubiHsmAdapter, serial_number: Option<&str>, resolver: Resolver) -> Self {
        match adapter {
            YubiHsmAdapter::Http { host, port } => match http::runtime() {
                Ok(runtime) => Self::Http(Http::new(host.clone(), *port, resolver, runtime)),
                Err(error) => Self::None(format!("no connection to it can be made: {error}")),
            },
            YubiHsmAdapter::Usb { timeout_ms } => {
                Self::Usb(super::usb::Usb::new(serial_number.map(str::to_owned), *timeout_ms))
            }
        }
    }

    /// Requires this serial number from now on.
    pub(super) fn pin_serial_number(&mut self, serial_number: &str) {
        match self {
            Self::Usb(usb) => usb.pin_serial_number(serial_number),
            Self::Http(_) | Self::None(_) => {}
        }
    }

    /// Sends a message to the device, and waits for its answer.
    pub(super) fn exchange(&mut self, message: &[u8], deadline: Instant) -> Result<Vec<u8>, LinkError> {
        match self {
            Self::Http(http) => http.post(message, deadline),
            Self::Usb(usb) => usb.exchange(message, deadline),
            Self::None(why) => Err(LinkError::NoDevice(why.clone())),
        }
    }

    /// Looks whether the connector, or the device on USB, is there. Sends nothing.
    pub(super) fn look(&mut self, deadline: Instant) -> Result<(), LinkError> {
        match self {
            Self::Http(http) => http.connect_now(deadline),
            Self::Usb(usb) => usb.look(),
            Self::None(why) => Err(LinkError::NoDevice(why.clone())),
        }
    }

    /// The status of the connector. `None` on USB, which has no connector.
    pub(super) fn status(&mut self, deadline: Instant) -> Result<Option<ConnectorStatus>, Trouble> {
        match self {
            Self::Http(http) => connector::status(http, deadline).map(Some),
            Self::Usb(_) | Self::None(_) => Ok(None),
        }
    }
}

impl LinkError {
    /// As the trouble of a device.
    pub(super) fn trouble(self) -> Trouble {
        match self {
            Self::Late => Trouble::Late,
            Self::NotReached(error) => {
                let advice = refused::advice(&error).unwrap_or("is yubihsm-connector running there?");
                Trouble::Broken(format!("cannot reach its connector ({error}): {advice}").into())
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
