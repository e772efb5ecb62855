//! Inspects the packaged systemd unit, if a signer with this configuration runs in it: whether the unit lets it reach its
//! devices. The unit hides USB, and a drop-in of the package opens it.

use super::{Look, Severity, Subject, Topic};
use std::{
    fs,
    path::{Path, PathBuf},
};

const UNIT: &str = "highwater.service";
/// Where systemd looks for units, below the root directory.
const PLACES: [&str; 5] = [
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
];

/// The lines of the unit and of its drop-ins.
struct Unit(Vec<String>);

impl Unit {
    /// `None` if the package is not installed.
    fn read(root: &Path) -> Option<Self> {
        let text = PLACES.iter().find_map(|place| fs::read_to_string(root.join(place).join(UNIT)).ok())?;
        let mut texts = vec![text];
        for place in PLACES {
            let directory = root.join(place).join(format!("{UNIT}.d"));
            let entries = fs::read_dir(directory).into_iter().flatten().flatten();
            let drop_ins =
                entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "conf"));
            texts.extend(drop_ins.filter_map(|path: PathBuf| fs::read_to_string(path).ok()));
        }
        Some(Self(texts.iter().flat_map(|text| text.lines()).map(|line| line.trim().to_owned()).collect()))
    }

    fn has(&self, setting: &str, value: &str) -> bool {
        let values = self.0.iter().filter_map(|line| line.strip_prefix(setting)?.strip_prefix('='));
        values.flat_map(str::split_whitespace).any(|word| word.trim_matches('"') == value)
    }

    /// Whether its signer uses the configuration at `path`.
    fn serves(&self, path: &Path) -> bool {
        std::path::absolute(path)
            .is_ok_and(|path| self.has("Environment", &format!("{}={}", crate::config::PATH_VARIABLE, path.display())))
    }

    /// The settings of `highwater-usb.conf`, all of which libusb needs.
    fn lets_use_usb(&self) -> bool {
        let devices = self.has("DeviceAllow", "char-usb_device") || self.has("DevicePolicy", "auto");
        devices && self.has("PrivateDevices", "no") && self.has("RestrictAddressFamilies", "AF_NETLINK")
    }
}

impl Look<'_> {
    pub(super) fn at_unit(&mut self) {
        self.at_unit_below(Path::new("/"));
    }

    fn at_unit_below(&mut self, root: &Path) {
        let Some(unit) = Unit::read(root).filter(|unit| unit.serves(&self.config.path)) else { return };
        if self.config.needs().usb && !unit.lets_use_usb() {
            let what = "a YubiHSM is configured on USB, but highwater.service does not let the signer use USB";
            let remedy = "install the drop-in and the udev rule with `install -D -m 0644 \
                          /usr/share/highwater/usb/highwater-usb.conf /etc/systemd/system/highwater.service.d/usb.conf`, \
                          `cp /usr/share/highwater/usb/60-highwater-usb.rules /etc/udev/rules.d/`, `systemctl daemon-reload` \
                          and `udevadm control --reload`; then plug the device in again and restart";
            self.findings.push(Severity::Warn, (&Subject::Signer, Topic::Machine), what, remedy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::Config,
        inspect::{
            Findings,
            trust::{Guards, Us},
        },
    };

    const SERVICE: &str = include_str!("../../packaging/systemd/highwater.service");
    const DROP_IN: &str = include_str!("../../packaging/systemd/highwater-usb.conf");

    fn warnings(root: &Path, path: &str, adapter: &str) -> Vec<String> {
        let text = format!(
            "[[chain]]\nid = \"a-1\"\nkey_format = {{ type = \"hex\" }}\nstate_file = \"s\"\n[[validator]]\nchain_id = \"a-1\"\n\
             addr = \"unix:///s\"\n[[providers.yubihsm]]\nadapter = {adapter}\nauth = {{ key = 1, password_file = \"p\" }}\n\
             keys = [{{ chain_ids = [\"a-1\"], key = 1 }}]\n"
        );
        let (config, _) = Config::parse(Path::new(path), &text).unwrap();
        let (guards, findings) = (Guards::new(Us::now()), Findings::default());
        let mut look = Look { config: &config, guards, evidence: None, findings };
        look.at_unit_below(root);
        look.findings.warnings().collect()
    }

    #[test]
    fn usb_in_the_service_needs_the_drop_in_and_nothing_else_does() {
        const CONFIG: &str = "/etc/highwater/tmkms.toml";
        const USB: &str = "{ type = \"usb\" }";
        let root = tempfile::tempdir().unwrap();
        assert_eq!(warnings(root.path(), CONFIG, USB), [""; 0], "no unit is installed");
        let units = root.path().join("usr/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::write(units.join(UNIT), SERVICE).unwrap();
        let found = warnings(root.path(), CONFIG, USB);
        assert!(found.len() == 1 && found[0].contains("highwater-usb.conf") && found[0].contains("udev"), "{found:?}");
        assert_eq!(warnings(root.path(), "/home/tmkms.toml", USB), [""; 0], "the service has another configuration");
        let http = "{ type = \"http\", addr = \"tcp://127.0.0.1:12345\" }";
        assert_eq!(warnings(root.path(), CONFIG, http), [""; 0]);

        let own = root.path().join("etc/systemd/system/highwater.service.d");
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("usb.conf.disabled"), DROP_IN).unwrap();
        assert_eq!(warnings(root.path(), CONFIG, USB).len(), 1, "systemd does not read it");
        fs::write(own.join("usb.conf"), DROP_IN).unwrap();
        assert_eq!(warnings(root.path(), CONFIG, USB), [""; 0]);
    }
}
