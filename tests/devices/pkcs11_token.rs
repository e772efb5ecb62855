//! Tokens and keys through a real PKCS#11 module: SoftHSM 2, with pkcs11-tool as a witness.

use crate::support::softhsm::{LABEL, Lab, PIN, isolated, text};
use highwater::{
    config::pkcs11::{
        profile::{Ed25519Numbers, Profile},
        spec::{ObjectSelector, TokenSelector},
    },
    keyring::{
        pkcs11::{
            error::{ErrorClass, TokenError},
            module::listing,
            token::{Pin, Token},
            token_info::PinState,
            token_key::TokenKey,
        },
        softsign::{self, SecretKey},
    },
    provision::pkcs11::KeyName,
};
use highwater_core::consensus::{KeyType, PublicKey};
use sha2::{Digest as _, Sha256, Sha512};
use std::{fs, process::Stdio, thread, time::Duration};
use zeroize::Zeroizing;

pub fn pin(text: &str) -> Pin {
    Pin::new(Zeroizing::new(text.as_bytes().to_vec()))
}

pub fn softhsm2() -> Profile {
    Profile::builtin("softhsm2").unwrap()
}

pub fn labelled(label: &str) -> TokenSelector {
    TokenSelector::Label(label.to_owned())
}

pub fn name(id: u8, label: &str) -> KeyName {
    KeyName { id: vec![id], label: label.to_owned() }
}

pub fn id(id: u8) -> ObjectSelector {
    ObjectSelector::Id(vec![id])
}

pub fn label(label: &str) -> ObjectSelector {
    ObjectSelector::Label(label.to_owned())
}

fn open_with(lab: &Lab, profile: &Profile) -> Token {
    Token::open_for_changes(&lab.module, &labelled(LABEL), profile, Some(&pin(PIN))).unwrap()
}

fn open(lab: &Lab) -> Token {
    open_with(lab, &softhsm2())
}

fn open_to_sign(lab: &Lab) -> Result<Token, TokenError> {
    Token::open(&lab.module, &labelled(LABEL), &softhsm2(), Some(&pin(PIN)))
}

pub fn error<T>(result: Result<T, TokenError>) -> TokenError {
    result.err().expect("this fails")
}

pub fn seed() -> SecretKey {
    SecretKey::from_raw(KeyType::Ed25519, &[0x42; 32]).unwrap()
}

pub fn scalar() -> SecretKey {
    SecretKey::from_raw(KeyType::Secp256k1, &[0x42; 32]).unwrap()
}

/// Every object that pkcs11-tool sees.
fn objects(lab: &Lab) -> String {
    text(&lab.pkcs11_tool(&["--list-objects"]).stdout)
}

/// How many objects SoftHSM keeps on its only token, blank ones included.
pub fn object_files(lab: &Lab) -> usize {
    let token = fs::read_dir(lab.path("tokens")).unwrap().next().unwrap().unwrap().path();
    let names = fs::read_dir(token).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".object") && name != "token.object").count()
}

#[test]
fn a_generated_key_signs_and_never_leaves_the_device() {
    isolated("pkcs11_token::a_generated_key_signs_and_never_leaves_the_device", |lab| {
        let token = open(lab);
        for (number, key_type) in [(1, KeyType::Ed25519), (2, KeyType::Secp256k1)] {
            let made = token.generate(&name(number, key_type.name()), key_type, false).unwrap();
            let public_key = made.public_key().unwrap();
            // SoftHSM gives high S half of the time: 200 signatures leave no room for luck.
            for message in 0..200_u32 {
                let message = message.to_be_bytes();
                assert!(public_key.verifies(&message, &token.sign(&made, &message).unwrap()));
            }
        }
        for key in token.list_keys().unwrap() {
            let flags = (key.local, key.never_extractable, key.extractable, key.sensitive);
            assert_eq!(flags, (Some(true), Some(true), Some(false), Some(true)), "{key:?}");
        }
        let name = name(3, "extractable");
        token.generate(&name, KeyType::Ed25519, true).unwrap();
        let keys = token.list_keys().unwrap();
        let key = keys.iter().find(|key| key.label == "extractable").unwrap();
        assert_eq!((key.extractable, key.sensitive), (Some(true), Some(true)));
    });
}

