//! Wipes a device, and sets it up from 24 words.
//!
//! The result is the same as with tmkms: authentication keys 1 to 4, wrap key 1, force-audit off, a report in opaque
//! object 0xfffe. The order differs: the factory's authentication key is deleted last, so that a setup that fails half-way
//! can nearly always be run again.

use super::{
    admin_session::{AdminSession, PATIENCE, label},
    words::{ADMIN_KEY, Role, WRAP_KEY, Words},
};
use crate::keyring::{
    device::Trouble,
    yubihsm::{commands::NewObject, login::Login},
};
use std::{
    fmt, thread,
    time::{Duration, Instant},
};
use yubihsm::{AuditOption, Capability, Domain, authentication::Key, object::Type};

/// Object id of the authentication key that exists only during the setup.
const SETUP_KEY: u16 = 0xfffe;
/// Object id of the report. It is another type of object, so the same number does no harm.
const REPORT: u16 = 0xfffe;
/// How long a device may take to come back after it was wiped.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);
/// How long a device goes on answering after the command to wipe itself.
const RESET_TIME: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Time between attempts to log in, so that the device does not run out of sessions.
const LOGIN_INTERVAL: Duration = Duration::from_secs(4);

/// How a setup failed: the state of the device, and why, in words that follow the name of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SetupError {
    pub(crate) state: DeviceState,
    pub(crate) trouble: Trouble,
}

/// The state of a device whose setup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DeviceState {
    /// Everything is there, but the temporary key is too, or a key does not log in.
    Finished,
    /// It is wiped, and the factory's key still logs in.
    LikeNew,
    /// It is wiped, and no key logs in.
    Locked,
    /// It got the command to wipe itself.
    Unknown,
    /// Nothing was changed.
    Untouched,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.trouble.text())?;
        f.write_str(match self.state {
            DeviceState::Finished => {
                "It is wiped and set up, and the words and passwords that were shown are valid. To finish, log in as \
                 administrator (authentication key 1, the 24 words), check that authentication keys 1 to 4 are there, \
                 and delete the authentication key 0xfffe if it is there"
            }
            DeviceState::LikeNew => {
                "It is wiped, and nothing that was shown is valid yet. It accepts the same login as a new device: run \
                 the setup again with `auth = { key = 1, password = \"password\" }` in the configuration. --restore with \
                 the words that were shown makes the same keys"
            }
            DeviceState::Locked => {
                "It is wiped, and no login works any more. Reset it physically: unplug it, and hold its metal rim for \
                 10 s while plugging it in. Then run the setup again with `auth = { key = 1, password = \"password\" }` \
                 in the configuration. --restore with the words that were shown makes the same keys"
            }
            DeviceState::Unknown => {
                "It may or may not have wiped itself. Check with `highwater yubihsm keys list`: if the old password still \
                 works, nothing has changed. If `auth = { key = 1, password = \"password\" }` works, it is wiped and like \
                 new: run the setup again with that. --restore with the words that were shown makes the same keys"
            }
            DeviceState::Untouched => "Nothing was changed",
        })
    }
}

/// A setup that is ready to run.
pub(crate) struct Setup<'a> {
    /// Everything is derived from these.
    pub(crate) words: &'a Words,
    /// The time, for labels; at most 31 bytes.
    pub(crate) time: String,
    /// The report on the setup that the device keeps.
    pub(crate) report: String,
}

/// Opens a session, and makes sure that later sessions are with the same device.
pub(crate) fn prepare(login: &mut Login) -> Result<AdminSession, Trouble> {
    let session = AdminSession::open(login)?;
    login.pin_serial_number(session.serial_number()?);
    Ok(session)
}

/// Refuses an authentication key that may not wipe the device, because the device's own refusal is lost.
pub(crate) fn may_wipe(session: &AdminSession) -> Result<(), Trouble> {
    if session.may(Capability::RESET_DEVICE) {
        return Ok(());
    }
    let text = format!(
        "authentication key {} may not wipe it: log in as its administrator (key 1 with the 24 words after a setup, key 1 \
         with the password `password` on a device from the factory)",
        session.auth_key()
    );
    Err(Trouble::Rejected(text.into()))
}

/// 32 random bytes of the device.
pub(crate) fn random(session: &AdminSession) -> Result<zeroize::Zeroizing<Vec<u8>>, Trouble> {
    session.random(32)
}

