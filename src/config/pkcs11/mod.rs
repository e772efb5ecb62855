//! `[[providers.pkcs11]]`: a token of a PKCS#11 module and its signing keys.

pub mod profile;
pub mod profile_reader;
pub mod spec;
pub mod uri;

use self::{
    profile::{LoginKind, Profile, ProfileEvidence},
    spec::{OBJECT_NAME_MAX_BYTES, ObjectSelector, TokenSelector},
    uri::{Pkcs11Uri, is_uri},
};
use super::{
    file_system::FileSystem,
    keys::{DeviceKind, KeyHome, KeyRole, KeyRow, KeyUses},
    needs::{FileKind, FileReader, Needs},
    paths::is_same_file,
    reader::{ConfigFindings, Table, Value},
    secret::{CREDENTIALS_VARIABLE, Secret, SecretSource, is_variable, read_source},
};
use highwater_core::consensus::{KeyType, PublicKey};
use std::{fmt, path::PathBuf};
use subtle_encoding::{base64, hex};

/// Longest label of a token, in bytes (`CK_TOKEN_INFO.label`).
const TOKEN_LABEL_MAX_BYTES: usize = 32;
/// Longest serial number of a token, in bytes (`CK_TOKEN_INFO.serialNumber`).
const TOKEN_SERIAL_MAX_BYTES: usize = 16;
/// How to write `pin`; completes "needs `pin`: ...".
const PIN_FORMS: &str = "the source of the PIN, as in { credential = \"name\" }, { file = \"path\" } or { fd = 3 }";

/// A `[[providers.pkcs11]]`: one token of one PKCS#11 module.
#[derive(Clone, Debug)]
pub struct Pkcs11Config {
    pub profile: Profile,
    /// `profile` as in the file: a name or a path.
    pub profile_text: String,
    /// `module`, else the first path of the profile that exists, else its first path. Absolute.
    pub module: PathBuf,
    pub token: TokenSelector,
    /// `None` only if the profile logs in by a protected path.
    pub pin: Option<SecretSource>,
    pub keys: Vec<Pkcs11Key>,
    /// Files that the module may read and write besides those of its profile. Absolute.
    pub files: Vec<PathBuf>,
    /// Variables passed to the module besides those of its profile.
    pub environment: Vec<String>,
    /// The line of the section in the file.
    pub line: usize,
}

/// An entry of `keys` of a `[[providers.pkcs11]]`.
#[derive(Clone, Debug)]
pub struct Pkcs11Key {
    /// The profile supports its algorithm.
    pub key: KeyRow,
    /// `id`, `label`, or both
    pub object: ObjectSelector,
    /// Every signature is verified against it. It has the key's algorithm.
    pub public_key: PublicKey,
}

impl Pkcs11Config {
    pub(super) fn read(
        table: &mut Table<'_>,
        uses: &mut KeyUses,
        file_system: FileSystem,
        findings: &mut ConfigFindings<'_>,
    ) -> Option<Self> {
        let value = table.require("profile", "the device's HSM profile, for example \"softhsm2\"", findings);
        let profile_text = value.and_then(|value| value.string(findings));
        let profile = value.zip(profile_text);
        let profile = profile.and_then(|(value, text)| read_profile(value, text, file_system, findings));
        let token = table.require("token", "{ label = \"...\" } or { serial = \"...\" }", findings);
        let named = token.and_then(|value| read_token(value, findings));
        let module = table.get("module", findings).map(|value| {
            let path = value.absolute_path(findings);
            refuse_other_module(value, path.as_ref(), named.as_ref(), findings);
            path
        });
        let module = module.or_else(|| named.as_ref()?.module.clone().map(Some));
        let module = module.or_else(|| Some(installed_module(table.line(), profile.as_ref()?, file_system, findings)));
        let token = named.and_then(|uri| uri.token);
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
        let home = KeyHome::OneOfSeveral { kind: DeviceKind::Token, section: table.line() };
        let keys = keys.map(|value| {
            value.tables("[[providers.pkcs11.keys]]", findings, |table, findings| {
                Pkcs11Key::read(table, profile.as_ref(), home, uses, findings)
            })
        });

        Some(Self {
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

    /// The module and its files are read by its own process, the PIN by the HSM spawner process.
    pub(super) fn needs(&self) -> Needs {
        let mut needs = Needs::default();
        needs.file(&self.module, "PKCS#11 module", FileKind::Program, FileReader::Helper);
        // The name of a built-in profile has no slash.
        if self.profile_text.contains('/') {
            needs.file(&self.profile_text, "profile", FileKind::Program, FileReader::Helper);
        }
        if let Some(pin) = &self.pin {
            needs.add(pin.needs("PIN file", FileReader::Helper));
        }
        needs
    }

    /// Two processes on one token would end each other's login and sessions.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        self.module == other.module && self.token == other.token
    }

    /// A label and a serial number may mean the same token.
    pub(super) fn may_share_device(&self, other: &Self) -> bool {
        is_same_file(&self.module, &other.module) && self.token.may_be(&other.token)
    }
}

/// The token's name in messages.
impl fmt::Display for Pkcs11Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.token, self.module.display())
    }
}

