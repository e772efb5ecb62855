//! `[providers]`: which key signs for which chain. Each kind of provider has its own file.

use super::{
    file_system::FileSystem,
    keys::{KeyRow, KeyUses},
    needs::Needs,
    pkcs11::Pkcs11Config,
    reader::{ConfigFindings, Table},
    secret::SecretSource,
    softsign::SoftsignConfig,
    yubihsm::YubiHsmConfig,
};
use std::fmt;

/// Providers of tmkms that Highwater does not support.
const MISSING: [&str; 2] = ["ledgertm", "fortanixdsm"];

/// A section of `[providers]`.
#[derive(Clone, Debug)]
pub enum Provider {
    /// A token of a PKCS#11 module.
    Pkcs11(Box<Pkcs11Config>),
    /// A key in a file.
    Softsign(SoftsignConfig),
    YubiHsm(YubiHsmConfig),
}

impl Provider {
    /// In file order.
    pub fn keys(&self) -> Vec<&KeyRow> {
        match self {
            Self::Pkcs11(token) => token.keys.iter().map(|key| &key.key).collect(),
            Self::Softsign(file) => vec![&file.key],
            Self::YubiHsm(device) => device.keys.iter().map(|key| &key.key).collect(),
        }
    }

    /// The line of the section in the file.
    pub fn line(&self) -> usize {
        match self {
            Self::Pkcs11(token) => token.line,
            Self::Softsign(file) => file.key.line,
            Self::YubiHsm(device) => device.line,
        }
    }

    /// Whether its keys are on a device, which can be connected and disconnected while the signer runs.
    pub fn is_device(&self) -> bool {
        match self {
            Self::Pkcs11(_) | Self::YubiHsm(_) => true,
            Self::Softsign(_) => false,
        }
    }

    /// What it needs from this machine.
    pub fn needs(&self) -> Needs {
        match self {
            Self::Pkcs11(token) => token.needs(),
            Self::Softsign(file) => file.needs(),
            Self::YubiHsm(device) => device.needs(),
        }
    }

    /// The source of its PIN or password, if it has one.
    pub fn secret(&self) -> Option<&SecretSource> {
        match self {
            Self::Pkcs11(token) => token.pin.as_ref(),
            Self::Softsign(_) => None,
            Self::YubiHsm(device) => Some(&device.password),
        }
    }

    /// Whether both sections describe the same device for the same purpose, so that one is redundant.
    pub(super) fn repeats(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pkcs11(one), Self::Pkcs11(other)) => one.repeats(other),
            (Self::YubiHsm(one), Self::YubiHsm(other)) => one.repeats(other),
            _ => false,
        }
    }

    /// Whether both may mean the same device, judged without asking it. Reads the disk.
    pub fn may_share_device(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Pkcs11(one), Self::Pkcs11(other)) => one.may_share_device(other),
            (Self::YubiHsm(one), Self::YubiHsm(other)) => one.may_share_device(other),
            _ => false,
        }
    }
}

/// The device's name in messages.
impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pkcs11(token) => write!(f, "{token}"),
            Self::Softsign(file) => write!(f, "key {}", file.path.display()),
            Self::YubiHsm(device) => write!(f, "{device}"),
        }
    }
}

/// Reads `[providers]`. Returns the sections in file order.
pub(super) fn read(
    table: &mut Table<'_>,
    uses: &mut KeyUses,
    file_system: FileSystem,
    findings: &mut ConfigFindings<'_>,
) -> Vec<Provider> {
    let mut providers = Vec::new();
    if let Some(value) = table.get("softsign", findings) {
        providers.extend(value.tables("[[providers.softsign]]", findings, |table, findings| {
            SoftsignConfig::read(table, uses, findings).map(Provider::Softsign)
        }));
    }
    if let Some(value) = table.get("pkcs11", findings) {
        providers.extend(value.tables("[[providers.pkcs11]]", findings, |table, findings| {
            Pkcs11Config::read(table, uses, file_system, findings).map(|token| Provider::Pkcs11(Box::new(token)))
        }));
    }
    if let Some(value) = table.get("yubihsm", findings) {
        providers.extend(value.tables("[[providers.yubihsm]]", findings, |table, findings| {
            YubiHsmConfig::read(table, uses, findings).map(Provider::YubiHsm)
        }));
    }
    for name in MISSING {
        if let Some(value) = table.get(name, findings) {
            let text = format!(
                "[[providers.{name}]] is not supported: remove the section, and keep the current signer for its chains"
            );
            findings.error(value.line, text);
            // Its chains are not read, so they must not be reported as having no key.
            uses.incomplete = true;
        }
    }
    providers.sort_by_key(Provider::line);
    providers
}

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
