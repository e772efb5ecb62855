//! The `[[providers.pkcs11]]` that an operator pastes into the configuration after making a key. Pure.

use super::hex_of;
use crate::config::{
    KeyRole, Pkcs11Config, SecretSource,
    pkcs11::{
        profile::{LoginKind, Profile},
        spec::{ObjectSelector, TokenSelector},
    },
};
use highwater_core::consensus::{ChainId, PublicKey};
use std::path::Path;

/// Stands for the chain if none is named. Loading the configuration then reports that there is no such chain.
const CHAIN_PLACEHOLDER: &str = "CHAIN-ID";
/// The systemd credential to propose if the source of the PIN cannot be written in a configuration.
const CREDENTIAL: &str = "hsm-pin";

/// A token, as its section describes it.
pub(super) struct Section<'a> {
    pub(super) profile: &'a Profile,
    /// The name or the path of the profile.
    pub(super) profile_text: &'a str,
    pub(super) module: &'a Path,
    pub(super) token: &'a TokenSelector,
    /// Where the PIN came from when the key was made.
    pub(super) pin: Option<&'a SecretSource>,
    /// The section that is already in the configuration.
    pub(super) present: Option<&'a Pkcs11Config>,
}

/// A key that was just made.
pub(super) struct MadeKey<'a> {
    pub(super) chain: Option<&'a ChainId>,
    /// `CKA_ID`
    pub(super) id: &'a [u8],
    /// `CKA_LABEL`
    pub(super) label: &'a str,
    pub(super) role: KeyRole,
    pub(super) public_key: PublicKey,
}

impl Section<'_> {
    /// The section with its present keys and `new`.
    pub(super) fn with(&self, new: &MadeKey<'_>) -> String {
        let module = quoted(&self.module.display().to_string());
        let token = match self.token {
            TokenSelector::Both { label, serial } => {
                format!("{{ label = {}, serial = {} }}", quoted(label), quoted(serial))
            }
            TokenSelector::Label(label) => format!("{{ label = {} }}", quoted(label)),
            TokenSelector::Serial(serial) => format!("{{ serial = {} }}", quoted(serial)),
        };
        let profile = quoted(self.profile_text);
        let mut text = format!(
            "[[providers.pkcs11]]\nprofile = {profile}\nmodule = {module}\ntoken = {token}\n{}{}keys = [\n",
            self.pin(),
            self.reach()
        );
        let present = self.present.map_or(&[][..], |section| &section.keys);
        for key in present.iter().filter(|key| !key.object.names(new.id, new.label)) {
            let chains: Vec<_> = key.key.chain_ids.iter().map(ChainId::as_str).collect();
            text += &entry(&chains, &key.object, key.key.role, &key.public_key);
        }
        let chain = new.chain.map_or(CHAIN_PLACEHOLDER, ChainId::as_str);
        text += &entry(&[chain], &ObjectSelector::Id(new.id.to_vec()), new.role, &new.public_key);
        text + "]"
    }

    /// The present lines with what the module may reach.
    fn reach(&self) -> String {
        let Some(present) = self.present else { return String::new() };
        let files: Vec<_> = present.files.iter().map(|path| quoted(&path.display().to_string())).collect();
        let variables: Vec<_> = present.environment.iter().map(|name| quoted(name)).collect();
        let mut text = String::new();
        for (key, values) in [("files", files), ("environment", variables)] {
            if !values.is_empty() {
                text += &format!("{key} = [{}]\n", values.join(", "));
            }
        }
        text
    }

    /// The line with `pin`. Never the PIN itself.
    fn pin(&self) -> String {
        if self.profile.session.login == LoginKind::ProtectedPath {
            return String::new();
        }
        let configured = self.present.and_then(|section| section.pin.as_ref());
        let inner = match configured.or(self.pin) {
            Some(SecretSource::Credential(name)) => format!("credential = {}", quoted(name)),
            Some(SecretSource::Env(name)) => format!("env = {}", quoted(name)),
            Some(SecretSource::Fd(number)) if configured.is_some() => format!("fd = {number}"),
            Some(SecretSource::File(path)) => format!("file = {}", quoted(&path.display().to_string())),
            // A PIN given to a single command is gone when the signer starts.
            None | Some(SecretSource::Fd(_) | SecretSource::Inline(_)) => {
                format!("credential = {}", quoted(CREDENTIAL))
            }
        };
        format!("pin = {{ {inner} }}\n")
    }
}

fn entry(chains: &[&str], object: &ObjectSelector, role: KeyRole, public_key: &PublicKey) -> String {
    let chains = chains.iter().map(|chain| quoted(chain)).collect::<Vec<_>>().join(", ");
    let object = match object {
        ObjectSelector::Both { id, label } => format!("id = \"{}\", label = {}", hex_of(id), quoted(label)),
        ObjectSelector::Id(id) => format!("id = \"{}\"", hex_of(id)),
        ObjectSelector::Label(label) => format!("label = {}", quoted(label)),
    };
    let key = hex_of(public_key.as_bytes());
    format!("    {{ chain_ids = [{chains}], {object}, type = \"{role}\", public_key = \"{key}\" }},\n")
}

