//! The server's side of NBD, as far as QEMU needs it: the wire by which a virtual machine reaches a [`Drive`].
//!
//! The protocol is <https://github.com/NetworkBlockDevice/nbd/blob/master/doc/proto.md>: the fixed newstyle handshake with
//! `NBD_OPT_GO`, then simple replies, one request after the other. What was answered before a flush is in that flush.

use crate::drive::Drive;
use std::{
    io::{self, BufReader, Read, Write},
    os::unix::net::UnixStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

const INIT_MAGIC: &[u8; 8] = b"NBDMAGIC";
const OPTION_MAGIC: &[u8; 8] = b"IHAVEOPT";
const OPTION_REPLY_MAGIC: u64 = 0x3_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const REPLY_MAGIC: u32 = 0x6744_6698;

const FIXED_NEWSTYLE: u16 = 1;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_UNSUPPORTED: u32 = 1 << 31 | 1;
const INFO_EXPORT: u16 = 0;
/// The flags field is there, and there are flushes. Without `NBD_FLAG_SEND_FUA` each write that is to be durable at
/// once comes as a write and a flush.
const HAS_FLUSH: u16 = 1 | 1 << 2;

const READ: u16 = 0;
const WRITE: u16 = 1;
const DISCONNECT: u16 = 2;
const FLUSH: u16 = 3;
const INVALID: u32 = 22;

/// Far above what QEMU sends in one piece.
const LENGTH_MAX_BYTES: u32 = 32 << 20;

/// How long a flush takes: as on a plain SSD, long enough for a cut to come between a write and its flush.
pub const FLUSH_TIME_MS: u64 = 5;

/// State that the drive shares with the code that cuts its power.
#[derive(Default)]
pub struct Plug {
    pulled: AtomicBool,
    unflushed: AtomicBool,
}

impl Plug {
    /// Takes the power from the drive.
    pub fn pull(&self) {
        self.pulled.store(true, Ordering::SeqCst);
    }

    /// Whether a write waits for its flush.
    pub fn has_unflushed(&self) -> bool {
        self.unflushed.load(Ordering::SeqCst)
    }
}

/// Serves `drive` until its power is off, or the client is gone. Nothing is done or answered without power.
pub fn serve(stream: &UnixStream, drive: &mut Drive, plug: &Plug) -> io::Result<()> {
    let mut server = Server { input: BufReader::new(stream), output: stream, drive, plug };
    match server.run() {
        Err(error) if is_gone(&error) => Ok(()),
        other => other,
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof)
}

struct Server<'a> {
    input: BufReader<&'a UnixStream>,
    output: &'a UnixStream,
    drive: &'a mut Drive,
    plug: &'a Plug,
}

impl Server<'_> {
    fn run(&mut self) -> io::Result<()> {
        self.shake_hands()?;
        while self.serve_request()? {}
        Ok(())
    }

    fn shake_hands(&mut self) -> io::Result<()> {
        self.output.write_all(&[INIT_MAGIC, OPTION_MAGIC, &FIXED_NEWSTYLE.to_be_bytes()[..]].concat())?;
        let _client_flags = self.u32()?;
        loop {
            self.expect(OPTION_MAGIC)?;
            let option = self.u32()?;
            let length = self.u32()?;
            let _ = self.bytes(length)?;
            if option == OPTION_GO {
                let size = self.drive.size().to_be_bytes();
                let info = [&INFO_EXPORT.to_be_bytes()[..], &size, &HAS_FLUSH.to_be_bytes()].concat();
                self.answer_option(option, REPLY_INFO, &info)?;
                return self.answer_option(option, REPLY_ACK, &[]);
            }
            self.answer_option(option, REPLY_UNSUPPORTED, &[])?;
        }
    }

    fn answer_option(&mut self, option: u32, kind: u32, data: &[u8]) -> io::Result<()> {
        let length = u32::try_from(data.len()).expect("an answer is short");
        let words = [option, kind, length].map(u32::to_be_bytes).concat();
        self.output.write_all(&[&OPTION_REPLY_MAGIC.to_be_bytes()[..], &words, data].concat())
    }

    /// Serves one request; `false` after the last.
    fn serve_request(&mut self) -> io::Result<bool> {
        self.expect(&REQUEST_MAGIC.to_be_bytes())?;
        let _flags = self.u16()?;
        let command = self.u16()?;
        let cookie = self.array::<8>()?;
        let offset = usize::try_from(u64::from_be_bytes(self.array()?)).unwrap_or(usize::MAX);
        let length = self.u32()?;
        let written = if command == WRITE { self.bytes(length)? } else { Vec::new() };
        let mut found: &[u8] = &[];
        if command == FLUSH {
            thread::sleep(Duration::from_millis(FLUSH_TIME_MS));
        }
        if self.plug.pulled.load(Ordering::SeqCst) {
            return Ok(false);
        }
        let done = match command {
            READ => {
                let read = self.drive.read(offset, length as usize);
                found = read.unwrap_or_default();
                read.is_some()
            }
            WRITE => self.drive.write(offset, written).is_some(),
            FLUSH => {
                self.drive.flush();
                true
            }
            DISCONNECT => return Ok(false),
            _ => false,
        };
        if matches!(command, FLUSH | WRITE) {
            self.plug.unflushed.store(command == WRITE, Ordering::SeqCst);
        }
        let error = if done { 0 } else { INVALID };
        let header = [&REPLY_MAGIC.to_be_bytes()[..], &error.to_be_bytes(), &cookie].concat();
        self.output.write_all(&[&header, found].concat())?;
        Ok(true)
    }

    fn bytes(&mut self, length: u32) -> io::Result<Vec<u8>> {
        if length > LENGTH_MAX_BYTES {
            return Err(io::Error::other(format!("the client announces {length} bytes")));
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u16(&mut self) -> io::Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        self.array().map(u32::from_be_bytes)
    }
    fn expect<const N: usize>(&mut self, wanted: &[u8; N]) -> io::Result<()> {
        let got: [u8; N] = self.array()?;
        if got == *wanted {
            return Ok(());
        }
        Err(io::Error::other(format!("the client sends {got:02x?} in the place of {wanted:02x?}")))
    }
}
