//! What modules, tokens and keys say in another form than the standard's: it is read, and it explains a refusal.
//!
//! The module that fails on command stands in front of SoftHSM 2.

use super::{
    pkcs11_token::{error, id, label, labelled, name, object_files, pin, scalar, seed, softhsm2},
    token::{CHAIN, Scene, TOKEN, assert_signs},
};
use crate::support::{
    binary,
    hsm::{Hsm, faulty_module},
    softhsm::{LABEL, Lab, PIN, isolated, text},
};
use highwater::{
    config::pkcs11::profile::{Ed25519Parameters, Profile},
    keyring::pkcs11::{
        error::{ErrorClass, TokenError},
        module::listing,
        token::Token,
    },
};
use highwater_core::consensus::KeyType;

fn open_with(profile: &Profile) -> Result<Token, TokenError> {
    Token::open_for_changes(&faulty_module(), &labelled(LABEL), profile, Some(&pin(PIN)))
}

fn open() -> Token {
    open_with(&softhsm2()).unwrap()
}

/// A key that another program makes.
fn make(lab: &Lab, words: &[&str]) {
    let output = lab.pkcs11_tool(&[&["--keypairgen"], words].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_module_is_initialised_with_what_it_takes() {
    isolated("pkcs11_forms::a_module_is_initialised_with_what_it_takes", |lab| {
        for (plan, calls) in [("pass", 1), ("nolock", 2), ("nullonly", 3)] {
            lab.plan(&[&format!("every initialize {plan}")]);
            open();
            assert_eq!(lab.calls("initialize"), calls, "{plan}");
        }
        lab.plan(&["every initialize rv 0x5"]);
        let failed = error(open_with(&softhsm2()));
        assert!(failed.to_string().contains("C_Initialize answered CKR_GENERAL_ERROR"), "{failed}");
        assert_eq!(lab.calls("initialize"), 1, "other arguments do not help");
    });
}

#[test]
fn a_module_gets_the_text_of_its_profile() {
    isolated("pkcs11_forms::a_module_gets_the_text_of_its_profile", |lab| {
        lab.plan(&["every initialize wants configdir='sql:/etc/pki/a b'"]);
        let failed = error(open_with(&softhsm2()));
        assert!(failed.to_string().contains("C_Initialize answered CKR_ARGUMENTS_BAD"), "{failed}");
        let mut profile = softhsm2();
        profile.module.init_string = Some("configdir='sql:/etc/pki/a b'".into());
        open_with(&profile).unwrap();
    });
}

#[test]
fn what_nobody_needs_hides_no_token() {
    isolated("pkcs11_forms::what_nobody_needs_hides_no_token", |lab| {
        for form in ["nulltime", "badtime", "badinfo"] {
            lab.plan(&[&format!("every tokeninfo {form}")]);
            let listing = listing(&faulty_module(), None).unwrap();
            assert!(listing.tokens.iter().any(|token| token.label == LABEL), "{form}: {listing:?}");
            assert!(listing.unreadable.is_empty(), "{form}: {listing:?}");
            open();
        }
        // The other slot is the one in which a token can be initialised.
        lab.plan(&["tokeninfo rv 0x30"]);
        let listing = listing(&faulty_module(), None).unwrap();
        assert_eq!((listing.tokens.len(), listing.unreadable.len()), (1, 1), "{listing:?}");
        let reason = "(cannot read a token: C_GetTokenInfo answered CKR_DEVICE_ERROR)";
        assert!(listing.unreadable[0].ends_with(reason), "{listing:?}");

        lab.plan(&["tokeninfo rv 0x30"]);
        let mut command = lab.command(binary::highwater());
        let output = command.args(["pkcs11", "tokens", "--module"]).arg(faulty_module()).output().unwrap();
        let (shown, told) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(74), "{shown}{told}");
        assert!(shown.starts_with("label ") && told.contains(reason), "{shown}{told}");
    });
}

#[test]
fn a_signature_takes_one_call() {
    isolated("pkcs11_forms::a_signature_takes_one_call", |lab| {
        lab.plan(&[]);
        let token = open();
        let keys = [
            token.import(&name(1, "ed25519"), &seed()).unwrap(),
            token.import(&name(2, "secp256k1"), &scalar()).unwrap(),
        ];
        for plan in ["sign nolen", "sign oneshot", "sign lenzero"] {
            lab.plan(&[&format!("every {plan}")]);
            for (key, public_key) in keys.iter().zip([seed().public_key(), scalar().public_key()]) {
                assert!(public_key.verifies(b"message", &token.sign(key, b"message").unwrap()), "{plan}");
            }
            assert_eq!((lab.calls("sign"), lab.calls("length")), (2, 0), "{plan}");
        }
    });
}

#[test]
fn a_signature_is_read_in_other_forms_and_garbage_is_refused() {
    isolated("pkcs11_forms::a_signature_is_read_in_other_forms_and_garbage_is_refused", |lab| {
        lab.plan(&[]);
        let token = open();
        let key = token.import(&name(1, "ed25519"), &seed()).unwrap();
        let expected = token.sign(&key, b"message").unwrap();
        let hex = String::from_utf8(subtle_encoding::hex::encode(expected.as_bytes())).unwrap();
        lab.plan(&[&format!("sign hex 0440{hex}")]);
        assert_eq!(token.sign(&key, b"message").unwrap().as_bytes(), expected.as_bytes());
        for (garbage, bytes) in [("-", 0), ("00", 1), (&hex[2..], 63), (&format!("{hex}00"), 65)] {
            lab.plan(&[&format!("sign hex {garbage}")]);
            let refused = error(token.sign(&key, b"message"));
            assert!(matches!(refused, TokenError::Signature { bytes: found, .. } if found == bytes), "{refused}");
        }
        // More than any buffer.
        lab.plan(&[&format!("sign hex {}", "00".repeat(300))]);
        assert_eq!(error(token.sign(&key, b"message")).class(), ErrorClass::Broken);
    });
}

#[test]
fn a_module_that_wants_a_parameter_gets_one() {
    isolated("pkcs11_forms::a_module_that_wants_a_parameter_gets_one", |lab| {
        lab.plan(&["every init wantsparam"]);
        let refused = error(open().import(&name(1, "one"), &seed()));
        assert!(refused.to_string().contains("C_SignInit answered CKR_MECHANISM_PARAM_INVALID"), "{refused}");
        let mut profile = softhsm2();
        profile.ed25519.parameters = Ed25519Parameters::Pure;
        let token = open_with(&profile).unwrap();
        let key = token.import(&name(1, "one"), &seed()).unwrap();
        assert!(seed().public_key().verifies(b"message", &token.sign(&key, b"message").unwrap()));
    });
}

#[test]
fn a_point_and_a_curve_are_read_in_every_form() {
    isolated("pkcs11_forms::a_point_and_a_curve_are_read_in_every_form", |lab| {
        for (number, form) in [(1, "raw"), (2, "octet"), (3, "bit")] {
            lab.plan(&[&format!("every point {form}")]);
            let token = open();
            for (number, key_type) in [(number, KeyType::Ed25519), (number + 10, KeyType::Secp256k1)] {
                let made = token.generate(&name(number, &format!("{number}")), key_type, false);
                let made = made.unwrap_or_else(|error| panic!("{form} {key_type}: {error}"));
                let public_key = made.public_key().unwrap();
                assert!(public_key.verifies(b"message", &token.sign(&made, b"message").unwrap()), "{form}");
            }
        }
        // In a profile that names the curve by its object identifier alone.
        let mut profile = softhsm2();
        profile.ed25519.ec_params.truncate(1);
        for params in ["06032b6570", "06092b06010401da470f01", "130c656477617264733235353139", "130745643235353139"] {
            lab.plan(&[&format!("every params hex {params}")]);
            let keys = open_with(&profile).unwrap().list_keys().unwrap();
            let key = keys.iter().find(|key| key.label == "1").unwrap();
            assert_eq!(key.key_type, Some(KeyType::Ed25519), "{params}");
        }
    });
}

#[test]
fn a_good_key_is_kept_although_it_cannot_be_shown() {
    isolated("pkcs11_forms::a_good_key_is_kept_although_it_cannot_be_shown", |lab| {
        lab.plan(&["every findpublic hide"]);
        let token = open();
        let made = token.generate(&name(1, "once"), KeyType::Ed25519, false).unwrap();
        let public_key = made.public_key().expect("it was shown when it was made");
        assert!(public_key.verifies(b"message", &token.sign(&made, b"message").unwrap()));
        assert_eq!(token.find_key(&id(1), KeyType::Ed25519).unwrap().public_key(), None);
        drop(token);

        lab.plan(&["every point absent", "every info absent"]);
        let token = open();
        for (number, key_type) in [(2, KeyType::Ed25519), (3, KeyType::Secp256k1)] {
            let unreadable = error(token.generate(&name(number, key_type.name()), key_type, false));
            assert!(matches!(unreadable, TokenError::Unreadable), "{unreadable}");
            assert!(unreadable.to_string().contains("was not removed"), "{unreadable}");
            assert_eq!(object_files(lab), usize::from(2 * number));
            let key = token.find_key(&id(number), key_type).unwrap();
            token.sign(&key, b"message").unwrap();
        }
    });
}

#[test]
fn a_key_that_wants_a_login_for_each_use_gets_one() {
    isolated("pkcs11_forms::a_key_that_wants_a_login_for_each_use_gets_one", |lab| {
        make(lab, &["--key-type", "EC:edwards25519", "--id", "01", "--label", "careful", "--always-auth"]);
        lab.plan(&[]);
        let token = open();
        let key = token.find_key(&id(1), KeyType::Ed25519).unwrap();
        for message in [&b"one"[..], b"two", b"three"] {
            assert!(key.public_key().unwrap().verifies(message, &token.sign(&key, message).unwrap()));
        }
        assert_eq!((lab.calls("login"), lab.calls("context"), lab.calls("sign")), (1, 3, 3));

        lab.plan(&["context rv 0xa0"]);
        let wrong = error(token.sign(&key, b"message"));
        assert!(matches!(wrong, TokenError::WrongPin { .. }), "{wrong}");
    });
}

#[test]
fn a_signer_logs_in_for_each_use_of_such_a_key() {
    let Some(hsm) = Hsm::softhsm() else { return };
    hsm.token(TOKEN, 0);
    let key = hsm.generate_with(TOKEN, "careful", &["--always-auth"]);
    let provider = hsm.provider_with_file(&faulty_module(), TOKEN, &[(CHAIN, "careful", &key)]);
    let scene = Scene::with_provider(hsm, &provider, key);
    assert_signs(&scene);
    let faults = scene.hsm.faults();
    assert_eq!(faults.count("login"), 2, "one for each start");
    assert_eq!((faults.count("context"), faults.count("length")), (faults.count("sign"), 0));
}

#[test]
fn another_kind_of_key_with_the_same_name_does_not_matter() {
    isolated("pkcs11_forms::another_kind_of_key_with_the_same_name_does_not_matter", |lab| {
        make(lab, &["--key-type", "rsa:2048", "--id", "01", "--label", "one"]);
        make(lab, &["--key-type", "EC:prime256v1", "--id", "01", "--label", "one"]);
        make(lab, &["--key-type", "EC:edwards25519", "--id", "01", "--label", "one"]);
        lab.plan(&[]);
        let token = open();
        for selector in [id(1), label("one")] {
            let key = token.find_key(&selector, KeyType::Ed25519).unwrap();
            assert!(key.public_key().unwrap().verifies(b"message", &token.sign(&key, b"message").unwrap()));
        }
    });
}

#[test]
fn what_a_key_and_a_token_say_of_themselves_explains_a_refusal() {
    isolated("pkcs11_forms::what_a_key_and_a_token_say_of_themselves_explains_a_refusal", |lab| {
        make(lab, &["--key-type", "EC:prime256v1", "--id", "01", "--label", "p256"]);
        make(lab, &["--key-type", "rsa:2048", "--id", "02", "--label", "rsa"]);
        make(lab, &["--key-type", "EC:edwards25519", "--id", "03", "--label", "ed"]);
        let refusal = |number: u8| {
            let token = open();
            error(token.sign(&token.find_key(&id(number), KeyType::Ed25519).unwrap(), b"message")).to_string()
        };
        lab.plan(&[]);
        let (p256, rsa) = (refusal(1), refusal(2));
        assert!(p256.contains("the key is a CKK_EC key on the curve P-256, not an ed25519 key"), "{p256}");
        assert!(rsa.contains("the key is a CKK_RSA key, not an ed25519 key"), "{rsa}");

        lab.plan(&["every mechanisms without 0x1057", "every init rv 0x70"]);
        let missing = refusal(3);
        let words = "the token does not list the mechanism CKM_EDDSA; for elliptic curves it lists CKM_EC";
        assert!(missing.contains("C_SignInit answered CKR_MECHANISM_INVALID") && missing.contains(words), "{missing}");
        lab.plan(&["every mechanisms without 0x1055", "every generate rv 0x70"]);
        let missing = error(open().generate(&name(4, "new"), KeyType::Ed25519, false)).to_string();
        assert!(missing.contains("does not list the mechanism CKM_EC_EDWARDS_KEY_PAIR_GEN"), "{missing}");
        // It says nothing of a device that has gone.
        lab.plan(&["every mechanisms without 0x1057", "every init rv 0x32"]);
        assert!(!refusal(3).contains("does not list"), "{}", refusal(3));

        for (plan, words) in [
            ("every tokeninfo set 0x80000", "CKF_USER_PIN_TO_BE_CHANGED"),
            ("every tokeninfo clear 0x8", "CKF_USER_PIN_INITIALIZED is not set"),
            ("every tokeninfo set 0x1000000", "CKF_ERROR_STATE"),
            ("every tokeninfo pinlen 10 20", "the token takes PINs of 10 to 20 bytes"),
        ] {
            lab.plan(&[plan, "every login rv 0xa0"]);
            let refused = error(open_with(&softhsm2()));
            assert!(matches!(refused.cause(), TokenError::WrongPin { .. }), "{refused}");
            assert_eq!(refused.class(), ErrorClass::Fatal);
            assert!(refused.to_string().contains(words), "{refused}");
            // Of itself it refuses nothing.
            lab.plan(&[plan]);
            open();
        }
        lab.plan(&["every tokeninfo set 0x2", "open rv 0xe2"]);
        let refused = error(open_with(&softhsm2()));
        assert!(refused.to_string().contains("the token is write protected"), "{refused}");
    });
}

#[test]
fn a_signer_signs_with_a_module_that_takes_less_and_says_it_otherwise() {
    let Some((scene, faults)) = Scene::faulty() else { return };
    let plan = ["every initialize nullonly", "every tokeninfo badinfo", "every point bit", "every sign oneshot"];
    faults.plan(&plan);
    assert_signs(&scene);
    assert_eq!(faults.count("length"), 0, "C_Sign is called once");
}
