//! Finds the public key of a chain.
//!
//! A state file is bound to one key for ever, so it also pins that key: a node gets its public key, and every signature
//! is verified, whether the device can be reached or not. Only for a chain without a state file of Highwater are the
//! devices asked, once. Then they must agree.

use super::{
    keys_of,
    login::{Login, OpenSession},
};
use crate::{
    config::{ChainConfig, Config, YubiHsmConfig},
    keyring::{KeyError, KeyInStateFile, device::Trouble},
    process::resolver::Resolver,
};
use highwater_core::consensus::{KeyType, PublicKey};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long each device may take to return its key.
const PATIENCE: Duration = Duration::from_secs(3);

/// Finds public keys. Opens one session with each device at most, and none if all is recorded.
pub struct Finder {
    /// By their place in [`Config::providers`].
    sessions: BTreeMap<usize, Result<OpenSession, Trouble>>,
    resolver: Resolver,
    in_state_file: KeyInStateFile,
}

impl Finder {
    /// Finds connectors through `names`.
    pub(crate) fn new(resolver: Resolver, in_state_file: KeyInStateFile) -> Self {
        Self { sessions: BTreeMap::new(), resolver, in_state_file }
    }

    /// The public key of `chain`: that of its state file, or else the one that its YubiHSMs return.
    pub fn find(&mut self, config: &Config, chain: &ChainConfig, key_type: KeyType) -> Result<PublicKey, KeyError> {
        if let Some(key) = (self.in_state_file)(chain, key_type) {
            return Ok(key);
        }
        let ask = |(index, provider, id)| (format!("{provider}"), self.ask(index, provider, id, key_type));
        let answers = Answers(keys_of(config, &chain.id, key_type).map(ask).collect());
        answers.agree(chain).map_err(|reason| KeyError::PublicKey { reason })
    }

    fn ask(&mut self, index: usize, provider: &YubiHsmConfig, id: u16, kind: KeyType) -> Result<PublicKey, Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let session = self.sessions.entry(index);
        let session = session.or_insert_with(|| Login::new(provider.clone(), self.resolver.clone()).open(deadline));
        let answer = session.as_ref().map_err(Clone::clone)?.until(deadline).public_key(id, kind);
        if let Err(trouble) = &answer
            && !matches!(trouble, Trouble::Rejected(_) | Trouble::Temporary(_))
        {
            *session = Err(trouble.clone());
        }
        answer
    }
}

/// The answer of each device.
struct Answers(Vec<(String, Result<PublicKey, Trouble>)>);

impl Answers {
    fn agree(&self, chain: &ChainConfig) -> Result<PublicKey, String> {
        let mut known = self.0.iter().filter_map(|(device, key)| Some((device, key.as_ref().ok()?)));
        let Some((first, key)) = known.next() else {
            let reasons = self.0.iter().filter_map(|(device, key)| Some((device, key.as_ref().err()?)));
            let reasons: Vec<_> = reasons.map(|(device, why)| format!("{device}: {}", why.text())).collect();
            return Err(format!(
                "the public key of {} is not known: {} does not hold it yet, and no device returned it ({})",
                chain.id,
                chain.watermark().display(),
                reasons.join("; ")
            ));
        };
        match known.find(|(_, other)| *other != key) {
            None => Ok(key.clone()),
            Some((second, other)) => Err(format!(
                "{first} has the key {key} for {}, but {second} has {other}: a chain has one key, so correct `key` in \
                 one of the two, or remove the chain from it",
                chain.id
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::KeyFormat, keyring::softsign::SecretKey};
    use highwater_core::consensus::ChainId;
    use std::path::Path;

    fn key(seed: u8) -> PublicKey {
        SecretKey::from_raw(KeyType::Ed25519, &[seed; 32]).unwrap().public_key()
    }

    fn chain(id: &str, state_file: &Path) -> ChainConfig {
        ChainConfig {
            id: ChainId::new(id).unwrap(),
            key_format: KeyFormat::Hex,
            state_file: state_file.into(),
            state_hook: None,
            allow_raw_bytes: false,
            line: 1,
        }
    }

    #[test]
    fn devices_that_answer_must_agree() {
        let chain = chain("test-1", Path::new("a.state"));
        let down = || Err(Trouble::Broken("unplugged".into()));
        let agree = |answers: &[Result<PublicKey, Trouble>]| {
            let named = answers.iter().enumerate().map(|(index, key)| (format!("device {index}"), key.clone()));
            Answers(named.collect()).agree(&chain)
        };
        assert_eq!(agree(&[Ok(key(1)), Ok(key(1))]), Ok(key(1)));
        assert_eq!(agree(&[down(), Ok(key(1))]), Ok(key(1)));
        let error = agree(&[Ok(key(1)), down(), Ok(key(2))]).unwrap_err();
        assert!(error.contains("device 0 has the key") && error.contains("device 2 has"), "{error}");
        let error = agree(&[down(), Err(Trouble::Late)]).unwrap_err();
        let words = "a.state.highwater does not hold it yet, and no device returned it (device 0: unplugged; device 1: it \
                     did not answer";
        assert!(error.contains(words), "{error}");
    }
}
