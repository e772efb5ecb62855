//! Landlock: limits the files and ports that a process can reach. Open files stay open.
//!
//! The limits apply to the calling thread and everything it starts, so they come before the first thread.

use crate::config::{Config, FileReader, paths};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, Compatible as _, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope, make_bitflags,
};
use std::path::{Path, PathBuf};

/// Limits files and devices, TCP ports, abstract unix sockets and signals, on kernels that support it. Tested with it.
const NEWEST: ABI = ABI::V6;
/// The oldest with both files (Linux 5.13, truncation since 6.2) and TCP ports (6.7).
const WHOLE: ABI = ABI::V4;

/// The reason of a kernel between the two.
pub(super) const FILES_ONLY: &str = "this kernel's Landlock limits files but not TCP ports, which needs Linux 6.7";

/// What a process may access.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    files: Vec<(PathBuf, BitFlags<AccessFs>)>,
    connect: Vec<u16>,
    /// Whether it may connect to every port. It may never listen.
    every_port: bool,
}

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// Everything except starting programs and making devices.
const READ_WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | IoctlDev | MakeDir | MakeFifo | MakeReg | MakeSock | MakeSym | Refer
        | RemoveDir | RemoveFile
});

/// The places of libraries and their data.
const LIBRARIES: [&str; 14] = [
    "/gnu/store",
    "/lib",
    "/lib32",
    "/lib64",
    "/nix/store",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/lib",
    "/usr/local/lib64",
    "/usr/local/share",
    "/usr/share",
    "/var/cache/ldconfig",
];
/// Files that the C library reads.
const BASICS: [&str; 12] = [
    "/dev/random",
    "/dev/urandom",
    "/etc/group",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/proc/self",
];
/// Files that cryptographic libraries read: certificates and policies, no keys.
const CRYPTO: [&str; 15] = [
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/etc/gcrypt",
    "/etc/gnutls",
    "/etc/opensc",
    "/etc/opensc.conf",
    "/etc/pkcs11",
    "/etc/pki/ca-trust",
    "/etc/pki/tls/cert.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/ssl/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/proc/sys/crypto",
];
/// Files with which libraries inspect the machine.
const MACHINE: [&str; 7] = [
    "/etc/os-release",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/osrelease",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];
/// Files that a name service reads. A process cannot reach a file that was replaced after the process was confined.
pub(super) const NAME_SERVICE: &[&str] = &[
    "/etc/gai.conf",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/networks",
    "/etc/nsswitch.conf",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/run/NetworkManager/resolv.conf",
    "/run/NetworkManager/no-stub-resolv.conf",
    "/run/connman/resolv.conf",
    "/run/nscd",
    "/run/resolvconf",
    "/run/systemd/machines",
    "/run/systemd/resolve",
    "/run/systemd/userdb",
    "/var/cache/nscd",
    "/var/lib/sss/mc",
    "/var/lib/sss/pipes",
    "/var/lib/misc",
];

/// What the child of a token may reach besides the system's libraries.
#[derive(Clone, Debug)]
pub struct ModuleLimits<'a> {
    /// Paths, and whether it may write there.
    pub files: Vec<(&'a Path, bool)>,
    /// Never allowed, even if listed elsewhere.
    pub never: &'a [PathBuf],
    /// TCP and UDP.
    pub network: bool,
    /// Unix sockets of services on this machine.
    pub sockets: bool,
}

impl Policy {
    /// For the signer: its state directories, the files that it still reads at start, and the ports of its nodes and
    /// connectors.
    pub(super) fn of_signer(config: &Config) -> Self {
        /// The state file is already open; its directory is flushed once more. The file is also read separately,
        /// because it pins the key of a YubiHSM.
        const STATE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadDir});
        const SOCKET: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});
        let mut policy = Self::default();
        for chain in config.served_chains() {
            policy.allow_directory_of(&chain.watermark(), STATE);
            policy.allow(&chain.watermark(), AccessFs::ReadFile.into());
        }
        policy.allow_directory_of(&config.control_socket(), SOCKET);
        for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
            policy.allow(Path::new(path), AccessFs::ReadFile.into());
        }
        let needs = config.needs();
        for file in &needs.files {
            match file.reader {
                FileReader::Helper => {}
                FileReader::Signer => policy.allow(&file.path, AccessFs::ReadFile.into()),
                FileReader::SignerAgain => policy.allow_directory_of(&file.path, AccessFs::ReadFile.into()),
            }
        }
        policy.connect.extend(needs.ports);
        if needs.usb {
            policy.allow_usb();
        }
        policy
    }

    /// For a process that resolves one name: the name service's configuration, plug-ins and local sockets, and DNS.
    pub(super) fn of_resolver() -> Self {
        const DNS_PORT: u16 = 53;
        let mut policy = Self { connect: vec![DNS_PORT], ..Self::default() };
        for path in LIBRARIES.iter().chain(&BASICS).chain(NAME_SERVICE) {
            policy.allow(Path::new(path), READ);
        }
        policy
    }

    /// For the child of a PKCS#11 token: the system's libraries and their configuration, and the files that its profile
    /// and its section name. It cannot start programs, make devices or listen on TCP ports.
    pub(super) fn of_module(limits: &ModuleLimits<'_>) -> Self {
        let mut policy = Self { every_port: limits.network, ..Self::default() };
        let network = limits.network.then_some(NAME_SERVICE).into_iter().flatten();
        let system = LIBRARIES.iter().chain(&BASICS).chain(&CRYPTO).chain(&MACHINE).chain(network);
        let system = system.map(|path| (Path::new(path), READ));
        let devices = ["/dev/full", "/dev/null", "/dev/zero"].map(|path| (Path::new(path), READ_WRITE));
        let named = limits.files.iter().map(|(path, write)| (*path, if *write { READ_WRITE } else { READ }));
        for (path, access) in system.chain(devices).chain(named) {
            if !limits.never.iter().any(|never| paths::overlap(path, never)) {
                policy.allow(path, access);
            }
        }
        policy
    }

    /// For the process that makes and renames audit files.
    pub(super) fn of_audit_keeper(audit: &Path) -> Self {
        const AUDIT: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | MakeReg | RemoveFile});
        let mut policy = Self::default();
        policy.allow_directory_of(audit, AUDIT);
        policy
    }

    /// For the process that reads the configuration again and asks the questions of `check`.
    pub(super) fn of_config_reader() -> Self {
        let mut policy = Self::default();
        policy.allow(Path::new("/"), READ);
        policy
    }

    /// libusb finds devices under `/sys` and opens them under `/dev`.
    fn allow_usb(&mut self) {
        const DEVICES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | IoctlDev});
        self.allow(Path::new("/dev/bus/usb"), DEVICES);
        self.allow(Path::new("/sys"), AccessFs::ReadFile | AccessFs::ReadDir);
    }

    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) {
        self.files.push((path.into(), access));
    }

    /// The directory of the path, and that of its target if it is a link.
    fn allow_directory_of(&mut self, path: &Path, access: BitFlags<AccessFs>) {
        let places = [std::path::absolute(path), path.canonicalize()];
        for directory in places.iter().flatten().filter_map(|path| path.parent()) {
            self.allow(directory, access);
        }
    }

    /// Applies the policy to the calling thread. Paths that do not exist yet are not allowed.
    pub(super) fn enforce(&self) -> Result<(), String> {
        self.try_enforce().map_err(|error| format!("Landlock: {error}"))?.map_or(Ok(()), Err)
    }

    /// `Some` says what is missing.
    fn try_enforce(&self) -> Result<Option<String>, RulesetError> {
        let ports = if self.every_port { AccessNet::BindTcp.into() } else { AccessNet::from_all(NEWEST) };
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(ports)?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .set_compatibility(landlock::CompatLevel::BestEffort);
        for (path, access) in &self.files {
            let of_a_file = if path.is_dir() { AccessFs::from_all(NEWEST) } else { AccessFs::from_file(NEWEST) };
            if let Ok(path) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(path, *access & of_a_file))?;
            }
        }
        for port in &self.connect {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        Ok(missing(&rules.restrict_self()?.landlock))
    }
}

