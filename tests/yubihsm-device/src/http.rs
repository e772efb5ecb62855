//! As much HTTP/1.1 as a connector's clients speak.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::{net::TcpStream, thread, time::Duration};

use crate::faults::Style;

/// Between two pieces of an answer: long enough to arrive apart.
const BETWEEN_PIECES: Duration = Duration::from_millis(5);

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

/// Answers in one of the ways that HTTP/1.1 has. Returns whether the connection ends with it.
pub fn write_in(stream: &mut TcpStream, style: Style, body: &[u8]) -> io::Result<bool> {
    let mut pieces = |bytes: &[u8], size: usize| {
        bytes.chunks(size).try_for_each(|piece| {
            thread::sleep(BETWEEN_PIECES);
            stream.write_all(piece)
        })
    };
    match style {
        Style::Plain => write(stream, "200 OK", body)?,
        Style::Error => write(stream, "500 Internal Server Error", b"usb: no device")?,
        Style::Pieces => {
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length:{}\r\n\r\n", body.len());
            pieces(&[head.as_bytes(), body].concat(), 11)?;
        }
        Style::Chunked => {
            pieces(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 1000)?;
            for piece in body.chunks(7) {
                pieces(&[format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat(), 1000)?;
            }
            pieces(b"0\r\n\r\n", 1000)?;
        }
        Style::Close => {
            let head = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n";
            stream.write_all(&[&head[..], body].concat())?;
        }
    }
    Ok(style == Style::Close)
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
