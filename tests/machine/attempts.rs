//! What a confined process can do. Each attempt runs in a process of its own, which is confined like the signer or like a process
//! beside it, and is allowed, refused or killed as the table says.

use super::confined::{CHAIN, SIGSYS, kernel_confines};
use crate::support::{mock_node::MockNode, signer::Home};
use highwater::{
    config::Config,
    process::sandbox::{self, Feature, ModuleLimits, Sandbox, Switches},
};
use std::{
    env, fs,
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::unix::{
        net::UnixStream,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::Command,
    thread,
};

/// Tells a copy of this test what to try, and where its home is.
const ATTEMPT: &str = "HIGHWATER_TEST_ATTEMPT";
const ATTEMPT_HOME: &str = "HIGHWATER_TEST_ATTEMPT_HOME";
/// The same for the addresses of the signer's node and of a node that is not its own.
const NODE: &str = "HIGHWATER_TEST_ATTEMPT_NODE";
const OTHER: &str = "HIGHWATER_TEST_ATTEMPT_OTHER";

/// How an attempt ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Allowed,
    /// By the kernel, with the process.
    Killed,
    /// With an error.
    Refused,
}

/// Attempts of a confined process. Each name begins with the confinement in which it is tried: `close` is a signer that asks
/// its devices, `seal` one that signs, `spawner` the process that starts those of tokens, `module` the child of a token,
/// `resolver` the process that looks up a host name. What follows it there is peculiar about it: that its profile gives the
/// module the network or sockets, that its section names the signer's home, that no name server takes TCP, or that
/// there is no Landlock.
const ATTEMPTS: [(&str, End); 89] = [
    ("close bind", End::Refused),
    ("close clone3", End::Refused),
    ("close connect allowed", End::Allowed),
    ("close connect other", End::Refused),
    ("close exec", End::Killed),
    ("close fastopen sendmsg", End::Refused),
    ("close fastopen sendto", End::Refused),
    ("close mptcp", End::Refused),
    ("close namespace", End::Killed),
    ("close open passwd", End::Refused),
    ("close ptrace", End::Killed),
    ("close thread", End::Allowed),
    ("close write state", End::Refused),
    ("close x32", End::Killed),
    ("close-landlock-off signal other", End::Refused),
    ("module bind", End::Refused),
    ("module clone3", End::Refused),
    ("module connect other", End::Refused),
    ("module exec", End::Refused),
    ("module mount", End::Killed),
    ("module namespace", End::Killed),
    ("module open passwd", End::Allowed),
    ("module ptrace", End::Killed),
    ("module read config", End::Refused),
    ("module read etc", End::Refused),
    ("module read home", End::Refused),
    ("module read key", End::Refused),
    ("module read named", End::Allowed),
    ("module signal self", End::Allowed),
    ("module udp", End::Refused),
    ("module unix stream", End::Refused),
    ("module write named", End::Allowed),
    ("module write state", End::Refused),
    ("module x32", End::Killed),
    ("module-landlock-off signal group", End::Refused),
    ("module-landlock-off signal other", End::Refused),
    ("module-named-home read key", End::Refused),
    ("module-named-home write state", End::Refused),
    ("module-network connect other", End::Allowed),
    ("module-network mptcp", End::Refused),
    ("module-network read key", End::Refused),
    ("module-network udp", End::Allowed),
    ("module-network unix stream", End::Refused),
    ("module-sockets connect other", End::Refused),
    ("module-sockets unix stream", End::Allowed),
    ("resolver bind", End::Refused),
    ("resolver clone3", End::Refused),
    ("resolver connect other", End::Refused),
    ("resolver create beside", End::Refused),
    ("resolver exec", End::Killed),
    ("resolver fastopen sendmsg", End::Refused),
    ("resolver fastopen sendto", End::Refused),
    ("resolver mptcp", End::Refused),
    ("resolver namespace", End::Killed),
    ("resolver open passwd", End::Allowed),
    ("resolver ptrace", End::Killed),
    ("resolver read etc", End::Refused),
    ("resolver read hosts", End::Allowed),
    ("resolver read key", End::Refused),
    ("resolver udp", End::Refused),
    ("resolver x32", End::Killed),
    ("resolver-landlock-off signal other", End::Refused),
    ("resolver-udp mptcp", End::Refused),
    ("resolver-udp udp", End::Allowed),
    ("seal bind", End::Refused),
    ("seal connect allowed", End::Allowed),
    ("seal connect other", End::Refused),
    ("seal create beside", End::Refused),
    ("seal exec", End::Killed),
    ("seal fastopen sendmsg", End::Refused),
    ("seal fastopen sendto", End::Refused),
    ("seal mount", End::Killed),
    ("seal mptcp", End::Refused),
    ("seal namespace", End::Killed),
    ("seal old thread", End::Refused),
    ("seal open passwd", End::Refused),
    ("seal ptrace", End::Killed),
    ("seal read key", End::Allowed),
    ("seal signal self", End::Refused),
    ("seal thread", End::Allowed),
    ("seal udp", End::Refused),
    ("seal unix listen", End::Refused),
    ("seal unix stream", End::Allowed),
    ("spawner clone3", End::Refused),
    ("spawner exec", End::Allowed),
    ("spawner mount", End::Killed),
    ("spawner namespace", End::Killed),
    ("spawner signal other", End::Refused),
    ("spawner x32", End::Killed),
];

