//! What may be looked at beside the text of the configuration.

use super::pkcs11::{profile::Profile, profile_reader::ProfileError};
use std::{io, path::Path};

/// Two looks at the disk, or none.
#[derive(Clone, Copy)]
pub(super) struct FileSystem {
    pub(super) load_profile: fn(&Path) -> Result<Profile, ProfileError>,
    pub(super) exists: fn(&Path) -> bool,
}

impl FileSystem {
    /// That of this machine.
    pub(super) const DISK: Self = Self { load_profile: Profile::load, exists: Path::exists };
    /// One in which nothing is.
    pub(super) const NONE: Self = Self {
        load_profile: |path| {
            Err(ProfileError::Unreadable { path: path.into(), error: io::ErrorKind::Unsupported.into() })
        },
        exists: |_| false,
    };
}
