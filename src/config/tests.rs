//! The configuration as a whole, and helpers for the other tests of this folder.

use super::*;

#[test]
fn what_can_be_read_of_an_unfinished_configuration_is_read() {
    let token = "[[providers.pkcs11]]\nprofile = \"softhsm2\"\ntoken = { label = \"a\" }\npin = { fd = 3 }\n\
                     keys = [{ chain_ids = [\"test-1\"], id = \"01\" }]\n";
    let text = format!("{}{token}", &GOOD[..GOOD.find("[[providers").unwrap()]);
    let read = |text: &str| PartialConfig::read(Path::new("tmkms.toml"), text, FileSystem::NONE);
    let PartialConfig { config, errors } = read(&text).unwrap();
    assert_eq!((config.chains.len(), config.pkcs11().len(), config.pkcs11()[0].keys.len()), (1, 1, 0));
    assert_eq!(config.pkcs11()[0].profile_text, "softhsm2");
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

/// `GOOD` with `old` replaced by `new`.
pub(super) fn good_with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old:?} is in the text");
    GOOD.replacen(old, new, 1)
}

pub(super) fn accept(text: &str) -> (Config, Vec<String>) {
    let (config, warnings) = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    (config, warnings.iter().map(|finding| finding.at(Path::new("f"))).collect())
}

/// The lines of the error for `text`.
pub(super) fn errors(text: &str) -> Vec<String> {
    let error = parse(text).err().unwrap_or_else(|| panic!("this gives an error:\n{text}"));
    error.to_string().lines().map(str::to_owned).collect()
}

/// Checks that `text` gives exactly one error, on `line`, which contains each of `words`.
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
    let with = |there: &'static [&str]| unnamed_path(move |path| there.iter().any(|known| path == Path::new(known)));
    assert_eq!(with(&["./tmkms.toml", "/etc/highwater/tmkms.toml"]), Path::new("./tmkms.toml"));
    assert_eq!(with(&["/etc/highwater/tmkms.toml"]), Path::new("/etc/highwater/tmkms.toml"));
    assert_eq!(with(&[]), Path::new("./tmkms.toml"));
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
    assert_one_error(&good_with("[[validator]]", "[validator]"), 5, &["in two pairs of brackets: [[validator]]"]);
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
        ("path", "qqq = 1\npath", 12, "`qqq` in [[providers.softsign]]: its keys are `key_type`, `type`, "),
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
    assert_eq!((config.chains.len(), config.validators.len(), config.softsign().len()), (2, 2, 2));
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
    assert_eq!(config.pkcs11()[0].keys.len(), 1);
    assert!(config.highwater.metrics.is_some() && config.highwater.audit.is_some());
}

#[test]
fn what_providers_and_nodes_need_is_on_one_list() {
    let text = format!(
        "{}[[providers.pkcs11]]\nprofile = \"softhsm2\"\nmodule = \"/opt/hsm.so\"\ntoken = {{ label = \"a\" }}\n\
         pin = {{ file = \"pin\" }}\nkeys = []\n\
         [[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://connector.example:12345\" }}\n\
         auth = {{ key = 1, password_file = \"password\" }}\n",
        good_with("10.0.0.1", "node.example")
    );
    let (config, _) = accept(&text);
    let needs = config.needs();
    let files: Vec<_> = needs.files.iter().map(|file| (file.path.to_str().unwrap(), file.kind, file.reader)).collect();
    let expected = [
        ("consensus.key", FileKind::Secret, FileReader::Signer),
        ("/opt/hsm.so", FileKind::Program, FileReader::Helper),
        ("pin", FileKind::Secret, FileReader::Helper),
        ("password", FileKind::Secret, FileReader::SignerAgain),
        ("identity.key", FileKind::Secret, FileReader::Signer),
    ];
    assert_eq!(files, expected);
    assert_eq!((needs.ports, needs.usb), (vec![12345, 26658], false));
    assert_eq!(needs.names.into_iter().collect::<Vec<_>>(), ["connector.example", "node.example"]);

    // A module may reach none of the secrets, but every program.
    let own = config.files_of_the_signer();
    for path in ["f", "consensus.key", "pin", "password", "identity.key", "./test-1_priv_validator_state.json"] {
        assert!(own.contains(&path.into()), "{path} is in {own:?}");
    }
    assert!(!own.contains(&"/opt/hsm.so".into()));
}

#[test]
fn a_running_signer_may_have_the_device_that_its_key_is_on_or_any_if_that_is_not_known() {
    let device = |serial: &str, port: u16, keys: &str| {
        format!(
            "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"tcp://h:{port}\" }}\n\
             auth = {{ key = 1, password_file = \"p\" }}\nserial_number = \"{serial}\"\n{keys}"
        )
    };
    let keys = "keys = [{ chain_ids = [\"test-1\"], key = 1 }]\n";
    let head = &GOOD[..GOOD.find("[[providers").unwrap()];
    let (first, same) = (device("0000000001", 1, keys), device("0000000001", 3, ""));
    let text = format!("{head}{first}{}{same}", device("0000000002", 2, ""));
    let (config, _) = accept(&text);
    let chain = &config.chains[0].id;
    let may_use = |config: &Config| config.providers.iter().map(|one| config.may_use(chain, one)).collect::<Vec<_>>();
    assert_eq!(may_use(&config), [true, false, true], "by its serial number, whatever the connector");
    let account = text.replace("key = 1 }]", "key = 1, type = \"account\" }]");
    assert_eq!(may_use(&accept(&account).0), [true, true, true], "its consensus key may still come to any");
}
