//! Removes secrets from the environment of this process.
#![allow(unsafe_code)]

use std::{env, ffi::CString, fs, io};

/// Wipes the values of these variables and removes them, so that neither this process nor any that it starts has them.
/// Fails if the process has other threads, which could read the environment meanwhile.
pub fn forget<'a>(names: impl Iterator<Item = &'a str>) -> io::Result<()> {
    for name in names.filter(|name| env::var_os(name).is_some()) {
        if fs::read_dir("/proc/self/task")?.count() != 1 {
            return Err(io::Error::other(format!(
                "cannot remove {name} from the environment: other threads run already"
            )));
        }
        let c_name = CString::new(name)?;
        // SAFETY: the name is a string that ends with a zero. No other thread exists, so nothing changes the
        // environment.
        let value = unsafe { libc::getenv(c_name.as_ptr()) };
        if !value.is_null() {
            // SAFETY: getenv returns a string that ends with a zero and belongs to this process: it is on the stack,
            // where the kernel put it, or on the heap. Nothing else reads or writes it: there is no other thread, and
            // no reference to it.
            unsafe { (0..libc::strlen(value)).for_each(|index| value.add(index).write_volatile(0)) };
        }
        // SAFETY: there is no other thread.
        unsafe { env::remove_var(name) };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_other_threads_about_nothing_is_touched_and_what_is_not_there_is_no_error() {
        // The test harness has threads.
        forget(["HIGHWATER_NOT_SET"].into_iter()).unwrap();
        let error = forget(["PATH"].into_iter()).unwrap_err().to_string();
        assert!(error.contains("PATH") && env::var_os("PATH").is_some(), "{error}");
    }
}
