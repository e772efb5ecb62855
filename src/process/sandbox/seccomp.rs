//! seccomp: limits the system calls that a process can make.
//!
//! Two filters apply at once. The first kills the process for calls that no library probes and no signer makes:
//! starting programs, tracing, mounting, loading code into the kernel. The second lists the calls that a signer needs
//! and answers all others with `ENOSYS`, which every library takes for an old kernel: an update of the C library then
//! leads to an error path and does not stop the validator.
//!
//! The other processes have only the first kind. Common to all: they cannot make namespaces, cannot signal other
//! processes, and cannot bypass the port rules with a protocol other than TCP.

use libc::{c_long, c_ulong};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

const START_PROGRAMS: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat];

/// Calls that no signer and no module makes.
const NEVER: &[c_long] = &[
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
];

/// Calls of a running signer, with any arguments: it reads and writes open files, connects, waits, makes threads, and
/// inspects files. `tests/machine/confined.rs` and the whole suite run under it.
const SIGNER: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_brk,
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_close,
    libc::SYS_connect,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_fcntl,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fsync,
    libc::SYS_futex,
    libc::SYS_getcwd,
    libc::SYS_geteuid,
    libc::SYS_getpeername,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_getuid,
    libc::SYS_lseek,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_nanosleep,
    libc::SYS_newfstatat,
    libc::SYS_ppoll,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    // The signer removes its control socket at the end. Landlock limits the directories.
    libc::SYS_unlinkat,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Older forms that newer architectures lack.
#[cfg(target_arch = "x86_64")]
const SIGNER_OLDER: &[c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_stat, libc::SYS_time, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const SIGNER_OLDER: &[c_long] = &[];

/// Additional calls of libusb. It starts anew with each session: also in a signer that runs, after its device was plugged
/// in again.
const USB: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_eventfd2,
    libc::SYS_getdents64,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_readlinkat,
    // Whether `/sys` is there.
    libc::SYS_statfs,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    // The kernel's version. libusb does not start without it.
    libc::SYS_uname,
];

/// Kills the whole process for calls that no signer makes.
pub(super) fn forbid_to_signer(usb: bool) -> Result<(), String> {
    let sockets = Sockets { tcp: true, unix: true, netlink: usb, ..Sockets::default() };
    kill_for(&[START_PROGRAMS, NEVER].concat())?;
    restrict(sockets)
}

/// The same for a process that resolves a name. With `udp` it may also ask name servers over UDP.
pub(super) fn forbid_to_resolver(udp: bool) -> Result<(), String> {
    kill_for(&[START_PROGRAMS, NEVER].concat())?;
    restrict(Sockets { tcp: true, udp, unix: true, netlink: true })
}

/// The same for the process that makes and renames audit files.
pub(super) fn forbid_to_audit_keeper() -> Result<(), String> {
    kill_for(&[START_PROGRAMS, NEVER].concat())?;
    restrict(Sockets { tcp: false, udp: false, unix: true, netlink: false })
}

/// The same for the process that reads the configuration again. It makes no sockets.
pub(super) fn forbid_to_config_reader() -> Result<(), String> {
    kill_for(&[START_PROGRAMS, NEVER].concat())?;
    restrict(Sockets::default())
}

/// The same for a process with a vendor's module, except that starting a program fails with `EPERM`: some modules have
/// helper programs, and can then report the failure. `network` allows TCP and UDP, `unix` allows sockets of services on
/// this machine.
pub(super) fn forbid_to_module(network: bool, unix: bool) -> Result<(), String> {
    install(denied(START_PROGRAMS), SeccompAction::Allow, REFUSED)?;
    kill_for(NEVER)?;
    // Network libraries and libusb list interfaces and devices over netlink.
    restrict(Sockets { tcp: network, udp: network, unix, netlink: true })
}

/// The same for the HSM spawner process. Landlock limits its signals to its children.
pub(super) fn forbid_to_spawner() -> Result<(), String> {
    kill_for(NEVER)?;
    install(denied(&[libc::SYS_clone3]), SeccompAction::Allow, UNKNOWN)
}

/// Allows only the calls that a signer needs, with `usb` also those of libusb.
pub(super) fn allow_signer(usb: bool) -> Result<(), String> {
    install(signer(usb)?, UNKNOWN, SeccompAction::Allow)
}

