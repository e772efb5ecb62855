//! Host names: who a node or a connector is now.
//!
//! Looking up a name takes files, sockets and C code that reads what comes from the network. None of that is for the
//! signer: each name of the configuration has a small process of its own, started before the signer confines itself,
//! that can look up this one name and nothing else. A configuration of addresses alone has none.

use super::{
    helper::{self, Helper},
    sandbox::{self, Switches},
};
use crate::config::{Config, NodeAddress, YubiHsmAdapter};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex},
    time::Duration,
};

/// The hidden command that becomes the process of a name.
pub const RESOLVER_COMMAND: &str = "name-resolver";

/// How long a caller waits for an answer; longer than one try of a name server. A later answer serves the next caller.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest line of either side.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// The names of a configuration. By default there are none, and each name is looked up by this process itself.
#[derive(Clone, Default)]
pub struct Names(Arc<BTreeMap<String, Mutex<Name>>>);

/// A name and its process.
struct Name {
    helper: Helper,
    /// Whether an answer is still to come.
    asked: bool,
}

/// What the process of a name has to know.
#[derive(Deserialize, Serialize)]
struct Task {
    name: String,
    switches: Switches,
}

impl Names {
    /// Starts a process for each name of the configuration.
    pub fn start(config: &Config) -> io::Result<Self> {
        let switches = Switches::of(config);
        let start = |name: String| {
            let helper = Helper::start(RESOLVER_COMMAND)?;
            write_line(&mut helper.control(), &Task { name: name.clone(), switches })?;
            helper.control().set_read_timeout(Some(PATIENCE))?;
            Ok((name, Mutex::new(Name { helper, asked: false })))
        };
        names_of(config).into_iter().map(start).collect::<io::Result<_>>().map(|names| Self(Arc::new(names)))
    }

    /// Calls `on_end` from another thread when the process of any name has ended.
    pub fn watch(&self, on_end: impl Fn() + Clone + Send + 'static) -> io::Result<()> {
        self.0.values().try_for_each(|name| lock(name).helper.watch(on_end.clone()))
    }

    /// Every address that `host` has now.
    pub fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self.0.get(host) {
            None => Ok((host, port).to_socket_addrs()?.collect()),
            Some(name) => {
                let addresses = lock(name).ask()?;
                Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
            }
        }
    }
}

impl Name {
    fn ask(&mut self) -> io::Result<Vec<IpAddr>> {
        let mut control = self.helper.control();
        if !self.asked {
            control.write_all(b"\n")?;
            self.asked = true;
        }
        // The answer is one line, and nothing follows it before the next question.
        let answer: Result<Vec<IpAddr>, String> = match read_line(&mut BufReader::new(&*control)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no name server answers in time"));
            }
            other => other?,
        };
        drop(control);
        self.asked = false;
        answer.map_err(io::Error::other)
    }
}

fn lock(name: &Mutex<Name>) -> std::sync::MutexGuard<'_, Name> {
    name.lock().expect("nobody panics with this lock")
}

/// Every host name that is dialled.
fn names_of(config: &Config) -> BTreeSet<String> {
    let nodes = config.validators.iter().filter_map(|validator| match &validator.address {
        NodeAddress::Tcp { host, .. } => Some(host),
        NodeAddress::Unix { .. } => None,
    });
    let connectors = config.yubihsm.iter().filter_map(|provider| match &provider.adapter {
        YubiHsmAdapter::Http { host, .. } => Some(host),
        YubiHsmAdapter::Usb { .. } => None,
    });
    nodes.chain(connectors).filter(|host| host.parse::<IpAddr>().is_err()).cloned().collect()
}

/// The program of the hidden command `name-resolver`: each empty line on its control stream is answered with the
/// addresses of its name. Ends with the stream.
pub fn run() -> io::Result<()> {
    let mut control = helper::standard_input()?;
    let mut questions = BufReader::new(control.try_clone()?);
    let Task { name, switches } = read_line(&mut questions)?;
    sandbox::confine_resolver(switches).map_err(io::Error::other)?;
    let mut question = String::new();
    while questions.read_line(&mut question)? > 0 {
        question.clear();
        let addresses = (name.as_str(), 0).to_socket_addrs().map_err(|error| error.to_string());
        let addresses = addresses.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>());
        write_line(&mut control, &addresses)?;
    }
    Ok(())
}

pub(super) fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    stream.write_all(&line)
}

pub(super) fn read_line<T: DeserializeOwned>(stream: &mut impl io::BufRead) -> io::Result<T> {
    let mut line = String::new();
    match stream.take(LINE_MAX_BYTES).read_line(&mut line)? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process at the other end has ended")),
        _ => Ok(serde_json::from_str(&line)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn only_names_get_a_process() {
        let text = r#"
[[chain]]
id = "a-1"
key_format = { type = "hex" }
[[validator]]
addr = "unix:///a"
chain_id = "a-1"
[[validator]]
addr = "tcp://b.example:1"
chain_id = "a-1"
secret_key = "identity.key"
[[validator]]
addr = "tcp://[::1]:1"
chain_id = "a-1"
secret_key = "identity.key"
[[validator]]
addr = "tcp://b.example:2"
chain_id = "a-1"
secret_key = "identity.key"
[[providers.yubihsm]]
adapter = { type = "http", addr = "tcp://localhost:12345" }
auth = { key = 1, password = "password" }
keys = [{ chain_ids = ["a-1"], key = 1 }]
"#;
        let (config, _) = Config::parse(Path::new("tmkms.toml"), text).unwrap();
        assert_eq!(names_of(&config).into_iter().collect::<Vec<_>>(), ["b.example", "localhost"]);
    }

    #[test]
    fn an_address_needs_no_process_and_no_lookup() {
        let found = Names::default().resolve("::1", 7).unwrap();
        assert_eq!(found, ["[::1]:7".parse().unwrap()]);
    }

    #[test]
    fn a_line_that_has_no_end_is_cut_off() {
        let endless = vec![b'1'; 2 * 64 * 1024];
        assert!(read_line::<Vec<IpAddr>>(&mut endless.as_slice()).is_err());
        assert!(read_line::<Vec<IpAddr>>(&mut &b""[..]).is_err());
    }
}
