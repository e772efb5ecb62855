//! Landlock: which files and ports a process may still reach. What is open already stays so.
//!
//! The limits are those of the calling thread and of all that it starts, so they come before the first thread.

use crate::config::{Config, NodeAddress, PasswordSource, YubiHsmAdapter};
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, Compatible as _, LandlockStatus, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, Scope, make_bitflags,
};
use std::{
    env,
    path::{Path, PathBuf},
};

/// What is limited, on kernels that can: files and devices, TCP ports, abstract unix sockets, signals. Tested with it.
const NEWEST: ABI = ABI::V6;
/// The oldest that has both files (5.13, truncation since 6.2) and TCP ports (6.7).
const WHOLE: ABI = ABI::V4;

/// What a process may still do.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Policy {
    files: Vec<(PathBuf, BitFlags<AccessFs>)>,
    connect: Vec<u16>,
}

impl Policy {
    /// Of the signer: its state directories, what it still reads at start, and the ports of its nodes and connectors.
    /// `socket` is where its control socket will be.
    pub(super) fn of_signer(config: &Config, socket: &Path) -> Self {
        /// The state file is open already; its directory is flushed once more.
        const STATE: BitFlags<AccessFs> = make_bitflags!(AccessFs::{ReadDir});
        const SOCKET: BitFlags<AccessFs> = make_bitflags!(AccessFs::{MakeSock | RemoveFile});
        let mut policy = Self::default();
        for chain in config.served_chains() {
            policy.allow_directory_of(&chain.watermark(), STATE);
        }
        policy.allow_directory_of(socket, SOCKET);
        for path in ["/etc/machine-id", "/var/lib/dbus/machine-id"] {
            policy.allow(Path::new(path), AccessFs::ReadFile.into());
        }
        for key in &config.softsign {
            policy.allow(&key.path, AccessFs::ReadFile.into());
        }
        for validator in &config.validators {
            if let NodeAddress::Tcp { identity_key, port, .. } = &validator.address {
                policy.allow(identity_key, AccessFs::ReadFile.into());
                policy.connect.push(*port);
            }
        }
        for provider in &config.yubihsm {
            // Looked for again until it can be read, and an editor puts a new file in its place.
            if let PasswordSource::File(path) = &provider.password {
                policy.allow_directory_of(path, AccessFs::ReadFile.into());
            }
            match provider.adapter {
                YubiHsmAdapter::Http { port, .. } => policy.connect.push(port),
                YubiHsmAdapter::Usb { .. } => policy.allow_usb(),
            }
        }
        policy
    }

    /// Of a process that resolves one name: the name service's configuration, plug-ins and local sockets, and DNS.
    pub(super) fn of_resolver() -> Self {
        const DNS_PORT: u16 = 53;
        let mut policy = Self { files: Vec::new(), connect: vec![DNS_PORT] };
        for path in ["/etc", "/lib", "/lib64", "/usr", "/run", "/nix/store", "/gnu/store"] {
            policy.allow(Path::new(path), AccessFs::ReadFile | AccessFs::ReadDir);
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
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?
            .create()?
            .set_compatibility(landlock::CompatLevel::BestEffort);
        for (path, access) in &self.files {
            if let Ok(path) = PathFd::new(path) {
                rules = rules.add_rule(PathBeneath::new(path, *access))?;
            }
        }
        for port in &self.connect {
            rules = rules.add_rule(NetPort::new(*port, AccessNet::ConnectTcp))?;
        }
        Ok(missing(&rules.restrict_self()?.landlock))
    }
}

/// Puts the child of a PKCS#11 token under the little that can be said of a vendor's module: it starts no program, makes
/// no device, listens on no TCP port and signals nobody outside. Which files, devices and hosts it needs only its
/// vendor knows.
pub(super) fn confine_module() -> Result<(), String> {
    const NEVER: BitFlags<AccessFs> = make_bitflags!(AccessFs::{Execute | MakeBlock | MakeChar});
    let enforce = || -> Result<_, RulesetError> {
        let rules = Ruleset::default().handle_access(NEVER)?.handle_access(AccessNet::BindTcp)?;
        Ok(missing(&rules.scope(Scope::Signal)?.create()?.restrict_self()?.landlock))
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

/// Where the control socket will be.
pub(super) fn control_socket(config: &Config) -> PathBuf {
    use crate::ops::web;
    web::control_socket(env::var_os(web::RUNTIME_VARIABLE), &config.path)
}
