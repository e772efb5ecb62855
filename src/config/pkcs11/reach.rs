//! What the child of a token reaches of its machine, and what it is told when that is not enough.
//!
//! Beside the system's libraries a module reaches what its profile, its section and its own configuration name. What is
//! the signer's own it never reaches, whoever names it.

use super::spec::TokenSpec;
use crate::{
    config::{Config, NodeAddress, PasswordSource, PinSource},
    keyring::pkcs11::error::{ErrorClass, TokenError},
    process::sandbox::{self, ModuleLimits},
    show::web,
};
use highwater_core::disk;
use std::{
    env,
    ffi::OsString,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// Where systemd puts the secrets of a service.
pub const CREDENTIALS_VARIABLE: &str = "CREDENTIALS_DIRECTORY";
/// The longest configuration of a module that is looked into.
const CONFIGURATION_MAX_BYTES: u64 = 1024 * 1024;

/// What no module may reach: state, keys, PINs and passwords, credentials, configuration, audit, control socket.
pub fn of_the_signer(config: &Config) -> Vec<PathBuf> {
    let mut never = vec![config.path.clone()];
    for chain in &config.chains {
        never.extend([chain.state_file.clone(), chain.watermark()]);
    }
    never.extend(config.softsign.iter().map(|key| key.path.clone()));
    never.extend(config.validators.iter().filter_map(|validator| match &validator.address {
        NodeAddress::Tcp { identity_key, .. } => Some(identity_key.clone()),
        NodeAddress::Unix { .. } => None,
    }));
    never.extend(config.pkcs11.iter().filter_map(|provider| match &provider.pin {
        Some(PinSource::File(path)) => Some(path.clone()),
        _ => None,
    }));
    never.extend(config.yubihsm.iter().filter_map(|provider| match &provider.password {
        PasswordSource::File(path) => Some(path.clone()),
        _ => None,
    }));
    if let Some(audit) = &config.own.audit {
        never.push(audit.clone());
        // What was rotated is evidence too.
        never.extend((1..=config.own.audit_limits.keep).map(|number| disk::with_suffix(audit, &format!(".{number}"))));
    }
    never.push(web::control_socket(env::var_os(web::RUNTIME_VARIABLE), &config.path));
    never.extend(env::var_os(CREDENTIALS_VARIABLE).map(PathBuf::from));
    never
}

/// The environment variables that a module gets, if they are set. `secret` hold PINs.
pub fn variables<'a>(spec: &'a TokenSpec, secret: &'a [String]) -> impl Iterator<Item = &'a str> {
    let of_profile = spec.profile.module.environment.iter().map(|variable| &variable.name);
    let names = of_profile.chain(&spec.environment);
    names.filter(|name| *name != CREDENTIALS_VARIABLE && !secret.contains(name)).map(String::as_str)
}

/// What the child of a token may reach beside the system's libraries.
#[derive(Debug, Default)]
pub struct Reach {
    places: Vec<NamedPath>,
    /// What was named and is not reached, and why.
    refused: Vec<String>,
}

/// A file, directory or device that somebody has named.
#[derive(Debug, PartialEq, Eq)]
struct NamedPath {
    path: PathBuf,
    write: bool,
    /// Who has named it.
    by: String,
}

impl Reach {
    /// Looks at the disk, so before the child is confined.
    pub fn of(spec: &TokenSpec, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let mut reach = Self::default();
        let module = spec.module.canonicalize().unwrap_or_else(|_| spec.module.clone());
        // Libraries of its vendor often lie beside it.
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
        match never.iter().find(|never| sandbox::overlap(path, never)) {
            // A module beside our files is loaded all the same; only its neighbours stay out of reach.
            Some(_) if by == "module" => {}
            Some(never) => {
                let (path, never) = (path.display(), never.display());
                self.refused.push(format!("{path} (named by {by}) would open {never} to it, which is the signer's"));
            }
            None => self.places.push(NamedPath { path: path.into(), write, by: by.into() }),
        }
    }

    /// The same for the sandbox.
    pub fn limits<'a>(&'a self, spec: &'a TokenSpec) -> ModuleLimits<'a> {
        ModuleLimits {
            files: self.places.iter().map(|place| (place.path.as_path(), place.write)).collect(),
            never: &spec.never,
            network: spec.profile.module.network,
            sockets: spec.profile.module.sockets,
        }
    }

    /// Tries what was named. After the child was confined, this is what its module will see too.
    pub fn probe(&mut self) {
        for place in &self.places {
            // A device could be disturbed by it.
            let metadata = fs::metadata(&place.path);
            let tried = match metadata {
                Ok(metadata) if metadata.is_dir() => fs::read_dir(&place.path).map(drop),
                Ok(metadata) if metadata.is_file() => File::open(&place.path).map(drop),
                other => other.map(drop),
            };
            // A profile names all that there may be, and a vendor's directory need not be open to all.
            match tried {
                Err(error) if error.kind() == io::ErrorKind::NotFound && place.by == "its profile" => {}
                Err(_) if place.by == "module" => {}
                Err(error) => {
                    self.refused.push(format!("{} (named by {}): {error}", place.path.display(), place.by));
                }
                Ok(()) => {}
            }
        }
    }

    /// What to say beside an error, if it can come from a module that reaches too little. Begins with "; ".
    pub fn explain(&self, spec: &TokenSpec, error: &TokenError) -> String {
        let may_come_from_it = matches!(error.class(), ErrorClass::Absent | ErrorClass::Broken)
            || matches!(error, TokenError::Module { .. });
        if !may_come_from_it {
            return String::new();
        }
        let mut text = String::new();
        if !self.refused.is_empty() {
            let _ = write!(text, "; out of the module's reach: {}", self.refused.join(", "));
        }
        let network = match spec.profile.module.network {
            true => "",
            false => " and no network, for its profile says that it needs none",
        };
        let _ = write!(
            text,
            "; its sandbox leaves it the system's libraries and what is named{network}: if it needs another file, add \
             files = [\"/path\"] to its section"
        );
        text
    }
}

/// The values of these settings in a configuration that has one on each line, as `name = value` or `name: value`, which
/// are paths: that of a directory, or else the directory in which it lies, for what is made beside it.
fn paths_in(configuration: &Path, settings: &[String]) -> Vec<(String, PathBuf)> {
    if settings.is_empty() {
        return Vec::new();
    }
    let mut text = String::new();
    let read = File::open(configuration).and_then(|file| file.take(CONFIGURATION_MAX_BYTES).read_to_string(&mut text));
    if read.is_err() {
        // Told by `probe`.
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
    use crate::config::pkcs11::{profile::Profile, spec::TokenSelector};

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

    fn absent() -> TokenError {
        TokenError::NoToken { token: TokenSelector::Label("validator".into()), present: Vec::new() }
    }

    #[test]
    fn what_a_configuration_names_is_reached_for_writing_and_the_configuration_for_reading() {
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
    fn what_is_the_signers_is_never_reached_and_that_is_told() {
        let home = tempfile::tempdir().unwrap();
        let mut spec = spec("thales-luna7");
        let state = home.path().join("state/a.json");
        spec.never = vec![state.clone()];
        for named in [home.path().to_owned(), home.path().join("state"), state, "/".into()] {
            spec.files = vec![named.clone()];
            let reach = Reach::of(&spec, |_| None);
            assert!(!reach.limits(&spec).files.iter().any(|(path, _)| *path == named), "{named:?}");
            let told = reach.explain(&spec, &absent());
            assert!(told.contains("(named by `files`) would open") && told.contains("a.json"), "{told}");
        }
        spec.files = vec![home.path().join("tokens")];
        assert!(Reach::of(&spec, |_| None).refused.is_empty());
    }

    #[test]
    fn what_was_named_and_is_not_there_is_told_with_who_named_it() {
        let mut spec = spec("softhsm2");
        spec.files = vec!["/nowhere/at/all".into()];
        let mut reach = Reach::of(&spec, |name| (name == "SOFTHSM2_CONF").then(|| "/nowhere/hsm.conf".into()));
        reach.probe();
        let told = reach.explain(&spec, &absent());
        for words in [
            "/nowhere/at/all (named by `files`): No such file",
            "/nowhere/hsm.conf (named by SOFTHSM2_CONF)",
            "no network",
        ] {
            assert!(told.contains(words), "{words} is not in {told}");
        }
        let wrong_pin = TokenError::NoPin { token: spec.token.clone() };
        assert_eq!(reach.explain(&spec, &wrong_pin), "", "no file helps there");
    }

    #[test]
    fn no_pin_and_no_credential_is_passed_on() {
        let mut spec = spec("softhsm2");
        spec.environment = ["A", "PIN", CREDENTIALS_VARIABLE].map(str::to_owned).to_vec();
        let passed: Vec<_> = variables(&spec, &["PIN".to_owned()]).map(str::to_owned).collect();
        assert_eq!(passed, ["SOFTHSM2_CONF", "A"]);
    }
}
