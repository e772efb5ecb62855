//! Looks up the host names of nodes and connectors.
//!
//! A lookup needs files, sockets and C code that reads from the network. The signer does none of that: for each host
//! name of the configuration it starts a small process before it confines itself. That process can look up this one
//! name and nothing else. A configuration with only IP addresses needs none.

use super::{
    frames::{self, read_json, read_short_json, write_json},
    helper::{self, Helper, own_program},
    lock::lock,
    sandbox::{self, Switches},
};
use crate::config::Config;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, ToSocketAddrs as _},
    os::unix::{fs::MetadataExt as _, net::UnixStream},
    process::{Child, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};
use tracing::warn;

/// The hidden command of a name's process.
pub const RESOLVER_COMMAND: &str = "name-resolver";
/// The hidden command of the process that looks the name up.
pub const LOOKUP_COMMAND: &str = "name-lookup";

/// The variable with glibc's `resolv.conf` options, and the option to use only TCP.
const RESOLVER_OPTIONS: &str = "RES_OPTIONS";
const USE_TCP: &str = "use-vc";
const DNS_PORT: u16 = 53;

/// How long a caller waits for an answer: longer than one attempt at a name server. A later answer goes to the next
/// caller.
const PATIENCE: Duration = Duration::from_secs(10);

/// The host names of a configuration. The default has none: this process looks up each name itself.
#[derive(Clone, Default)]
pub struct Resolver(Arc<BTreeMap<String, Mutex<Name>>>);

/// A name and its process.
struct Name {
    helper: Helper,
    /// Whether a question is still unanswered.
    asked: bool,
    /// Whether the warning about UDP was logged.
    warned: bool,
}

/// The addresses of a name, or why the lookup failed.
type Found = Result<Vec<IpAddr>, String>;

/// The answer of a name's process.
#[derive(Deserialize, Serialize)]
struct LookupAnswer {
    addresses: Found,
    /// Whether it had to use UDP.
    udp: bool,
}

/// The first message to a name's process.
#[derive(Deserialize, Serialize)]
struct LookupTask {
    name: String,
    switches: Switches,
    udp: bool,
}

impl Resolver {
    /// Starts a process for each name of the configuration.
    pub fn start(config: &Config) -> io::Result<Self> {
        let switches = Switches::of(config);
        let mut names = BTreeMap::new();
        for name in config.needs().names {
            let helper = Helper::start(RESOLVER_COMMAND)?;
            write_json(&mut *helper.control(), &LookupTask { name: name.clone(), switches, udp: false })?;
            helper.control().set_read_timeout(Some(PATIENCE))?;
            names.insert(name, Mutex::new(Name { helper, asked: false, warned: false }));
        }
        Ok(Self(Arc::new(names)))
    }

    /// Calls `on_end` from another thread when any name's process ends.
    pub fn watch(&self, on_end: impl Fn() + Clone + Send + 'static) -> io::Result<()> {
        self.0.values().try_for_each(|name| lock(name).helper.watch(on_end.clone()))
    }

    /// All current addresses of `host`.
    pub fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self.0.get(host) {
            None => Ok((host, port).to_socket_addrs()?.collect()),
            Some(name) => {
                let addresses = lock(name).ask(host)?;
                Ok(addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect())
            }
        }
    }
}

impl Name {
    fn ask(&mut self, host: &str) -> io::Result<Vec<IpAddr>> {
        let mut control = self.helper.control();
        if !self.asked {
            frames::ask(&mut *control)?;
            self.asked = true;
        }
        let answer: LookupAnswer = match read_short_json(&mut *control) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "no name server answered in time"));
            }
            other => other?,
        };
        drop(control);
        self.asked = false;
        if answer.udp && !std::mem::replace(&mut self.warned, true) {
            warn!(
                host,
                "looked up over UDP, which the sandbox cannot limit to port 53: no name server in /etc/resolv.conf accepts TCP"
            );
        }
        answer.addresses.map_err(io::Error::other)
    }
}

