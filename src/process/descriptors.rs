//! Keeps descriptors that hold secrets from the programs that are started from here.
#![allow(unsafe_code)]

/// Whatever this process starts from now on has these descriptors no more. A number that is not open is no error: whoever
/// reads it says so.
pub fn close_on_exec(descriptors: impl IntoIterator<Item = i32>) {
    for number in descriptors {
        // SAFETY: changes only what becomes of this descriptor when a program is started. For a number that is not open the
        // system gives an error.
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
        // What a shell opens for a program stays open when that starts another one.
        let inherited = dup(fs::File::open(&path).unwrap()).unwrap();
        let number = inherited.as_raw_fd();
        let reached = || {
            let status =
                Command::new("test").arg("-e").arg(format!("/proc/self/fd/{number}")).stderr(Stdio::null()).status();
            status.unwrap().success()
        };
        assert!(reached(), "without our doing");
        close_on_exec([number, -1, 1_000_000]);
        assert!(!reached());
        assert!(fcntl_getfd(&inherited).unwrap().contains(FdFlags::CLOEXEC));
        assert_eq!(
            fs::read_to_string(format!("/proc/self/fd/{number}")).unwrap(),
            "1234",
            "and can still be read here"
        );
    }
}
