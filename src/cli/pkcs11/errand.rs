//! What a command asks of a module, and the answers: the messages between the command and the process that calls the
//! module.

use crate::{
    cli::{CliError, Exit},
    config::pkcs11::spec::{ObjectSelector, TokenSpec, algorithm},
    keyring::{
        child::login_memory::{LoginOutcome, TokenBeforeLogin},
        pkcs11::module::Listing,
    },
    process::sandbox::Switches,
    provision::pkcs11::{KeyInfo, KeyName},
};
use highwater_core::consensus::{KeyType, PublicKey};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The hidden command that carries an errand out.
pub(in crate::cli) const WORKER_COMMAND: &str = "hsm-errand";

/// Everything about an errand except the secrets, which follow in frames of their own: the PIN, and a key to import.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Order {
    pub(super) errand: Errand,
    /// Module, token, profile, and what the module may reach.
    pub(super) spec: TokenSpec,
    pub(super) confinement: Confinement,
}

/// How the process is confined before it loads the module.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) enum Confinement {
    /// As the child that signs.
    AsSigner(Switches),
    /// Not at all, only to find out whether the module works then.
    None,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Errand {
    /// Remove a key, if it is still the one that was shown.
    Delete {
        object: ObjectSelector,
        shown: Option<WireKey>,
    },
    Generate {
        name: KeyName,
        #[serde(with = "algorithm")]
        key_type: KeyType,
        extractable: bool,
    },
    Import {
        name: KeyName,
        #[serde(with = "algorithm")]
        key_type: KeyType,
    },
    ListKeys,
    /// List the tokens, without a login.
    ListTokens,
    Look {
        object: ObjectSelector,
    },
    /// Sign the self-test `count` times. `pinned` is what the configuration pins for keys of the token.
    Test {
        object: ObjectSelector,
        pinned: Vec<(ObjectSelector, WirePublicKey)>,
        count: usize,
    },
}

impl Errand {
    /// Whether the token is different afterwards.
    pub(super) fn changes(&self) -> bool {
        matches!(self, Self::Delete { .. } | Self::Generate { .. } | Self::Import { .. })
    }
}

/// What the process reports.
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Event {
    /// It is about to call the module, to do this.
    Calls(String),
    /// It wants to log in. The answer says whether it may, or why not.
    LoginBegins(TokenBeforeLogin),
    LoginEnded(LoginOutcome),
    Done(Outcome),
    Failed {
        exit: u8,
        text: String,
    },
    /// So many self-tests are signed.
    Signed {
        done: usize,
        total: usize,
    },
}

impl Event {
    pub(super) fn failed(error: CliError) -> Self {
        Self::Failed { exit: error.exit as u8, text: error.message }
    }

    pub(super) fn error(exit: u8, text: String) -> CliError {
        CliError::new(Exit::of_number(exit), text)
    }
}

/// The result of an errand, in the order of [`Errand`].
#[derive(Debug, Deserialize, Serialize)]
pub(super) enum Outcome {
    Deleted(Option<WireKey>),
    Key(WireKey),
    Keys(Vec<WireKey>),
    Made { info: Option<WireKey>, public_key: WirePublicKey },
    Tested { info: WireKey, public_key: WirePublicKey, times: Vec<Duration> },
    Tokens(Listing),
}

/// A public key on its way between two processes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct WirePublicKey {
    #[serde(with = "algorithm")]
    key_type: KeyType,
    bytes: Vec<u8>,
}

impl From<&PublicKey> for WirePublicKey {
    fn from(key: &PublicKey) -> Self {
        Self { key_type: key.key_type(), bytes: key.as_bytes().to_vec() }
    }
}

impl WirePublicKey {
    /// The key. `None` if the other process sent no key, which would be a bug there.
    pub(super) fn key(&self) -> Option<PublicKey> {
        PublicKey::from_bytes(self.key_type, &self.bytes).ok()
    }
}

/// A [`KeyInfo`] on its way between two processes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub(super) struct WireKey {
    id: Vec<u8>,
    label: String,
    key_type: Option<String>,
    public_key: Option<WirePublicKey>,
    local: Option<bool>,
    never_extractable: Option<bool>,
    extractable: Option<bool>,
    sensitive: Option<bool>,
}

impl From<&KeyInfo> for WireKey {
    fn from(key: &KeyInfo) -> Self {
        Self {
            id: key.id.clone(),
            label: key.label.clone(),
            key_type: key.key_type.map(|kind| kind.name().to_owned()),
            public_key: key.public_key.as_ref().map(WirePublicKey::from),
            local: key.local,
            never_extractable: key.never_extractable,
            extractable: key.extractable,
            sensitive: key.sensitive,
        }
    }
}

impl From<WireKey> for KeyInfo {
    fn from(wire: WireKey) -> Self {
        let key_type = wire.key_type.as_deref();
        Self {
            key_type: KeyType::ALL.iter().copied().find(|kind| Some(kind.name()) == key_type),
            public_key: wire.public_key.as_ref().and_then(WirePublicKey::key),
            id: wire.id,
            label: wire.label,
            local: wire.local,
            never_extractable: wire.never_extractable,
            extractable: wire.extractable,
            sensitive: wire.sensitive,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_arrives_as_it_was_sent() {
        let public_key = PublicKey::from_bytes(
            KeyType::Ed25519,
            &subtle_encoding::hex::decode("2152f8d19b791d24453242e15f2eab6cb7cffa7b6a5ed30097960e069881db12").unwrap(),
        )
        .unwrap();
        for key in [
            KeyInfo {
                id: vec![1],
                label: "a".into(),
                key_type: Some(KeyType::Ed25519),
                public_key: Some(public_key),
                local: Some(true),
                never_extractable: Some(false),
                extractable: None,
                sensitive: Some(true),
            },
            KeyInfo {
                id: vec![],
                label: String::new(),
                key_type: None,
                public_key: None,
                local: None,
                never_extractable: None,
                extractable: Some(true),
                sensitive: None,
            },
        ] {
            let sent = serde_json::to_string(&WireKey::from(&key)).unwrap();
            assert_eq!(KeyInfo::from(serde_json::from_str::<WireKey>(&sent).unwrap()), key);
        }
    }

    #[test]
    fn an_error_keeps_its_exit_code() {
        for exit in
            [Exit::Usage, Exit::Data, Exit::NoInput, Exit::CantCreate, Exit::Io, Exit::NoPermission, Exit::Config]
        {
            let Event::Failed { exit: number, text } = Event::failed(CliError::new(exit, "why")) else {
                unreachable!()
            };
            let error = Event::error(number, text);
            assert_eq!((error.exit, error.message.as_str()), (exit, "why"));
        }
    }
}