/// The answer of an old kernel.
const UNKNOWN: SeccompAction = SeccompAction::Errno(libc::ENOSYS.unsigned_abs());
/// The answer to a process without permission.
const REFUSED: SeccompAction = SeccompAction::Errno(libc::EPERM.unsigned_abs());

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Kills the process for these calls and for new namespaces.
fn kill_for(calls: &[c_long]) -> Result<(), String> {
    let mut rules = denied(calls);
    rules.insert(libc::SYS_clone, new_namespaces()?);
    install(rules, SeccompAction::Allow, SeccompAction::KillProcess)
}

/// Refuses what every process except the spawner must not do.
fn restrict(sockets: Sockets) -> Result<(), String> {
    // A filter cannot see the flags of clone3. Without it, every C library uses clone, whose flags are visible.
    install(denied(&[libc::SYS_clone3]), SeccompAction::Allow, UNKNOWN)?;
    let mut rules = signals_to_others()?;
    rules.extend(sockets.others()?);
    install(rules, SeccompAction::Allow, REFUSED)
}

/// These calls, with any arguments.
fn denied(calls: &[c_long]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// `clone` with any flag that makes a namespace.
fn new_namespaces() -> Result<Vec<SeccompRule>, String> {
    const NAMESPACES: [libc::c_int; 7] = [
        libc::CLONE_NEWCGROUP,
        libc::CLONE_NEWIPC,
        libc::CLONE_NEWNET,
        libc::CLONE_NEWNS,
        libc::CLONE_NEWPID,
        libc::CLONE_NEWUSER,
        libc::CLONE_NEWUTS,
    ];
    NAMESPACES.iter().map(|flag| rule(vec![bits(0, low(*flag), low(*flag))?])).collect()
}

/// Every way to send a signal to another process, including by the owner of a file or the input of a terminal. Landlock
/// forbids most of them, but only since Linux 6.12.
fn signals_to_others() -> Result<Rules, String> {
    const F_SETOWN_EX: u64 = 15;
    /// `FIOSETOWN`, `SIOCSPGRP`, `TIOCSTI`, `TIOCLINUX`
    const SET_OWNER_OR_TYPE: [u64; 4] = [0x8901, 0x8902, 0x5412, 0x541c];
    let own = u64::from(std::process::id());
    let others = || Ok::<_, String>(vec![rule(vec![is_not(0, own)?])?]);
    Ok(Rules::from([
        // 0 or a negative number means a group.
        (libc::SYS_kill, others()?),
        (libc::SYS_rt_sigqueueinfo, others()?),
        (libc::SYS_rt_tgsigqueueinfo, others()?),
        (libc::SYS_tgkill, others()?),
        // Takes a thread number, which need not be ours. The C library uses tgkill instead.
        (libc::SYS_tkill, others()?),
        (libc::SYS_pidfd_send_signal, Vec::new()),
        (libc::SYS_fcntl, vec![rule(vec![is(1, low(libc::F_SETOWN))?])?, rule(vec![is(1, F_SETOWN_EX)?])?]),
        (
            libc::SYS_ioctl,
            SET_OWNER_OR_TYPE.iter().map(|request| rule(vec![is(1, *request)?])).collect::<Result<_, _>>()?,
        ),
    ]))
}

/// The sockets that a process may make.
#[derive(Clone, Copy, Debug, Default)]
struct Sockets {
    tcp: bool,
    udp: bool,
    unix: bool,
    netlink: bool,
}

const INTERNET: [libc::c_int; 2] = [libc::AF_INET, libc::AF_INET6];
/// The type of a socket without its flags.
const SOCKET_TYPE: u64 = 0xf;

impl Sockets {
    /// All other kinds of sockets, and calls that send without a `connect` that Landlock can see. Landlock's port rules
    /// cover only TCP: MPTCP, SCTP and SMC would bypass them.
    fn others(self) -> Result<Rules, String> {
        let mut sockets = vec![rule(self.families().map(|family| is_not(0, low(family))).collect::<Result<_, _>>()?)?];
        for family in INTERNET {
            /// Obsolete, but still supported.
            const SOCK_PACKET: libc::c_int = 10;
            let not_streams = [libc::SOCK_RAW, libc::SOCK_RDM, libc::SOCK_SEQPACKET, libc::SOCK_DCCP, SOCK_PACKET];
            let udp = (!self.udp).then_some(libc::SOCK_DGRAM);
            let tcp = (!self.tcp).then_some(libc::SOCK_STREAM);
            for kind in not_streams.into_iter().chain(udp).chain(tcp) {
                sockets.push(rule(vec![is(0, low(family))?, bits(1, SOCKET_TYPE, low(kind))?])?);
            }
            let protocols = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP].map(|protocol| is_not(2, low(protocol)));
            let protocols = protocols.into_iter().chain([is(0, low(family))]);
            sockets.push(rule(protocols.collect::<Result<_, _>>()?)?);
        }
        let protocols = [libc::NETLINK_ROUTE, libc::NETLINK_KOBJECT_UEVENT].map(|protocol| is_not(2, low(protocol)));
        let netlink = protocols.into_iter().chain([is(0, low(libc::AF_NETLINK))]);
        sockets.push(rule(netlink.collect::<Result<_, _>>()?)?);
        let connects = |flags| Ok::<_, String>(vec![rule(vec![bits(flags, FASTOPEN, FASTOPEN)?])?]);
        Ok(Rules::from([
            (libc::SYS_socket, sockets),
            (libc::SYS_sendto, connects(3)?),
            (libc::SYS_sendmsg, connects(2)?),
            (libc::SYS_sendmmsg, connects(3)?),
        ]))
    }

    fn families(self) -> impl Iterator<Item = libc::c_int> {
        let internet = INTERNET.into_iter().filter(move |_| self.tcp || self.udp);
        let unix = self.unix.then_some(libc::AF_UNIX);
        // Never empty: a rule without conditions would match everything.
        let none = (!self.tcp && !self.udp && !self.unix && !self.netlink).then_some(libc::AF_UNSPEC);
        internet.chain(unix).chain(self.netlink.then_some(libc::AF_NETLINK)).chain(none)
    }
}

