//! What a provider or a node needs from this machine. The sandbox, the checks and the resolver use this list, so they
//! need not know the kinds of providers and nodes.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

/// Files, ports, names and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files on the way to a key: the key itself, the code that accesses it, the secret that opens it.
    pub files: Vec<NeededFile>,
    /// TCP ports that the signer connects to.
    pub ports: Vec<u16>,
    /// Host names to look up, without IP addresses.
    pub names: BTreeSet<String>,
    /// Whether the signer itself opens USB devices.
    pub usb: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededFile {
    pub path: PathBuf,
    /// Its name in messages.
    pub what: &'static str,
    pub kind: FileKind,
    pub reader: FileReader,
}

/// What a file is to the signer. Decides how its owner and permissions are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A secret in systemd's directory for this service.
    Credential,
    /// A configuration, or code that is run. Its owner and permissions are checked.
    Program,
    /// A secret. Only its owner is checked: the code that opens it has stricter rules for permissions.
    Secret,
}

/// Which process reads a file, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileReader {
    /// A helper process, which has its own limits.
    Helper,
    /// The signer, once.
    Signer,
    /// The signer, repeatedly until it can be read. An editor may replace the file.
    SignerAgain,
}

impl Needs {
    pub(super) fn add(&mut self, other: Self) {
        self.files.extend(other.files);
        self.ports.extend(other.ports);
        self.names.extend(other.names);
        self.usb |= other.usb;
    }

    pub(super) fn file(&mut self, path: impl Into<PathBuf>, what: &'static str, kind: FileKind, reader: FileReader) {
        self.files.push(NeededFile { path: path.into(), what, kind, reader });
    }

    pub(super) fn dial(&mut self, host: &str, port: u16) {
        self.ports.push(port);
        if host.parse::<IpAddr>().is_err() {
            self.names.insert(host.to_owned());
        }
    }
}
