//! A second process of this program, for what the confined signer must not do itself. It is started before there are
//! threads, sockets and secrets.

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

/// The signer's side of a helper process. The process ends when this is dropped.
pub struct Helper {
    control: Mutex<UnixStream>,
    /// Taken by the thread that waits for its end.
    process: Mutex<Option<Child>>,
}

impl Helper {
    /// Starts this program with a hidden command. Its standard input is a socket to this process.
    pub fn start(command_name: &str) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut command = own_program(command_name, theirs);
        // A terminal's Ctrl-C must reach only the signer, which first answers the requests in progress.
        let process = command.stderr(Stdio::inherit()).process_group(0).spawn()?;
        Ok(Self { control: Mutex::new(ours), process: Mutex::new(Some(process)) })
    }

    /// The socket to the helper.
    pub fn control(&self) -> MutexGuard<'_, UnixStream> {
        lock(&self.control)
    }

    /// Calls `on_end` from another thread when the helper has ended.
    pub fn watch(&self, on_end: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let Some(mut process) = lock(&self.process).take() else {
            return Ok(());
        };
        let builder = thread::Builder::new().name("helper".into());
        builder.spawn(move || {
            let _ = process.wait();
            on_end();
        })?;
        Ok(())
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // The process ends when its control stream does.
        let _ = self.control().shutdown(Shutdown::Both);
        if let Some(process) = &mut *lock(&self.process) {
            let _ = process.wait();
        }
    }
}

/// A command for this same program, even if its file was replaced, with `stream` as its standard input.
pub fn own_program(command_name: &str, stream: UnixStream) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("highwater").arg(command_name).stdin(OwnedFd::from(stream)).stdout(Stdio::null());
    command
}

/// The standard input of a helper, which is a socket.
pub fn standard_input() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// The byte that accompanies a descriptor.
const GRANTED: u8 = 0;
/// The byte before the reason why there is no descriptor.
pub const REFUSED: u8 = 1;

pub fn send_descriptor(control: &UnixStream, descriptor: &impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is space for one descriptor");
    sendmsg(control, &[IoSlice::new(&[GRANTED])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Receives a descriptor, or `None` if the reason for a refusal follows.
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
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the helper process did not send a descriptor")),
    }
}
