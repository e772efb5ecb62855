//! Reads a profile from TOML, with the line of everything that is wrong in it.

use super::profile::{
    Ed25519, Ed25519Numbers, EnvironmentVariable, ErrorMeaning, Limits, LoginKind, ModuleFacts, Objects, PinFormat,
    Profile, ProfileEvidence, SessionFacts, SessionMode,
};
use crate::config::{
    ConfigFinding,
    reader::{ConfigFindings, Table, Value},
};
use std::path::PathBuf;
use toml::de::DeTable;

/// `CKA_EC_PARAMS` as the object identifier of Ed25519, 1.3.101.112 (RFC 8410).
const EC_PARAMS_OID: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];
/// `CKA_EC_PARAMS` as a PrintableString (PKCS#11 3.0, 2.3.10): its DER tag and length, then the curve's name.
const EC_PARAMS_PRINTABLE_STRING: &[u8; 14] = b"\x13\x0cedwards25519";
/// The longest `CKA_EC_PARAMS` taken from a profile, in bytes.
const EC_PARAMS_MAX_BYTES: usize = 64;

/// Reads `text`, or says everything that is wrong with it.
pub(super) fn parse(text: &str) -> Result<Profile, Vec<ConfigFinding>> {
    let mut findings = ConfigFindings::new(text);
    let profile = match DeTable::parse(text) {
        Ok(root) => Table::read("the profile", 0, root.get_ref(), &mut findings, read_profile),
        Err(error) => {
            let line = error.span().map_or(0, |span| findings.line(&span));
            findings.error(line, format!("this is not TOML: {}", error.message()));
            None
        }
    };
    findings.finish()?;
    Ok(profile.expect("what cannot be read gives a finding"))
}

fn read_profile(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Profile> {
    let name = table.require("name", "the profile's name, as in \"softhsm2\"", findings);
    let name = name.and_then(|value| words_of(value, "small letters, digits and -", is_name, findings));
    let levels = [
        ("tested", ProfileEvidence::Tested),
        ("source", ProfileEvidence::Source),
        ("vendor-doc", ProfileEvidence::VendorDoc),
        ("unverified", ProfileEvidence::Unverified),
    ];
    let evidence = table.require("evidence", "\"tested\", \"source\", \"vendor-doc\" or \"unverified\"", findings);
    let evidence = evidence.and_then(|value| Some((value, value.one_of(&levels, findings)?)));
    let tested_with = table.get("tested_with", findings);
    let tested_with = tested_with.map_or(Some(Vec::new()), |value| texts(value, findings));
    if let (Some((value, level)), Some(with)) = (evidence, &tested_with)
        && (level == ProfileEvidence::Tested) == with.is_empty()
    {
        value.reject("\"tested\" and `tested_with` go together: say with which versions it was tried", findings);
    }
    let sources = table.require("sources", "where its content comes from", findings);
    let sources = sources.and_then(|value| texts(value, findings));

    let module = table.require("module", "`paths` and `install`", findings);
    let module = module.and_then(|value| value.table("[module]", findings, read_module).flatten());
    let session = section(table, "session", "[session]", findings, read_session);
    let ed25519 = table.require("ed25519", "`supported`", findings);
    let ed25519 = ed25519.and_then(|value| value.table("[ed25519]", findings, read_ed25519).flatten());
    let secp256k1 = table.require("secp256k1", "`supported`", findings);
    let secp256k1 = secp256k1.and_then(|value| value.table("[secp256k1]", findings, read_supported).flatten());
    let objects = section(table, "objects", "[objects]", findings, read_objects);
    let limits = section(table, "limits", "[limits]", findings, read_limits);
    let errors = table.get("errors", findings);
    let errors = errors.map(|value| value.tables("[[errors]]", findings, read_error));

    Some(Profile {
        name: name?,
        evidence: evidence?.1,
        tested_with: tested_with?,
        sources: sources?,
        module: module?,
        session: session?,
        ed25519: ed25519?,
        secp256k1: secp256k1?,
        objects: objects?,
        limits: limits?,
        errors: errors.unwrap_or_default(),
    })
}

/// A table that may be left out; then it reads like an empty one.
fn section<'t, T>(
    table: &mut Table<'t>,
    key: &'static str,
    name: &'static str,
    findings: &mut ConfigFindings<'_>,
    body: fn(&mut Table<'_>, &mut ConfigFindings<'_>) -> Option<T>,
) -> Option<T> {
    match table.get(key, findings) {
        Some(value) => value.table(name, findings, body).flatten(),
        None => Table::read(name, 0, &DeTable::new(), findings, body),
    }
}

