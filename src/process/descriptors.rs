//! Keeps programs started from here from inheriting descriptors with secrets.
#![allow(unsafe_code)]

/// Programs started from now on do not inherit these descriptors. A number that is not open is not an error here:
/// reading it reports one.
pub fn close_on_exec(descriptors: impl IntoIterator<Item = i32>) {
    for number in descriptors {
        // SAFETY: this only sets whether a started program inherits the descriptor. For a number that is not open, the
        // system returns an error.
        let _ = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::{FdFlags, dup, fcntl_getfd};
    use std::{
        fs,
        os::fd::AsRawFd as _,
        process::{Command, Stdio},
    };

    #[test]
    fn a_secret_in_a_regular_file_is_not_handed_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pin");
        fs::write(&path, "1234").unwrap();
        // A descriptor that a shell opens for a program stays open when the program starts another one.
        let inherited = dup(fs::File::open(&path).unwrap()).unwrap();
        let number = inherited.as_raw_fd();
        let reached = || {
            let status =
                Command::new("test").arg("-e").arg(format!("/proc/self/fd/{number}")).stderr(Stdio::null()).status();
            status.unwrap().success()
        };
        assert!(reached(), "before close_on_exec");
        close_on_exec([number, -1, 1_000_000]);
        assert!(!reached());
        assert!(fcntl_getfd(&inherited).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(fs::read_to_string(format!("/proc/self/fd/{number}")).unwrap(), "1234", "still readable here");
    }
}
