//! The YubiHSMs on the USB of this machine, as libusb lists them.
//!
//! Finds one, resets none, and says what an operator can do where libusb only names an error. Every look lists the
//! devices afresh: a device that was plugged in again has a new address on the bus.

use rusb::{Context, Device, DeviceHandle, UsbContext as _};
use std::{
    fs::File,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    time::Duration,
};

const YUBICO: u16 = 0x1050;
const YUBIHSM_2: u16 = 0x0030;
/// The only interface of a YubiHSM 2.
const INTERFACE: u8 = 0;
/// Where the kernel shows the devices.
const BUSES: &str = "/dev/bus/usb";
/// Where the package keeps what a service needs for USB.
const PACKAGED: &str = "/usr/share/highwater/usb";

/// One YubiHSM on the bus, and its serial number, or why that cannot be read.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    place: PathBuf,
    serial_number: Result<String, String>,
}

/// Opens the YubiHSM with that serial number, or the only one, and claims it. Touches no session. The error says what to
/// do.
pub(super) fn claim(serial_number: Option<&str>, timeout: Duration) -> Result<DeviceHandle<Context>, String> {
    let handle = find(serial_number, timeout)?;
    match handle.claim_interface(INTERFACE) {
        Ok(()) => Ok(handle),
        Err(rusb::Error::Busy) => {
            Err("another program holds it: stop that program. yubihsm-connector, yubihsm-shell, \
                                       tmkms or another Highwater may be it"
                .into())
        }
        Err(error) => Err(format!("it cannot be used ({error}): unplug it, and plug it in again")),
    }
}

/// Opens the YubiHSM with that serial number, or the only one. Another program may hold it.
pub(super) fn find(serial_number: Option<&str>, timeout: Duration) -> Result<DeviceHandle<Context>, String> {
    let listed = Context::new().and_then(|context| context.devices());
    let listed = listed.map_err(|error| cannot_list(error, Path::new(BUSES)))?;
    let (mut seen, mut handles) = (Vec::new(), Vec::new());
    for device in listed.iter().filter(is_yubihsm) {
        let (about, handle) = look_at(&device, timeout);
        let wanted = about.serial_number.as_deref().ok().is_some_and(|number| Some(number) == serial_number);
        seen.push(about);
        handles.push(handle);
        // The others are left alone, and one of them may be slow to say its number.
        if wanted {
            break;
        }
    }
    let chosen = choose(&seen, serial_number)?;
    handles.swap_remove(chosen).ok_or_else(|| "the YubiHSM was unplugged: plug it in again".into())
}

fn is_yubihsm(device: &Device<Context>) -> bool {
    device
        .device_descriptor()
        .is_ok_and(|descriptor| (descriptor.vendor_id(), descriptor.product_id()) == (YUBICO, YUBIHSM_2))
}

fn look_at(device: &Device<Context>, timeout: Duration) -> (Seen, Option<DeviceHandle<Context>>) {
    let place = Path::new(BUSES).join(format!("{:03}/{:03}", device.bus_number(), device.address()));
    let opened = device.open().map_err(|error| match File::options().read(true).write(true).open(&place) {
        Err(cause) => cannot_open(&place, &cause),
        Ok(_) => format!("the YubiHSM at {} cannot be opened ({error})", place.display()),
    });
    match opened {
        Ok(handle) => {
            let serial_number = serial_number(device, &handle, timeout).map_err(|error| {
                format!(
                    "the YubiHSM at {} does not show its serial number ({error}): unplug it, and plug it in again",
                    place.display()
                )
            });
            (Seen { place, serial_number }, Some(handle))
        }
        Err(why) => (Seen { place, serial_number: Err(why) }, None),
    }
}

fn serial_number(device: &Device<Context>, handle: &DeviceHandle<Context>, timeout: Duration) -> rusb::Result<String> {
    let language = *handle.read_languages(timeout)?.first().ok_or(rusb::Error::NotFound)?;
    let text = handle.read_serial_number_string(language, &device.device_descriptor()?, timeout)?;
    // As the configuration writes it.
    text.trim().parse().map(|number: u32| format!("{number:010}")).map_err(|_| rusb::Error::BadDescriptor)
}

/// The position of the device to use. One whose number cannot be read may be the wanted one.
fn choose(seen: &[Seen], wanted: Option<&str>) -> Result<usize, String> {
    if let Some(wanted) = wanted
        && let Some(position) = seen.iter().position(|device| device.serial_number.as_deref() == Ok(wanted))
    {
        return Ok(position);
    }
    let mut numbers = Vec::new();
    for device in seen {
        numbers.push(device.serial_number.as_deref().map_err(Clone::clone)?);
    }
    let plugged_in = numbers.join(", ");
    match (numbers.as_slice(), wanted) {
        ([], _) => Err(format!(
            "no YubiHSM 2 is on the USB of this machine: plug it in. If `lsusb -d 1050:0030` shows it, this process may not \
             see it: {}",
            for_the_service()
        )),
        (_, Some(wanted)) => Err(format!(
            "the YubiHSMs on the USB of this machine have the serial numbers {plugged_in}: plug in {wanted}, or correct \
             `serial_number`"
        )),
        ([_], None) => Ok(0),
        (_, None) => Err(format!(
            "the YubiHSMs on the USB of this machine have the serial numbers {plugged_in}: name one in `serial_number`"
        )),
    }
}

