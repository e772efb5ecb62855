//! USB without hardware: a signer in its sandbox, with a libusb that really looks, on a bus of files. A file can show the
//! descriptors of a device but cannot answer, and that is as far as a machine without a YubiHSM gets.

use super::confined::{CHAIN, kernel_confines};
use crate::support::{
    assert_alive,
    mock_node::MockNode,
    signer::{Home, Signer, seed},
    skip::skip,
    yubihsm as device,
};
use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

const ON_USB: &str = "usb-chain";
const PATIENCE: Duration = Duration::from_secs(40);

/// What the kernel shows of a device at the beginning of its file: the device, its configuration, one interface, and the
/// two endpoints of a YubiHSM.
fn descriptors(vendor: u16, product: u16) -> Vec<u8> {
    let ([vendor_low, vendor_high], [product_low, product_high]) = (vendor.to_le_bytes(), product.to_le_bytes());
    let mut bytes =
        vec![18, 1, 0, 2, 0, 0, 0, 64, vendor_low, vendor_high, product_low, product_high, 0, 2, 1, 2, 3, 1];
    bytes.extend([9, 2, 32, 0, 1, 1, 0, 0x80, 15]);
    bytes.extend([9, 4, 0, 0, 2, 0xff, 0, 0, 0]);
    bytes.extend([7, 5, 1, 2, 64, 0, 0]);
    bytes.extend([7, 5, 0x81, 2, 64, 0, 0]);
    bytes
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Starts the signer with a `/dev` of its own: with the bus of this home, if `bus`, and without sysfs, so that libusb
/// reads the files of the bus.
fn start(home: &Home, bus: bool) -> Signer {
    let (dev, usb) = (home.path("dev"), home.path("usb"));
    fs::create_dir_all(&dev).unwrap();
    let usb = if bus {
        fs::create_dir_all(usb.join("001")).unwrap();
        fs::write(usb.join("001/001"), descriptors(0x1d6b, 2)).unwrap();
        format!("mkdir -p {0}/bus/usb; mount --bind {1} {0}/bus/usb", dev.display(), usb.display())
    } else {
        String::new()
    };
    let script = format!(
        "exec unshare --mount sh -euc '
            mount -t tmpfs none {0}
            cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom {0}
            {usb}
            mount --rbind {0} /dev
            mount -t tmpfs none /sys
            exec \"$0\" \"$@\"' \"$0\" \"$@\"",
        dev.display()
    );
    home.start_in_shell(&script)
}

fn wait_for_status(home: &Home, words: &[&str]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = home.command(&["status", "--json"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if words.iter().all(|word| text.contains(word)) {
            return;
        }
        assert!(Instant::now() < deadline, "{words:?} is not in {text}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// A home with a chain on a file and one on a YubiHSM on USB, whose state was made while the device had a connector.
fn home(node: &MockNode) -> Option<Home> {
    if !is_root() {
        skip("this user cannot have a /dev of its own");
        return None;
    }
    if !kernel_confines() {
        return None;
    }
    let device = device::start(&seed(1), &[])?;
    let home = Home::new().chain(CHAIN, "").chain_with_key(ON_USB, "", &device.provider(ON_USB));
    let home = home.node(&node.address(), CHAIN, "").node("unix:///nowhere/at.all", ON_USB, "").init();
    let path = home.path("tmkms.toml");
    let config = fs::read_to_string(&path).unwrap();
    let connector = format!("type = \"http\", addr = \"{}\"", device.address());
    assert!(config.contains(&connector), "{config}");
    let password = home.path("password");
    fs::copy(device.password_file(), &password).unwrap();
    let config = config.replace(&connector, "type = \"usb\"");
    let config = config.replace(&format!("{:?}", device.password_file()), &format!("{password:?}"));
    fs::write(path, format!("{config}\n[highwater]\nrequire_sandbox = true\n")).unwrap();
    Some(home)
}

#[test]
fn a_confined_signer_finds_what_is_plugged_in_while_it_runs_and_finds_it_again_elsewhere() {
    let node = MockNode::tcp().unwrap();
    let Some(home) = home(&node) else { return };
    let mut signer = start(&home, true);
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 1);
    wait_for_status(&home, &["no YubiHSM 2 is on the USB of this machine", "plug it in"]);
    // The signer is sealed: from here on libusb starts under the last filter.
    let bus = home.path("usb/001");
    fs::write(bus.join("007"), descriptors(0x1050, 0x0030)).unwrap();
    wait_for_status(&home, &["the YubiHSM at /dev/bus/usb/001/007 does not show its serial number"]);
    fs::rename(bus.join("007"), bus.join("008")).unwrap();
    wait_for_status(&home, &["the YubiHSM at /dev/bus/usb/001/008 does not show its serial number"]);
    fs::remove_file(bus.join("008")).unwrap();
    wait_for_status(&home, &["no YubiHSM 2 is on the USB of this machine"]);
    signer.assert_running();
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 2);
}

#[test]
fn a_confined_signer_without_any_usb_says_so_and_signs_what_it_can() {
    let node = MockNode::tcp().unwrap();
    let Some(home) = home(&node) else { return };
    let mut signer = start(&home, false);
    let mut session = node.accept().unwrap();
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 1);
    wait_for_status(&home, &["there is no USB (/dev/bus/usb is missing or empty)", "highwater-usb.conf"]);
    signer.assert_running();
    assert_alive(&mut session, &home.public_key(CHAIN), CHAIN, 2);
    assert!(!Path::new("/dev/bus/usb/001/007").exists(), "this machine was left alone");
}