/// `MSG_FASTOPEN` opens a TCP connection by sending.
const FASTOPEN: u64 = low(libc::MSG_FASTOPEN);

fn signer(usb: bool) -> Result<Rules, String> {
    let mut rules: Rules = [SIGNER, SIGNER_OLDER].concat().into_iter().map(|call| (call, Vec::new())).collect();
    let executable = low(libc::PROT_EXEC);
    let writing = low(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC);
    let conditional = [
        // Threads, never processes. `clone3`, whose flags a filter cannot see, gets `ENOSYS`.
        (libc::SYS_clone, vec![bits(0, low(libc::CLONE_THREAD), low(libc::CLONE_THREAD))?]),
        (libc::SYS_ioctl, vec![is(1, libc::FIONBIO)?]),
        // No new code.
        (libc::SYS_mmap, vec![bits(2, executable, 0)?]),
        (libc::SYS_mprotect, vec![bits(2, executable, 0)?]),
        (libc::SYS_openat, vec![bits(2, writing, 0)?]),
        // Names a thread.
        (libc::SYS_prctl, vec![is(0, c_ulong::from(libc::PR_SET_NAME.unsigned_abs()))?]),
        // Only over a connection that `connect` made.
        (libc::SYS_sendmsg, vec![bits(2, FASTOPEN, 0)?]),
        (libc::SYS_sendto, vec![bits(3, FASTOPEN, 0)?]),
        // Only reads limits.
        (libc::SYS_prlimit64, vec![is(2, 0)?]),
        // Only to ourselves: this is how a process aborts.
        (libc::SYS_tgkill, vec![is(0, u64::from(std::process::id()))?]),
    ];
    for (call, conditions) in conditional {
        rules.insert(call, vec![rule(conditions)?]);
    }
    // Only streams, and Internet streams only over TCP.
    let stream = |family: libc::c_int, protocol: libc::c_int| {
        rule(vec![is(0, low(family))?, bits(1, SOCKET_TYPE, low(libc::SOCK_STREAM))?, is(2, low(protocol))?])
    };
    let mut streams = vec![stream(libc::AF_UNIX, 0)?];
    for family in INTERNET {
        streams.extend([stream(family, 0)?, stream(family, libc::IPPROTO_TCP)?]);
    }
    rules.insert(libc::SYS_socket, streams);
    if usb {
        /// The letter of every `USBDEVFS_` request.
        const USBDEVFS: u64 = (b'U' as u64) << 8;
        rules.extend(USB.iter().map(|call| (*call, Vec::new())));
        rules.entry(libc::SYS_ioctl).or_default().push(rule(vec![bits(1, 0xff00, USBDEVFS)?])?);
        rules.entry(libc::SYS_socket).or_default().push(rule(vec![is(0, low(libc::AF_NETLINK))?])?);
    }
    Ok(rules)
}

