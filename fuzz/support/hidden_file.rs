//! A private file without a name, for production code that insists on a path. Nothing is left behind by a crash.

use std::{
    env,
    fs::{self, File},
    os::{fd::AsRawFd as _, unix::fs::FileExt as _},
    path::PathBuf,
    process,
};

/// The file.
pub struct HiddenFile(File);

impl HiddenFile {
    /// An empty one.
    pub fn new() -> Self {
        let name = env::temp_dir().join(format!("highwater-fuzz-{}", process::id()));
        let file = highwater_core::disk::create_private(&name).expect("a file can be made");
        fs::remove_file(name).expect("our own file can be removed");
        Self(file)
    }

    /// Puts `content` in the place of what it held, and tells where it can be read.
    pub fn holding(&self, content: &[u8]) -> PathBuf {
        self.0.set_len(0).expect("the file can be emptied");
        self.0.write_all_at(content, 0).expect("the file can be written");
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }
}
