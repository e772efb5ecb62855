//! The keys of the simulation: a fast fake key, a real key in software, and real keys in devices that fail.

use super::{super::dice::Dice, disk::SimDisk};
use highwater::keyring::{
    device::{
        Device, DeviceSetup, Opener, Session, Trouble,
        failover::{DeviceKey, KeyPlace},
    },
    softsign::SecretKey,
};
use highwater_core::{
    consensus::{KeyType, PublicKey, Signature},
    signer::{Pending, SELF_TEST, SignError, Signer},
};
use sha2::{Digest as _, Sha256};
use std::{
    sync::{Arc, Mutex, OnceLock},
    time::Instant,
};

/// Which key a world has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// Two devices with a thread each, through all of the production code.
    Devices,
    /// A hash. Says no, dies and comes back like any other.
    Fast,
    /// Ed25519 in software.
    Software,
}

/// Percent of the signatures with which something goes wrong.
const TROUBLE_PERCENT: u64 = 12;

/// The key of the seed that fills 32 bytes with `fill`.
fn software(fill: u8) -> Box<dyn Signer> {
    SecretKey::from_raw(KeyType::Ed25519, &[fill; 32]).unwrap().into_signer()
}

/// The public key of every world.
pub fn public_key() -> PublicKey {
    static KEY: OnceLock<PublicKey> = OnceLock::new();
    KEY.get_or_init(|| software(0x42).public_key()).clone()
}

impl KeyKind {
    /// A signer for one life of the process.
    pub fn signer(self, disk: &SimDisk, dice: &mut Dice) -> Box<dyn Signer> {
        let dice = Dice::new(dice.any());
        match self {
            Self::Devices => Box::new(devices(dice)),
            Self::Fast => Box::new(Flaky { key: Box::new(FastKey), disk: disk.clone(), dice: Mutex::new(dice) }),
            Self::Software => Box::new(Flaky { key: software(0x42), disk: disk.clone(), dice: Mutex::new(dice) }),
        }
    }

    /// Whether this key made `signature`.
    pub fn verifies(self, message: &[u8], signature: &Signature) -> bool {
        match self {
            Self::Fast => *signature == FastKey::of(message),
            Self::Devices | Self::Software => public_key().verifies(message, signature),
        }
    }
}

/// Deterministic like Ed25519, and a thousand times faster without optimisation.
struct FastKey;

impl FastKey {
    fn of(message: &[u8]) -> Signature {
        let hash = Sha256::digest(message);
        let mut signature = [0; 64];
        signature[..32].copy_from_slice(&hash);
        signature[32..].copy_from_slice(&hash);
        Signature::new(&signature)
    }
}

impl Signer for FastKey {
    fn public_key(&self) -> PublicKey {
        public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        Ok(Self::of(message))
    }
}

/// Refuses at once, or fails after the mark has moved, or has the process die.
struct Flaky {
    key: Box<dyn Signer>,
    disk: SimDisk,
    dice: Mutex<Dice>,
}

impl Flaky {
    fn fails(&self) -> Result<(), SignError> {
        let played = || SignError::Backend("played fault".into());
        if self.dice.lock().unwrap().percent(TROUBLE_PERCENT / 4) { Err(played()) } else { Ok(()) }
    }
}

impl Signer for Flaky {
    fn public_key(&self) -> PublicKey {
        self.key.public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<Signature, SignError> {
        self.fails()?;
        let signature = self.key.sign(message);
        let mut platter = self.disk.platter();
        if platter.tick_elsewhere() && !platter.dead {
            return Err(SignError::Backend("played fault".into()));
        }
        signature
    }

    fn begin(&self, _messages: &[&[u8]], _asked_at: Instant) -> Result<Option<Box<dyn Pending>>, SignError> {
        self.fails().map(|()| None)
    }
}

/// The same key in two devices.
fn devices(mut dice: Dice) -> DeviceKey {
    let start = |number: usize| {
        let device = FaultyDevice { dice: Arc::new(Mutex::new(Dice::new(dice.any()))), last: Arc::default() };
        let setup = DeviceSetup {
            name: format!("device {number}"),
            opener: Box::new(device),
            keys: vec![public_key()],
            message_max_bytes: None,
            chains: Vec::new(),
        };
        KeyPlace { device: Device::start(setup).unwrap(), index: 0 }
    };
    DeviceKey::new((1..=2).map(start).collect(), public_key())
}

/// A device that passes its self-tests and does anything else to a message.
#[derive(Clone)]
struct FaultyDevice {
    dice: Arc<Mutex<Dice>>,
    last: Arc<Mutex<Option<Signature>>>,
}

impl Opener for FaultyDevice {
    fn open(&mut self, _deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        Ok(Box::new(self.clone()))
    }
}

impl Session for FaultyDevice {
    fn sign(&mut self, _key: usize, message: &[u8], _deadline: Instant) -> Result<Signature, Trouble> {
        let right = software(0x42).sign(message).unwrap();
        if message == SELF_TEST {
            return Ok(right);
        }
        let stale = self.last.lock().unwrap().replace(right.clone());
        let mut dice = self.dice.lock().unwrap();
        if !dice.percent(TROUBLE_PERCENT * 3) {
            return Ok(right);
        }
        match dice.below(7) {
            0 => Err(Trouble::Broken("played fault".into())),
            1 => Err(Trouble::Late),
            2 => Err(Trouble::Rejected("played fault".into())),
            3 => Err(Trouble::Fatal("played fault".into())),
            // A late answer to an earlier request.
            4 => Ok(stale.unwrap_or(Signature::new(&[0; 64]))),
            5 => Ok(software(0x43).sign(message).unwrap()),
            _ => Ok(Signature::new(&[u8::try_from(dice.below(256)).unwrap(); 64])),
        }
    }
}