fn read_module(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<ModuleFacts> {
    let paths = table.require("paths", "where the module is usually installed, or []", findings);
    let paths = paths.and_then(|value| absolute_paths(value, findings));
    let install = table.require("install", "what to install, in words", findings);
    let install = install.and_then(|value| text(value, findings));
    let environment = table.get("environment", findings).map(|value| {
        value.tables("[[module.environment]]", findings, |table, findings| {
            let (name, meaning) = name_and_meaning(table, is_environment_variable, findings)?;
            let mut flag = |key, default| optional(table, key, default, findings, Value::bool);
            let (required, file) = (flag("required", true), flag("file", false));
            Some(EnvironmentVariable { name, meaning, required: required?, file: file? })
        })
    });
    let files = optional(table, "files", Vec::new(), findings, absolute_paths);
    let configuration = optional(table, "configuration", Vec::new(), findings, absolute_paths);
    let settings = optional(table, "settings", Vec::new(), findings, texts);
    let mut flag = |key| optional(table, key, false, findings, Value::bool);
    let (network, sockets) = (flag("network"), flag("sockets"));
    Some(ModuleFacts {
        paths: paths?,
        install: install?,
        environment: environment.unwrap_or_default(),
        files: files?,
        configuration: configuration?,
        settings: settings?,
        network: network?,
        sockets: sockets?,
    })
}

fn absolute_paths(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Vec<PathBuf>> {
    value.array(findings)?.into_iter().map(|entry| entry.absolute_path(findings)).collect()
}

fn read_session(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<SessionFacts> {
    let modes = [("ro", SessionMode::ReadOnly), ("rw", SessionMode::ReadWrite)];
    let logins = [("pin", LoginKind::Pin), ("protected-path", LoginKind::ProtectedPath)];
    let formats = [
        ("free", PinFormat::Free),
        ("hex4+password", PinFormat::Hex4Password),
        ("user:password", PinFormat::UserPassword),
    ];
    let mode = optional(table, "mode", SessionMode::ReadOnly, findings, |value, f| value.one_of(&modes, f));
    let login = optional(table, "login", LoginKind::Pin, findings, |value, f| value.one_of(&logins, f));
    let pin_format = optional(table, "pin_format", PinFormat::Free, findings, |value, f| value.one_of(&formats, f));
    Some(SessionFacts { mode: mode?, login: login?, pin_format: pin_format? })
}

fn read_ed25519(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Ed25519> {
    let supported = read_supported(table, findings);
    let numbers = table.get("numbers", findings);
    let numbers = numbers.map(|value| value.tables("[[ed25519.numbers]]", findings, read_numbers));
    let ec_params = table.get("ec_params", findings);
    let ec_params = ec_params.map_or(Some(vec![EC_PARAMS_OID.to_vec()]), |value| {
        let entries = value.array(findings)?;
        if entries.is_empty() {
            value.reject("it must not be empty", findings);
        }
        entries.into_iter().map(|entry| read_ec_params(entry, findings)).collect()
    });
    let standard = || vec![Ed25519Numbers::STANDARD];
    let numbers = numbers.filter(|numbers| !numbers.is_empty()).unwrap_or_else(standard);
    Some(Ed25519 { supported: supported?, numbers, ec_params: ec_params? })
}

fn read_numbers(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Ed25519Numbers> {
    let mut number = |key| {
        let value = table.require(key, "a number, as in 0x1057", findings);
        value.and_then(|value| value.u64(findings))
    };
    let (sign, generate, key_type) = (number("sign"), number("generate"), number("key_type"));
    Some(Ed25519Numbers { sign: sign?, generate: generate?, key_type: key_type? })
}

fn read_ec_params(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Vec<u8>> {
    match value.string(findings)? {
        "oid" => return Some(EC_PARAMS_OID.into()),
        "printable-string" => return Some(EC_PARAMS_PRINTABLE_STRING.into()),
        hex => {
            let der = subtle_encoding::hex::decode(hex).ok();
            if let Some(der) = der.filter(|der| (1..=EC_PARAMS_MAX_BYTES).contains(&der.len())) {
                return Some(der);
            }
        }
    }
    value.reject("expected \"oid\", \"printable-string\", or the DER bytes in lower-case hex", findings);
    None
}

fn read_supported(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<bool> {
    table.require("supported", "true or false", findings)?.bool(findings)
}

fn read_objects(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Objects> {
    let mut flag = |key, default| optional(table, key, default, findings, Value::bool);
    let (clear, public) = (flag("clear_unneeded_usages", false), flag("import_public_object", true));
    Some(Objects { clear_unneeded_usages: clear?, import_public_object: public? })
}

fn read_limits(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Limits> {
    let mut limit = |key| {
        optional(table, key, None, findings, |value, findings| {
            let number = value.u64(findings)?;
            if number == 0 {
                value.reject("it must be above 0", findings);
            }
            Some(Some(number))
        })
    };
    let (max_message_bytes, expected_ms) = (limit("max_message_bytes"), limit("expected_ms"));
    Some(Limits { max_message_bytes: max_message_bytes?, expected_ms: expected_ms? })
}

fn read_error(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<ErrorMeaning> {
    let is_return_value = |name: &str| is_variable(name) && !name.starts_with("CKR_");
    let (name, meaning) = name_and_meaning(table, is_return_value, findings)?;
    Some(ErrorMeaning { name, meaning })
}

fn name_and_meaning(
    table: &mut Table<'_>,
    is_name: fn(&str) -> bool,
    findings: &mut ConfigFindings<'_>,
) -> Option<(String, String)> {
    let name = table.require("name", "which one", findings);
    let expected = "capital letters, digits and _, without CKR_";
    let name = name.and_then(|value| words_of(value, expected, is_name, findings));
    let meaning = table.require("meaning", "what it means, in words", findings);
    let meaning = meaning.and_then(|value| text(value, findings));
    Some((name?, meaning?))
}

/// The value of a key, or `default` where there is none. `None` if there is one that cannot be read.
fn optional<'t, T>(
    table: &mut Table<'t>,
    key: &'static str,
    default: T,
    findings: &mut ConfigFindings<'_>,
    read: impl FnOnce(Value<'t>, &mut ConfigFindings<'_>) -> Option<T>,
) -> Option<T> {
    match table.get(key, findings) {
        Some(value) => read(value, findings),
        None => Some(default),
    }
}

fn text(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    words_of(value, "some words on one line", |text| !text.is_empty() && !text.contains(char::is_control), findings)
}

/// At least one text.
fn texts(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Vec<String>> {
    let entries = value.array(findings)?;
    if entries.is_empty() {
        value.reject("it must not be empty", findings);
    }
    entries.into_iter().map(|entry| text(entry, findings)).collect()
}

fn words_of(
    value: Value<'_>,
    expected: &str,
    fits: impl Fn(&str) -> bool,
    findings: &mut ConfigFindings<'_>,
) -> Option<String> {
    let text = value.string(findings)?;
    if !fits(text) {
        value.reject(format_args!("expected {expected}"), findings);
        return None;
    }
    Some(text.into())
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

/// Some vendors use small letters too.
fn is_environment_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

fn is_variable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'A'..=b'Z' | b'0'..=b'9' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"name = "x"
evidence = "source"
sources = ["a"]
[module]
paths = []
install = "it"
[ed25519]
supported = true
[secp256k1]
supported = false
"#;

    #[test]
    fn what_is_left_out_is_as_the_standard_has_it() {
        let profile = parse(LEAST).unwrap();
        let SessionFacts { mode, login, pin_format } = profile.session;
        assert_eq!((mode, login, pin_format), (SessionMode::ReadOnly, LoginKind::Pin, PinFormat::Free));
        assert_eq!(profile.ed25519.numbers, [Ed25519Numbers::STANDARD]);
        assert_eq!(profile.ed25519.ec_params, [EC_PARAMS_OID]);
        let objects = profile.objects;
        assert!(objects.import_public_object && !objects.clear_unneeded_usages);
        assert_eq!((profile.limits.max_message_bytes, profile.limits.expected_ms), (None, None));
        assert!(profile.errors.is_empty() && profile.module.environment.is_empty());
        let module = profile.module;
        assert!(module.files.is_empty() && !module.network && !module.sockets, "nothing is reached");
    }

    #[test]
    fn every_mistake_is_named_with_its_line() {
        for (old, new, line, words) in [
            ("name = \"x\"", "name = \"X y\"", 1, "expected small letters"),
            ("\"source\"", "\"rumour\"", 2, "expected \"tested\" or"),
            ("\"source\"", "\"tested\"", 2, "`tested_with` go together"),
            ("sources = [\"a\"]", "sources = []", 3, "must not be empty"),
            ("sources", "source", 3, "did you mean `sources`?"),
            ("[]", "[\"hsm.so\"]", 5, "must be absolute"),
            ("\"it\"", "\"it\"\nenvironment = [{ name = \"a-\", meaning = \"b\" }]", 7, "expected capital letters"),
            ("\"it\"", "\"it\"\nfiles = [\"a\"]", 7, "must be absolute"),
            ("\"it\"", "\"it\"\nnetwork = 1", 7, "expected a boolean"),
            ("[ed25519]", "[session]\nmode = \"wo\"\n[ed25519]", 8, "expected \"ro\" or \"rw\""),
            ("[ed25519]", "[session]\nmod = \"ro\"\n[ed25519]", 8, "did you mean `mode`?"),
            ("supported = true", "supported = \"yes\"", 8, "expected a boolean"),
            ("supported = true", "supported = true\nec_params = []", 9, "must not be empty"),
            ("supported = true", "supported = true\nec_params = [\"ODI\"]", 9, "or the DER bytes in lower-case hex"),
            ("supported = true", "supported = true\nnumbers = [{ sign = 1 }]", 9, "needs `generate`"),
            ("[secp256k1]", "[limits]\nexpected_ms = 0\n[secp256k1]", 10, "must be above 0"),
            ("[secp256k1]", "[[errors]]\nname = \"CKR_OK\"\nmeaning = \"b\"\n[secp256k1]", 10, "without CKR_"),
            ("[secp256k1]", "[secp256k]", 9, "did you mean `secp256k1`?"),
            ("[secp256k1]", "[secp256k1", 9, "this is not TOML"),
        ] {
            assert!(LEAST.contains(old), "{old:?} is in the text");
            let findings = parse(&LEAST.replacen(old, new, 1)).unwrap_err();
            let found = findings.iter().any(|finding| finding.line == line && finding.text.contains(words));
            assert!(found, "line {line} {words:?} is in {findings:#?}");
        }
    }
}