#[test]
fn a_confined_process_can_do_nothing_but_sign() {
    if let Some(attempt) = env::var_os(ATTEMPT) {
        let home = env::var_os(ATTEMPT_HOME).unwrap();
        attempt_in(Path::new(&home), attempt.to_str().unwrap());
    }
    if !kernel_confines() {
        return;
    }
    let node = MockNode::tcp().unwrap();
    let other = MockNode::tcp().unwrap();
    let mut wrong = Vec::new();
    for (attempt, expected) in ATTEMPTS {
        let home = Home::new().chain(CHAIN, "").node(&node.address(), CHAIN, "").init();
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "attempts::a_confined_process_can_do_nothing_but_sign", "--nocapture"]);
        command.env(ATTEMPT, attempt).env(ATTEMPT_HOME, home.path(""));
        command.env(NODE, node.socket().to_string()).env(OTHER, other.socket().to_string());
        let output = command.output().unwrap();
        let end = match (output.status.code(), output.status.signal()) {
            (Some(0), _) => End::Allowed,
            (Some(1), _) => End::Refused,
            (_, Some(SIGSYS)) => End::Killed,
            _ => panic!("{attempt}: {output:?}"),
        };
        if end != expected {
            wrong.push(format!("{attempt}: {end:?}, not {expected:?}: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Confines this process as far as the attempt asks, then tries it. Ends the process with 0 if it worked.
fn attempt_in(home: &Path, attempt: &str) -> ! {
    let (confinement, what) = attempt.split_once(' ').unwrap();
    let (process, peculiar) = confinement.split_once('-').unwrap_or((confinement, ""));
    if peculiar == "landlock-off" {
        let config = fs::read_to_string(home.join("tmkms.toml")).unwrap();
        fs::write(home.join("tmkms.toml"), format!("{config}\n[highwater]\ndanger_no_landlock = true\n")).unwrap();
    }
    let (config, _) = Config::load(&home.join("tmkms.toml")).unwrap();
    let switches = Switches::of(&config);
    fs::write(home.join("named"), "").unwrap();
    // The test harness has threads, so a fresh one stands for the main thread.
    let done = thread::scope(|scope| {
        let confine_and_try = || {
            let (go, wait) = std::sync::mpsc::channel::<()>();
            match process {
                "module" => confine_module(home, peculiar, switches),
                "resolver" => sandbox::confine_resolver(switches, peculiar == "udp").unwrap(),
                "spawner" => sandbox::confine_spawner(switches).unwrap(),
                _ => {
                    let mut sandbox = Sandbox::begin(&config).unwrap();
                    sandbox.close(&config).unwrap();
                    // Begun before the last filter, which has to reach it too. Landlock knows nothing of UDP.
                    let old = thread::spawn(move || wait.recv().is_ok() && UdpSocket::bind("127.0.0.1:0").is_ok());
                    if process == "seal" {
                        let report = sandbox.seal(&config, true).unwrap();
                        assert!(report.features().all(|(_, on)| on), "{report:?}");
                        assert!(report.features().any(|(feature, _)| feature == Feature::Landlock));
                    }
                    if what == "old thread" {
                        go.send(()).unwrap();
                        return old.join().unwrap();
                    }
                }
            }
            try_out(home, what)
        };
        scope.spawn(confine_and_try).join().unwrap()
    });
    std::process::exit(i32::from(!done))
}

fn confine_module(home: &Path, peculiar: &str, switches: Switches) {
    let named = home.join("named");
    let mut files = vec![(named.as_path(), true)];
    if peculiar == "named-home" {
        files.push((home, true));
    }
    let never = [home.join(format!("{CHAIN}.state")), home.join(format!("{CHAIN}.key"))];
    let limits = ModuleLimits { files, never: &never, network: peculiar == "network", sockets: peculiar == "sockets" };
    sandbox::confine_module(switches, &limits).unwrap();
}

fn try_out(home: &Path, what: &str) -> bool {
    let address = |name: &str| -> SocketAddr { env::var(name).unwrap().parse().unwrap() };
    let own = i32::try_from(std::process::id()).unwrap();
    let key = home.join(format!("{CHAIN}.key"));
    match what {
        "bind" => TcpListener::bind("127.0.0.1:0").is_ok(),
        "clone3" => raw::clone3(),
        "connect allowed" => TcpStream::connect(address(NODE)).is_ok(),
        "connect other" => TcpStream::connect(address(OTHER)).is_ok(),
        "create beside" => fs::write(home.join("new"), "new").is_ok(),
        // In place of this process: a child would be killed alone. It returns only if that is refused.
        "exec" => Command::new("/bin/true").exec().raw_os_error().is_none(),
        "fastopen sendmsg" => raw::fastopen(address(OTHER).port(), true),
        "fastopen sendto" => raw::fastopen(address(OTHER).port(), false),
        "mount" => raw::mount(),
        "mptcp" => raw::mptcp(address(OTHER).port()),
        "namespace" => raw::namespace(),
        "open passwd" => fs::read("/etc/passwd").is_ok(),
        "ptrace" => raw::ptrace(),
        "read config" => fs::read(home.join("tmkms.toml")).is_ok(),
        "read etc" => {
            let files = ["/etc/profile", "/etc/shells", "/etc/login.defs", "/etc/fstab"];
            let there = files.iter().find(|path| Path::new(path).exists()).expect("some of them is there");
            fs::read(there).is_ok()
        }
        "read home" => fs::read_dir(home).is_ok(),
        "read hosts" => fs::read("/etc/hosts").is_ok(),
        "read key" => fs::read(key).is_ok(),
        "read named" => fs::read(home.join("named")).is_ok(),
        // Whoever has started us.
        "signal group" => raw::signal(0),
        "signal other" => raw::signal(i32::try_from(std::os::unix::process::parent_id()).unwrap()),
        "signal self" => raw::signal(own),
        "thread" => thread::Builder::new().spawn(|| ()).unwrap().join().is_ok(),
        "udp" => UdpSocket::bind("127.0.0.1:0").is_ok(),
        "unix listen" => std::os::unix::net::UnixListener::bind(home.join("new.sock")).is_ok(),
        // Nobody listens; a socket there is.
        "unix stream" => {
            UnixStream::connect(home.join("none.sock")).unwrap_err().kind() == std::io::ErrorKind::NotFound
        }
        "write named" => fs::write(home.join("named"), "new").is_ok(),
        "write state" => fs::OpenOptions::new().write(true).open(home.join(format!("{CHAIN}.state.highwater"))).is_ok(),
        "x32" => raw::x32(),
        other => panic!("what is {other:?}?"),
    }
}

/// Calls that std has no safe function for, each with arguments that can do no harm should it be let through.
#[allow(unsafe_code)]
mod raw {
    use std::{mem, ptr};

    /// Whether `clone3` is more than unknown here. Without arguments it starts nothing.
    pub(super) fn clone3() -> bool {
        // SAFETY: the arguments have no length, so none are read.
        let answer = unsafe { libc::syscall(libc::SYS_clone3, ptr::null::<libc::c_void>(), 0) };
        answer != -1 || std::io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS)
    }

    /// Starts a process in a namespace of its own, which ends at once.
    pub(super) fn namespace() -> bool {
        // SAFETY: without a stack it is a fork, and the new process does nothing but end.
        let process = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0) };
        if process == 0 {
            // SAFETY: ends this process without running anything of it.
            unsafe { libc::_exit(0) };
        }
        process > 0
    }

    /// Sends to a port of this machine over a socket that was never connected.
    pub(super) fn fastopen(port: u16, by_message: bool) -> bool {
        let address = localhost(port);
        let socket = stream(0);
        let mut byte = 7_u8;
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        let sent = if by_message {
            let mut data = libc::iovec { iov_base: ptr::from_mut(&mut byte).cast(), iov_len: 1 };
            // SAFETY: a message of zeros is an empty one.
            let mut message: libc::msghdr = unsafe { mem::zeroed() };
            message.msg_name = ptr::from_ref(&address).cast_mut().cast();
            message.msg_namelen = length;
            message.msg_iov = &raw mut data;
            message.msg_iovlen = 1;
            // SAFETY: the message points to what lives until the call returns.
            unsafe { libc::sendmsg(socket, &raw const message, libc::MSG_FASTOPEN) }
        } else {
            let address = ptr::from_ref(&address).cast();
            // SAFETY: byte and address live until the call returns.
            unsafe { libc::sendto(socket, ptr::from_ref(&byte).cast(), 1, libc::MSG_FASTOPEN, address, length) }
        };
        sent == 1
    }

    /// Connects to a port of this machine by Multipath TCP.
    pub(super) fn mptcp(port: u16) -> bool {
        let address = localhost(port);
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap();
        // SAFETY: the address lives until the call returns.
        unsafe { libc::connect(stream(libc::IPPROTO_MPTCP), ptr::from_ref(&address).cast(), length) == 0 }
    }

    /// A socket, or -1. It goes with this process.
    fn stream(protocol: libc::c_int) -> libc::c_int {
        // SAFETY: socket takes numbers.
        unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM, protocol) }
    }

    fn localhost(port: u16) -> libc::sockaddr_in {
        libc::sockaddr_in {
            sin_family: libc::AF_INET.try_into().unwrap(),
            sin_port: port.to_be(),
            sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
            sin_zero: [0; 8],
        }
    }

    /// Unmounts what does not exist.
    pub(super) fn mount() -> bool {
        // SAFETY: the argument is a string that ends in zero.
        unsafe { libc::umount2(c"/nowhere".as_ptr(), 0) == 0 }
    }

    /// Asks to trace the process with id 0, which does not exist.
    pub(super) fn ptrace() -> bool {
        // SAFETY: PTRACE_ATTACH takes a number and no memory.
        unsafe { libc::ptrace(libc::PTRACE_ATTACH, 0, 0, 0) == 0 }
    }

    /// Asks whether this process could be sent a signal.
    pub(super) fn signal(process: i32) -> bool {
        // SAFETY: kill takes numbers; 0 sends no signal.
        unsafe { libc::kill(process, 0) == 0 }
    }

    /// Asks for its own id by the number that this has in the x32 ABI. Elsewhere there is none, and it ends as it would.
    pub(super) fn x32() -> bool {
        #[cfg(not(target_arch = "x86_64"))]
        // SAFETY: raise takes a number, and this process is there for nothing else.
        unsafe {
            libc::raise(libc::SIGSYS)
        };
        // SAFETY: getpid takes nothing.
        unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) > 0 }
    }
}
