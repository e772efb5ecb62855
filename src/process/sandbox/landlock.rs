//! Landlock: which files and ports a process may still reach. What is open already stays so.
//!
//! The limits are those of the calling thread and of all that it starts, so they come before the first thread.

use crate::config::{Config, FileReader, paths};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, Compatible as _, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope, make_bitflags,
};
use std::path::{Path, PathBuf};

/// What is limited, on kernels that can: files and devices, TCP ports, abstract unix sockets, signals. Tested with it.
const NEWEST: ABI = ABI::V6;
/// The oldest that has both files (5.13, truncation since 6.2) and TCP ports (6.7).
const WHOLE: ABI = ABI::V4;

/// What a process may still do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    files: Vec<(PathBuf, BitFlags<AccessFs>)>,
    connect: Vec<u16>,
    /// To connect to. None is ever listened on.
    every_port: bool,
}

const READ: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir});
/// All but starting programs and making devices.
const READ_WRITE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
    ReadFile | ReadDir | WriteFile | Truncate | IoctlDev | MakeDir | MakeFifo | MakeReg | MakeSock | MakeSym | Refer
        | RemoveDir | RemoveFile
});

/// Where libraries and what belongs to them are.
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
/// What the C library reads.
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
/// What cryptographic libraries read: certificates and rules, no keys.
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
/// What they ask of the machine.
const MACHINE: [&str; 7] = [
    "/etc/os-release",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/osrelease",
    "/sys/devices/system/cpu",
    "/sys/devices/system/node",
];
/// What a name service reads. A file that is replaced is another file, out of reach of whoever was confined before.
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

/// What the child of a token may reach beside the system's libraries.
#[derive(Clone, Debug)]
pub struct ModuleLimits<'a> {
    /// Paths, and whether it may write there too.
    pub files: Vec<(&'a Path, bool)>,
    /// Never, whatever else is named.
    pub never: &'a [PathBuf],
    /// TCP and UDP.
    pub network: bool,
    /// Sockets of services on this machine.
    pub sockets: bool,
}

impl Policy {
    /// Of the signer: its state directories, what it still reads at start, and the ports of its nodes and connectors.
    pub(super) fn of_signer(config: &Config) -> Self {
        /// The state file is open already; its directory is flushed once more. It pins the key of a YubiHSM, and for that is
        /// read beside whoever has it open.
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

    /// Of a process that resolves one name: the name service's configuration, plug-ins and local sockets, and DNS.
    pub(super) fn of_resolver() -> Self {
        const DNS_PORT: u16 = 53;
        let mut policy = Self { connect: vec![DNS_PORT], ..Self::default() };
        for path in LIBRARIES.iter().chain(&BASICS).chain(NAME_SERVICE) {
            policy.allow(Path::new(path), READ);
        }
        policy
    }

    /// Of the child of a PKCS#11 token: the system's libraries and their configuration, and what its vendor and its
    /// operator have named. It starts no program, makes no device, listens on no TCP port.
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

    /// Of the process that makes and renames audit files.
    pub(super) fn of_audit_keeper(audit: &Path) -> Self {
        const AUDIT: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | WriteFile | MakeReg | RemoveFile});
        let mut policy = Self::default();
        policy.allow_directory_of(audit, AUDIT);
        policy
    }

    /// libusb looks for devices below `/sys` and opens them below `/dev`.
    fn allow_usb(&mut self) {
        const DEVICES: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | IoctlDev});
        self.allow(Path::new("/dev/bus/usb"), DEVICES);
        self.allow(Path::new("/sys"), AccessFs::ReadFile | AccessFs::ReadDir);
    }

    fn allow(&mut self, path: &Path, access: BitFlags<AccessFs>) {
        self.files.push((path.into(), access));
    }

    /// The directory in which the path is, and the one that it leads to if it is a link.
    fn allow_directory_of(&mut self, path: &Path, access: BitFlags<AccessFs>) {
        let places = [std::path::absolute(path), path.canonicalize()];
        for directory in places.iter().flatten().filter_map(|path| path.parent()) {
            self.allow(directory, access);
        }
    }

    /// Puts the calling thread under the policy. What does not exist is not allowed to come into being.
    pub(super) fn enforce(&self) -> Result<(), String> {
        self.try_enforce().map_err(|error| format!("Landlock: {error}"))?.map_or(Ok(()), Err)
    }

    /// `Some` is what is missing.
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

/// Puts the child of the spawner's tokens, and the spawner itself, where they signal nobody but each other.
pub(super) fn confine_spawner() -> Result<(), String> {
    let enforce = || -> Result<_, RulesetError> {
        Ok(missing(&Ruleset::default().scope(Scope::Signal)?.create()?.restrict_self()?.landlock))
    };
    enforce().map_err(|error| format!("Landlock: {error}"))?.map_or(Ok(()), Err)
}

fn missing(status: &LandlockStatus) -> Option<String> {
    match status {
        LandlockStatus::Available { effective_abi, .. } if *effective_abi >= WHOLE => None,
        LandlockStatus::Available { .. } => {
            Some("this kernel's Landlock limits files but not TCP ports, which takes Linux 6.7".into())
        }
        LandlockStatus::NotEnabled => {
            Some("this kernel has Landlock, but it is off: boot with `lsm=landlock,…`".into())
        }
        LandlockStatus::NotImplemented => Some("this kernel has no Landlock, which takes Linux 5.13".into()),
    }
}
