//! A YubiHSM 2 on USB, without a connector.
//!
//! The device is looked for whenever it is opened, by its serial number: one that was plugged in again has another address
//! on the bus. Others are opened only to read their serial number and are not reset, so that they go on for whoever uses
//! them.

use super::{channel::MESSAGE_MAX_BYTES, link_error::LinkError, usb_bus};
use rusb::{Context, DeviceHandle};
use std::time::{Duration, Instant};

const TO_DEVICE: u8 = 0x01;
const FROM_DEVICE: u8 = 0x81;
/// What is sent in packets of this size needs an empty one to end it, if it fills the last.
const PACKET_BYTES: usize = 64;
/// How long to wait for what an earlier user of the device has not read. 0 would mean for ever.
const LEFT_OVER: Duration = Duration::from_millis(10);
/// How many answers to read away at most: a device has one, and one that sends without end is none.
const LEFT_OVER_MAX: usize = 8;

/// A device on USB, and the handle on it once it was found.
pub(super) struct Usb {
    serial_number: Option<String>,
    /// For one transfer.
    timeout: Duration,
    handle: Option<DeviceHandle<Context>>,
}

impl Usb {
    /// Looks for nothing yet.
    pub(super) fn new(serial_number: Option<String>, timeout_ms: u64) -> Self {
        // 0 would mean for ever.
        Self { serial_number, timeout: Duration::from_millis(timeout_ms.max(1)), handle: None }
    }

    pub(super) fn pin_serial_number(&mut self, serial_number: &str) {
        self.serial_number = Some(serial_number.to_owned());
    }

    /// Looks whether the device is there. A running signer may hold it.
    pub(super) fn look(&self, deadline: Instant) -> Result<(), LinkError> {
        let left = self.left(deadline)?;
        usb_bus::find(self.serial_number.as_deref(), left).map(drop).map_err(LinkError::NoDevice)
    }

    /// Gives the device up. It is opened again, and what it still has to say is read away, before the next message.
    pub(super) fn forget(&mut self) {
        self.handle = None;
    }

    /// Sends a message, and waits for its answer.
    pub(super) fn exchange(&mut self, message: &[u8], deadline: Instant) -> Result<Vec<u8>, LinkError> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => self.open(deadline)?,
        };
        let answer = self.transfer(&handle, message, deadline);
        // After any error the handle is given up: an answer may still be on its way, or the device is another one now.
        if answer.is_ok() {
            self.handle = Some(handle);
        }
        answer
    }

    fn transfer(
        &self,
        handle: &DeviceHandle<Context>,
        message: &[u8],
        deadline: Instant,
    ) -> Result<Vec<u8>, LinkError> {
        let written = handle.write_bulk(TO_DEVICE, message, self.left(deadline)?).map_err(broken)?;
        if written != message.len() {
            return Err(LinkError::Broken(format!("it took {written} of {} bytes", message.len())));
        }
        if message.len().is_multiple_of(PACKET_BYTES) {
            handle.write_bulk(TO_DEVICE, &[], self.left(deadline)?).map_err(broken)?;
        }
        let mut answer = vec![0; MESSAGE_MAX_BYTES];
        let read = handle.read_bulk(FROM_DEVICE, &mut answer, self.left(deadline)?).map_err(broken)?;
        answer.truncate(read);
        Ok(answer)
    }

    /// How long a transfer may take.
    fn left(&self, deadline: Instant) -> Result<Duration, LinkError> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(1) { Err(LinkError::Late) } else { Ok(left.min(self.timeout)) }
    }

    /// Opens the only device, or that with the serial number, and reads away what an earlier user has left.
    fn open(&self, deadline: Instant) -> Result<DeviceHandle<Context>, LinkError> {
        let left = self.left(deadline)?;
        let handle = usb_bus::claim(self.serial_number.as_deref(), left).map_err(LinkError::NoDevice)?;
        let mut rest = [0; MESSAGE_MAX_BYTES];
        for _ in 0..LEFT_OVER_MAX {
            if !handle.read_bulk(FROM_DEVICE, &mut rest, LEFT_OVER).is_ok_and(|read| read > 0) {
                break;
            }
        }
        Ok(handle)
    }
}

fn broken(error: rusb::Error) -> LinkError {
    match error {
        rusb::Error::Timeout => LinkError::Late,
        other => LinkError::Broken(format!("USB: {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transfer_ends_with_the_deadline_or_its_own_time_out() {
        let usb = Usb::new(None, 1000);
        let now = Instant::now();
        assert_eq!(usb.left(now + Duration::from_secs(60)).unwrap(), Duration::from_secs(1));
        assert!(usb.left(now + Duration::from_millis(300)).unwrap() <= Duration::from_millis(300));
        assert!(matches!(usb.left(now), Err(LinkError::Late)));
    }
}
