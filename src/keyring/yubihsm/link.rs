//! The way to a device: through a connector, or over USB. Carries messages and knows nothing of what they hold.

use super::{
    connector::{self, ConnectorStatus},
    http::{self, Http},
    link_error::LinkError,
};
use crate::{config::YubiHsmAdapter, keyring::device::Trouble, process::resolver::Resolver};
use std::time::Instant;

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

    /// Gives up the connection: its next answer may be that to an earlier message. The next message makes a new one.
    pub(super) fn forget(&mut self) {
        match self {
            Self::Http(http) => http.forget(),
            Self::Usb(usb) => usb.forget(),
            Self::None(_) => {}
        }
    }

    /// Looks whether the connector, or the device on USB, is there. Sends nothing.
    pub(super) fn look(&mut self, deadline: Instant) -> Result<(), LinkError> {
        match self {
            Self::Http(http) => http.connect_now(deadline),
            Self::Usb(usb) => usb.look(deadline),
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
