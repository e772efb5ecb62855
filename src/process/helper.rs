//! A second process of this program, started before there are threads, sockets and secrets, for what the confined
//! signer must not do itself.

use super::lock::lock;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::Shutdown,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard},
    thread,
};

/// The signer's side of a helper process. It ends when this goes.
pub struct Helper {
    control: Mutex<UnixStream>,
    /// Taken by the thread that waits for its end.
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
        lock(&self.control)
    }

    /// Calls `on_end` from another thread when it has ended.
    pub fn watch(&self, on_end: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let Some(mut process) = lock(&self.process).take() else {
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
        if let Some(process) = &mut *lock(&self.process) {
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

/// The byte that comes with a descriptor.
const GRANTED: u8 = 0;
/// The byte that comes before a reason why there is none.
pub const REFUSED: u8 = 1;

/// Hands over a descriptor.
pub fn send_descriptor(control: &UnixStream, descriptor: &impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is space for one descriptor");
    sendmsg(control, &[IoSlice::new(&[GRANTED])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The descriptor that was granted, or `None` if a reason follows.
pub fn receive_descriptor(control: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [REFUSED];
    let received = recvmsg(control, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    match (byte, descriptor) {
        ([GRANTED], Some(descriptor)) => Ok(Some(descriptor)),
        ([REFUSED], None) => Ok(None),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it sent something else than a descriptor")),
    }
}
