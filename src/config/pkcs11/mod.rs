//! `[[providers.pkcs11]]`: a token of a PKCS#11 module, and the keys on it that sign.

pub mod profile;
mod profile_reader;
pub mod reach;
pub mod spec;

use self::{
    profile::{LoginKind, Profile, ProfileError, ProfileEvidence},
    spec::{OBJECT_NAME_MAX_BYTES, ObjectSelector, TokenSelector},
};
use super::{
    Config, KeyRole, PinSource, Pkcs11Config, Pkcs11Key, Secret,
    providers::{KeyHome, key_role},
    reader::{ConfigFindings, Table, Value},
    sections::Draft,
};
use crate::process::sandbox;
use highwater_core::consensus::{KeyType, PublicKey};
use std::{
    io,
    path::{Path, PathBuf},
};
use subtle_encoding::{base64, hex};

/// Longest label of a token, in bytes (`CK_TOKEN_INFO.label`).
const TOKEN_LABEL_MAX_BYTES: usize = 32;
/// Longest serial number of a token, in bytes (`CK_TOKEN_INFO.serialNumber`).
const TOKEN_SERIAL_MAX_BYTES: usize = 16;
/// The first file descriptor that is not a standard stream.
const FIRST_FREE_FD: u16 = 3;
/// How `pin` is written; completes "needs `pin`: ...".
const PIN_FORMS: &str = "where the PIN is found: { credential = \"name\" }, { file = \"path\" } or { fd = 3 }";

/// What may be looked at beside the text of the configuration.
#[derive(Clone, Copy)]
pub(super) struct Surroundings {
    load_profile: fn(&Path) -> Result<Profile, ProfileError>,
    exists: fn(&Path) -> bool,
}

impl Surroundings {
    /// The file system.
    pub(super) const DISK: Self = Self { load_profile: Profile::load, exists: Path::exists };
    /// Nothing.
    pub(super) const NONE: Self = Self {
        load_profile: |path| {
            Err(ProfileError::Unreadable { path: path.into(), error: io::ErrorKind::Unsupported.into() })
        },
        exists: |_| false,
    };
}

