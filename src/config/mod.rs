//! `tmkms.toml`: read as tmkms 0.15 reads it, checked as a whole, and turned into a [`Config`].
//!
//! ```text
//! text ─▶ reader (tables, lines) ─▶ sections, providers, pkcs11, yubihsm, unsupported (one by one)
//!      ─▶ validate (together) ─▶ Config
//! ```
//!
//! Every mistake in a file is reported at once, each with its line. What works, but not as one may think, comes as a
//! warning beside the configuration.

mod address;
mod model;
mod own;
pub mod pkcs11;
mod providers;
pub(crate) mod reader;
mod sections;
mod unsupported;
mod validate;
mod yubihsm;

pub use model::*;
pub use own::{AuditLimits, OwnConfig};

use pkcs11::Surroundings;
use reader::{ConfigFindings, Table};
use sections::Draft;
use std::{
    ffi::OsString,
    fmt, fs, io,
    path::{Path, PathBuf},
};
use toml::de::DeTable;
use zeroize::Zeroizing;

/// The environment variable that names the configuration file, as in tmkms.
pub const PATH_VARIABLE: &str = "TMKMS_CONFIG_FILE";
/// The configuration file if nothing names one, as in tmkms.
pub const DEFAULT_PATH: &str = "./tmkms.toml";

/// Where the configuration is: `-c`, else `TMKMS_CONFIG_FILE`, else `./tmkms.toml`. An empty variable counts as unset.
pub fn resolve_path(cli: Option<&Path>, env: Option<OsString>) -> PathBuf {
    let from_env = || env.filter(|path| !path.is_empty()).map(PathBuf::from);
    cli.map(Path::to_owned).or_else(from_env).unwrap_or_else(|| DEFAULT_PATH.into())
}

impl Config {
    /// Reads the file at `path`. Gives its warnings beside the configuration.
    pub fn load(path: &Path) -> Result<(Self, Vec<ConfigFinding>), ConfigError> {
        // The text can hold a password.
        let text = fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| ConfigError::Unreadable { path: path.into(), error })?;
        let (config, warnings) = Self::read(path, &text, Surroundings::DISK)?;

        let mut on_disk = ConfigFindings::new(&text);
        validate::check_on_disk(&config.chains, &mut on_disk);
        pkcs11::check_files(&config, &mut on_disk);
        on_disk.finish().map_err(|findings| ConfigError::Invalid { path: path.into(), findings })?;
        Ok((config, warnings))
    }

    /// Reads `text`, the content of the file at `path`. Looks at nothing else, so a profile must be a built-in one.
    pub fn parse(path: &Path, text: &str) -> Result<(Self, Vec<ConfigFinding>), ConfigError> {
        Self::read(path, text, Surroundings::NONE)
    }

    fn read(path: &Path, text: &str, surroundings: Surroundings) -> Result<(Self, Vec<ConfigFinding>), ConfigError> {
        let mut findings = ConfigFindings::new(text);
        let mut draft = Draft::new(surroundings);
        if draft_from(text, &mut draft, &mut findings) {
            validate::check(&draft, &mut findings);
        }
        match findings.finish() {
            Ok(warnings) => Ok((draft.into_config(path), warnings)),
            Err(findings) => Err(ConfigError::Invalid { path: path.into(), findings }),
        }
    }
}

/// What can be read of a configuration that need not be complete: an operator writes the section of a token first, and
/// has its keys made then. Nothing signs by it.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// The sections that can be read. Not compared with each other: references may lead nowhere.
    pub config: Config,
    /// What keeps the file from being a configuration, in the order of the file. May be empty.
    pub errors: Vec<ConfigFinding>,
}