fn cannot_list(error: rusb::Error, buses: &Path) -> String {
    let empty = buses.read_dir().map(|mut entries| entries.next().is_none());
    match empty {
        Ok(false) => format!("libusb cannot list the devices on USB ({error})"),
        Err(cause) if cause.kind() == ErrorKind::PermissionDenied => {
            format!("{} cannot be read ({cause}): {}", buses.display(), for_the_service())
        }
        _ => format!(
            "no YubiHSM 2 is on the USB of this machine, because there is no USB ({} is missing or empty): plug it in, then \
             restart the signer. If `lsusb -d 1050:0030` shows it, this process may not see it: {}",
            buses.display(),
            for_the_service()
        ),
    }
}

fn cannot_open(place: &Path, cause: &io::Error) -> String {
    let shown = place.display();
    match cause.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        // A device cgroup refuses with EPERM, the mode of the file with EACCES.
        Some(rustix::io::Errno::PERM) => {
            format!("the service may not open the YubiHSM at {shown} ({cause}): {}", for_the_service())
        }
        Some(rustix::io::Errno::ACCESS) => format!(
            "this user may not open the YubiHSM at {shown} ({cause}): install the udev rule, `cp \
             {PACKAGED}/60-highwater-usb.rules /etc/udev/rules.d/ && udevadm control --reload`, and plug the device in \
             again; it gives the device to the group highwater"
        ),
        _ => format!("the YubiHSM at {shown} cannot be opened ({cause}): {}", for_the_service()),
    }
}

fn for_the_service() -> String {
    format!(
        "highwater.service needs the drop-in for USB, `install -D -m 0644 {PACKAGED}/highwater-usb.conf \
         /etc/systemd/system/highwater.service.d/usb.conf && systemctl daemon-reload`, and a restart; a container needs \
         /dev/bus/usb"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(address: u8, serial_number: Result<&str, &str>) -> Seen {
        let serial_number = serial_number.map(str::to_owned).map_err(str::to_owned);
        Seen { place: format!("/dev/bus/usb/001/{address:03}").into(), serial_number }
    }

    #[test]
    fn an_empty_list_says_what_to_look_at() {
        let text = choose(&[], Some("0123456789")).unwrap_err();
        for word in ["no YubiHSM 2", "plug it in", "lsusb -d 1050:0030", "highwater-usb.conf", "container"] {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
        let home = tempfile::tempdir().unwrap();
        for buses in [home.path().to_owned(), home.path().join("none")] {
            let text = cannot_list(rusb::Error::Other, &buses);
            assert!(text.contains("there is no USB") && text.contains("highwater-usb.conf"), "{text}");
        }
        std::fs::write(home.path().join("001"), "").unwrap();
        let text = cannot_list(rusb::Error::NoMem, home.path());
        assert!(text.contains("libusb cannot list the devices on USB (Insufficient memory)"), "{text}");
    }

    #[test]
    fn a_device_is_found_by_its_serial_number_wherever_it_is_on_the_bus() {
        let before = [seen(4, Ok("0000000007")), seen(5, Ok("0123456789"))];
        let after = [seen(9, Ok("0123456789")), seen(4, Ok("0000000007"))];
        assert_eq!(choose(&before, Some("0123456789")), Ok(1));
        assert_eq!(choose(&after, Some("0123456789")), Ok(0));
        assert_eq!(choose(&after[..1], None), Ok(0));
        let text = choose(&before, None).unwrap_err();
        assert!(text.contains("0000000007, 0123456789") && text.contains("`serial_number`"), "{text}");
        let text = choose(&before, Some("0000000008")).unwrap_err();
        assert!(text.contains("plug in 0000000008"), "{text}");
        let with_a_closed_one = [seen(4, Ok("0123456789")), seen(5, Err("permission"))];
        assert_eq!(choose(&with_a_closed_one, Some("0123456789")), Ok(0));
        assert_eq!(choose(&with_a_closed_one, Some("0000000008")), Err("permission".into()));
    }

    #[test]
    fn a_refusal_names_the_one_that_refuses() {
        let place = Path::new("/dev/bus/usb/001/005");
        for (error, words) in [
            (rustix::io::Errno::ACCESS, ["60-highwater-usb.rules", "plug the device in"]),
            (rustix::io::Errno::PERM, ["highwater-usb.conf", "daemon-reload"]),
            (rustix::io::Errno::NOENT, ["highwater-usb.conf", "/dev/bus/usb"]),
        ] {
            let text = cannot_open(place, &error.into());
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}
