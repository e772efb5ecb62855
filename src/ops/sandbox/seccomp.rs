//! seccomp: which system calls a process may still make.
//!
//! Two filters lie on top of each other. The first kills the process for what no library ever tries out and no signer
//! does: starting programs, tracing, mounting, loading code into the kernel. The second lists what a signer needs and
//! answers everything else with `ENOSYS`, which every library takes for an old kernel: an update of the C library
//! then costs an error path and not the validator.

use libc::{c_long, c_ulong};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Op, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use std::collections::BTreeMap;

/// No program is started.
const START_PROGRAMS: &[c_long] = &[libc::SYS_execve, libc::SYS_execveat];

/// What no signer and no module does.
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

/// What a running signer calls, whatever the arguments: it reads and writes what is open, connects, waits, makes
/// threads, and looks at files. `tests/confined.rs` and the whole suite run under it.
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
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_set_robust_list,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_sigaltstack,
    libc::SYS_statx,
    // The control socket goes with the signer; where else, Landlock says.
    libc::SYS_unlinkat,
    libc::SYS_wait4,
    libc::SYS_waitid,
    libc::SYS_write,
    libc::SYS_writev,
];

/// The older forms that newer architectures lack.
#[cfg(target_arch = "x86_64")]
const SIGNER_OLDER: &[c_long] =
    &[libc::SYS_epoll_wait, libc::SYS_poll, libc::SYS_stat, libc::SYS_time, libc::SYS_unlink];
#[cfg(not(target_arch = "x86_64"))]
const SIGNER_OLDER: &[c_long] = &[];

/// What libusb calls besides.
const USB: &[c_long] = &[
    libc::SYS_bind,
    libc::SYS_eventfd2,
    libc::SYS_getdents64,
    libc::SYS_openat,
    libc::SYS_pipe2,
    libc::SYS_readlinkat,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
];

/// Kills the process, all of its threads, for what neither a signer nor a resolver of names does.
pub(super) fn forbid() -> Result<(), String> {
    install(denied(&[START_PROGRAMS, NEVER].concat()), SeccompAction::Allow, SeccompAction::KillProcess)
}

/// The same for a process with a vendor's module, where an attempt to start a program fails with `EPERM`: some modules
/// come with programs of their own, and can then say that it is missing.
pub(super) fn forbid_to_module() -> Result<(), String> {
    let refused = SeccompAction::Errno(errno(libc::EPERM));
    install(denied(START_PROGRAMS), SeccompAction::Allow, refused)?;
    install(denied(NEVER), SeccompAction::Allow, SeccompAction::KillProcess)
}

/// Leaves a signer the calls that it needs. With `usb` also those of libusb.
pub(super) fn allow_signer(usb: bool) -> Result<(), String> {
    install(signer(usb)?, SeccompAction::Errno(errno(libc::ENOSYS)), SeccompAction::Allow)
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The calls of every way to make them: on x86-64 a kernel may also take them by their numbers in the x32 ABI.
fn denied(calls: &[c_long]) -> Rules {
    let any = |call: &c_long| (*call, Vec::new());
    let rules = calls.iter().map(any);
    #[cfg(target_arch = "x86_64")]
    let rules = {
        /// `__X32_SYSCALL_BIT`
        const X32: c_long = 0x4000_0000;
        /// Calls that have a number of their own there (`syscall_64.tbl`): execve, ptrace, kexec_load, process_vm_readv,
        /// process_vm_writev, execveat.
        const X32_OWN: [c_long; 6] = [520, 521, 528, 539, 540, 545];
        rules.chain(calls.iter().map(|call| (X32 | call, Vec::new()))).chain(X32_OWN.map(|own| (X32 | own, Vec::new())))
    };
    rules.collect()
}

fn signer(usb: bool) -> Result<Rules, String> {
    let mut rules: Rules = [SIGNER, SIGNER_OLDER].concat().into_iter().map(|call| (call, Vec::new())).collect();
    let executable = low(libc::PROT_EXEC);
    let writing = low(libc::O_ACCMODE | libc::O_CREAT | libc::O_TRUNC);
    let conditional = [
        // Threads, never processes. `clone3`, whose flags no filter can see, is answered as unknown.
        (libc::SYS_clone, vec![bits(0, low(libc::CLONE_THREAD), low(libc::CLONE_THREAD))?]),
        (libc::SYS_ioctl, vec![is(1, libc::FIONBIO)?]),
        // No new code.
        (libc::SYS_mmap, vec![bits(2, executable, 0)?]),
        (libc::SYS_mprotect, vec![bits(2, executable, 0)?]),
        (libc::SYS_openat, vec![bits(2, writing, 0)?]),
        // The name of a thread.
        (libc::SYS_prctl, vec![is(0, c_ulong::from(libc::PR_SET_NAME.unsigned_abs()))?]),
        // Limits are read, never set.
        (libc::SYS_prlimit64, vec![is(2, 0)?]),
        // To ourselves: how a process aborts.
        (libc::SYS_tgkill, vec![is(0, u64::from(std::process::id()))?]),
    ];
    for (call, conditions) in conditional {
        rules.insert(call, vec![rule(conditions)?]);
    }
    // One of these families, and streams alone.
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX].map(|family| {
        // The rest of the type are flags.
        const TYPE: u64 = 0xf;
        rule(vec![is(0, low(family))?, bits(1, TYPE, low(libc::SOCK_STREAM))?])
    });
    rules.insert(libc::SYS_socket, families.into_iter().collect::<Result<_, _>>()?);
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

/// That the argument has this value in its lower half; the kernel ignores the upper one for all that is asked here.
fn is(argument: u8, value: u64) -> Result<SeccompCondition, String> {
    let condition = SeccompCondition::new(argument, Length::Dword, Op::Eq, value);
    condition.map_err(|error| format!("seccomp: {error}"))
}

/// That these bits of the argument have these values.
fn bits(argument: u8, mask: u64, value: u64) -> Result<SeccompCondition, String> {
    let condition = SeccompCondition::new(argument, Length::Dword, Op::MaskedEq(mask), value);
    condition.map_err(|error| format!("seccomp: {error}"))
}

/// A flag or number of the C headers, none of which is negative.
fn low(value: libc::c_int) -> u64 {
    u64::from(value.unsigned_abs())
}

fn errno(value: libc::c_int) -> u32 {
    value.unsigned_abs()
}

/// Puts a filter over those that are there, for every thread of the process at once.
fn install(rules: Rules, otherwise: SeccompAction, action: SeccompAction) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| format!("seccomp: {error}");
    let arch = TargetArch::try_from(std::env::consts::ARCH).map_err(|error| text(&error))?;
    let filter = SeccompFilter::new(rules, otherwise, action, arch).map_err(|error| text(&error))?;
    let program = BpfProgram::try_from(filter).map_err(|error| text(&error))?;
    seccompiler::apply_filter_all_threads(&program).map_err(|error| text(&error))
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
    fn only_usb_brings_what_could_listen() {
        for call in [libc::SYS_bind, libc::SYS_listen, libc::SYS_clone3, libc::SYS_kill, libc::SYS_memfd_create] {
            assert!(!signer(false).unwrap().contains_key(&call), "{call}");
        }
        assert!(!signer(true).unwrap().contains_key(&libc::SYS_listen));
    }
}