impl Pkcs11Key {
    fn read(
        table: &mut Table<'_>,
        profile: Option<&Profile>,
        home: KeyHome,
        uses: &mut KeyUses,
        findings: &mut ConfigFindings<'_>,
    ) -> Option<Self> {
        let (role, key) = uses.read(table, home, findings);
        let object = read_object(table, findings);
        let meaning = "the raw public key in hex or base64, as `highwater pkcs11 keys list` prints it; every signature of the \
                       device is verified against it";
        let public_key = table.require("public_key", meaning, findings);
        let public_key = public_key.and_then(|value| read_public_key(value, role?, findings));
        if let (Some(role), Some(profile)) = (role, profile) {
            refuse_algorithm(table.line(), role, profile, findings);
        }
        Some(Self { key: key?, object: object?, public_key: public_key? })
    }
}

fn read_profile(
    value: Value<'_>,
    text: &str,
    file_system: FileSystem,
    findings: &mut ConfigFindings<'_>,
) -> Option<Profile> {
    match Profile::by_name_or_path(text, file_system.load_profile) {
        Ok(profile) => {
            if profile.evidence > ProfileEvidence::Tested {
                let text = format!(
                    "the profile {} {}: first test it with a key that no validator uses, by `highwater pkcs11 test`",
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
    file_system: FileSystem,
    findings: &mut ConfigFindings<'_>,
) -> Option<PathBuf> {
    let paths = &profile.module.paths;
    let module = paths.iter().find(|path| (file_system.exists)(path)).or(paths.first());
    if module.is_none() {
        let text = format!(
            "[[providers.pkcs11]] needs `module`, the absolute path of the PKCS#11 module: the profile {} has no default path \
             for it",
            profile.name
        );
        findings.error(line, text);
    }
    module.cloned()
}

/// The token, as a table or as a URI, which may also name the module.
fn read_token(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Pkcs11Uri> {
    if value.is_string() {
        let text = value.string(findings)?;
        if !is_uri(text) {
            let text = "expected { label = \"...\" }, { serial = \"...\" }, or a pkcs11: URI";
            value.reject(text, findings);
            return None;
        }
        let uri = read_uri(value, findings)?;
        if uri.token.is_none() {
            value.reject("this pkcs11: URI names no token: add token=LABEL or serial=NUMBER to it", findings);
            return None;
        }
        return Some(uri);
    }
    let token = value.table("providers.pkcs11.token", findings, |table, findings| {
        let [label, serial] = ["label", "serial"].map(|name| table.get(name, findings));
        if label.is_none() && serial.is_none() {
            findings.error(table.line(), "providers.pkcs11.token needs `label` or `serial`, or both".to_owned());
        }
        for value in [label, serial].into_iter().flatten() {
            refuse_uri(value, "token = \"pkcs11:...\"", findings)?;
        }
        let label = label.map(|value| read_text(value, TOKEN_LABEL_MAX_BYTES, findings));
        let serial = serial.map(|value| read_text(value, TOKEN_SERIAL_MAX_BYTES, findings));
        whole(label, serial).and_then(|(label, serial)| TokenSelector::of(label, serial))
    });
    Some(Pkcs11Uri { token: Some(token??), ..Pkcs11Uri::default() })
}

/// A section may name its module twice, but not two modules.
fn refuse_other_module(
    value: Value<'_>,
    path: Option<&PathBuf>,
    token: Option<&Pkcs11Uri>,
    findings: &mut ConfigFindings<'_>,
) {
    let of_uri = token.and_then(|uri| uri.module.as_ref());
    if let (Some(path), Some(of_uri)) = (path, of_uri)
        && path != of_uri
    {
        let text = format!("the URI of the token has another `module-path`, {}: remove one", of_uri.display());
        value.reject(text, findings);
    }
}

/// The key by its id, its label, both, or a URI.
fn read_object(table: &mut Table<'_>, findings: &mut ConfigFindings<'_>) -> Option<ObjectSelector> {
    const OWN_KEY: &str = "uri = \"pkcs11:...\" in place of `id` and `label`";
    let [id, label, uri] = ["id", "label", "uri"].map(|name| table.get(name, findings));
    if let Some(value) = uri {
        if let Some(other) = id.or(label) {
            other.reject("`uri` names the key already: remove one", findings);
            return None;
        }
        let object = read_uri(value, findings)?.object;
        if object.is_none() {
            value.reject("this pkcs11: URI names no key: add object=LABEL or id=%XX to it", findings);
        }
        return object;
    }
    if id.is_none() && label.is_none() {
        findings.error(table.line(), "[[providers.pkcs11.keys]] needs `id` or `label`, or both".to_owned());
        return None;
    }
    for value in [id, label].into_iter().flatten() {
        refuse_uri(value, OWN_KEY, findings)?;
    }
    let id = id.map(|value| read_id(value, findings));
    let label = label.map(|value| read_text(value, OBJECT_NAME_MAX_BYTES, findings));
    whole(id, label).and_then(|(id, label)| ObjectSelector::of(id, label))
}

/// Two parts of a name. `None` if one of them cannot be read: the other alone would name more than was meant.
fn whole<A, B>(first: Option<Option<A>>, second: Option<Option<B>>) -> Option<(Option<A>, Option<B>)> {
    Some((first.map_or(Some(None), |part| part.map(Some))?, second.map_or(Some(None), |part| part.map(Some))?))
}

fn read_uri(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<Pkcs11Uri> {
    match Pkcs11Uri::parse(value.string(findings)?) {
        Ok(uri) => Some(uri),
        Err(error) => {
            value.reject(format_args!("a pkcs11: URI: {error}"), findings);
            None
        }
    }
}

/// Refuses a URI where only one of its parts belongs, and says where it belongs. It is not shown: it may hold a PIN.
fn refuse_uri(value: Value<'_>, place: &str, findings: &mut ConfigFindings<'_>) -> Option<()> {
    if value.is_string() && is_uri(value.string(findings)?) {
        if let Some(_readable) = read_uri(value, findings) {
            value.reject(format_args!("this is a pkcs11: URI: write {place}"), findings);
        }
        return None;
    }
    Some(())
}

/// `Some(None)` if no PIN is needed, `None` if one is missing or cannot be read.
fn read_pin(
    table: &mut Table<'_>,
    profile: Option<&Profile>,
    findings: &mut ConfigFindings<'_>,
) -> Option<Option<SecretSource>> {
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
        value.reject("this profile logs in on the device's own keypad: remove `pin`", findings);
        return None;
    }
    if !value.is_string() {
        return value
            .table("providers.pkcs11.pin", findings, |table, findings| read_source(table, "PIN", findings))
            .flatten()
            .map(Some);
    }
    if !allowed {
        let text = format!(
            "a PIN does not belong in this file: the file is copied and backed up. Write {PIN_FORMS}. If the PIN must be here, \
             set danger_inline_pin = true"
        );
        value.reject(text, findings);
        return None;
    }
    value.caution(
        "anyone who reads this file, or a copy of it, has the PIN: put it in a credential or a file",
        findings,
    );
    let pin = value.string(findings)?;
    if let Some(Err(what)) = profile.map(|profile| profile.session.pin_format.check(pin)) {
        value.reject(format_args!("the PIN {what}"), findings);
        return None;
    }
    Some(Some(SecretSource::Inline(Secret::new(pin))))
}

/// The name of a variable that is passed to a module.
fn read_passed_variable(value: Value<'_>, findings: &mut ConfigFindings<'_>) -> Option<String> {
    let name = value.string(findings)?;
    if !is_variable(name) {
        let text =
            "expected the name of an environment variable; the module gets the value that Highwater was started with";
        value.reject(text, findings);
        return None;
    }
    if name == CREDENTIALS_VARIABLE {
        value.reject("the service's credentials are never passed to a module: remove it", findings);
        return None;
    }
    Some(name.into())
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
            "the profile {} does not support {key_type}, which a key of type \"{role}\" needs: choose a device that \
             supports it from docs/hsm-devices.md",
            profile.name
        );
        findings.error(line, text);
    }
}

#[cfg(test)]
mod tests;
