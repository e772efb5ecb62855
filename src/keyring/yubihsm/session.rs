//! What the thread of a YubiHSM opens and signs with.

use super::{client_thread::ClientThread, login::Login};
use crate::{
    config::YubiHsmConfig,
    keyring::device::{Opener, Session, Trouble},
    process::resolver::Resolver,
};
use highwater_core::consensus::{PublicKey, Signature};
use std::time::{Duration, Instant};
use tracing::debug;

/// How long a device is waited for while nobody waits for it: short, so that it is soon found to be back.
const PATIENCE: Duration = Duration::from_secs(3);

/// A key on a device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct PinnedKey {
    /// Its object id.
    pub(super) id: u16,
    /// What every signature is verified against.
    pub(super) public_key: PublicKey,
}

/// Opens sessions with one device.
pub(super) struct YubiHsmOpener {
    login: Login,
    keys: Vec<PinnedKey>,
    /// What its audit settings will lead to, once they are known.
    flaw: Option<Option<&'static str>>,
}

impl YubiHsmOpener {
    pub(super) fn new(config: YubiHsmConfig, keys: Vec<PinnedKey>, resolver: Resolver) -> Self {
        Self { login: Login::new(config, resolver), keys, flaw: None }
    }

    /// Asks once how the device is set up. One that stops when its log is full stops a validator within minutes.
    fn look_at_audit(&mut self, thread: &ClientThread, deadline: Instant) -> Result<(), Trouble> {
        let force_audit = thread.call(deadline, |client| client.force_audit())?;
        if force_audit.is_none() {
            let device = self.login.config();
            debug!(%device, "the authentication key may not read whether force-audit is on");
        }
        let flaw = "force-audit is on: the device stops signing when its log of 62 entries is full. Turn it off";
        self.flaw = Some((force_audit == Some(true)).then_some(flaw));
        Ok(())
    }
}

impl Opener for YubiHsmOpener {
    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let thread = self.login.open(deadline)?;
        if self.flaw.is_none() {
            self.look_at_audit(&thread, deadline)?;
        }
        Ok(Box::new(YubiHsmSession { thread, seen: vec![false; self.keys.len()], keys: self.keys.clone() }))
    }

    fn flaw(&self) -> Option<&str> {
        self.flaw.flatten()
    }
}

struct YubiHsmSession {
    thread: ClientThread,
    keys: Vec<PinnedKey>,
    /// Which keys were found to be the right ones in this session.
    seen: Vec<bool>,
}

impl Session for YubiHsmSession {
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        let PinnedKey { id, public_key } = self.keys[key];
        let seen = self.seen[key];
        let message = message.to_vec();
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let signature = self.thread.call(deadline, move |client| {
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
