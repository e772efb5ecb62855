//! What the child of a token can reach on its machine, and the hint in an error if that may be too little.
//!
//! Besides the system's libraries, a module can reach the files that its profile, its section and its own configuration
//! name. It can never reach the signer's own files, even if one of them names them.

use super::error::{ErrorClass, TokenError};
use crate::{
    config::{paths::overlap, pkcs11::spec::TokenSpec},
    process::sandbox::ModuleLimits,
};
use rustix::{
    fs::{Access, AtFlags, CWD, accessat},
    io::Errno,
};
use std::{
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// How the general part of a hint begins. What is known for certain belongs before it: texts are cut off at their end.
pub(crate) const ALLOWS: &str = "; its sandbox allows";

/// Longer configurations of a module are read only up to here.
const CONFIGURATION_MAX_BYTES: u64 = 1024 * 1024;

/// What the child of a token may reach besides the system's libraries.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    places: Vec<NamedPath>,
    /// What was named but cannot be reached, and why.
    refused: Vec<String>,
    /// Whether this kernel, or a switch of the configuration, leaves its files without limits.
    pub(super) unlimited: bool,
}

/// A file, directory or device that was named.
#[derive(Debug, PartialEq, Eq)]
struct NamedPath {
    path: PathBuf,
    write: bool,
    /// What names it.
    by: String,
}

impl Reach {
    /// Reads the disk, so call it before the child is confined.
    pub(crate) fn of(spec: &TokenSpec, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut reach = Self::default();
        let module = spec.module.canonicalize().unwrap_or_else(|_| spec.module.clone());
        // Other libraries of the vendor are often beside it.
        for path in [Some(module.as_path()), module.parent()].into_iter().flatten() {
            reach.add(path, false, "module", &spec.never);
        }
        let of_profile = &spec.profile.module;
        for path in &of_profile.files {
            reach.add(path, true, "its profile", &spec.never);
        }
        let named = of_profile.environment.iter().filter(|variable| variable.file);
        let named = named.filter_map(|named| Some((variable(&named.name)?.into(), named.name.as_str())));
        let mut configuration: Vec<(PathBuf, &str)> = named.collect();
        if configuration.is_empty() {
            configuration.extend(of_profile.configuration.iter().map(|path| (path.clone(), "its profile")));
        }
        for (path, by) in configuration {
            reach.add(&path, false, by, &spec.never);
            for place in paths_in(&path, &of_profile.settings) {
                let by = format!("{} in {}", place.0, path.display());
                reach.add(&place.1, true, &by, &spec.never);
            }
        }
        for path in &spec.files {
            reach.add(path, true, "`files`", &spec.never);
        }
        reach
    }

    fn add(&mut self, path: &Path, write: bool, by: &str, never: &[PathBuf]) {
        match never.iter().find(|never| overlap(path, never)) {
            // A module beside our files is still loaded; only its neighbours stay out of reach.
            Some(_) if by == "module" => {}
            Some(never) => {
                let (path, never) = (path.display(), never.display());
                self.refused.push(format!("{path} (named by {by}) would give it access to the signer's own {never}"));
            }
            None => self.places.push(NamedPath { path: path.into(), write, by: by.into() }),
        }
    }

    /// The limits for the sandbox.
    pub(crate) fn limits<'a>(&'a self, spec: &'a TokenSpec) -> ModuleLimits<'a> {
        ModuleLimits {
            files: self.places.iter().map(|place| (place.path.as_path(), place.write)).collect(),
            never: &spec.never,
            network: spec.profile.module.network,
            sockets: spec.profile.module.sockets,
        }
    }

    /// Tries to access what was named. After the child was confined, its module gets the same results.
    pub(crate) fn probe(&mut self) {
        for place in &self.places {
            // Opening a device could disturb it.
            let metadata = fs::metadata(&place.path);
            let tried = match metadata {
                Ok(metadata) if metadata.is_dir() => fs::read_dir(&place.path).map(drop),
                Ok(metadata) if metadata.is_file() => File::open(&place.path).map(drop),
                other => other.map(drop),
            };
            // A profile names files that may be absent, and a vendor's directory need not be readable.
            match tried {
                Err(error) if error.kind() == io::ErrorKind::NotFound && place.by == "its profile" => {}
                Err(_) if place.by == "module" => {}
                Err(error) => {
                    let advice = match error.kind() {
                        io::ErrorKind::PermissionDenied => for_its_group(&place.path).unwrap_or_default(),
                        _ => String::new(),
                    };
                    self.refused.push(format!("{} (named by {}): {error}{advice}", place.path.display(), place.by));
                }
                // The unit makes all of the disk read-only, except for what it names.
                Ok(())
                    if place.write
                        && accessat(CWD, &place.path, Access::WRITE_OK, AtFlags::EACCESS) == Err(Errno::ROFS) =>
                {
                    let path = place.path.display();
                    self.refused.push(format!(
                        "{path} (named by {}): read-only here, so add `ReadWritePaths={path}` in `systemctl edit highwater`",
                        place.by
                    ));
                }
                Ok(()) => {}
            }
        }
    }

