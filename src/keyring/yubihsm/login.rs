//! Login to a device: the password, and how often the signer may open a session.
//!
//! Every session is closed when it is not used any more: a device has 16, and keeps a silent one for 30 s. One that
//! cannot be closed then, because the device is not reached, is closed before the next one is opened.

use super::{
    client::{self, Client, DeviceInfo, NotOpened, SessionState},
    connector::ConnectorStatus,
    link::Link,
    link_error::LinkError,
};
use crate::{
    config::{Config, Provider, Secret, SecretSource, YubiHsmConfig},
    keyring::{
        device::Trouble,
        secret_source::{self, SECRET_MAX_BYTES},
    },
    process::{descriptors, environment, lock::lock, resolver::Resolver},
};
use std::{
    collections::BTreeMap,
    io,
    ops::Deref,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use yubihsm::{Credentials, authentication::Key};
use zeroize::Zeroizing;

/// How many sessions the signer may open at once.
const SESSIONS_AT_ONCE: u32 = 4;
/// How many sessions a command may open at once. A device has 16.
const SESSIONS_OF_A_COMMAND: u32 = 12;
/// How long until one more session may be opened in place of one that was not closed. Such a session lives for 30 s on
/// the device. With those opened at once, there are never more than 12 of the device's 16, which leaves some for others.
/// They are spread out, instead of eight and then none for half a minute: a fault is usually over within a second.
const SESSION_EVERY: Duration = Duration::from_millis(3750);

/// How long after its last answer a session that was left is still closed: a silent one lives for 30 s on the device.
const LEFT_IS_OURS: Duration = Duration::from_secs(25);
/// How long the device may take to close a session that nobody needs any more.
const CLOSE_PATIENCE: Duration = Duration::from_millis(300);

/// Login to one device.
pub struct Login {
    config: YubiHsmConfig,
    /// The key derived from the password, once that could be read and until the device refuses it. Wiped when dropped.
    credentials: Option<Credentials>,
    /// Whether the key was handed over, so that there is no password to be read again.
    by_key: bool,
    sessions: Arc<Mutex<Sessions>>,
    link: Arc<Mutex<Link>>,
}

/// A session that is closed when this is dropped.
pub struct OpenSession {
    /// Always there until it is dropped.
    client: Option<Client>,
    opened: Instant,
    sessions: Arc<Mutex<Sessions>>,
}

impl Login {
    /// Accesses the device of a section. Reads no password yet, and connects to nothing.
    pub fn new(config: YubiHsmConfig, resolver: Resolver) -> Self {
        let link = Link::new(&config.adapter, config.serial_number.as_deref(), resolver);
        Self { config, credentials: None, by_key: false, sessions: Arc::default(), link: Arc::new(Mutex::new(link)) }
    }

    /// For a command, which opens several sessions one after the other and then ends. A signer gets fewer, because it
    /// keeps asking.
    #[must_use]
    pub fn for_a_command(self) -> Self {
        lock(&self.sessions).at_once = SESSIONS_OF_A_COMMAND;
        self
    }

    /// Accesses the same device with another authentication key. Sessions are counted together.
    pub(crate) fn by_key(&self, auth_key: u16, key: Key) -> Self {
        let config = YubiHsmConfig { auth_key, ..self.config.clone() };
        let credentials = Some(Credentials::new(auth_key, key));
        Self { config, credentials, by_key: true, sessions: Arc::clone(&self.sessions), link: Arc::clone(&self.link) }
    }

    /// Accesses the same device with the same authentication key. Sessions are counted together.
    pub(crate) fn again(&self) -> Self {
        Self {
            config: self.config.clone(),
            credentials: self.credentials.clone(),
            by_key: self.by_key,
            sessions: Arc::clone(&self.sessions),
            link: Arc::clone(&self.link),
        }
    }

    /// Requires this serial number from now on.
    pub(crate) fn pin_serial_number(&mut self, serial_number: String) {
        lock(&self.link).pin_serial_number(&serial_number);
        self.config.serial_number = Some(serial_number);
    }

    /// Looks whether the connector, or the device on USB, is there. Uses no session.
    pub(super) fn look(&self, deadline: Instant) -> Result<(), Trouble> {
        lock(&self.link).look(deadline).map_err(LinkError::trouble)
    }

    /// What the device shows without a session. Returns soon after `deadline` at the latest.
    pub fn device_info(&self, deadline: Instant) -> Result<DeviceInfo, Trouble> {
        client::device_info(&self.link, deadline)
    }

    /// The status of the device's connector. `None` on USB, which has no connector.
    pub fn connector_status(&self, deadline: Instant) -> Result<Option<ConnectorStatus>, Trouble> {
        lock(&self.link).status(deadline)
    }

    pub fn config(&self) -> &YubiHsmConfig {
        &self.config
    }

    /// Opens a session. Returns soon after `deadline` at the latest.
    pub fn open(&mut self, deadline: Instant) -> Result<OpenSession, Trouble> {
        let credentials = self.credentials()?;
        // First, so that one which is not there costs no session.
        self.look(deadline)?;
        let in_trouble = lock(&self.sessions).in_trouble();
        if in_trouble {
            // Nor does one that is there and does not answer.
            self.device_info(deadline)?;
        }
        let left = std::mem::take(&mut lock(&self.sessions).left);
        for Left { client, opened } in left {
            // The device may have given the number of an older one to somebody else.
            if client.last_answer().elapsed() < LEFT_IS_OURS {
                close(&client, opened, &self.sessions, deadline);
            }
        }
        lock(&self.sessions).take(Instant::now())?;
        let opened = Client::open(&self.config, Arc::clone(&self.link), &credentials, deadline);
        let mut sessions = lock(&self.sessions);
        match opened {
            Ok(client) => {
                sessions.last_failure = None;
                let sessions = Arc::clone(&self.sessions);
                Ok(OpenSession { client: Some(client), opened: Instant::now(), sessions })
            }
            Err(NotOpened { trouble, takes_session }) => {
                sessions.last_failure = Some(trouble.clone());
                if !takes_session {
                    sessions.give_back();
                }
                if matches!(trouble, Trouble::WrongPassword(_)) && !self.by_key {
                    // An operator corrects it in its file.
                    self.credentials = None;
                }
                Err(trouble)
            }
        }
    }

    fn credentials(&mut self) -> Result<Credentials, Trouble> {
        if let Some(credentials) = &self.credentials {
            return Ok(credentials.clone());
        }
        // Read again after an error: an operator can correct the file while this runs.
        let password = read_password(&self.config.password).map_err(|text: String| Trouble::Broken(text.into()))?;
        let credentials = Credentials::from_password(self.config.auth_key, password.as_bytes());
        Ok(self.credentials.insert(credentials).clone())
    }
}

impl Deref for OpenSession {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for OpenSession {
    fn drop(&mut self) {
        let Some(client) = self.client.take() else { return };
        let closed = match client.state() {
            SessionState::Good => close(&client, self.opened, &self.sessions, Instant::now() + CLOSE_PATIENCE),
            // Whoever uses the device next waits for this, not whoever met the trouble.
            SessionState::Unclear => false,
            SessionState::Gone => {
                lock(&self.sessions).ended(self.opened);
                true
            }
        };
        if !closed {
            lock(&self.sessions).left.push(Left { client, opened: self.opened });
        }
    }
}

/// Has the device end a session. Returns whether it has.
fn close(client: &Client, opened: Instant, sessions: &Mutex<Sessions>, deadline: Instant) -> bool {
    let closed = client.close(deadline.min(Instant::now() + CLOSE_PATIENCE));
    if closed {
        lock(sessions).ended(opened);
    }
    closed
}

/// The password. One that does not stand in the configuration is taken without the white space at its end, as tmkms reads
/// its file. The error shows nothing of it.
pub fn read_password(source: &SecretSource) -> Result<Zeroizing<String>, String> {
    let content = secret_source::read(source, "password")?;
    secret_source::refuse_impossible(&content).map_err(|what| format!("the password in {source} {what}"))?;
    let text = std::str::from_utf8(&content).map_err(|_| format!("the password in {source} is not UTF-8 text"))?;
    let text = if matches!(source, SecretSource::Inline(_)) { text } else { text.trim_end() };
    match text.len() {
        0 => Err(format!("the password in {source} is empty")),
        1..=SECRET_MAX_BYTES => Ok(Zeroizing::new(text.to_owned())),
        _ => Err(format!("the password in {source} has more than {SECRET_MAX_BYTES} bytes")),
    }
}

/// Reads the passwords that are there only at the start: those of descriptors, which can be read once, and of the
/// environment, which nothing that is started from here shall have. From then on they are in `config`. One that cannot be
/// read stays where it is; its device says so.
pub fn take_passwords(config: &mut Config) -> io::Result<()> {
    let mut taken: BTreeMap<String, Option<Zeroizing<String>>> = BTreeMap::new();
    let (mut variables, mut descriptors) = (Vec::new(), Vec::new());
    for provider in &mut config.providers {
        let Provider::YubiHsm(section) = provider else { continue };
        variables.extend(section.password.variable().map(str::to_owned));
        descriptors.extend(section.password.descriptor());
        if let source @ (SecretSource::Env(_) | SecretSource::Fd(_)) = &section.password {
            // Several sections may have one password.
            let password = taken.entry(source.to_string()).or_insert_with(|| read_password(source).ok());
            if let Some(password) = password {
                section.password = SecretSource::Inline(Secret::new(password.as_str()));
            }
        }
    }
    descriptors::close_on_exec(descriptors);
    environment::forget(variables.iter().map(String::as_str))
}

/// Limits how many sessions are opened: a bucket that holds a few, and gets another one every few seconds.
struct Sessions {
    /// How many the bucket can hold.
    at_once: u32,
    /// How long it takes until the bucket is full again, as of `at`.
    missing: Duration,
    at: Option<Instant>,
    /// Why the last session was not opened.
    last_failure: Option<Trouble>,
    /// Sessions that nobody needs any more and that the device may still hold.
    left: Vec<Left>,
}

/// A session that was not closed.
struct Left {
    client: Client,
    opened: Instant,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { at_once: SESSIONS_AT_ONCE, missing: Duration::ZERO, at: None, last_failure: None, left: Vec::new() }
    }
}

impl Sessions {
    /// Takes one session out of the bucket. Fails if there is none.
    fn take(&mut self, now: Instant) -> Result<(), Trouble> {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.missing = self.missing.saturating_sub(passed);
        self.at = Some(now);
        if self.missing + SESSION_EVERY > SESSION_EVERY * self.at_once {
            let why = self.last_failure.as_ref().map_or("it loses one session after the other", Trouble::text);
            let text = format!(
                "{why}. Waiting for at most {} s: the device has 16 sessions, and keeps each for 30 s",
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

    /// Whether the last session was not opened, or ended without a clear answer.
    fn in_trouble(&self) -> bool {
        self.last_failure.is_some() || !self.left.is_empty()
    }

    /// Puts a session back that the device does not hold any more. The bucket has long got another one for one that was
    /// open for a while.
    fn ended(&mut self, opened: Instant) {
        if opened.elapsed() < SESSION_EVERY {
            self.give_back();
        }
    }

    /// Puts a session back that never reached the device.
    fn give_back(&mut self) {
        self.missing = self.missing.saturating_sub(SESSION_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::Write as _,
        os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
        path::Path,
    };

    fn file(directory: &Path, content: &[u8], mode: u32) -> SecretSource {
        let path = directory.join("password");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        SecretSource::File(path)
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
        assert_eq!(*read_password(&SecretSource::Inline(Secret::new("password\n"))).unwrap(), "password\n");
    }

    #[test]
    fn a_password_of_a_descriptor_is_read_once_for_all_sections_that_name_it_and_handed_to_nobody() {
        // What a shell hands on: a descriptor that stays open in what is started.
        let handed = |text: &str| {
            let (reader, mut writer) = io::pipe().unwrap();
            writer.write_all(text.as_bytes()).unwrap();
            rustix::io::dup(reader).unwrap()
        };
        let (both, none) = (handed("pass word\n"), handed("\n"));
        let device = |port: u16, number: i32| {
            format!(
                "[[providers.yubihsm]]\nadapter = {{ type = \"http\", addr = \"h:{port}\" }}\n\
                 auth = {{ key = 1, password = {{ fd = {number} }} }}\nkeys = [{{ chain_ids = [\"a-1\"], key = 1 }}]\n"
            )
        };
        let text = format!(
            "[[chain]]\nid = \"a-1\"\nkey_format = {{ type = \"hex\" }}\n\
             [[validator]]\naddr = \"unix:///a\"\nchain_id = \"a-1\"\n{}{}{}",
            device(1, both.as_raw_fd()),
            device(2, both.as_raw_fd()),
            device(3, none.as_raw_fd())
        );
        let (mut config, _) = Config::parse(Path::new("tmkms.toml"), &text).unwrap();
        take_passwords(&mut config).unwrap();
        let read: Vec<_> = config.yubihsm().iter().map(|section| section.password.clone()).collect();
        for source in &read[..2] {
            assert_eq!(*read_password(source).unwrap(), "pass word");
        }
        assert_eq!(read[2].to_string(), format!("the file descriptor {}", none.as_raw_fd()), "and its device says why");
        for descriptor in [both, none] {
            assert!(rustix::io::fcntl_getfd(&descriptor).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
        }
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
