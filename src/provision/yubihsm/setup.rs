//! Wiping a device, and setting it up from 24 words.
//!
//! The end is that of tmkms: authentication keys 1 to 4, wrap key 1, force-audit off, a report in opaque object 0xfffe.
//! The order is not: the factory's authentication key goes last, so that a setup that fails half-way can nearly always
//! be run again.

use super::{
    admin_session::{AdminSession, PATIENCE, label},
    words::{ADMIN_KEY, Role, WRAP_KEY, Words},
};
use crate::keyring::{device::Trouble, yubihsm::login::Login};
use std::{
    fmt, thread,
    time::{Duration, Instant},
};
use yubihsm::{
    AuditOption, Capability, Domain,
    authentication::{self, Key},
    object::Type,
    opaque, wrap,
};

/// Object id of the authentication key that there is only during the setup.
const SETUP_KEY: u16 = 0xfffe;
/// Object id of the report. Another kind of object, so the same number does no harm.
const REPORT: u16 = 0xfffe;
/// How long a device may take to come back after it was wiped.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);
/// A device that was told to wipe itself answers for a moment as if nothing were.
const RESET_TIME: Duration = Duration::from_secs(1);
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// Between attempts to log in, so that the device does not run out of sessions.
const LOGIN_INTERVAL: Duration = Duration::from_secs(4);

/// How a setup failed: what state the device is in, and why. In words that follow the name of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetupError {
    /// What is left.
    pub state: DeviceState,
    /// What went wrong.
    pub trouble: Trouble,
}

/// What is left of a device when its setup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceState {
    /// All is there but the temporary key is too, or a key does not log in.
    Finished,
    /// It is wiped, and the factory's key still lets one in.
    LikeNew,
    /// It is wiped, and nothing lets one in.
    Locked,
    /// It was told to wipe itself.
    Unknown,
    /// All is as before.
    Untouched,
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.trouble.text())?;
        f.write_str(match self.state {
            DeviceState::Finished => {
                "It is wiped and set up, and the words and passwords that were shown are good. What is left to do: log in \
                 as administrator (authentication key 1, the 24 words), see that the authentication keys 1 to 4 are \
                 there, and delete the authentication key 0xfffe if it is"
            }
            DeviceState::LikeNew => {
                "It is wiped, and nothing of what was shown is good yet. It still lets one in as a new device does: run \
                 the setup again with `auth = { key = 1, password = \"password\" }` in the configuration. --restore with \
                 the words that were shown makes the same keys"
            }
            DeviceState::Locked => {
                "It is wiped, and nothing lets one in any more. Reset it by hand: plug it out, and hold its metal rim for \
                 10 s while plugging it in. Then run the setup again with `auth = { key = 1, password = \"password\" }` \
                 in the configuration. --restore with the words that were shown makes the same keys"
            }
            DeviceState::Unknown => {
                "It was told to wipe itself, and whether it has is not known. Look with `highwater yubihsm keys list`: if \
                 the old password still logs in, nothing has changed. If `auth = { key = 1, password = \"password\" }` \
                 does, it is wiped and as new: run the setup again with that. --restore with the words that were shown \
                 makes the same keys"
            }
            DeviceState::Untouched => "Nothing was changed",
        })
    }
}

/// A setup that is ready to run.
pub struct Setup<'a> {
    /// Where everything comes from.
    pub words: &'a Words,
    /// The time, for labels, of 31 bytes at most.
    pub time: String,
    /// What is kept in the device about the setup.
    pub report: String,
}

/// Opens a session, and makes sure that later ones are with the same device.
pub fn prepare(login: &mut Login) -> Result<AdminSession, Trouble> {
    let session = AdminSession::open(login)?;
    login.pin_serial_number(session.serial_number()?);
    Ok(session)
}

/// Refuses an authentication key that may not wipe the device, because the device's own refusal is lost.
pub fn may_wipe(session: &AdminSession) -> Result<(), Trouble> {
    match session.may(Capability::RESET_DEVICE) {
        true => Ok(()),
        false => {
            let key = session.auth_key();
            Err(Trouble::Rejected(format!(
                "authentication key {key} may not wipe it: log in as its administrator (key 1 with the 24 words after a \
                 setup, key 1 with the password `password` as it comes from the factory)"
            ).into()))
        }
    }
}

/// 32 random bytes of the device.
pub fn random(session: &AdminSession) -> Result<zeroize::Zeroizing<Vec<u8>>, Trouble> {
    session.random(32)
}