/// The program of the hidden command `name-resolver`: answers each question on its control stream with the addresses of
/// its name. Ends with the stream.
///
/// It reads nothing from the network itself, but starts a process that does. That process can read only files that
/// existed when it was confined, so it is replaced after one of them was replaced, and after a failed lookup.
pub fn run() -> io::Result<()> {
    let mut control = helper::standard_input()?;
    let LookupTask { name, switches, .. } = read_json(&mut control)?;
    sandbox::confine_name_keeper(switches).map_err(io::Error::other)?;
    let mut worker: Option<LookupProcess> = None;
    while frames::is_asked(&mut control)? {
        let kept = worker.take().filter(|worker| worker.files == files_now());
        let mut at_work = match kept {
            Some(worker) => worker,
            None => LookupProcess::start(&name, switches)?,
        };
        let addresses = at_work.ask();
        let answer = LookupAnswer { udp: at_work.udp, addresses };
        worker = answer.addresses.is_ok().then_some(at_work);
        write_json(&mut control, &answer)?;
    }
    Ok(())
}

/// The program of the hidden command `name-lookup`, which does the lookups for `name-resolver`.
pub fn run_lookup() -> io::Result<()> {
    let mut control = helper::standard_input()?;
    let LookupTask { name, switches, udp } = read_json(&mut control)?;
    sandbox::confine_resolver(switches, udp).map_err(io::Error::other)?;
    while frames::is_asked(&mut control)? {
        let addresses = (name.as_str(), 0).to_socket_addrs().map_err(|error| error.to_string());
        let addresses: Found = addresses.map(|found| found.map(|address| address.ip()).collect());
        write_json(&mut control, &addresses)?;
    }
    Ok(())
}

/// The process that looks up a name. Killed on drop.
struct LookupProcess {
    process: Child,
    control: UnixStream,
    /// Whether it may use UDP.
    udp: bool,
    /// The identity of the files that it may read, from when it was started.
    files: Vec<Option<(u64, u64)>>,
}

impl LookupProcess {
    fn start(name: &str, switches: Switches) -> io::Result<Self> {
        let udp = !name_servers_take_tcp();
        let files = files_now();
        let (mut control, theirs) = UnixStream::pair()?;
        let mut command = own_program(LOOKUP_COMMAND, theirs);
        if !udp {
            command.env(RESOLVER_OPTIONS, USE_TCP);
        }
        let process = command.stderr(Stdio::inherit()).spawn()?;
        let worker = Self { process, udp, files, control: control.try_clone()? };
        // If it has already ended, the first question fails.
        let _ = write_json(&mut control, &LookupTask { name: name.into(), switches, udp });
        Ok(worker)
    }

    fn ask(&mut self) -> Found {
        let asked = frames::ask(&mut self.control).and_then(|()| read_short_json(&mut self.control));
        asked.unwrap_or_else(|error| Err(format!("the lookup process failed: {error}")))
    }
}

impl Drop for LookupProcess {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Device and inode number of each file that a lookup reads.
fn files_now() -> Vec<Option<(u64, u64)>> {
    sandbox::name_service_files().map(|path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))).collect()
}

/// Whether a name server of this machine accepts TCP. Landlock limits ports for TCP but not for UDP. Only glibc can be
/// restricted to TCP.
fn name_servers_take_tcp() -> bool {
    /// The C library asks no more.
    const SERVERS: usize = 3;
    const WITHIN: Duration = Duration::from_secs(1);
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    cfg!(target_env = "gnu")
        && name_servers(&text)
            .into_iter()
            .take(SERVERS)
            .any(|server| TcpStream::connect_timeout(&SocketAddr::new(server, DNS_PORT), WITHIN).is_ok())
}

/// The name servers of a `resolv.conf`.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let servers: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("nameserver")?.split_whitespace().next()?.parse().ok())
        .collect();
    if servers.is_empty() { vec![Ipv4Addr::LOCALHOST.into()] } else { servers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn name_servers_are_those_that_the_c_library_asks() {
        let text =
            "# nameserver 1.1.1.1\nsearch a.example\nnameserver 192.0.2.1\nnameserver\t2001:db8::1 # a\nnameserver x\n";
        assert_eq!(name_servers(text), ["192.0.2.1".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(name_servers(""), [IpAddr::from(Ipv4Addr::LOCALHOST)]);
    }

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
        assert_eq!(config.needs().names.into_iter().collect::<Vec<_>>(), ["b.example", "localhost"]);
    }

    #[test]
    fn an_address_needs_no_process_and_no_lookup() {
        let found = Resolver::default().resolve("::1", 7).unwrap();
        assert_eq!(found, ["[::1]:7".parse().unwrap()]);
    }
}