/// A TOML string. What JSON escapes, TOML reads in the same way.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Secret};
    use highwater_core::consensus::KeyType;

    const CHAINS: &str = "[[chain]]\nid = \"test-1\"\nkey_format = { type = \"hex\" }\n\
                          [[chain]]\nid = \"test-2\"\nkey_format = { type = \"hex\" }\n\
                          [[validator]]\naddr = \"unix:///a\"\nchain_id = \"test-1\"\n";

    fn key(key_type: KeyType) -> PublicKey {
        let text = match key_type {
            KeyType::Ed25519 => "2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12",
            KeyType::Secp256k1 => "0324653eac434488002cc06bbfb7f10fe18991e35f9fe4302dbea6d2353dc0ab1c",
        };
        PublicKey::from_bytes(key_type, &subtle_encoding::hex::decode(text).unwrap()).unwrap()
    }

    fn parse(section: &str) -> Pkcs11Config {
        let text = format!("{CHAINS}{section}\n");
        let (config, _) =
            Config::parse(Path::new("tmkms.toml"), &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        config.pkcs11().into_iter().next().expect("there is one").clone()
    }

    fn section<'a>(token: &'a TokenSelector, profile: &'a Profile, pin: &'a SecretSource) -> Section<'a> {
        let module = Path::new("/opt/a \"module\".so");
        Section { profile, profile_text: &profile.name, module, token, pin: Some(pin), present: None }
    }

    #[test]
    fn what_is_pasted_is_a_section_of_the_configuration() {
        let chain = ChainId::new("test-1").unwrap();
        for (name, pin, expected) in [
            ("softhsm2", SecretSource::Fd(3), "the credential hsm-pin"),
            ("softhsm2", SecretSource::File("/a \\ pin".into()), "the file /a \\ pin"),
            ("kryoptic", SecretSource::Env("PIN".into()), "the environment variable PIN"),
            ("thales-luna7", SecretSource::Credential("pin".into()), "the credential pin"),
        ] {
            for token in [TokenSelector::Label("a \"token\" \\".into()), TokenSelector::Serial("0af".into())] {
                let profile = Profile::builtin(name).unwrap();
                let public_key = key(KeyType::Ed25519);
                let role = KeyRole::Consensus;
                let new =
                    MadeKey { chain: Some(&chain), id: &[1, 0xaf], label: "a", role, public_key: public_key.clone() };
                let text = section(&token, &profile, &pin).with(&new);
                let parsed = parse(&text);
                assert_eq!((&parsed.token, parsed.profile.name.as_str()), (&token, name));
                assert_eq!(parsed.module, Path::new("/opt/a \"module\".so"));
                assert_eq!(parsed.pin.unwrap().to_string(), expected);
                assert_eq!(parsed.keys[0].object, ObjectSelector::Id(vec![1, 0xaf]));
                assert_eq!((&parsed.keys[0].public_key, parsed.keys[0].key.role), (&public_key, role));
                assert_eq!(parsed.keys[0].key.chain_ids, std::slice::from_ref(&chain));
            }
        }
    }

    #[test]
    fn keys_that_are_there_stay_and_a_pin_never_shows() {
        let (token, profile) = (TokenSelector::Label("a".into()), Profile::builtin("softhsm2").unwrap());
        let [first, second] = ["test-1", "test-2"].map(|id| ChainId::new(id).unwrap());
        let pin = SecretSource::Fd(5);
        let old = MadeKey {
            chain: Some(&first),
            id: &[1],
            label: "one",
            role: KeyRole::Account,
            public_key: key(KeyType::Secp256k1),
        };
        let mut present = parse(&section(&token, &profile, &pin).with(&old));
        present.pin = Some(SecretSource::Inline(Secret::new("12345678")));
        present.files = vec!["/opt/vendor".into(), "/dev/hsm\"0".into()];
        present.environment = vec!["VENDOR_LOG".into()];
        let public_key = key(KeyType::Ed25519);
        let new = MadeKey {
            chain: Some(&second),
            id: &[2],
            label: "two",
            role: KeyRole::Consensus,
            public_key: public_key.clone(),
        };
        let with = Section { present: Some(&present), ..section(&token, &profile, &pin) };
        let text = with.with(&new);
        assert!(!text.contains("12345678"), "{text}");
        let parsed = parse(&text);
        assert_eq!((&parsed.files, &parsed.environment), (&present.files, &present.environment));
        let keys: Vec<_> =
            parsed.keys.iter().map(|key| (key.key.chain_ids[0].clone(), key.public_key.clone())).collect();
        assert_eq!(keys, [(first.clone(), key(KeyType::Secp256k1)), (second.clone(), public_key.clone())]);

        // Made again under its old name.
        let again = MadeKey { chain: Some(&first), id: &[1], ..new };
        let keys = parse(&with.with(&again)).keys;
        assert_eq!(keys.iter().map(|key| &key.public_key).collect::<Vec<_>>(), [&public_key]);
    }
}
