//! What a provider or a node needs of this machine. Whoever limits, judges or looks up any of it asks for this list, and
//! knows no kind of provider and no kind of node.

use std::{collections::BTreeSet, net::IpAddr, path::PathBuf};

/// Files, ports, names and devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Files that lead to a key: it itself, the code that reaches it, what opens it.
    pub files: Vec<NeededFile>,
    /// TCP ports that the signer connects to.
    pub ports: Vec<u16>,
    /// Host names that are looked up. Addresses are not among them.
    pub names: BTreeSet<String>,
    /// Whether the signer itself opens USB devices.
    pub usb: bool,
}

/// A file that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NeededFile {
    pub path: PathBuf,
    /// What messages call it.
    pub what: &'static str,
    pub kind: FileKind,
    pub reader: FileReader,
}

/// What a file is to the signer, and so how it is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A secret in the directory that systemd made for this service alone.
    Credential,
    /// A configuration, or something that is run. Judged by owner and permissions.
    Program,
    /// A secret. Judged by its owner alone: whoever opens it looks at its permissions, and allows less.
    Secret,
}

/// Who reads a file, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileReader {
    /// Another process of ours, which has limits of its own.
    Helper,
    /// The signer, once.
    Signer,
    /// The signer, again until it can be read. An editor puts a new file in its place.
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