/// Lets the HSM spawner process and its children send signals only to each other.
pub(super) fn confine_spawner() -> Result<(), String> {
    limit_signals().map_err(|error| format!("Landlock: {error}"))?.map_or(Ok(()), Err)
}

/// `Some` says what is missing.
fn limit_signals() -> Result<Option<String>, RulesetError> {
    Ok(missing(&Ruleset::default().scope(Scope::Signal)?.create()?.restrict_self()?.landlock))
}

fn missing(status: &LandlockStatus) -> Option<String> {
    match status {
        LandlockStatus::Available { effective_abi, .. } if *effective_abi >= WHOLE => None,
        LandlockStatus::Available { .. } => Some(FILES_ONLY.into()),
        LandlockStatus::NotEnabled => {
            Some("this kernel has Landlock, but it is off: boot with `lsm=landlock,…`".into())
        }
        LandlockStatus::NotImplemented => {
            let release = rustix::system::uname().release().to_string_lossy().into_owned();
            Some(why_absent(&release, has_filter()))
        }
    }
}

/// Whether this process already has a filter of system calls. It is not ours: ours come after Landlock.
fn has_filter() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"]))
}

/// Why the kernel of this release does not know the calls of Landlock.
fn why_absent(release: &str, filtered: bool) -> String {
    const FIRST: (u32, u32) = (5, 13);
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse::<u32>().unwrap_or(0));
    let is_old = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) < FIRST;
    if is_old {
        format!("this kernel ({release}) has no Landlock, which needs Linux 5.13")
    } else if filtered {
        "a filter of system calls around this process, of a container or of its unit, hides Landlock: let it allow \
         landlock_create_ruleset, landlock_add_rule and landlock_restrict_self"
            .into()
    } else {
        format!("this kernel ({release}) was built without Landlock (CONFIG_SECURITY_LANDLOCK)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_why_landlock_is_absent_is_the_true_one() {
        for (release, filtered, word) in [
            ("5.10.0-28-amd64", false, "(5.10.0-28-amd64) has no Landlock, which needs Linux 5.13"),
            ("4.19", true, "needs Linux 5.13"),
            ("6.18.44-fc-v782", true, "hides Landlock: let it allow landlock_create_ruleset"),
            ("6.18.44-fc-v782", false, "(6.18.44-fc-v782) was built without Landlock"),
            ("5.13", true, "hides Landlock"),
        ] {
            let text = why_absent(release, filtered);
            assert!(text.contains(word), "{release}, {filtered}: {text}");
        }
    }
}
