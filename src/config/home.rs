//! The path of a signer's control socket.

use highwater_core::hex::Hex;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// The variable with the directory that systemd makes for the service (RuntimeDirectory=).
pub const RUNTIME_VARIABLE: &str = "RUNTIME_DIRECTORY";
/// The path of that directory, for commands without the service's environment.
const RUNTIME_DIRECTORY: &str = "/run/highwater";
/// The path of the packaged service's configuration.
pub const SERVICE_CONFIGURATION: &str = "/etc/highwater/tmkms.toml";

/// The name of the control socket of the signer with this configuration. It is derived from the configuration's whole
/// path, so signers that share a directory neither remove each other's socket nor are mistaken for each other. A link
/// to the configuration is not followed, because its target may change later.
fn socket_name(configuration: &Path) -> String {
    let absolute = std::path::absolute(configuration).unwrap_or_else(|_| configuration.to_owned());
    let directory =
        absolute.parent().map(|directory| directory.canonicalize().unwrap_or_else(|_| directory.to_owned()));
    let path = directory.unwrap_or_default().join(absolute.file_name().unwrap_or_default());
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let digits = Hex(&digest[..4]);
    format!("control-{digits}.sock")
}

/// The socket on which the signer listens: in systemd's directory, or else beside its configuration.
pub fn control_socket(runtime_directory: Option<OsString>, configuration: &Path) -> PathBuf {
    let list = runtime_directory.unwrap_or_default();
    let directory = match list.as_bytes().split(|byte| *byte == b':').next() {
        Some(first) if !list.is_empty() => Path::new(OsStr::from_bytes(first)),
        _ => home_of(configuration),
    };
    directory.join(socket_name(configuration))
}

/// The sockets on which the signer with this configuration may listen, the most likely first.
pub fn control_sockets(runtime_directory: Option<OsString>, configuration: &Path) -> Vec<PathBuf> {
    let mut places = vec![control_socket(runtime_directory, configuration), control_socket(None, configuration)];
    places.push(Path::new(RUNTIME_DIRECTORY).join(socket_name(configuration)));
    places.dedup();
    places
}

/// The sockets on which the packaged service may listen, for a command without a configuration.
pub fn service_sockets(runtime_directory: Option<OsString>) -> Vec<PathBuf> {
    control_sockets(runtime_directory, Path::new(SERVICE_CONFIGURATION))
}

/// Other control sockets in the directories of `places`. They may belong to other signers.
pub fn other_sockets(places: &[PathBuf]) -> Vec<PathBuf> {
    let directories: BTreeSet<_> = places.iter().filter_map(|place| place.parent()).collect();
    let mut others = Vec::new();
    for entry in directories.into_iter().filter_map(|directory| fs::read_dir(directory).ok()).flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let is_socket = name.to_str().is_some_and(|name| name.starts_with("control-") && name.ends_with(".sock"));
        if is_socket && !places.contains(&path) {
            others.push(path);
        }
    }
    others
}

fn home_of(configuration: &Path) -> &Path {
    match configuration.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_socket_is_in_the_directory_of_systemd_or_beside_the_configuration() {
        let configuration = Path::new("/home/tmkms.toml");
        let name = socket_name(configuration);
        for (variable, directory) in
            [(None, "/home"), (Some(""), "/home"), (Some("/run/a"), "/run/a"), (Some("/run/a:/run/b"), "/run/a")]
        {
            let path = Path::new(directory).join(&name);
            assert_eq!(control_socket(variable.map(Into::into), configuration), path, "{variable:?}");
        }
        let places = ["/home", "/run/highwater"].map(|directory| Path::new(directory).join(&name));
        assert_eq!(control_sockets(None, configuration), places);
    }

    #[test]
    fn every_configuration_has_a_socket_of_its_own_however_it_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("a")).unwrap();
        std::os::unix::fs::symlink(path("a"), path("link")).unwrap();
        std::os::unix::fs::symlink("one.toml", path("a/current.toml")).unwrap();
        assert_eq!(socket_name(&path("a/one.toml")), socket_name(&path("link/../a/./one.toml")));
        assert_eq!(socket_name(&path("a/one.toml")), socket_name(&path("link/one.toml")));
        let all = ["a/one.toml", "a/two.toml", "one.toml", "a/current.toml"].map(|name| socket_name(&path(name)));
        assert_eq!(BTreeSet::from(all).len(), 4, "a link may lead elsewhere tomorrow");

        let ours = control_socket(Some(path("a").into()), &path("one.toml"));
        let other = control_socket(Some(path("a").into()), &path("two.toml"));
        for socket in [&ours, &other] {
            fs::write(socket, "").unwrap();
        }
        assert_eq!(other_sockets(&[ours]), [other]);
    }
}
