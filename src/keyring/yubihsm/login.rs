//! Being let in: the password, and how often a device may be asked for a session.

use super::{
    client::{Client, DeviceInfo, NotOpened, Reached},
    client_thread::{ClientThread, ThreadBudget},
    connector::{self, ConnectorStatus},
};
use crate::{
    config::{PasswordSource, YubiHsmAdapter, YubiHsmConfig},
    keyring::{device::Trouble, key_file},
    process::{lock::lock, resolver::Resolver},
};
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use yubihsm::{Credentials, authentication::Key};
use zeroize::Zeroizing;

/// How many sessions may be asked for at once.
const SESSIONS_AT_ONCE: u32 = 4;
/// The same for a command. A device has 16.
const SESSIONS_OF_A_COMMAND: u32 = 12;
/// How long until one more may be asked for. A session that nobody uses lives for 30 s on the device, and the crate
/// cannot close one: with those at once there are never more than 12 of the device's 16, so that others find one too.
/// Spread out, and not eight and then none for half a minute: what broke them is most often over within a second.
const SESSION_EVERY: Duration = Duration::from_millis(3750);

/// A way to a device.
pub struct Login {
    config: YubiHsmConfig,
    /// With the key that is derived from the password, once that could be read. Wiped when dropped.
    credentials: Option<Credentials>,
    sessions: Arc<Mutex<Sessions>>,
    budget: ThreadBudget,
    resolver: Resolver,
}

impl Login {
    /// To the device of that section. Reads no password yet.
    pub fn new(config: YubiHsmConfig, resolver: Resolver) -> Self {
        Self { config, credentials: None, sessions: Arc::default(), budget: ThreadBudget::default(), resolver }
    }

    /// For a command: it takes several sessions one after the other, and ends. A signer that keeps asking is another matter.
    #[must_use]
    pub fn for_a_command(self) -> Self {
        lock(&self.sessions).at_once = SESSIONS_OF_A_COMMAND;
        self
    }

    /// To the same device by another authentication key. Sessions are counted together.
    pub(crate) fn by_key(&self, auth_key: u16, key: Key) -> Self {
        let config = YubiHsmConfig { auth_key, ..self.config.clone() };
        let credentials = Some(Credentials::new(auth_key, key));
        Self {
            config,
            credentials,
            sessions: Arc::clone(&self.sessions),
            budget: ThreadBudget::default(),
            resolver: self.resolver.clone(),
        }
    }

    /// Insists on this serial number from now on.
    pub(crate) fn pin_serial_number(&mut self, serial_number: String) {
        self.config.serial_number = Some(serial_number);
    }

    /// What the device tells everybody, without a session. Returns soon after `deadline` at the latest.
    pub fn device_info(&self, deadline: Instant) -> Result<DeviceInfo, Trouble> {
        let (config, resolver) = (self.config.clone(), self.resolver.clone());
        let ask = move || Reached::look_for(&config.adapter, config.serial_number.as_deref(), &resolver)?.device_info();
        self.budget.ask(deadline, ask)
    }

    /// What the connector in front of the device says of itself; `None` on USB, where there is none.
    pub fn connector_status(&self, deadline: Instant) -> Result<Option<ConnectorStatus>, Trouble> {
        match self.config.adapter.clone() {
            YubiHsmAdapter::Http { host, port } => {
                let resolver = self.resolver.clone();
                self.budget.ask(deadline, move || connector::status(&host, port, &resolver)).map(Some)
            }
            YubiHsmAdapter::Usb { .. } => Ok(None),
        }
    }

    /// The section.
    pub fn config(&self) -> &YubiHsmConfig {
        &self.config
    }

    /// Opens a session. Returns soon after `deadline` at the latest.
    pub fn open(&mut self, deadline: Instant) -> Result<ClientThread, Trouble> {
        let credentials = self.credentials()?;
        let config = self.config.clone();
        let sessions = Arc::clone(&self.sessions);
        let resolver = self.resolver.clone();
        ClientThread::open(&self.budget, deadline, move || {
            let reached = Reached::look_for(&config.adapter, config.serial_number.as_deref(), &resolver)?;
            let sessions = || lock(&sessions);
            sessions().take(Instant::now())?;
            let opened = Client::open(&config, reached, credentials);
            let mut sessions = sessions();
            match opened {
                Ok(client) => {
                    sessions.last_failure = None;
                    Ok(client)
                }
                Err(NotOpened { trouble, takes_session }) => {
                    sessions.last_failure = Some(trouble.clone());
                    if !takes_session {
                        sessions.give_back();
                    }
                    Err(trouble)
                }
            }
        })
    }

    fn credentials(&mut self) -> Result<Credentials, Trouble> {
        if let Some(credentials) = &self.credentials {
            return Ok(credentials.clone());
        }
        // An operator can put a bad file right while this runs.
        let password = read_password(&self.config.password).map_err(|text: String| Trouble::Broken(text.into()))?;
        let credentials = Credentials::from_password(self.config.auth_key, password.as_bytes());
        Ok(self.credentials.insert(credentials).clone())
    }
}

