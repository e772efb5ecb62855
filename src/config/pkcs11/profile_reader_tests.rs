//! Built-in profiles, and mistakes in other profiles.

use super::*;
use highwater_core::consensus::KeyType;
use std::collections::BTreeSet;

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
    assert_eq!((module.init_string, profile.ed25519.parameters), (None, Ed25519Parameters::None));
    assert!(module.files.is_empty() && !module.network && !module.sockets, "nothing is reached");
}

#[test]
fn what_a_module_wants_is_passed_on() {
    let text = LEAST.replace("\"it\"", "\"it\"\ninit_string = \"configdir='sql:/a b'\"");
    let profile = parse(&text.replace("supported = true", "supported = true\nparameters = \"pure\"")).unwrap();
    assert_eq!(profile.module.init_string.as_deref(), Some("configdir='sql:/a b'"));
    assert_eq!(profile.ed25519.parameters, Ed25519Parameters::Pure);
}

#[test]
fn every_mistake_is_named_with_its_line() {
    for (old, new, line, words) in [
        ("name = \"x\"", "name = \"X y\"", 1, "expected lower-case letters"),
        ("\"source\"", "\"rumour\"", 2, "expected \"tested\" or"),
        ("\"source\"", "\"tested\"", 2, "`tested_with` go together"),
        ("sources = [\"a\"]", "sources = []", 3, "must not be empty"),
        ("sources", "source", 3, "did you mean `sources`?"),
        ("[]", "[\"hsm.so\"]", 5, "must be absolute"),
        ("\"it\"", "\"it\"\nenvironment = [{ name = \"a-\", meaning = \"b\" }]", 7, "expected upper-case letters"),
        ("\"it\"", "\"it\"\nfiles = [\"a\"]", 7, "must be absolute"),
        ("\"it\"", "\"it\"\ninit_string = \"a\\u0000b\"", 7, "some words on one line"),
        ("\"it\"", "\"it\"\nnetwork = 1", 7, "expected a boolean"),
        ("[ed25519]", "[session]\nmode = \"wo\"\n[ed25519]", 8, "expected \"ro\" or \"rw\""),
        ("[ed25519]", "[session]\nmod = \"ro\"\n[ed25519]", 8, "did you mean `mode`?"),
        ("supported = true", "supported = \"yes\"", 8, "expected a boolean"),
        ("supported = true", "supported = true\nec_params = []", 9, "must not be empty"),
        ("supported = true", "supported = true\nec_params = [\"ODI\"]", 9, "or the DER bytes in lower-case hex"),
        ("supported = true", "supported = true\nparameters = \"ph\"", 9, "expected \"none\" or \"pure\""),
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

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[test]
fn every_file_in_the_folder_is_built_in_and_bears_its_own_name() {
    let entries = fs::read_dir(repository("hsm-profiles")).unwrap().map(|entry| entry.unwrap().path());
    let mut on_disk = BTreeSet::new();
    for path in entries.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let profile = Profile::load(&path).unwrap_or_else(|error| panic!("{error}"));
        let stem = path.file_stem().unwrap().to_str().unwrap();
        assert_eq!(profile.name, stem);
        assert_eq!(Profile::builtin(stem), Some(profile), "{stem} is in BUILTIN");
        on_disk.insert(stem.to_owned());
    }
    assert_eq!(Profile::names().map(str::to_owned).collect::<BTreeSet<_>>(), on_disk);
    assert!(Profile::names().is_sorted());
}

#[test]
fn every_built_in_profile_has_a_row_in_the_list_of_devices() {
    let list = fs::read_to_string(repository("docs/hsm-devices.md")).unwrap();
    for name in Profile::names() {
        let cell = format!("| `{name}` |");
        let rows: Vec<_> = list.lines().filter(|line| line.contains(&cell)).collect();
        let [row] = rows.as_slice() else { panic!("one row for {name}, not {rows:?}") };
        let profile = Profile::builtin(name).unwrap();
        let level = match profile.evidence {
            ProfileEvidence::Source => "source",
            ProfileEvidence::Tested => "tested",
            ProfileEvidence::Unverified => "unverified",
            ProfileEvidence::VendorDoc => "vendor-doc",
        };
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        assert!(cells[4].starts_with(level), "{row}");
        assert_eq!(cells[3].starts_with("yes"), profile.supports(KeyType::Ed25519), "{row}");
    }
}

#[test]
fn a_profile_survives_the_way_to_a_child() {
    for name in Profile::names() {
        let profile = Profile::builtin(name).unwrap();
        let sent = serde_json::to_string(&profile).unwrap();
        assert_eq!(serde_json::from_str::<Profile>(&sent).unwrap(), profile);
    }
}

#[test]
fn the_curve_is_named_as_each_device_wants_it() {
    let first = |name: &str| Profile::builtin(name).unwrap().ed25519.ec_params[0].clone();
    assert_eq!(first("softhsm2"), [0x06, 0x03, 0x2b, 0x65, 0x70]);
    assert_eq!(first("yubihsm2-pkcs11"), b"\x13\x0cedwards25519");
    assert_eq!(first("thales-luna7"), [0x06, 0x09, 0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x0f, 0x01]);
    let numbers = Profile::builtin("ibm-ep11").unwrap().ed25519.numbers;
    assert_eq!(numbers, [Ed25519Numbers { sign: 0x8001_001c, generate: 0x1040, key_type: 3 }]);
}

#[test]
fn a_profile_is_found_by_name_or_by_path() {
    let load = |path: &Path| Err(ProfileError::Unknown { name: format!("loaded {}", path.display()) });
    assert_eq!(Profile::by_name_or_path("kryoptic", load).unwrap().name, "kryoptic");
    for (text, expected) in [
        ("kryoptics", "no profile \"kryoptics\": did you mean \"kryoptic\"? The profiles are aws-cloudhsm, "),
        ("zzz", "no profile \"zzz\": The profiles are"),
        ("kryoptic.toml", "loaded kryoptic.toml"),
        ("./kryoptic", "loaded ./kryoptic"),
    ] {
        let error = Profile::by_name_or_path(text, load).unwrap_err().to_string();
        assert!(error.contains(expected), "{error:?} contains {expected:?}");
    }
}

#[test]
fn what_a_module_needs_and_means_is_told() {
    let profile = Profile::builtin("yubihsm2-pkcs11").unwrap();
    assert_eq!(profile.missing_variable(|_| false).unwrap().name, "YUBIHSM_PKCS11_CONF");
    assert_eq!(profile.missing_variable(|_| true), None);
    assert!(profile.error_meaning("CKR_DEVICE_MEMORY").unwrap().contains("audit log"));
    assert_eq!(profile.error_meaning("DEVICE_ERROR"), None);
    assert_eq!(profile.limits.max_message_bytes, Some(2019));
}