#[test]
fn an_imported_key_signs_as_it_does_in_software() {
    isolated("pkcs11_token::an_imported_key_signs_as_it_does_in_software", |lab| {
        let file: serde_json::Value = serde_json::from_str(include_str!("../vectors/sign_bytes.json")).unwrap();
        let hex = |value: &serde_json::Value| subtle_encoding::hex::decode(value.as_str().unwrap()).unwrap();
        let vectors = file["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 8);

        let token = open(lab);
        let ed25519 = token.import(&name(1, "ed25519"), &seed()).unwrap();
        let secp256k1 = token.import(&name(2, "secp256k1"), &scalar()).unwrap();
        assert_eq!(ed25519.public_key(), Some(seed().public_key()));
        assert_eq!(secp256k1.public_key(), Some(scalar().public_key()));
        for vector in vectors {
            let message = hex(&vector["SignBytes"]);
            assert_eq!(token.sign(&ed25519, &message).unwrap().as_bytes(), hex(&vector["SigEd25519"]));
            // The device's nonce is its own.
            let signature = token.sign(&secp256k1, &message).unwrap();
            assert!(scalar().public_key().verifies(&message, &signature));
        }
        for key in token.list_keys().unwrap() {
            let flags = (key.local, key.never_extractable, key.extractable, key.sensitive);
            assert_eq!(flags, (Some(false), Some(false), Some(false), Some(true)), "{key:?}");
        }
    });
}

#[test]
fn without_a_public_object_the_public_key_is_unknown_and_the_key_signs() {
    isolated("pkcs11_token::without_a_public_object_the_public_key_is_unknown_and_the_key_signs", |lab| {
        let mut profile = softhsm2();
        profile.objects.import_public_object = false;
        let token = open_with(lab, &profile);
        let key = token.import(&name(1, "bare"), &seed()).unwrap();
        assert_eq!(key.public_key(), None);
        assert!(seed().public_key().verifies(b"message", &token.sign(&key, b"message").unwrap()));
    });
}

#[test]
fn a_key_without_its_seed_is_refused_before_anything_is_made() {
    isolated("pkcs11_token::a_key_without_its_seed_is_refused_before_anything_is_made", |lab| {
        let mut expanded = Sha512::digest([0x42; 32]);
        expanded[0] &= 248;
        expanded[31] = expanded[31] & 127 | 64;
        let secret = SecretKey::from_raw(KeyType::Ed25519, &expanded).unwrap();
        let error = error(open(lab).import(&name(1, "expanded"), &secret));
        assert!(error.to_string().contains("its seed is lost"), "{error}");
        assert_eq!(error.class(), ErrorClass::Rejected);
        assert_eq!(object_files(lab), 0);
    });
}

#[test]
fn a_wrong_pin_is_sent_once_and_then_none_until_somebody_logs_in() {
    isolated("pkcs11_token::a_wrong_pin_is_sent_once_and_then_none_until_somebody_logs_in", |lab| {
        let attempt = |text: &str| Token::open(&lab.module, &labelled(LABEL), &softhsm2(), Some(&pin(text))).err();
        let wrong = attempt("4321").unwrap();
        assert!(matches!(wrong, TokenError::WrongPin { .. }), "{wrong}");
        assert_eq!(wrong.class(), ErrorClass::Fatal);
        assert!(wrong.to_string().contains("CKR_PIN_INCORRECT") && !wrong.to_string().contains("4321"), "{wrong}");

        // Not even the right one.
        let refused = attempt(PIN).unwrap();
        assert!(matches!(refused, TokenError::PinAtRisk { state: PinState::Low, .. }), "{refused}");
        assert_eq!(refused.class(), ErrorClass::Fatal);
        assert_eq!(listing(&lab.module, None).unwrap().tokens[0].pin, PinState::Low);

        assert!(lab.pkcs11_tool(&["--list-objects"]).status.success());
        assert!(attempt(PIN).is_none());
    });
}

#[test]
fn without_a_pin_no_session_is_logged_in() {
    isolated("pkcs11_token::without_a_pin_no_session_is_logged_in", |lab| {
        let error = error(Token::open(&lab.module, &labelled(LABEL), &softhsm2(), None));
        assert!(matches!(error, TokenError::NoPin { .. }), "{error}");
    });
}

#[test]
fn a_token_is_found_by_label_or_serial_and_never_guessed() {
    isolated("pkcs11_token::a_token_is_found_by_label_or_serial_and_never_guessed", |lab| {
        lab.init_token("twin");
        lab.init_token("twin");
        let profile = softhsm2();
        let open = |selector: &TokenSelector| Token::open(&lab.module, selector, &profile, Some(&pin(PIN)));

        let listed = listing(&lab.module, None).unwrap().tokens;
        let serial = &listed.iter().find(|token| token.label == LABEL).unwrap().serial;
        assert_eq!(listed.iter().filter(|token| token.initialised).count(), 3);
        open(&TokenSelector::Serial(serial.clone())).unwrap();

        for missing in [labelled("typo"), TokenSelector::Serial("typo".to_owned())] {
            let error = error(open(&missing));
            assert_eq!(error.class(), ErrorClass::Absent);
            assert!(error.to_string().contains(&format!("{LABEL:?} (serial {serial})")), "{error}");
        }
        let error = error(open(&labelled("twin")));
        assert!(matches!(&error, TokenError::AmbiguousToken { hits, .. } if hits.len() == 2), "{error}");
        assert_eq!(error.class(), ErrorClass::Absent);
    });
}

#[test]
fn a_module_that_cannot_be_loaded_is_named() {
    isolated("pkcs11_token::a_module_that_cannot_be_loaded_is_named", |lab| {
        let text = lab.path("text.so");
        fs::write(&text, "text").unwrap();
        for path in [lab.path("none.so"), text] {
            let error = error(listing(&path, None));
            assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
            assert_eq!(error.class(), ErrorClass::Absent);
        }
    });
}

#[test]
fn a_key_is_found_by_id_or_label_and_never_guessed() {
    isolated("pkcs11_token::a_key_is_found_by_id_or_label_and_never_guessed", |lab| {
        for id in ["01", "02"] {
            let arguments = ["--keypairgen", "--key-type", "EC:edwards25519", "--id", id, "--label", "twin"];
            let output = lab.pkcs11_tool(&arguments);
            assert!(output.status.success(), "{}", text(&output.stderr));
        }
        let token = open_to_sign(lab).unwrap();
        let one = token.find_key(&id(1), KeyType::Ed25519).unwrap();
        let two = token.find_key(&id(2), KeyType::Ed25519).unwrap();
        assert_ne!(one.public_key().unwrap(), two.public_key().unwrap());

        let ambiguous = error(token.find_key(&label("twin"), KeyType::Ed25519));
        assert!(matches!(&ambiguous, TokenError::AmbiguousKey { hits, .. } if hits.len() == 2), "{ambiguous}");
        assert_eq!(ambiguous.class(), ErrorClass::Absent);
        assert!(matches!(error(token.delete(&label("twin"))), TokenError::AmbiguousKey { .. }));

        let missing = error(token.find_key(&id(3), KeyType::Ed25519));
        assert_eq!(missing.class(), ErrorClass::Absent);
        assert!(missing.to_string().contains(r#"id 01 label "twin""#), "{missing}");
    });
}

#[test]
fn a_taken_id_or_label_is_not_overwritten() {
    isolated("pkcs11_token::a_taken_id_or_label_is_not_overwritten", |lab| {
        let token = open(lab);
        token.generate(&name(1, "one"), KeyType::Ed25519, false).unwrap();
        for taken in [name(1, "two"), name(2, "one")] {
            let generated = token.generate(&taken, KeyType::Ed25519, false);
            assert!(matches!(error(generated), TokenError::Exists { .. }));
            let imported = token.import(&taken, &seed());
            assert!(matches!(error(imported), TokenError::Exists { .. }));
        }
        assert_eq!(object_files(lab), 2);
    });
}

#[test]
fn a_failed_key_leaves_nothing_behind() {
    isolated("pkcs11_token::a_failed_key_leaves_nothing_behind", |lab| {
        let well = softhsm2();
        // No curve; then a mechanism with which no Ed25519 key signs.
        let no_curve = vec![b"\x13\x05curve".to_vec()];
        let with_params = |ec_params: Vec<Vec<u8>>| {
            let mut profile = well.clone();
            profile.ed25519.ec_params = ec_params;
            profile
        };
        let with_numbers = |change: fn(&mut Ed25519Numbers)| {
            let mut profile = well.clone();
            profile.ed25519.numbers.iter_mut().for_each(change);
            profile
        };
        let profiles = [with_params(no_curve.clone()), with_numbers(|numbers| numbers.sign = 0x1041)];
        for profile in profiles {
            let token = open_with(lab, &profile);
            for made in
                [token.import(&name(1, "one"), &seed()), token.generate(&name(1, "one"), KeyType::Ed25519, false)]
            {
                let error = error(made);
                assert!(!matches!(error, TokenError::NotRemoved { .. }), "{error}");
                assert_eq!(object_files(lab), 0, "{error}");
            }
        }
        // For an RSA key SoftHSM refuses these attributes, and leaves a blank object behind.
        let token = open_with(lab, &with_numbers(|numbers| numbers.key_type = 0));
        let refused = error(token.import(&name(1, "one"), &seed()));
        assert!(refused.to_string().contains("C_CreateObject answered CKR_ATTRIBUTE_TYPE_INVALID"), "{refused}");
        assert_eq!(object_files(lab), 0, "{refused}");

        let profile = with_params([no_curve, well.ed25519.ec_params.clone()].concat());
        open_with(lab, &profile).import(&name(1, "one"), &seed()).expect("the next encoding is tried");
        assert_eq!(object_files(lab), 2);
    });
}

#[test]
fn delete_removes_one_key_and_its_public_half() {
    isolated("pkcs11_token::delete_removes_one_key_and_its_public_half", |lab| {
        let token = open(lab);
        token.generate(&name(1, "one"), KeyType::Ed25519, false).unwrap();
        token.generate(&name(2, "two"), KeyType::Secp256k1, false).unwrap();
        token.delete(&label("one")).unwrap();
        assert!(matches!(error(token.delete(&label("one"))), TokenError::NoKey { .. }));
        assert_eq!(object_files(lab), 2);
        let seen = objects(lab);
        assert!(seen.contains("two") && !seen.contains("one"), "{seen}");
        token.delete(&id(2)).unwrap();
        assert_eq!(object_files(lab), 0);
    });
}

#[test]
fn a_session_to_sign_cannot_change_the_token() {
    isolated("pkcs11_token::a_session_to_sign_cannot_change_the_token", |lab| {
        let token = open_to_sign(lab).unwrap();
        let error = error(token.generate(&name(1, "one"), KeyType::Ed25519, false));
        assert!(error.to_string().contains("CKR_SESSION_READ_ONLY"), "{error}");
        assert_eq!(error.class(), ErrorClass::Rejected);
    });
}

#[test]
fn what_the_profile_excludes_is_not_asked_of_the_device() {
    isolated("pkcs11_token::what_the_profile_excludes_is_not_asked_of_the_device", |lab| {
        let mut profile = Profile { secp256k1: false, ..softhsm2() };
        profile.limits.max_message_bytes = Some(200);
        let token = open_with(lab, &profile);
        let made = token.generate(&name(1, "one"), KeyType::Secp256k1, false);
        assert!(matches!(error(made), TokenError::Unsupported { .. }));
        let key = token.generate(&name(1, "one"), KeyType::Ed25519, false).unwrap();
        token.sign(&key, &[0; 200]).unwrap();
        assert!(matches!(error(token.sign(&key, &[0; 201])), TokenError::TooLong { bytes: 201, max: 200 }));
    });
}

#[test]
fn a_token_opens_again_in_the_same_process() {
    isolated("pkcs11_token::a_token_opens_again_in_the_same_process", |lab| {
        open(lab).import(&name(1, "one"), &seed()).unwrap();
        let signature = (0..20).map(|_| {
            let token = open_to_sign(lab).unwrap();
            token.sign(&token.find_key(&id(1), KeyType::Ed25519).unwrap(), b"message").unwrap()
        });
        assert!(signature.collect::<Vec<_>>().windows(2).all(|pair| pair[0] == pair[1]));
    });
}

#[test]
fn pkcs11_tool_sees_the_keys_and_confirms_their_signatures() {
    isolated("pkcs11_token::pkcs11_tool_sees_the_keys_and_confirms_their_signatures", |lab| {
        let token = open(lab);
        let ed25519 = token.generate(&name(1, "ed"), KeyType::Ed25519, false).unwrap();
        let secp256k1 = token.import(&name(2, "ec"), &scalar()).unwrap();
        let seen = objects(lab);
        for text in ["Private Key Object", "Public Key Object", "EC_POINT", "sensitive, always sensitive"] {
            assert!(seen.contains(text), "no {text:?} in {seen}");
        }

        // It signs with the same Ed25519 key and comes to the same signature.
        let (message, signed) = (lab.path("message"), lab.path("signature"));
        fs::write(&message, b"message").unwrap();
        let files = ["--input-file", message.to_str().unwrap(), "--output-file", signed.to_str().unwrap()];
        let output = lab.pkcs11_tool(&[&["--sign", "--mechanism", "EDDSA", "--id", "01"][..], &files].concat());
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(fs::read(&signed).unwrap(), token.sign(&ed25519, b"message").unwrap().as_bytes());

        // It verifies ours with the imported secp256k1 public object.
        fs::write(&message, Sha256::digest(b"message")).unwrap();
        fs::write(&signed, token.sign(&secp256k1, b"message").unwrap().as_bytes()).unwrap();
        let files = ["--input-file", message.to_str().unwrap(), "--signature-file", signed.to_str().unwrap()];
        let output = lab.pkcs11_tool(&[&["--verify", "--mechanism", "ECDSA", "--id", "02"][..], &files].concat());
        assert!(text(&output.stdout).contains("Signature is valid"), "{output:?}");
    });
}

/// Not a test of its own: one of the processes that the next test starts at once.
#[test]
#[ignore = "run by two_processes_open_one_token_at_once"]
fn opening_process() {
    isolated("pkcs11_token::opening_process", |lab| {
        let public_key: PublicKey = seed().public_key();
        for _ in 0..20 {
            // To SoftHSM a token is not there while another process writes its file, which every login does.
            let token = (0..10)
                .find_map(|attempt| match open_to_sign(lab) {
                    Ok(token) => Some(token),
                    Err(error) => {
                        assert!(matches!(error.class(), ErrorClass::Absent | ErrorClass::Broken), "{error}");
                        thread::sleep(Duration::from_millis(5 * attempt));
                        None
                    }
                })
                .expect("one of ten attempts opens the token");
            let key: TokenKey = token.find_key(&id(1), KeyType::Ed25519).unwrap();
            assert!(public_key.verifies(b"message", &token.sign(&key, b"message").unwrap()));
        }
    });
}

#[test]
fn two_processes_open_one_token_at_once() {
    isolated("pkcs11_token::two_processes_open_one_token_at_once", |lab| {
        open(lab).import(&name(1, "one"), &seed()).unwrap();
        let spawn =
            || lab.spawn_test("pkcs11_token::opening_process").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let children = [spawn(), spawn()].map(Result::unwrap);
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        }
    });
}

#[test]
fn a_key_generated_in_software_can_be_imported() {
    isolated("pkcs11_token::a_key_generated_in_software_can_be_imported", |lab| {
        let token = open(lab);
        for (number, key_type) in [(1, KeyType::Ed25519), (2, KeyType::Secp256k1)] {
            let secret = softsign::generate(key_type).unwrap();
            let key = token.import(&name(number, &format!("{number}")), &secret).unwrap();
            assert_eq!(key.public_key(), Some(secret.public_key()));
        }
    });
}