impl Draft {
    /// Reads a `[[providers.pkcs11]]`.
    pub(super) fn pkcs11(&mut self, table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<Pkcs11Config> {
        let value = table.require("profile", "the family of the device, for example \"softhsm2\"", findings);
        let profile_text = value.and_then(|value| value.string(findings));
        let profile = value.zip(profile_text);
        let profile = profile.and_then(|(value, text)| read_profile(value, text, self.surroundings, findings));
        let module = table.get("module", findings).map(|value| value.absolute_path(findings));
        let module =
            module.or_else(|| Some(installed_module(table.line(), profile.as_ref()?, self.surroundings, findings)));
        let token = table.require("token", "{ label = \"...\" } or { serial = \"...\" }", findings);
        let token = token.and_then(|value| value.table("providers.pkcs11.token", findings, read_token).flatten());
        let pin = read_pin(table, profile.as_ref(), findings);
        let files = table.get("files", findings).map_or(Some(Vec::new()), |value| {
            value.array(findings)?.into_iter().map(|entry| entry.absolute_path(findings)).collect()
        });
        let environment = table.get("environment", findings).map_or(Some(Vec::new()), |value| {
            value.array(findings)?.into_iter().map(|entry| read_passed_variable(entry, findings)).collect()
        });
        let keys = table.get("keys", findings);
        if keys.is_none_or(Value::is_empty_array) {
            let text = "[[providers.pkcs11]] has no `keys`, so it signs for no chain: `highwater pkcs11 keys list` prints them";
            findings.warning(table.line(), text);
        }
        let keys = keys.map(|value| {
            let read = |table: &mut Table<'_>, findings: &mut ConfigFindings<'_>| {
                self.pkcs11_key(table, profile.as_ref(), findings)
            };
            value.tables("[[providers.pkcs11.keys]]", findings, read)
        });

        Some(Pkcs11Config {
            module: module??,
            token: token?,
            pin: pin?,
            keys: keys.unwrap_or_default(),
            files: files?,
            environment: environment?,
            line: table.line(),
            profile: profile?,
            profile_text: profile_text?.into(),
        })
    }

    fn pkcs11_key(
        &mut self,
        table: &mut Table<'_>,
        profile: Option<&Profile>,
        findings: &mut ConfigFindings<'_>,
    ) -> Option<Pkcs11Key> {
        let role = key_role(table, findings);
        let chain_ids = self.chains_of_key(table, role, KeyHome::Only, findings);
        let object = table.exactly_one(["id", "label"], findings).and_then(|value| match value.key() {
            "id" => read_id(value, findings).map(ObjectSelector::Id),
            _ => read_text(value, OBJECT_NAME_MAX_BYTES, findings).map(ObjectSelector::Label),
        });
        let meaning = "the raw public key in hex or base64, as `highwater pkcs11 keys list` prints it; every signature of the \
                       device is verified against it";
        let public_key = table.require("public_key", meaning, findings);
        let public_key = public_key.and_then(|value| read_public_key(value, role?, findings));
        if let (Some(role), Some(profile)) = (role, profile) {
            refuse_algorithm(table.line(), role, profile, findings);
        }
        Some(Pkcs11Key {
            chain_ids: chain_ids?,
            object: object?,
            role: role?,
            public_key: public_key?,
            line: table.line(),
        })
    }
}

fn read_profile(
    value: Value<'_>,
    text: &str,
    surroundings: Surroundings,
    findings: &mut ConfigFindings<'_>,
) -> Option<Profile> {
    match Profile::by_name_or_path(text, surroundings.load_profile) {
        Ok(profile) => {
            if profile.evidence > ProfileEvidence::Tested {
                let text = format!(
                    "the profile {} {}: try the device with a key that guards nothing first, by `highwater pkcs11 test`",
                    profile.name, profile.evidence
                );
                value.caution(text, findings);
            }
            Some(profile)
        }
        Err(error) => {
            value.reject(error, findings);
            None
        }
    }
}

/// The module of a section without `module`.
fn installed_module(
    line: usize,
    profile: &Profile,
    surroundings: Surroundings,
    findings: &mut ConfigFindings<'_>,
) -> Option<PathBuf> {
    let paths = &profile.module.paths;
    let module = paths.iter().find(|path| (surroundings.exists)(path)).or(paths.first());
    if module.is_none() {
        let text = format!(
            "[[providers.pkcs11]] needs `module`, the absolute path of the PKCS#11 module: the profile {} knows no usual place \
             of it",
            profile.name
        );
        findings.error(line, text);
    }
    module.cloned()
}

fn read_token(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<TokenSelector> {
    let value = table.exactly_one(["label", "serial"], findings)?;
    match value.key() {
        "label" => read_text(value, TOKEN_LABEL_MAX_BYTES, findings).map(TokenSelector::Label),
        _ => read_text(value, TOKEN_SERIAL_MAX_BYTES, findings).map(TokenSelector::Serial),
    }
}

/// `Some(None)` where there rightly is no PIN, `None` where there should be one or it cannot be read.
fn read_pin(
    table: &mut Table<'_>,
    profile: Option<&Profile>,
    findings: &mut ConfigFindings<'_>,
) -> Option<Option<PinSource>> {
    let danger = table.get("danger_inline_pin", findings);
    let allowed = danger.and_then(|value| value.bool(findings)) == Some(true);
    let pin = table.get("pin", findings);
    let protected_path = profile.is_some_and(|profile| profile.session.login == LoginKind::ProtectedPath);
    let Some(value) = pin else {
        if protected_path || profile.is_none() {
            return Some(None);
        }
        findings.error(table.line(), format!("[[providers.pkcs11]] needs `pin`: {PIN_FORMS}"));
        return None;
    };
    if protected_path {
        value.reject("with this profile one logs in at the device, without a PIN: remove it", findings);
        return None;
    }
    if !value.is_string() {
        return value.table("providers.pkcs11.pin", findings, read_pin_source).flatten().map(Some);
    }
    if !allowed {
        let text = format!(
            "a PIN does not belong into this file, which is copied and backed up: write {PIN_FORMS}. If it must stand here, \
             set danger_inline_pin = true"
        );
        value.reject(text, findings);
        return None;
    }
    value
        .caution("whoever reads this file, or a copy of it, has the PIN: put it into a credential or a file", findings);
    let pin = value.string(findings)?;
    if let Some(Err(what)) = profile.map(|profile| profile.session.pin_format.check(pin)) {
        value.reject(format_args!("the PIN {what}"), findings);
        return None;
    }
    Some(Some(PinSource::Inline(Secret::new(pin))))
}

fn read_pin_source(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<PinSource> {
    let value = table.exactly_one(["credential", "file", "fd", "env"], findings)?;
    match value.key() {
        "credential" => read_credential(value, findings).map(PinSource::Credential),
        "env" => read_variable(value, findings).map(PinSource::Env),
        "fd" => read_fd(value, findings).map(PinSource::Fd),
        _ => value.path(findings).map(PinSource::File),
    }
}

fn read_credential(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let name = value.string(findings)?;
    if matches!(name, "" | "." | "..") || name.contains(|c: char| c == '/' || c.is_control()) {
        value.reject("it must be the name of a credential, as LoadCredential= of systemd gives it", findings);
        return None;
    }
    Some(name.into())
}

fn read_fd(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<i32> {
    let number = value.u16(findings)?;
    if number < FIRST_FREE_FD {
        value.reject(format_args!("expected a file descriptor from {FIRST_FREE_FD}: those below are taken"), findings);
        return None;
    }
    Some(number.into())
}

fn read_variable(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let name = value.string(findings)?;
    if name.is_empty() || name.contains(|c: char| c == '=' || c.is_control()) {
        value.reject("it must be the name of an environment variable", findings);
        return None;
    }
    let text = "an environment variable is inherited by other programs and shown by /proc: a credential, a file or a file \
                descriptor keeps the PIN closer";
    value.caution(text, findings);
    Some(name.into())
}

/// The name of a variable that a module gets.
fn read_passed_variable(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let name = value.string(findings)?;
    if name.is_empty() || name.contains(|c: char| c == '=' || c.is_control()) {
        let text =
            "expected the name of an environment variable; its value is the one that Highwater itself is started with";
        value.reject(text, findings);
        return None;
    }
    if name == reach::CREDENTIALS_VARIABLE {
        value.reject("a module never gets the credentials of the service", findings);
        return None;
    }
    Some(name.into())
}

/// Reports what would open the signer's own files to a module. Looks at the disk.
pub(super) fn check_files(config: &Config, findings: &mut ConfigFindings<'_>) {
    let never = reach::of_the_signer(config);
    for provider in &config.pkcs11 {
        for path in &provider.files {
            if let Some(own) = never.iter().find(|own| sandbox::overlap(path, own)) {
                let text = format!(
                    "`files` in [[providers.pkcs11]] names {}, which would open {} to the module: name only what the module \
                     needs, or move one of the two",
                    path.display(),
                    own.display()
                );
                findings.error(provider.line, text);
            }
        }
        for secret in provider.environment.iter().filter(|name| is_pin(config, name)) {
            let text = format!("`environment` in [[providers.pkcs11]] names {secret}, which holds a PIN: remove it");
            findings.error(provider.line, text);
        }
    }
}

fn is_pin(config: &Config, variable: &str) -> bool {
    config.pkcs11.iter().any(|provider| matches!(&provider.pin, Some(PinSource::Env(name)) if name == variable))
}

fn read_text(value: Value<'_>, max_bytes: usize, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let text = value.string(findings)?;
    if text.is_empty() || text.len() > max_bytes || text.contains(char::is_control) {
        value.reject(format_args!("expected 1 to {max_bytes} bytes of text"), findings);
        return None;
    }
    Some(text.into())
}

fn read_id(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Vec<u8>> {
    let id = hex::decode(value.string(findings)?.to_ascii_lowercase()).ok();
    let id = id.filter(|id| (1..=OBJECT_NAME_MAX_BYTES).contains(&id.len()));
    if id.is_none() {
        value.reject("expected the key's CKA_ID in hex, two digits for each byte, as in \"01af\"", findings);
    }
    id
}

fn read_public_key(value: Value<'_>, role: KeyRole, findings: &mut ConfigFindings<'_>) -> Option<PublicKey> {
    let key_type = role.key_type();
    let text = value.string(findings)?;
    let bytes = hex::decode(text.to_ascii_lowercase()).or_else(|_| base64::decode(text)).ok();
    let key = bytes.and_then(|bytes| PublicKey::from_bytes(key_type, &bytes).ok());
    if key.is_none() {
        let size = match key_type {
            KeyType::Ed25519 => "32 bytes",
            KeyType::Secp256k1 => "33 bytes, compressed",
        };
        let text = format!(
            "expected the raw {key_type} public key ({size}) in hex or base64, as `highwater pkcs11 keys list` prints it"
        );
        value.reject(text, findings);
    }
    key
}

fn refuse_algorithm(line: usize, role: KeyRole, profile: &Profile, findings: &mut ConfigFindings<'_>) {
    let key_type = role.key_type();
    if !profile.supports(key_type) {
        let text = format!(
            "the profile {} has no {key_type}, which is what a key of the type \"{role}\" is: take a device from \
             docs/hsm-devices.md that has it",
            profile.name
        );
        findings.error(line, text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        Config, KeyConfig,
        tests::{GOOD, accept, assert_one_error, assert_one_warning, errors, warnings},
    };
    use highwater_core::consensus::ChainId;
    use std::fs;

    const ED25519: &str = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12";
    const SECP256K1: &str = "0324653eac434488002cc06bbfb7f10fe18991e35f9fe4302dbea6d2353dc0ab1c";
    /// Two keys on a token. It begins on line 10 where it replaces the softsign key of `GOOD`.
    const TOKEN: &str = r#"[[providers.pkcs11]]
profile = "softhsm2"
module = "/opt/hsm.so"
token = { label = "validator" }
pin = { credential = "hsm-pin" }
keys = [
    { chain_ids = ["test-1"], id = "01Af", public_key = "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12" },
    { chain_ids = ["test-1"], label = "a", type = "account", public_key = "AyRlPqxDRIgALMBrv7fxD+GJkeNfn+QwLb6m0jU9wKsc" },
]
"#;

    /// `GOOD`, with a token in place of its key.
    fn on_token(token: &str) -> String {
        format!("{}{token}", &GOOD[..GOOD.find("[[providers").unwrap()])
    }

    fn with(old: &str, new: &str) -> String {
        assert!(TOKEN.contains(old), "{old:?} is in the text");
        on_token(&TOKEN.replacen(old, new, 1))
    }

    #[test]
    fn a_token_with_its_keys_is_read() {
        let (config, warnings) = accept(&on_token(TOKEN));
        assert!(warnings.is_empty(), "{warnings:?}");
        let [provider] = config.pkcs11.as_slice() else { panic!("one provider") };
        assert_eq!((provider.profile.name.as_str(), provider.line), ("softhsm2", 10));
        assert_eq!(provider.module, Path::new("/opt/hsm.so"));
        assert_eq!(provider.token, TokenSelector::Label("validator".into()));
        assert!(matches!(&provider.pin, Some(PinSource::Credential(name)) if name == "hsm-pin"));

        let [consensus, account] = provider.keys.as_slice() else { panic!("two keys") };
        assert_eq!((consensus.role, consensus.line), (KeyRole::Consensus, 16));
        assert_eq!(consensus.object, ObjectSelector::Id(vec![0x01, 0xaf]));
        assert_eq!(consensus.public_key.to_string(), format!("ed25519:{ED25519}"));
        assert_eq!((account.role, account.line), (KeyRole::Account, 17));
        assert_eq!(account.object, ObjectSelector::Label("a".into()));
        assert_eq!(account.public_key.to_string(), format!("secp256k1:{SECP256K1}"));
    }

    #[test]
    fn a_token_may_be_named_by_serial_and_its_pin_come_from_elsewhere() {
        let (config, _) = accept(&with("label = \"validator\"", "serial = \"0123\""));
        assert_eq!(config.pkcs11[0].token, TokenSelector::Serial("0123".into()));
        for (pin, shown) in [("file = \"pin.txt\"", "the file pin.txt"), ("fd = 3", "the file descriptor 3")] {
            let (config, warnings) = accept(&with("credential = \"hsm-pin\"", pin));
            assert!(warnings.is_empty(), "{warnings:?}");
            assert_eq!(config.pkcs11[0].pin.as_ref().unwrap().to_string(), shown);
        }
        assert_one_warning(&with("credential = \"hsm-pin\"", "env = \"PIN\""), 14, "inherited by other programs");
    }

    #[test]
    fn an_inline_pin_is_refused_unless_the_danger_is_accepted() {
        let inline = "\"hunter2\"";
        let text = with("{ credential = \"hsm-pin\" }", inline);
        assert_one_error(&text, 14, &["a PIN does not belong into this file", "danger_inline_pin = true"]);
        let text = with("{ credential = \"hsm-pin\" }", "\"hunter2\"\ndanger_inline_pin = true");
        assert_one_warning(&text, 14, "whoever reads this file");
        let (config, _) = accept(&text);
        assert!(matches!(&config.pkcs11[0].pin, Some(PinSource::Inline(pin)) if pin.expose() == "hunter2"));
        assert!(!format!("{config:?}").contains("hunter2"));

        // On its way to a child it is there again.
        let sent = serde_json::to_string(&config.pkcs11[0].pin).unwrap();
        let arrived: Option<PinSource> = serde_json::from_str(&sent).unwrap();
        assert!(matches!(arrived, Some(PinSource::Inline(pin)) if pin.expose() == "hunter2"));
    }

    #[test]
    fn an_inline_pin_has_the_format_of_the_profile() {
        let inline = |pin: &str| {
            let text = with("{ credential = \"hsm-pin\" }", &format!("{pin:?}\ndanger_inline_pin = true"));
            text.replace("softhsm2", "yubihsm2-pkcs11")
        };
        assert_one_error(&inline("hunter2"), 14, &["the PIN must be four hex digits"]);
        assert!(!errors(&inline("hunter2"))[0].contains("hunter2"));
        assert_eq!(accept(&inline("0001password")).0.pkcs11.len(), 1);
    }

    #[test]
    fn mistakes_are_named_with_their_line() {
        for (old, new, line, words) in [
            ("profile = \"softhsm2\"\n", "", 10, &["[[providers.pkcs11]] needs `profile`"][..]),
            ("softhsm2", "softhms2", 11, &["no profile \"softhms2\"", "did you mean \"softhsm2\"?", "aws-cloudhsm, "]),
            ("softhsm2", "a/own.toml", 11, &["the profile a/own.toml cannot be read"]),
            ("/opt/hsm.so", "hsm.so", 12, &["must be absolute"]),
            ("module = \"/opt/hsm.so\"\n", "modul = \"/a\"\n", 12, &["did you mean `module`?"]),
            ("token = { label = \"validator\" }\n", "", 10, &["needs `token`"]),
            ("label = \"validator\"", "", 13, &["either `label` or `serial`"]),
            ("label = \"validator\"", "label = \"a\", serial = \"b\"", 13, &["either `label` or `serial`"]),
            ("label = \"validator\"", "slot = 0, label = \"a\"", 13, &["unknown key `slot`"]),
            ("\"validator\"", "\"a-label-that-is-too-long-for-a-token\"", 13, &["expected 1 to 32 bytes"]),
            ("pin = { credential = \"hsm-pin\" }\n", "", 10, &["needs `pin`", "{ credential = \"name\" }"]),
            ("credential = \"hsm-pin\"", "", 14, &["either `credential` or `file` or `fd` or `env`"]),
            ("credential = \"hsm-pin\"", "credential = \"a\", fd = 3", 14, &["either `credential` or"]),
            ("\"hsm-pin\"", "\"../pin\"", 14, &["must be the name of a credential"]),
            ("credential = \"hsm-pin\"", "fd = 2", 14, &["a file descriptor from 3"]),
            ("credential = \"hsm-pin\"", "env = \"\"", 14, &["name of an environment variable"]),
            ("{ credential = \"hsm-pin\" }", "1234", 14, &["expected a table, found an integer"]),
            ("module = ", "files = [\"opt\"]\nmodule = ", 12, &["`files`", "must be absolute"]),
            ("module = ", "environment = [\"A=1\"]\nmodule = ", 12, &["the name of an environment variable"]),
            ("module = ", "environment = [\"CREDENTIALS_DIRECTORY\"]\nmodule = ", 12, &["never gets the credentials"]),
            ("[\"test-1\"]", "[\"test-2\"]", 16, &["no [[chain]] with the id test-2"]),
            ("id = \"01Af\", ", "", 16, &["[[providers.pkcs11.keys]] needs either `id` or `label`"]),
            ("id = \"01Af\"", "id = \"01Af\", label = \"a\"", 16, &["either `id` or `label`"]),
            ("\"01Af\"", "\"01A\"", 16, &["`id` in [[providers.pkcs11.keys]]: expected the key's CKA_ID in hex"]),
            ("\"01Af\"", "\"\"", 16, &["expected the key's CKA_ID in hex"]),
            ("public_key = \"2152", "public_kye = \"2152", 16, &["needs `public_key`", "`highwater pkcs11 keys list`"]),
            ("\"2152", "\"52", 16, &["the raw ed25519 public key (32 bytes)", "`highwater pkcs11 keys list`"]),
            ("AyRl", "ByRl", 17, &["the raw secp256k1 public key (33 bytes, compressed)"]),
            ("type = \"account\"", "type = \"acount\"", 17, &["expected \"account\" or \"consensus\""]),
            ("softhsm2", "aws-cloudhsm", 16, &["the profile aws-cloudhsm has no ed25519", "\"consensus\""]),
            ("softhsm2", "kryoptic", 17, &["the profile kryoptic has no secp256k1", "\"account\""]),
        ] {
            let text = with(old, new);
            let result = errors(&text);
            let place = format!("f:{line}: ");
            let found = |error: &String| error.starts_with(&place) && words.iter().all(|word| error.contains(word));
            assert!(result.iter().any(found), "{place}{words:?} is in {result:#?}\n{text}");
        }
    }

    #[test]
    fn a_profile_below_tested_is_warned_of_in_words() {
        let text = with("softhsm2", "thales-luna7").replace("type = \"account\"", "chain = 1");
        let text = text.lines().filter(|line| !line.contains("chain = 1")).collect::<Vec<_>>().join("\n");
        assert_one_warning(
            &text,
            11,
            "the profile thales-luna7 comes from the vendor's documentation and was never run",
        );
    }

    #[test]
    fn the_module_is_where_the_profile_knows_it_to_be() {
        let text = with("module = \"/opt/hsm.so\"\n", "");
        assert_eq!(accept(&text).0.pkcs11[0].module, Path::new("/usr/lib/softhsm/libsofthsm2.so"));
        let nowhere = text.replace("softhsm2", "nitrokey-nethsm");
        let found = errors(&nowhere).iter().any(|error| error.starts_with("f:10: [[providers.pkcs11]] needs `module`"));
        assert!(found, "{:#?}", errors(&nowhere));
    }

    #[test]
    fn a_token_without_keys_is_warned_of() {
        let text = format!("{GOOD}{}", &TOKEN[..TOKEN.find("keys").unwrap()]);
        assert_one_warning(&text, 13, "has no `keys`, so it signs for no chain");
        assert_one_warning(&format!("{text}keys = []\n"), 13, "has no `keys`");
    }

    #[test]
    fn the_key_of_a_chain_is_found_across_all_providers() {
        let chain = ChainId::new("test-1").unwrap();
        let (config, _) = accept(&on_token(TOKEN));
        let key = config.consensus_key(&chain).unwrap();
        assert!(matches!(key, KeyConfig::Pkcs11 { provider_index: 0, key_index: 0, .. }), "{key:?}");
        assert_eq!((key.role(), key.line()), (KeyRole::Consensus, 16));

        // A consensus key on a token goes before an account key in a file, and the other way round.
        let consensus = TOKEN.lines().filter(|line| !line.contains("account")).collect::<Vec<_>>().join("\n");
        let account = "type = \"account\"\n";
        let (config, _) = accept(&format!("{GOOD}{account}{consensus}"));
        assert!(matches!(config.consensus_key(&chain).unwrap(), KeyConfig::Pkcs11 { .. }));
        let account_only = TOKEN.lines().filter(|line| !line.contains("01Af")).collect::<Vec<_>>().join("\n");
        let (config, _) = accept(&format!("{GOOD}{account_only}"));
        assert!(matches!(config.consensus_key(&chain).unwrap(), KeyConfig::Softsign(_)));
        let (config, _) = accept(&on_token(&account_only));
        assert_eq!(config.consensus_key(&chain).unwrap().role(), KeyRole::Account);
    }

    #[test]
    fn a_chain_has_one_key_of_each_role_in_all_providers_together() {
        let words = "the chain test-1 already has its consensus key, on line 11";
        assert_one_error(&format!("{GOOD}{TOKEN}"), 19, &[words]);
    }

    #[test]
    fn a_token_stands_in_one_section() {
        let second = TOKEN.replace("[\"test-1\"]", "[]");
        let text = format!("{}{second}", on_token(TOKEN));
        assert_one_error(&text, 19, &["the token \"validator\" of /opt/hsm.so is already on line 10"]);
        let other = second.replace("\"validator\"", "\"backup\"");
        assert_eq!(warnings(&format!("{}{other}", on_token(TOKEN))).len(), 2, "keys without chains");
    }

    #[test]
    fn a_profile_of_the_operators_own_is_read_from_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let (profile, config) = (dir.path().join("own.toml"), dir.path().join("tmkms.toml"));
        let own = include_str!("../../../hsm-profiles/softhsm2.toml").replace("\"softhsm2\"", "\"own\"");
        fs::write(&profile, format!("{own}\n[session]\nlogin = \"protected-path\"\n")).unwrap();
        let text = with("\"softhsm2\"", &format!("{profile:?}"));
        fs::write(&config, text.replace("pin = { credential = \"hsm-pin\" }\n", "")).unwrap();
        let (loaded, _) = Config::load(&config).unwrap();
        assert_eq!(loaded.pkcs11[0].profile.name, "own");
        assert!(loaded.pkcs11[0].pin.is_none(), "one logs in at the device");

        fs::write(&config, &text).unwrap();
        let error = Config::load(&config).unwrap_err().to_string();
        assert!(error.contains("tmkms.toml:14: `pin` in [[providers.pkcs11]]: with this profile"), "{error}");

        fs::write(&profile, own.replace("[objects]", "[object]")).unwrap();
        let error = Config::load(&config).unwrap_err().to_string();
        assert!(error.contains("own.toml:") && error.contains("did you mean `objects`?"), "{error}");
    }
}