    /// A hint for an error that may come from a module that can reach too little. Begins with "; ".
    pub(crate) fn explain(&self, spec: &TokenSpec, error: &TokenError) -> String {
        let may_come_from_it = matches!(error.class(), ErrorClass::Absent | ErrorClass::Broken)
            || matches!(error, TokenError::Module { .. });
        if !may_come_from_it {
            return String::new();
        }
        let mut text = String::new();
        if !self.refused.is_empty() {
            let _ = write!(text, "; out of the module's reach: {}", self.refused.join(", "));
        }
        if self.unlimited {
            return text;
        }
        let network = if spec.profile.module.network {
            ""
        } else {
            " and no network, because its profile says that it needs none"
        };
        let _ = write!(
            text,
            "{ALLOWS} the system's libraries and the named files{network}, and lets it start no program: if it \
             needs another file, add files = [\"/path\"] to its section"
        );
        text
    }
}

/// What to do if the members of a group may reach this path, and we are none of them: the files of SoftHSM are for the group
/// `softhsm`.
fn for_its_group(path: &Path) -> Option<String> {
    const GROUP_READ: u32 = 0o040;
    const OTHERS_READ: u32 = 0o004;
    let mut way: Vec<_> = path.ancestors().collect();
    way.reverse();
    // The first that is closed to us hides the mode of those inside.
    let closed = way.iter().map_while(|step| fs::metadata(step).ok()).find(|found| found.mode() & OTHERS_READ == 0)?;
    let groups = fs::read_to_string("/etc/group").ok()?;
    let number = closed.gid().to_string();
    let group = groups.lines().find(|line| line.split(':').nth(2) == Some(number.as_str()))?.split(':').next()?;
    (closed.mode() & GROUP_READ != 0 && group != "root").then(|| {
        format!(" (the group {group} may read it: run `usermod -a -G {group} USER` for the signer's user, and restart)")
    })
}

/// The paths that these settings have in a configuration with one setting per line, as `name = value` or `name: value`.
/// For a file, its directory, because a module may make files beside it.
fn paths_in(configuration: &Path, settings: &[String]) -> Vec<(String, PathBuf)> {
    if settings.is_empty() {
        return Vec::new();
    }
    let mut text = String::new();
    let read = File::open(configuration).and_then(|file| file.take(CONFIGURATION_MAX_BYTES).read_to_string(&mut text));
    if read.is_err() {
        // `probe` reports it.
        return Vec::new();
    }
    text.lines().filter_map(|line| setting(line, settings)).collect()
}

