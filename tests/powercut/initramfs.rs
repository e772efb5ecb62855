//! The file system that the kernel starts from: a cpio archive in memory, made by hand because it takes no tool.

use std::{
    collections::BTreeSet,
    path::{Component, Path},
};

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
/// After the last entry (the kernel's Documentation/driver-api/early-userspace/buffer-format.rst).
const TRAILER: &str = "TRAILER!!!";

/// An archive under construction.
#[derive(Default)]
pub struct Initramfs {
    archive: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Initramfs {
    /// Adds a directory, and those above it.
    pub fn directory(&mut self, path: &str) {
        let mut above = String::new();
        for part in Path::new(path).components() {
            let Component::Normal(part) = part else { continue };
            above = format!("{above}/{}", part.to_str().expect("a path in an archive is text"));
            if self.directories.insert(above.clone()) {
                self.entry(&above, DIRECTORY | 0o755, &[]);
            }
        }
    }

    /// Adds a file, and the directories above it. `mode` are its permissions.
    pub fn file(&mut self, path: &str, mode: u32, content: impl AsRef<[u8]>) {
        let above = Path::new(path).parent().expect("a file has a name");
        self.directory(above.to_str().expect("a path in an archive is text"));
        self.entry(path, FILE | mode, content.as_ref());
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry(TRAILER, 0, &[]);
        self.archive
    }

    /// Format `newc`: thirteen numbers in hex, the name, the content, each padded to four bytes.
    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        let name = path.trim_start_matches('/');
        let length = |bytes: usize| u32::try_from(bytes).expect("an archive is small");
        self.entries += 1;
        let (number, links, size, name_size) = (self.entries, 1, length(content.len()), length(name.len() + 1));
        self.archive.extend(b"070701");
        for field in [number, mode, 0, 0, links, 0, size, 0, 0, 0, 0, name_size, 0] {
            self.archive.extend(format!("{field:08x}").bytes());
        }
        self.archive.extend(name.bytes().chain([0]));
        self.pad();
        self.archive.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.archive.resize(self.archive.len().next_multiple_of(4), 0);
    }
}
