//! What reading a configuration may access besides its text.

use super::pkcs11::{profile::Profile, profile_reader::ProfileError};
use std::{io, path::Path};

/// The two ways to access the disk.
#[derive(Clone, Copy)]
pub(super) struct FileSystem {
    pub(super) load_profile: fn(&Path) -> Result<Profile, ProfileError>,
    pub(super) exists: fn(&Path) -> bool,
}

impl FileSystem {
    /// This machine's disk.
    pub(super) const DISK: Self = Self { load_profile: Profile::load, exists: Path::exists };
    /// An empty disk.
    pub(super) const NONE: Self = Self {
        load_profile: |path| {
            Err(ProfileError::Unreadable { path: path.into(), error: io::ErrorKind::Unsupported.into() })
        },
        exists: |_| false,
    };
}
