//! A YubiHSM 2 on USB, without a connector.
//!
//! The device is looked for whenever it is opened, by its serial number: one that was plugged in again has another address
//! on the bus. Others are opened only to read their serial number and are not reset, so that they go on for whoever uses
//! them.

use super::{channel::MESSAGE_MAX_BYTES, link::LinkError};
use rusb::{Context, Device, DeviceDescriptor, DeviceHandle, UsbContext as _};
use std::time::{Duration, Instant};

const VENDOR: u16 = 0x1050;
const PRODUCT: u16 = 0x0030;
const INTERFACE: u8 = 0;
const TO_DEVICE: u8 = 0x01;
const FROM_DEVICE: u8 = 0x81;
/// What is sent in packets of this size needs an empty one to end it, if it fills the last.
const PACKET_BYTES: usize = 64;
/// How long to wait for what an earlier user of the device has not read. 0 would mean for ever.
const LEFT_OVER: Duration = Duration::from_millis(10);

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

    /// Looks whether the device is there and can be opened.
    pub(super) fn look(&mut self) -> Result<(), LinkError> {
        if self.handle.is_none() {
            self.handle = Some(self.open()?);
        }
        Ok(())
    }

    /// Sends a message, and waits for its answer.
    pub(super) fn exchange(&mut self, message: &[u8], deadline: Instant) -> Result<Vec<u8>, LinkError> {
        let handle = match self.handle.take() {
            Some(handle) => handle,
            None => self.open()?,
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
        if message.len() % PACKET_BYTES == 0 {
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

    /// Opens the only device, or that with the serial number.
    fn open(&self) -> Result<DeviceHandle<Context>, LinkError> {
        let context = Context::new().map_err(|error| no_device(&format!("libusb cannot start: {error}")))?;
        let devices = context.devices().map_err(|error| no_device(&format!("USB cannot be listed: {error}")))?;
        let mut others = Vec::new();
        for device in devices.iter() {
            let Ok(about) = device.device_descriptor() else { continue };
            if about.vendor_id() != VENDOR || about.product_id() != PRODUCT {
                continue;
            }
            others.push(match self.open_if_wanted(&device, &about) {
                Ok(Ok(handle)) => return claim(handle),
                Ok(Err(serial)) => format!("YubiHSM {serial} is there"),
                Err(error) => format!("the YubiHSM at bus {} cannot be opened: {error}", device.bus_number()),
            });
        }
        Err(match (&self.serial_number, others.is_empty()) {
            (_, true) => no_device("no YubiHSM is visible on USB"),
            (Some(wanted), false) => no_device(&format!("YubiHSM {wanted} is not on USB; {}", others.join("; "))),
            (None, false) => no_device(&others.join("; ")),
        })
    }

    /// The handle of the device, or its serial number if it is another one.
    fn open_if_wanted(
        &self,
        device: &Device<Context>,
        about: &DeviceDescriptor,
    ) -> rusb::Result<Result<DeviceHandle<Context>, String>> {
        let handle = device.open()?;
        let Some(wanted) = &self.serial_number else { return Ok(Ok(handle)) };
        let serial = handle.read_serial_number_string_ascii(about)?;
        // The device says it without leading zeros.
        let is_wanted = serial.trim().parse::<u32>().ok() == wanted.parse().ok();
        Ok(if is_wanted { Ok(handle) } else { Err(serial) })
    }
}

/// Claims the device, and reads away what an earlier user has left.
fn claim(handle: DeviceHandle<Context>) -> Result<DeviceHandle<Context>, LinkError> {
    handle.claim_interface(INTERFACE).map_err(|error| match error {
        rusb::Error::Busy => no_device("another program holds it"),
        other => no_device(&format!("it cannot be claimed: {other}")),
    })?;
    let mut rest = [0; MESSAGE_MAX_BYTES];
    while handle.read_bulk(FROM_DEVICE, &mut rest, LEFT_OVER).is_ok_and(|read| read > 0) {}
    Ok(handle)
}

fn broken(error: rusb::Error) -> LinkError {
    match error {
        rusb::Error::Timeout => LinkError::Late,
        other => LinkError::Broken(format!("USB: {other}")),
    }
}

/// What was seen, and what to check.
fn no_device(seen: &str) -> LinkError {
    LinkError::NoDevice(format!(
        "{seen}. Check that it is plugged in (`lsusb -d 1050:0030`), that the udev rule lets this user open it \
         (60-highwater-usb.rules), that the unit has the drop-in for USB (highwater-usb.conf), and that no other program, \
         such as yubihsm-connector, holds it"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_the_device_is_told_what_to_check() {
        // No machine of ours has this serial number, and most have no device at all.
        let mut usb = Usb::new(Some("0000000001".into()), 1000);
        let text = usb.look().unwrap_err().trouble().text().to_owned();
        for words in ["lsusb", "60-highwater-usb.rules", "highwater-usb.conf", "yubihsm-connector"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn a_transfer_ends_with_the_deadline_or_its_own_time_out() {
        let usb = Usb::new(None, 1000);
        let now = Instant::now();
        assert_eq!(usb.left(now + Duration::from_secs(60)).unwrap(), Duration::from_secs(1));
        assert!(usb.left(now + Duration::from_millis(300)).unwrap() <= Duration::from_millis(300));
        assert!(matches!(usb.left(now), Err(LinkError::Late)));
    }
}
