//! A second process of this program, started before there are threads, sockets and secrets, for what the confined
//! signer must not do itself.

use std::{
    io,
    net::Shutdown,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard},
    thread,
};

/// The signer's side of a helper process. It ends when this goes.
pub struct Helper {
    control: Mutex<UnixStream>,
    /// Taken by whoever waits for its end.
    process: Mutex<Option<Child>>,
}

impl Helper {
    /// Starts this program with a hidden command, and a socket to us for its standard input.
    pub fn start(command_name: &str) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = own_program(command_name, theirs);
        // A terminal's Ctrl-C is for the signer, which first answers what it has in hand.
        let process = command.stderr(Stdio::inherit()).process_group(0).spawn()?;
        Ok(Self { control: Mutex::new(ours), process: Mutex::new(Some(process)) })
    }

    /// The socket to it.
    pub fn control(&self) -> MutexGuard<'_, UnixStream> {
        self.control.lock().expect("nobody panics with this lock")
    }

    /// Calls `on_end` from another thread when it has ended.
    pub fn watch(&self, on_end: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let Some(mut process) = self.process.lock().expect("nobody panics with this lock").take() else {
            return Ok(());
        };
        let wait = move || {
            let _ = process.wait();
            on_end();
        };
        thread::Builder::new().name("helper".into()).spawn(wait).map(drop)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It ends by itself at the end of its control stream; this only makes sure.
        let _ = self.control().shutdown(Shutdown::Both);
        if let Some(process) = self.process.get_mut().expect("nobody panics with this lock") {
            let _ = process.wait();
        }
    }
}

/// This very program, whatever has become of its file, with a stream for standard input.
pub fn own_program(command_name: &str, stream: UnixStream) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("highwater").arg(command_name).stdin(OwnedFd::from(stream)).stdout(Stdio::null());
    command
}

/// Standard input as the socket that it is.
pub fn standard_input() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}
