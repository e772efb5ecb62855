//! Where the public key of a chain is known from.
//!
//! A state file is bound to a key for good, so it is also the pin of that key: a node gets its public key, and every
//! signature is verified, whether the device is there or not. Only a chain without a state file of Highwater has to ask
//! its devices, once; then they must agree.

use super::{client_thread::ClientThread, keys_of, login::Login};
use crate::{
    config::{ChainConfig, Config, KeyRole, YubiHsmConfig},
    keyring::{KeyError, device::Trouble},
    process::resolver::Resolver,
};
use highwater_core::{
    consensus::{KeyType, PublicKey},
    watermark,
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long each device has to tell its key.
const PATIENCE: Duration = Duration::from_secs(3);

/// The public key that the state file of `chain` is bound to.
pub fn key_in_state_file(chain: &ChainConfig, role: KeyRole) -> Option<PublicKey> {
    let (record, _) = watermark::read_unlocked(&chain.watermark()).ok()?;
    let identity = record.header.identity();
    (identity.chain == chain.id && identity.key.key_type() == role.key_type()).then_some(identity.key)
}

/// Finds public keys. Opens one session with each device at most, and none if all is recorded.
#[derive(Default)]
pub struct Finder {
    /// By their place in [`Config::yubihsm`].
    threads: BTreeMap<usize, Result<ClientThread, Trouble>>,
    resolver: Resolver,
}

impl Finder {
    /// Finds connectors through `names`.
    pub fn new(resolver: Resolver) -> Self {
        Self { threads: BTreeMap::new(), resolver }
    }

    /// The public key of `chain`: that of its state file, else the one that its YubiHSMs tell.
    pub fn find(&mut self, config: &Config, chain: &ChainConfig, role: KeyRole) -> Result<PublicKey, KeyError> {
        if let Some(key) = key_in_state_file(chain, role) {
            return Ok(key);
        }
        let ask = |(index, provider, id)| (format!("{provider}"), self.ask(index, provider, id, role.key_type()));
        let answers = Answers(keys_of(config, &chain.id, role).map(ask).collect());
        answers.agree(chain).map_err(|reason| KeyError::PublicKey { reason })
    }

    fn ask(&mut self, index: usize, provider: &YubiHsmConfig, id: u16, kind: KeyType) -> Result<PublicKey, Trouble> {
        let deadline = Instant::now() + PATIENCE;
        let open = || Login::new(provider.clone(), self.resolver.clone()).open(deadline);
        let thread = self.threads.entry(index).or_insert_with(open);
        let answer = thread.as_ref().map_err(Clone::clone)?.call(deadline, move |client| client.public_key(id, kind));
        if let Err(trouble) = &answer
            && !matches!(trouble, Trouble::Rejected(_))
        {
            *thread = Err(trouble.clone());
        }
        answer
    }
}

/// What each device said.
struct Answers(Vec<(String, Result<PublicKey, Trouble>)>);

impl Answers {
    fn agree(&self, chain: &ChainConfig) -> Result<PublicKey, String> {
        let mut told = self.0.iter().filter_map(|(device, key)| Some((device, key.as_ref().ok()?)));
        let Some((first, key)) = told.next() else {
            let reasons = self.0.iter().filter_map(|(device, key)| Some((device, key.as_ref().err()?)));
            let reasons: Vec<_> = reasons.map(|(device, why)| format!("{device}: {}", why.text())).collect();
            return Err(format!(
                "the public key of {} is not known: {} does not hold it yet, and no device tells it ({})",
                chain.id,
                chain.watermark().display(),
                reasons.join("; ")
            ));
        };
        match told.find(|(_, other)| *other != key) {
            None => Ok(*key),
            Some((second, other)) => Err(format!(
                "{first} has the key {key} for {}, and {second} has {other}: a chain has one key, so correct `key` in one of \
                 the two, or take the chain out of it",
                chain.id
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::KeyFormat, keyring::softsign::SecretKey};
    use highwater_core::{
        consensus::ChainId,
        watermark::{HostId, Identity, Mark, create},
    };
    use std::path::Path;
    use zeroize::Zeroizing;

    fn key(seed: u8) -> PublicKey {
        SecretKey::Ed25519Seed(Box::new(Zeroizing::new([seed; 32]))).into_signer().public_key()
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
    fn a_state_file_pins_the_key_of_its_own_chain_and_kind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("state");
        assert_eq!(key_in_state_file(&chain("test-1", &path), KeyRole::Consensus), None);
        let identity = Identity { chain: ChainId::new("test-1").unwrap(), key: key(1) };
        let host = HostId::of_this_machine().unwrap();
        create(&chain("test-1", &path).watermark(), host, &identity, Mark::NEVER_SIGNED).unwrap();
        assert_eq!(key_in_state_file(&chain("test-1", &path), KeyRole::Consensus), Some(key(1)));
        assert_eq!(key_in_state_file(&chain("test-1", &path), KeyRole::Account), None);
        assert_eq!(key_in_state_file(&chain("test-2", &path), KeyRole::Consensus), None);
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
        let words = "a.state.highwater does not hold it yet, and no device tells it (device 0: unplugged; device 1: it did not answer";
        assert!(error.contains(words), "{error}");
    }
}