impl Setup<'_> {
    /// Wipes the device and sets it up. `tell` hears of each step. `login` must know its serial number.
    pub fn run(&self, login: &mut Login, tell: impl Fn(&str)) -> Result<(), SetupError> {
        let at = |state| move |trouble| SetupError { state, trouble };
        tell("wiping the device");
        // The operator may have thought longer than a session lives.
        let session = AdminSession::open(login).map_err(at(DeviceState::Untouched))?;
        may_wipe(&session).map_err(at(DeviceState::Untouched))?;
        session
            .ask(|client| client.ask("wipe itself", yubihsm::Client::reset_device))
            .map_err(at(DeviceState::Unknown))?;
        drop(session);

        tell("waiting for it to come back");
        let factory = log_in_as_new(login).map_err(at(DeviceState::Unknown))?;
        tell("making its keys");
        let setup_key = Key::random();
        self.put_key(&factory, SETUP_KEY, "highwater setup", Role::Admin, setup_key.clone())
            .map_err(at(DeviceState::LikeNew))?;
        let session = AdminSession::open(&mut login.by_key(SETUP_KEY, setup_key)).map_err(at(DeviceState::LikeNew))?;
        self.provision(&session).map_err(at(DeviceState::LikeNew))?;
        session.delete(ADMIN_KEY, Type::AuthenticationKey).map_err(at(DeviceState::LikeNew))?;
        self.put_role(&session, Role::Admin).map_err(at(DeviceState::Locked))?;

        tell("logging in as administrator and as validator");
        let admin = self.log_in(login, Role::Admin).map_err(at(DeviceState::Finished))?;
        admin.delete(SETUP_KEY, Type::AuthenticationKey).map_err(at(DeviceState::Finished))?;
        self.log_in(login, Role::Validator).map_err(at(DeviceState::Finished))?;
        Ok(())
    }

    /// Everything but the administrator's key.
    fn provision(&self, session: &AdminSession) -> Result<(), Trouble> {
        for role in [Role::Operator, Role::Auditor, Role::Validator] {
            self.put_role(session, role)?;
        }
        let wrap_label = label(&format!("primary:{}", self.time))?;
        let wrap_key = self.words.wrap_key();
        let wraps =
            Capability::EXPORT_WRAPPED | Capability::IMPORT_WRAPPED | Capability::WRAP_DATA | Capability::UNWRAP_DATA;
        session.ask(move |client| {
            let algorithm = wrap::Algorithm::Aes256Ccm;
            client.ask("take the wrap key", |client| {
                let (domains, all) = (Domain::all(), Capability::all());
                client.put_wrap_key(WRAP_KEY, wrap_label, domains, wraps, all, algorithm, wrap_key.to_vec())
            })
        })?;
        session.ask(|client| {
            client.ask("turn force-audit off", |client| client.set_force_audit_option(AuditOption::Off))
        })?;
        let (report_label, report) = (label("highwater setup report")?, self.report.clone());
        session.ask(move |client| {
            client.ask("keep the report", |client| {
                let (domains, algorithm) = (Domain::all(), opaque::Algorithm::Data);
                client.put_opaque(REPORT, report_label, domains, Capability::GET_OPAQUE, algorithm, report)
            })
        })?;
        Ok(())
    }

    fn put_role(&self, session: &AdminSession, role: Role) -> Result<(), Trouble> {
        self.put_key(session, role.key_id(), &format!("{}:{}", role.name(), self.time), role, self.key_of(role))
    }

    fn put_key(&self, session: &AdminSession, id: u16, text: &str, role: Role, key: Key) -> Result<(), Trouble> {
        let (label, (rights, delegated, domains)) = (label(text)?, role.rights());
        session.ask(move |client| {
            client.ask(&format!("take authentication key {id}"), |client| {
                let algorithm = authentication::Algorithm::YubicoAes;
                client.put_authentication_key(id, label, domains, rights, delegated, algorithm, key)
            })
        })?;
        Ok(())
    }

    fn log_in(&self, login: &Login, role: Role) -> Result<AdminSession, Trouble> {
        AdminSession::open(&mut login.by_key(role.key_id(), self.key_of(role)))
    }

    fn key_of(&self, role: Role) -> Key {
        Key::derive_from_password(self.words.password(role).as_bytes())
    }
}

/// A session with the factory's authentication key, once the device is back.
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
            (DeviceState::Unknown, "whether it has is not known"),
            (DeviceState::LikeNew, "run the setup again with `auth = { key = 1, password = \"password\" }`"),
            (DeviceState::Locked, "hold its metal rim for 10 s"),
            (DeviceState::Finished, "delete the authentication key 0xfffe"),
        ] {
            let text = SetupError { state, trouble: Trouble::Late }.to_string();
            assert!(text.starts_with("it did not answer in time\n") && text.contains(words), "{text}");
        }
    }
}