impl Sketch {
    /// Reads the file at `path`. Only one that is no TOML at all is an error.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        // The text can hold a password.
        let text = fs::read_to_string(path).map(Zeroizing::new);
        let text = text.map_err(|error| ConfigError::Unreadable { path: path.into(), error })?;
        Self::read(path, &text, Surroundings::DISK)
    }

    fn read(path: &Path, text: &str, surroundings: Surroundings) -> Result<Self, ConfigError> {
        let mut findings = ConfigFindings::new(text);
        let mut draft = Draft::new(surroundings);
        let is_toml = draft_from(text, &mut draft, &mut findings);
        if is_toml {
            validate::check(&draft, &mut findings);
        }
        let errors = findings.finish().err().unwrap_or_default();
        if !is_toml {
            return Err(ConfigError::Invalid { path: path.into(), findings: errors });
        }
        Ok(Self { config: draft.into_config(path), errors })
    }
}

/// Reads all sections of `text`. False if it is no TOML.
fn draft_from(text: &str, draft: &mut Draft, findings: &mut ConfigFindings<'_>) -> bool {
    match DeTable::parse(text) {
        Ok(root) => {
            Table::read("the file", 0, root.get_ref(), findings, |table, findings| draft.read(table, findings));
            true
        }
        Err(error) => {
            let line = error.span().map_or(0, |span| findings.line(&span));
            // Only the message: the error's own text quotes the line, which can hold a password.
            findings.error(line, format!("this is not TOML: {}", error.message()));
            false
        }
    }
}

/// Why there is no configuration.
#[derive(Debug)]
pub enum ConfigError {
    /// The file can be read, but not used.
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong, in the order of the file. Not empty.
        findings: Vec<ConfigFinding>,
    },
    /// The file cannot be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
}

/// One line for each finding: `file:line: sentence`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid { path, findings } => {
                let lines: Vec<_> = findings.iter().map(|finding| finding.at(path)).collect();
                f.write_str(&lines.join("\n"))
            }
            Self::Unreadable { path, error } => {
                let hint = match error.kind() {
                    io::ErrorKind::InvalidData => "it must be UTF-8 text",
                    io::ErrorKind::PermissionDenied => "give it to the user that Highwater runs as",
                    _ => "name another file with -c or TMKMS_CONFIG_FILE, or make one with `highwater init`",
                };
                write!(f, "{}: the configuration cannot be read ({error}): {hint}", path.display())
            }
        }
    }
}

impl std::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_read_of_an_unfinished_configuration_is_read() {
        let token = "[[providers.pkcs11]]\nprofile = \"softhsm2\"\ntoken = { label = \"a\" }\npin = { fd = 3 }\n\
                     keys = [{ chain_ids = [\"test-1\"], id = \"01\" }]\n";
        let text = format!("{}{token}", &GOOD[..GOOD.find("[[providers").unwrap()]);
        let read = |text: &str| Sketch::read(Path::new("tmkms.toml"), text, Surroundings::NONE);
        let Sketch { config, errors } = read(&text).unwrap();
        assert_eq!((config.chains.len(), config.pkcs11.len(), config.pkcs11[0].keys.len()), (1, 1, 0));
        assert_eq!(config.pkcs11[0].profile_text, "softhsm2");
        assert!(errors.len() == 1 && errors[0].text.contains("needs `public_key`"), "{errors:?}");

        assert!(read(GOOD).unwrap().errors.is_empty());
        assert!(matches!(read("what is this"), Err(ConfigError::Invalid { .. })));
    }

    const EXAMPLE: &str = include_str!("../../tmkms.toml.example");

    /// A configuration without a mistake. The chain begins on line 1, the node on 5, the key on 10.
    pub(super) const GOOD: &str = r#"[[chain]]
id = "test-1"
key_format = { type = "hex" }

[[validator]]
addr = "tcp://10.0.0.1:26658"
chain_id = "test-1"
secret_key = "identity.key"

