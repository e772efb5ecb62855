//! As much HTTP/1.1 as a connector's clients speak.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;

/// Far above any command (2 kB) and any header a client sends.
const LINE_MAX_BYTES: u64 = 8192;
const BODY_MAX_BYTES: usize = 65_536;

pub struct Request {
    pub method: String,
    pub path: String,
    pub body: Vec<u8>,
}

/// The next request on a connection; `None` at its end.
pub fn read(stream: &mut BufReader<TcpStream>) -> io::Result<Option<Request>> {
    let first = line(stream)?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut words = first.split(' ').map(str::to_owned);
    let (Some(method), Some(path)) = (words.next(), words.next()) else { return Err(bad("no request line")) };
    let mut length = 0;
    loop {
        let header = line(stream)?;
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(|_| bad("no length"))?;
        }
    }
    if length > BODY_MAX_BYTES {
        return Err(bad("too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok(Some(Request { method, path, body }))
}

/// Answers in one piece: the crate's client takes no other.
pub fn write(stream: &mut TcpStream, status: &str, body: &[u8]) -> io::Result<()> {
    let kind = if body.is_ascii() { "text/plain" } else { "application/octet-stream" };
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat())
}

fn line(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut line = String::new();
    stream.take(LINE_MAX_BYTES).read_line(&mut line)?;
    line.truncate(line.trim_end().len());
    Ok(line)
}

fn bad(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
