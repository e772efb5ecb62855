//! Being let in: the password, and how often a device may be asked for a session.

use super::{
    client::{Client, DeviceInfo, Reached},
    connector::{self, Status},
    lane::{Lane, Threads},
};
use crate::{
    config::{PasswordSource, YubiHsmAdapter, YubiHsmConfig},
    keyring::{device::Trouble, key_file},
    ops::names::Names,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use yubihsm::{Credentials, authentication::Key};
use zeroize::Zeroizing;

/// How long a session that nobody uses lives on the device. The crate cannot close one.
const SESSION_LIFE: Duration = Duration::from_secs(30);
/// How many sessions may be asked for within [`SESSION_LIFE`]: half of the device's 16, so that others find one too.
const SESSIONS_MAX: usize = 8;

/// A way to a device.
pub struct Access {
    config: YubiHsmConfig,
    /// With the key that is derived from the password, once that could be read. Wiped when dropped.
    credentials: Option<Credentials>,
    sessions: Arc<Mutex<Sessions>>,
    threads: Threads,
    names: Names,
}

impl Access {
    /// To the device of that section. Reads no password yet.
    pub fn new(config: YubiHsmConfig, names: Names) -> Self {
        Self { config, credentials: None, sessions: Arc::default(), threads: Threads::default(), names }
    }

    /// To the same device by another authentication key. Sessions are counted together.
    pub(super) fn by_key(&self, auth_key: u16, key: Key) -> Self {
        let config = YubiHsmConfig { auth_key, ..self.config.clone() };
        let credentials = Some(Credentials::new(auth_key, key));
        Self {
            config,
            credentials,
            sessions: Arc::clone(&self.sessions),
            threads: Threads::default(),
            names: self.names.clone(),
        }
    }

    /// Insists on this serial number from now on.
    pub(super) fn pin_serial_number(&mut self, serial_number: String) {
        self.config.serial_number = Some(serial_number);
    }

    /// What the device tells everybody, without a session. Returns soon after `deadline` at the latest.
    pub fn device_info(&self, deadline: Instant) -> Result<DeviceInfo, Trouble> {
        let (config, names) = (self.config.clone(), self.names.clone());
        let ask = move || Reached::look_for(&config.adapter, config.serial_number.as_deref(), &names)?.device_info();
        self.threads.ask(deadline, ask)
    }

    /// What the connector in front of the device says of itself; `None` on USB, where there is none.
    pub fn connector_status(&self, deadline: Instant) -> Result<Option<Status>, Trouble> {
        match self.config.adapter.clone() {
            YubiHsmAdapter::Http { host, port } => {
                let names = self.names.clone();
                self.threads.ask(deadline, move || connector::status(&host, port, &names)).map(Some)
            }
            YubiHsmAdapter::Usb { .. } => Ok(None),
        }
    }

    /// The section.
    pub fn config(&self) -> &YubiHsmConfig {
        &self.config
    }

    /// Opens a session. Returns soon after `deadline` at the latest.
    pub fn open(&mut self, deadline: Instant) -> Result<Lane, Trouble> {
        let credentials = self.credentials()?;
        let config = self.config.clone();
        let sessions = Arc::clone(&self.sessions);
        let names = self.names.clone();
        Lane::open(&self.threads, deadline, move || {
            let reached = Reached::look_for(&config.adapter, config.serial_number.as_deref(), &names)?;
            let sessions = || sessions.lock().expect("nobody panics with this lock");
            sessions().count(Instant::now())?;
            let opened = Client::open(&config, reached, credentials);
            sessions().last_failure = opened.as_ref().err().map(|trouble| trouble.text().to_owned());
            opened
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

/// When sessions were asked for.
#[derive(Default)]
struct Sessions {
    asked: VecDeque<Instant>,
    /// Why there was none the last time.
    last_failure: Option<String>,
}

impl Sessions {
    /// Counts one more, or refuses it.
    fn count(&mut self, now: Instant) -> Result<(), Trouble> {
        while self.asked.front().is_some_and(|asked| now.duration_since(*asked) >= SESSION_LIFE) {
            self.asked.pop_front();
        }
        if self.asked.len() >= SESSIONS_MAX {
            let why = self.last_failure.as_deref().unwrap_or("it loses one session after the other");
            let seconds = SESSION_LIFE.as_secs();
            let text =
                format!("{why}. Waiting: it was asked for {SESSIONS_MAX} sessions within {seconds} s, and has 16");
            return Err(Trouble::Broken(text.into()));
        }
        self.asked.push_back(now);
        Ok(())
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
        for second in 0..8 {
            assert_eq!(sessions.count(begin + Duration::from_secs(second)), Ok(()));
        }
        assert!(matches!(sessions.count(begin + Duration::from_secs(29)), Err(Trouble::Broken(_))));
        assert_eq!(sessions.count(begin + Duration::from_secs(30)), Ok(()), "the first has ended");
        sessions.last_failure = Some("wrong password".into());
        let refused = sessions.count(begin + Duration::from_millis(30_500)).unwrap_err();
        assert!(refused.text().starts_with("wrong password. Waiting"), "{refused:?}");
    }
}
