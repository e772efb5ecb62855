//! What the thread of a YubiHSM opens and signs with.

use super::{access::Access, lane::Lane};
use crate::{
    config::YubiHsmConfig,
    consensus::{PublicKey, Signature},
    keyring::device::{Opener, Session, Trouble},
};
use std::time::{Duration, Instant};
use tracing::{debug, error};

/// How long a device is waited for while nobody waits for it: short, so that it is soon found to be back.
const PATIENCE: Duration = Duration::from_secs(3);

/// A key on a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    /// Its object id.
    pub(super) id: u16,
    /// What every signature is verified against.
    pub(super) public_key: PublicKey,
}

/// Opens sessions with one device.
pub(super) struct YubiHsmOpener {
    access: Access,
    keys: Vec<Key>,
    /// Whether the device has been asked for its audit settings.
    audit_told: bool,
}

impl YubiHsmOpener {
    pub(super) fn new(config: YubiHsmConfig, keys: Vec<Key>) -> Self {
        Self { access: Access::new(config), keys, audit_told: false }
    }

    /// Says once how the device is set up. A device that stops when its log is full stops a validator within minutes.
    fn tell_audit(&mut self, lane: &Lane, deadline: Instant) -> Result<(), Trouble> {
        let force_audit = lane.call(deadline, |client| client.force_audit())?;
        self.audit_told = true;
        let device = self.access.config();
        match force_audit {
            Some(true) => error!(
                %device,
                "force-audit is on: the device stops signing when its log of 62 entries is full. Turn it off"
            ),
            Some(false) => debug!(%device, "force-audit is off"),
            None => debug!(%device, "the authentication key may not read whether force-audit is on"),
        }
        Ok(())
    }
}

impl Opener for YubiHsmOpener {
    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let lane = self.access.open(deadline)?;
        if !self.audit_told {
            self.tell_audit(&lane, deadline)?;
        }
        Ok(Box::new(YubiHsmSession { lane, seen: vec![false; self.keys.len()], keys: self.keys.clone() }))
    }
}

struct YubiHsmSession {
    lane: Lane,
    keys: Vec<Key>,
    /// Which keys were found to be the right ones in this session.
    seen: Vec<bool>,
}

impl Session for YubiHsmSession {
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        let Key { id, public_key } = self.keys[key];
        let seen = self.seen[key];
        let message = message.to_vec();
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let signature = self.lane.call(deadline, move |client| {
            // Every signature is verified all the same; this only gives the better error.
            if !seen {
                client.expect_key(id, public_key)?;
            }
            client.sign(id, public_key.key_type(), &message)
        })?;
        self.seen[key] = true;
        Ok(signature)
    }
}