[[providers.softsign]]
chain_ids = ["test-1"]
path = "consensus.key"
"#;

    pub(super) fn parse(text: &str) -> Result<(Config, Vec<ConfigFinding>), ConfigError> {
        Config::parse(Path::new("f"), text)
    }

    /// `GOOD` with one piece of text in place of another.
    pub(super) fn good_with(old: &str, new: &str) -> String {
        assert!(GOOD.contains(old), "{old:?} is in the text");
        GOOD.replacen(old, new, 1)
    }

    pub(super) fn accept(text: &str) -> (Config, Vec<String>) {
        let (config, warnings) = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        (config, warnings.iter().map(|finding| finding.at(Path::new("f"))).collect())
    }

    /// The lines of the error that `text` gives.
    pub(super) fn errors(text: &str) -> Vec<String> {
        let error = parse(text).err().unwrap_or_else(|| panic!("this gives an error:\n{text}"));
        error.to_string().lines().map(str::to_owned).collect()
    }

    /// That `text` gives exactly one error: on `line`, with each of `words` in it.
    #[track_caller]
    pub(super) fn assert_one_error(text: &str, line: usize, words: &[&str]) {
        let errors = errors(text);
        let [error] = errors.as_slice() else { panic!("one error, not {errors:#?} for\n{text}") };
        let place = if line == 0 { "f: ".to_owned() } else { format!("f:{line}: ") };
        assert!(error.starts_with(&place), "{error} stands on line {line} of\n{text}");
        for word in words {
            assert!(error.contains(word), "{error:?} contains {word:?}");
        }
    }

    /// The warnings of a text, without the file's name.
    pub(super) fn warnings(text: &str) -> Vec<String> {
        accept(text).1.iter().map(|warning| warning.trim_start_matches("f:").to_owned()).collect()
    }

    #[track_caller]
    pub(super) fn assert_one_warning(text: &str, line: usize, words: &str) {
        let warnings = warnings(text);
        let [warning] = warnings.as_slice() else { panic!("one warning, not {warnings:#?}") };
        assert!(warning.starts_with(&format!("{line}: ")) && warning.contains(words), "{warning}");
    }

    #[test]
    fn the_command_line_goes_before_the_environment() {
        let (cli, env) = (Some(Path::new("a.toml")), || Some(OsString::from("b.toml")));
        assert_eq!(resolve_path(cli, env()), Path::new("a.toml"));
        assert_eq!(resolve_path(None, env()), Path::new("b.toml"));
        assert_eq!(resolve_path(None, Some(OsString::new())), Path::new("./tmkms.toml"));
        assert_eq!(resolve_path(None, None), Path::new("./tmkms.toml"));
    }

    #[test]
    fn a_file_that_cannot_be_read_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tmkms.toml");
        let text = Config::load(&path).unwrap_err().to_string();
        for word in [path.to_str().unwrap(), "-c", "TMKMS_CONFIG_FILE", "`highwater init`"] {
            assert!(text.contains(word), "{text:?} contains {word:?}");
        }
        fs::write(&path, [0xff]).unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("UTF-8"));
    }

    #[test]
    fn a_file_is_read_and_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tmkms.toml");
        fs::write(&path, good_with("[[validator]]", "[[validator]]\ntimeout = 3")).unwrap();
        let (config, warnings) = Config::load(&path).unwrap();
        assert_eq!(config.path, path);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn what_is_no_toml_gives_the_line_and_never_the_text_of_it() {
        assert_one_error(&good_with("id = \"test-1\"", "id = \"test-1"), 2, &["this is not TOML: "]);
        assert_one_error(&good_with("path", "path = \"a\"\npath"), 13, &["duplicate key"]);
        let text = "[[providers.yubihsm]]\nauth = { key = 1, password = \"hunter2 }\n";
        assert!(!errors(text)[0].contains("hunter2"));
        assert!(!format!("{:?}", parse(text).unwrap_err()).contains("hunter2"));
    }

    #[test]
    fn an_empty_file_says_everything_that_is_missing() {
        let errors = errors("");
        assert_eq!(errors.len(), 3, "{errors:#?}");
        for (error, missing) in errors.iter().zip(["[[chain]]", "[[validator]]", "[providers]"]) {
            assert!(error.starts_with(&format!("f: there is no {missing}: add ")), "{error}");
        }
    }

    #[test]
    fn sections_must_be_there_and_not_be_empty() {
        let validator = &GOOD[GOOD.find("[[validator]]").unwrap()..GOOD.find("[[providers").unwrap()];
        assert_one_error(&GOOD.replace(validator, ""), 0, &["no [[validator]]"]);
        assert_one_error(&format!("validator = []\n{}", GOOD.replace(validator, "")), 0, &["no [[validator]]"]);
        assert_one_error(&GOOD[GOOD.find("[[validator]]").unwrap()..], 0, &["no [[chain]]"]);
        assert_one_error(&GOOD[..GOOD.find("[[providers").unwrap()], 0, &["no [providers]", "[[providers.softsign]]"]);
        assert_one_error(&good_with("[[validator]]", "[validator]"), 5, &["found a table: write [[validator]]"]);
    }

    #[test]
    fn many_mistakes_are_reported_at_once_in_the_order_of_the_file() {
        let text = r#"[[chain]]
id = "a b"
key_format = { type = "hex" }
state_fil = "x"
[[chain]]
id = "b-1"
[[validator]]
adr = "tcp://h:1"
chain_id = 7
timeout = "10"
[[providers.softsign]]
chain_ids = ["b-1"]
key_type = "konsensus"
[provider]
"#;
        let lines: Vec<_> = errors(text).iter().map(|e| e.split(':').nth(1).unwrap().to_owned()).collect();
        assert_eq!(lines, ["2", "4", "5", "7", "8", "9", "10", "11", "13", "14"]);
    }

    #[test]
    fn unknown_keys_come_with_the_nearest_known_one() {
        for (old, new, line, hint) in [
            ("[[chain]]", "chains = 1\n[[chain]]", 1, "`chains` in the file: did you mean `chain`?"),
            ("id = ", "state_fiel = \"x\"\nid = ", 2, "`state_fiel` in [[chain]]: did you mean `state_file`?"),
            ("addr", "recconect = true\naddr", 6, "`recconect` in [[validator]]: did you mean `reconnect`?"),
            ("path", "chain_id = 1\npath", 12, "`chain_id` in [[providers.softsign]]: did you mean `chain_ids`?"),
            ("path", "qqq = 1\npath", 12, "`qqq` in [[providers.softsign]]: it knows `key_type`, `type`, "),
            ("[[providers.softsign]]", "[[providers.sofsign]]\n[[providers.softsign]]", 10, "did you mean `softsign`?"),
            (
                "[[validator]]",
                "[highwater]\nmetrik = 1\n[[validator]]",
                6,
                "`metrik` in [highwater]: did you mean `metrics`?",
            ),
            ("id = ", "\"a\\nb\" = 1\nid = ", 2, "`a\\nb` in [[chain]]"),
        ] {
            assert_one_error(&good_with(old, new), line, &["unknown key", hint]);
        }
    }

    #[test]
    fn the_table_for_own_settings_may_be_there() {
        assert!(accept(&format!("{GOOD}[highwater]\n")).1.is_empty());
        assert_one_error(&format!("highwater = 1\n{GOOD}"), 1, &["expected a table, found an integer"]);
    }

    #[test]
    fn transaction_signing_is_refused_in_one_sentence() {
        let text = format!("{GOOD}[[tx_signer]]\nchain_id = \"x\"\nacl = {{}}\n[[tx_signer]]\n");
        assert_one_error(&text, 13, &["transaction signing is not supported: remove"]);
    }

    #[test]
    fn the_example_is_a_configuration_without_findings() {
        let (config, warnings) = accept(EXAMPLE);
        assert!(warnings.is_empty(), "{warnings:#?}");
        assert_eq!((config.chains.len(), config.validators.len(), config.softsign.len()), (2, 2, 2));
    }

    #[test]
    fn the_example_with_every_setting_on_is_one_too() {
        let turn_on = |line: &'static str| match line.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| !c.is_whitespace()) => setting,
            _ => line,
        };
        let text = EXAMPLE.lines().map(turn_on).collect::<Vec<_>>().join("\n");
        let (config, warnings) = accept(&text);
        assert!(warnings.is_empty(), "{warnings:#?}");
        assert!(config.chains[0].allow_raw_bytes && config.chains[0].state_hook.is_some());
        assert!(config.validators[0].max_height.is_some());
        assert_eq!(config.pkcs11[0].keys.len(), 1);
        assert!(config.own.metrics.is_some() && config.own.audit.is_some());
    }
}