impl Setup<'_> {
    /// Wipes the device and sets it up. Calls `tell` at each step. `login` must know the serial number.
    pub(crate) fn run(&self, login: &mut Login, tell: impl Fn(&str)) -> Result<(), SetupError> {
        let at = |state| move |trouble| SetupError { state, trouble };
        tell("wiping the device");
        // The operator may have thought longer than a session lives.
        let session = AdminSession::open(login).map_err(at(DeviceState::Untouched))?;
        may_wipe(&session).map_err(at(DeviceState::Untouched))?;
        if let Err(trouble) = session.client().reset("wipe itself")
            && refused(&trouble)
        {
            return Err(SetupError { state: DeviceState::Untouched, trouble });
        }
        // Any other answer may be lost, because the device restarts: whether it is wiped shows below.
        drop(session);

        tell("waiting for it to come back");
        let factory = log_in_as_new(login).map_err(at(DeviceState::Unknown))?;
        refuse_full(&factory).map_err(at(DeviceState::Unknown))?;
        tell("making its keys");
        let setup_key = Key::random();
        self.put_key(&factory, SETUP_KEY, "highwater setup", Role::Admin, &setup_key)
            .map_err(at(DeviceState::LikeNew))?;
        let session = AdminSession::open(&mut login.by_key(SETUP_KEY, setup_key)).map_err(at(DeviceState::LikeNew))?;
        self.provision(&session).map_err(at(DeviceState::LikeNew))?;
        session.delete(ADMIN_KEY, Type::AuthenticationKey).map_err(|trouble| {
            // Without a clear answer it may be gone.
            let state = if refused(&trouble) { DeviceState::LikeNew } else { DeviceState::Locked };
            SetupError { state, trouble }
        })?;
        self.put_role(&session, Role::Admin).map_err(at(DeviceState::Locked))?;

        tell("logging in as administrator and as validator");
        let admin = self.log_in(login, Role::Admin).map_err(at(DeviceState::Finished))?;
        admin.delete(SETUP_KEY, Type::AuthenticationKey).map_err(at(DeviceState::Finished))?;
        self.log_in(login, Role::Validator).map_err(at(DeviceState::Finished))?;
        Ok(())
    }

    /// Makes everything but the administrator's key.
    fn provision(&self, session: &AdminSession) -> Result<(), Trouble> {
        for role in [Role::Operator, Role::Auditor, Role::Validator] {
            self.put_role(session, role)?;
        }
        let wrap_label = label(&format!("primary:{}", self.time))?;
        let wrap_key = self.words.wrap_key();
        let wraps =
            Capability::EXPORT_WRAPPED | Capability::IMPORT_WRAPPED | Capability::WRAP_DATA | Capability::UNWRAP_DATA;
        let wrap_key_object =
            NewObject { id: WRAP_KEY, label: wrap_label, domains: Domain::all(), capabilities: wraps };
        session.client().put_wrap_key("store the wrap key", &wrap_key_object, Capability::all(), &wrap_key[..])?;
        session.client().set_force_audit("turn force-audit off", AuditOption::Off)?;
        let report = NewObject {
            id: REPORT,
            label: label("highwater setup report")?,
            domains: Domain::all(),
            capabilities: Capability::GET_OPAQUE,
        };
        session.client().put_opaque("store the report", &report, self.report.as_bytes())
    }

    fn put_role(&self, session: &AdminSession, role: Role) -> Result<(), Trouble> {
        self.put_key(session, role.key_id(), &format!("{}:{}", role.name(), self.time), role, &self.key_of(role))
    }

    fn put_key(&self, session: &AdminSession, id: u16, text: &str, role: Role, key: &Key) -> Result<(), Trouble> {
        let (capabilities, delegated, domains) = role.rights();
        let new = NewObject { id, label: label(text)?, domains, capabilities };
        session.client().put_authentication_key(&format!("store authentication key {id}"), &new, delegated, key)
    }

    fn log_in(&self, login: &Login, role: Role) -> Result<AdminSession, Trouble> {
        AdminSession::open(&mut login.by_key(role.key_id(), self.key_of(role)))
    }

    fn key_of(&self, role: Role) -> Key {
        Key::derive_from_password(self.words.password(role).as_bytes())
    }
}

/// Whether the device itself said that it did not do what it was asked for.
fn refused(trouble: &Trouble) -> bool {
    matches!(trouble, Trouble::Rejected(_) | Trouble::Temporary(_))
}

/// Refuses a device that holds more than one from the factory: it lets the factory's key in, but is not wiped.
fn refuse_full(factory: &AdminSession) -> Result<(), Trouble> {
    let mut objects = factory.objects()?;
    let factory_key = format!("{} 0x{ADMIN_KEY:04x}", Type::AuthenticationKey);
    objects.retain(|object| *object != factory_key);
    if objects.is_empty() {
        return Ok(());
    }
    let shown = objects.join(", ");
    Err(Trouble::Broken(format!("it was told to wipe itself, but still has objects: {shown}").into()))
}

/// Opens a session with the factory's authentication key, once the device is back.
fn log_in_as_new(login: &Login) -> Result<AdminSession, Trouble> {
    let deadline = Instant::now() + RETURN_PATIENCE;
    let mut factory = login.by_key(ADMIN_KEY, Key::default());
    thread::sleep(RESET_TIME);
    while let Err(trouble) = factory.device_info(deadline.min(Instant::now() + PATIENCE)) {
        if Instant::now() + POLL_INTERVAL >= deadline {
            return Err(trouble);
        }
        thread::sleep(POLL_INTERVAL);
    }
    loop {
        match AdminSession::open(&mut factory) {
            Err(_) if Instant::now() + LOGIN_INTERVAL < deadline => thread::sleep(LOGIN_INTERVAL),
            answer => return answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_setup_says_what_is_left_and_what_to_do() {
        for (state, words) in [
            (DeviceState::Untouched, "Nothing was changed"),
            (DeviceState::Unknown, "may or may not have wiped itself"),
            (DeviceState::LikeNew, "run the setup again with `auth = { key = 1, password = \"password\" }`"),
            (DeviceState::Locked, "hold its metal rim for 10 s"),
            (DeviceState::Finished, "delete the authentication key 0xfffe"),
        ] {
            let text = SetupError { state, trouble: Trouble::Late }.to_string();
            assert!(text.starts_with("it did not answer in time\n") && text.contains(words), "{text}");
        }
    }
}