fn rule(conditions: Vec<SeccompCondition>) -> Result<SeccompRule, String> {
    SeccompRule::new(conditions).map_err(|error| format!("seccomp: {error}"))
}

/// The argument's lower half has this value. The kernel ignores the upper half of every argument checked here.
fn is(argument: u8, value: u64) -> Result<SeccompCondition, String> {
    let condition = SeccompCondition::new(argument, Length::Dword, Op::Eq, value);
    condition.map_err(|error| format!("seccomp: {error}"))
}

/// The argument's lower half has another value.
fn is_not(argument: u8, value: u64) -> Result<SeccompCondition, String> {
    let condition = SeccompCondition::new(argument, Length::Dword, Op::Ne, value);
    condition.map_err(|error| format!("seccomp: {error}"))
}

/// These bits of the argument have these values.
fn bits(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, String> {
    let condition = SeccompCondition::new(argument, Length::Dword, Op::MaskedEq(mask), value);
    condition.map_err(|error| format!("seccomp: {error}"))
}

/// A flag or number from the C headers. None is negative.
const fn low(value: libc::c_int) -> u64 {
    value.unsigned_abs() as u64
}

/// Adds a filter to the existing ones, for every thread of the process at once.
fn install(rules: Rules, otherwise: SeccompAction, action: SeccompAction) -> Result<(), String> {
    fn text(error: impl std::fmt::Display) -> String {
        format!("seccomp: {error}")
    }
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(text)?;
    let filter = SeccompFilter::new(rules, otherwise, action, arch).map_err(text)?;
    let mut program = BpfProgram::try_from(filter).map_err(text)?;
    program.splice(..0, no_x32());
    seccompiler::apply_filter_all_threads(&program).map_err(text)
}

/// On x86-64 a kernel may also accept calls by their x32 ABI numbers, which bypass every rule for the ordinary numbers.
/// No library of this architecture makes such calls. -1 is not a call: a tracer that suppresses a call, as `strace`
/// does to inject a fault, leaves that number.
#[cfg(target_arch = "x86_64")]
fn no_x32() -> [sock_filter; 4] {
    /// `__X32_SYSCALL_BIT`
    const X32: u32 = 0x4000_0000;
    /// `BPF_LD | BPF_W | BPF_ABS`: loads a word of `seccomp_data`. The first word is the number of the call.
    const LOAD: u16 = 0x20;
    /// `BPF_JMP | BPF_JEQ | BPF_K`
    const JUMP_IF_EQUAL: u16 = 0x15;
    const NO_CALL: u32 = u32::MAX;
    /// `BPF_JMP | BPF_JGE | BPF_K`
    const JUMP_IF_AT_LEAST: u16 = 0x35;
    /// `BPF_RET | BPF_K`
    const RETURN: u16 = 0x06;
    [
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_EQUAL, jt: 2, jf: 0, k: NO_CALL },
        sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: libc::SECCOMP_RET_KILL_PROCESS },
    ]
}
#[cfg(not(target_arch = "x86_64"))]
fn no_x32() -> [sock_filter; 0] {
    []
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_forbidden_and_needed() {
        let forbidden = denied(&[START_PROGRAMS, NEVER].concat());
        for usb in [false, true] {
            let needed = signer(usb).unwrap();
            assert!(needed.keys().all(|call| !forbidden.contains_key(call)));
        }
    }

    #[test]
    fn only_usb_allows_calls_that_listening_needs() {
        for call in [libc::SYS_bind, libc::SYS_listen, libc::SYS_clone3, libc::SYS_kill, libc::SYS_memfd_create] {
            assert!(!signer(false).unwrap().contains_key(&call), "{call}");
        }
        assert!(!signer(true).unwrap().contains_key(&libc::SYS_listen));
    }
}
