//! The sessions with which the thread of a YubiHSM signs.

use super::{
    client::Client,
    drain::{AuditSlot, Drain},
    login::{Login, OpenSession},
};
use crate::{
    config::YubiHsmConfig,
    keyring::device::{Opener, Session, Trouble},
    process::resolver::Resolver,
};
use highwater_core::consensus::{PublicKey, Signature};
use std::time::{Duration, Instant};
use tracing::debug;

/// How long to wait for a device, even if the deadline is later: short, so that its return is noticed soon.
const PATIENCE: Duration = Duration::from_secs(3);

/// A key on a device.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PinnedKey {
    /// Its object id.
    pub(super) id: u16,
    /// Every signature is verified against this.
    pub(super) public_key: PublicKey,
}

/// Opens sessions with one device.
pub(super) struct YubiHsmOpener {
    login: Login,
    keys: Vec<PinnedKey>,
    /// The device's flaw, once its audit settings are known. See [`Opener::flaw`].
    flaw: Option<Option<&'static str>>,
    /// Moves the device's log, if it is to be moved.
    drain: Option<Drain>,
}

impl YubiHsmOpener {
    pub(super) fn new(config: YubiHsmConfig, keys: Vec<PinnedKey>, resolver: Resolver, audit: AuditSlot) -> Self {
        let drain = config.drain_audit_log.then(|| Drain::new(config.to_string(), audit));
        Self { login: Login::new(config, resolver), keys, flaw: None, drain }
    }

    /// Reads the audit settings once. A device that stops when its log is full stops a validator within minutes.
    fn look_at_audit(&mut self, client: &Client) -> Result<(), Trouble> {
        let force_audit = client.force_audit()?;
        if force_audit.is_none() {
            let device = self.login.config();
            debug!(%device, "the authentication key has no permission to read whether force-audit is on");
        }
        let flaw = match (&self.drain, force_audit) {
            (Some(_), _) if !client.may_read_log()? => Some(
                "`drain_audit_log` is set, but its authentication key may not read the log: give it the capability \
                 get-log-entries, or take the setting out",
            ),
            (Some(_), _) => None,
            (None, Some(true)) => Some(
                "force-audit is on: the device stops signing when its log of 62 entries is full. Turn it off, or set \
                 `drain_audit_log = true`",
            ),
            (None, _) => None,
        };
        self.flaw = Some(flaw);
        Ok(())
    }
}

impl Opener for YubiHsmOpener {
    fn open(&mut self, deadline: Instant) -> Result<Box<dyn Session>, Trouble> {
        let deadline = deadline.min(Instant::now() + PATIENCE);
        let client = self.login.open(deadline)?;
        if self.flaw.is_none() {
            self.look_at_audit(&client)?;
        }
        if let Some(drain) = &self.drain {
            drain.begin();
        }
        let (keys, drain) = (self.keys.clone(), self.drain.clone());
        Ok(Box::new(YubiHsmSession { client, seen: vec![false; keys.len()], keys, drain }))
    }

    fn flaw(&self) -> Option<&str> {
        self.flaw.flatten()
    }
}

struct YubiHsmSession {
    client: OpenSession,
    keys: Vec<PinnedKey>,
    /// Which keys were checked in this session.
    seen: Vec<bool>,
    drain: Option<Drain>,
}

impl Session for YubiHsmSession {
    fn sign(&mut self, key: usize, message: &[u8], deadline: Instant) -> Result<Signature, Trouble> {
        let PinnedKey { id, public_key } = &self.keys[key];
        let client = self.client.until(deadline.min(Instant::now() + PATIENCE));
        if let Some(drain) = &self.drain {
            drain.count(1 + u32::from(!self.seen[key]));
        }
        // Every signature is verified anyway. This only gives a better error.
        let checked = if self.seen[key] { Ok(()) } else { client.expect_key(*id, public_key) };
        let signature = checked.and_then(|()| client.sign(*id, public_key.key_type(), message));
        match (&signature, &self.drain) {
            (Ok(_), _) => self.seen[key] = true,
            (Err(_), Some(drain)) if client.log_is_full() => drain.hurry(),
            (Err(_), _) => {}
        }
        signature
    }

    fn idle_before_chore(&self) -> Option<Duration> {
        self.drain.as_ref()?.wait()
    }

    fn chore(&mut self, deadline: Instant) -> Result<(), Trouble> {
        match &self.drain {
            Some(drain) => drain.step(self.client.until(deadline)),
            None => Ok(()),
        }
    }
}