/// The password. A file's without the white space at its end, as tmkms reads it. The error shows nothing of it.
pub fn read_password(source: &PasswordSource) -> Result<Zeroizing<String>, String> {
    let password = match source {
        PasswordSource::File(path) => {
            let content = key_file::read(path).map_err(|error| format!("password file: {error}"))?;
            let text = std::str::from_utf8(&content);
            let text = text.map_err(|_| format!("password file: {} is not UTF-8 text", path.display()))?;
            Zeroizing::new(text.trim_end().to_owned())
        }
        PasswordSource::Inline(secret) => Zeroizing::new(secret.expose().to_owned()),
    };
    if password.is_empty() {
        return Err(format!("the password in {source:?} is empty"));
    }
    Ok(password)
}

/// How many sessions may be asked for: a bucket that holds a few and gets another one every few seconds.
struct Sessions {
    /// How many the bucket holds.
    at_once: u32,
    /// How long the bucket takes to be full again.
    missing: Duration,
    /// When that was so.
    at: Option<Instant>,
    /// Why there was none the last time.
    last_failure: Option<Trouble>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { at_once: SESSIONS_AT_ONCE, missing: Duration::ZERO, at: None, last_failure: None }
    }
}

impl Sessions {
    /// Takes one, or refuses it.
    fn take(&mut self, now: Instant) -> Result<(), Trouble> {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.missing = self.missing.saturating_sub(passed);
        self.at = Some(now);
        if self.missing + SESSION_EVERY > SESSION_EVERY * self.at_once {
            let why = self.last_failure.as_ref().map_or("it loses one session after the other", Trouble::text);
            let text = format!(
                "{why}. Waiting for at most {} s: the device has 16 sessions, and each is its own for 30 s",
                SESSION_EVERY.as_secs() + 1
            );
            return Err(match &self.last_failure {
                Some(Trouble::WrongPassword(_)) => Trouble::WrongPassword(text.into()),
                _ => Trouble::Broken(text.into()),
            });
        }
        self.missing += SESSION_EVERY;
        Ok(())
    }

    /// Puts one back that the device knows nothing of.
    fn give_back(&mut self) {
        self.missing = self.missing.saturating_sub(SESSION_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;
    use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

    fn file(directory: &Path, content: &[u8], mode: u32) -> PasswordSource {
        let path = directory.join("password");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        PasswordSource::File(path)
    }

    #[test]
    fn a_password_is_that_of_tmkms() {
        let directory = tempfile::tempdir().unwrap();
        for (content, password) in
            [("pass word", "pass word"), ("password\r\n", "password"), (" password \n\n", " password")]
        {
            let read = read_password(&file(directory.path(), content.as_bytes(), 0o600)).unwrap();
            assert_eq!(*read, password);
        }
        assert_eq!(*read_password(&PasswordSource::Inline(Secret::new("password\n"))).unwrap(), "password\n");
    }

    #[test]
    fn a_bad_password_file_is_refused_and_not_shown() {
        let directory = tempfile::tempdir().unwrap();
        for (content, mode, words) in
            [(&b"hunter2"[..], 0o640, "chmod 600"), (b"hunter2\xff", 0o600, "UTF-8"), (b"\n", 0o600, "empty")]
        {
            let error = read_password(&file(directory.path(), content, mode)).unwrap_err();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn sessions_are_opened_no_faster_than_the_device_forgets_them() {
        let mut sessions = Sessions::default();
        let begin = Instant::now();
        let at = |milliseconds| begin + Duration::from_millis(milliseconds);
        for _ in 0..SESSIONS_AT_ONCE {
            assert_eq!(sessions.take(at(0)), Ok(()));
        }
        for wait in [0, 1000, 3749] {
            assert!(matches!(sessions.take(at(wait)), Err(Trouble::Broken(_))), "{wait}");
        }
        assert_eq!(sessions.take(at(3750)), Ok(()), "the next one");
        sessions.last_failure = Some(Trouble::WrongPassword("wrong password".into()));
        let refused = sessions.take(at(3751)).unwrap_err();
        assert!(
            matches!(&refused, Trouble::WrongPassword(text) if text.starts_with("wrong password. Waiting")),
            "{refused:?}"
        );
        let within_a_life = (3751..30_000).filter(|moment| sessions.take(at(*moment)).is_ok()).count();
        assert_eq!(SESSIONS_AT_ONCE as usize + 1 + within_a_life, 11, "of the device's 16");
        for _ in 0..SESSIONS_AT_ONCE {
            assert_eq!(sessions.take(at(300_000)), Ok(()), "and no more than at first, however long it was quiet");
        }
        assert!(sessions.take(at(300_000)).is_err());
    }

    #[test]
    fn what_takes_no_session_costs_none() {
        let mut sessions = Sessions::default();
        let now = Instant::now();
        for _ in 0..100 {
            assert_eq!(sessions.take(now), Ok(()));
            sessions.give_back();
        }
        for _ in 0..SESSIONS_AT_ONCE {
            assert_eq!(sessions.take(now), Ok(()));
        }
        assert!(sessions.take(now).is_err());
    }
}