fn setting(line: &str, settings: &[String]) -> Option<(String, PathBuf)> {
    let (name, value) = line.split_once(['=', ':'])?;
    let name = name.trim().trim_matches('"');
    let value = Path::new(value.trim().trim_end_matches([',', ';']).trim_matches(['"', '\'']));
    let known = settings.iter().any(|setting| setting == name);
    let directory = if value.is_dir() { Some(value) } else { value.parent() };
    (known && value.is_absolute()).then_some((name.to_owned(), directory?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        CREDENTIALS_VARIABLE,
        pkcs11::{profile::Profile, spec::TokenSelector},
    };
    use std::os::unix::fs::PermissionsExt as _;

    fn spec(profile: &str) -> TokenSpec {
        TokenSpec {
            module: "/opt/hsm/lib/hsm.so".into(),
            profile: Profile::builtin(profile).unwrap(),
            token: TokenSelector::Label("validator".into()),
            keys: Vec::new(),
            files: Vec::new(),
            environment: Vec::new(),
            never: Vec::new(),
        }
    }

    #[test]
    fn a_file_that_is_for_a_group_names_the_group() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("softhsm2.conf");
        fs::write(&path, "").unwrap();
        // 1 is `daemon` wherever there are groups. Only root can give a file to it.
        if std::os::unix::fs::chown(&path, None, Some(1)).is_err() {
            return;
        }
        let with = |mode: u32| {
            fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for_its_group(&path)
        };
        assert!(with(0o640).unwrap().contains("`usermod -a -G daemon USER`"));
        assert_eq!(with(0o600), None, "no group may read it");
        assert_eq!(with(0o644), None, "everybody may");
    }

    fn absent() -> TokenError {
        TokenError::NoToken { token: TokenSelector::Label("validator".into()), present: Vec::new() }
    }

    #[test]
    fn a_configuration_is_readable_and_the_paths_in_it_are_writable() {
        let home = tempfile::tempdir().unwrap();
        let (conf, tokens) = (home.path().join("hsm.conf"), home.path().join("tokens"));
        fs::create_dir(&tokens).unwrap();
        fs::write(&conf, format!("# a comment\nlog.level = ERROR\ndirectories.tokendir = {}\n", tokens.display()))
            .unwrap();
        let spec = spec("softhsm2");
        let reach = Reach::of(&spec, |name| (name == "SOFTHSM2_CONF").then(|| conf.clone().into()));
        let limits = reach.limits(&spec);
        assert!(limits.files.contains(&(conf.as_path(), false)), "{limits:?}");
        assert!(limits.files.contains(&(tokens.as_path(), true)), "{limits:?}");
        assert!(!limits.files.iter().any(|(path, _)| *path == home.path()), "{limits:?}");
    }

    #[test]
    fn settings_are_found_however_they_are_written() {
        let names = ["dbargs".to_owned()];
        for line in [
            "dbargs = \"/a/token.sql\"",
            "dbargs: '/a/token.sql'",
            "  \"dbargs\": \"/a/token.sql\",",
            "dbargs=/a/token.sql;",
        ] {
            assert_eq!(setting(line, &names), Some(("dbargs".into(), "/a".into())), "{line}");
        }
        for line in ["dbargs = token.sql", "other = /a/b", "#dbargs = /a/b", "dbargs"] {
            assert_eq!(setting(line, &names), None, "{line}");
        }
    }

    #[test]
    fn the_signers_own_files_are_never_reached_and_the_hint_says_so() {
        let home = tempfile::tempdir().unwrap();
        let mut spec = spec("thales-luna7");
        let state = home.path().join("state/a.json");
        spec.never = vec![state.clone()];
        for named in [home.path().to_owned(), home.path().join("state"), state, "/".into()] {
            spec.files = vec![named.clone()];
            let reach = Reach::of(&spec, |_| None);
            assert!(!reach.limits(&spec).files.iter().any(|(path, _)| *path == named), "{named:?}");
            let hint = reach.explain(&spec, &absent());
            assert!(hint.contains("(named by `files`) would give it access") && hint.contains("a.json"), "{hint}");
        }
        spec.files = vec![home.path().join("tokens")];
        assert!(Reach::of(&spec, |_| None).refused.is_empty());
    }

    #[test]
    fn a_missing_file_is_reported_with_what_names_it() {
        let mut spec = spec("softhsm2");
        spec.files = vec!["/nowhere/at/all".into()];
        let mut reach = Reach::of(&spec, |name| (name == "SOFTHSM2_CONF").then(|| "/nowhere/hsm.conf".into()));
        reach.probe();
        let hint = reach.explain(&spec, &absent());
        for words in [
            "/nowhere/at/all (named by `files`): No such file",
            "/nowhere/hsm.conf (named by SOFTHSM2_CONF)",
            "no network",
        ] {
            assert!(hint.contains(words), "{words} is not in {hint}");
        }
        let wrong_pin = TokenError::NoPin { token: spec.token.clone() };
        assert_eq!(reach.explain(&spec, &wrong_pin), "", "no file helps there");
        reach.unlimited = true;
        let hint = reach.explain(&spec, &absent());
        assert!(
            hint.contains("out of the module's reach") && !hint.contains("sandbox"),
            "no sandbox limits it: {hint}"
        );
    }

    #[test]
    fn no_pin_and_no_credential_is_passed_on() {
        let mut spec = spec("softhsm2");
        spec.environment = ["A", "PIN", CREDENTIALS_VARIABLE].map(str::to_owned).to_vec();
        let passed: Vec<_> = spec.variables(&["PIN".to_owned()]).map(str::to_owned).collect();
        assert_eq!(passed, ["SOFTHSM2_CONF", "A"]);
    }
}
