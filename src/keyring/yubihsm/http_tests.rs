//! A connector that writes its answers in every way that HTTP/1.1 has.

use super::*;
use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

/// Answers each request with the next of these, one connection after the other: pieces with a pause between them. An
/// answer whose second part is true is the last of its connection. Returns what was asked.
fn connector(answers: Vec<(Vec<&'static str>, bool)>) -> (u16, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = thread::spawn(move || {
        let (mut asked, mut stream) = (Vec::new(), None);
        for (pieces, last) in answers {
            let mut open = stream.take().unwrap_or_else(|| listener.accept().unwrap().0);
            open.set_nodelay(true).unwrap();
            let mut request = vec![0; 4096];
            let mut length = 0;
            while !request[..length].ends_with(b"body") {
                length += open.read(&mut request[length..]).unwrap();
            }
            asked.push(String::from_utf8_lossy(&request[..length]).into_owned());
            for piece in pieces {
                open.write_all(piece.as_bytes()).unwrap();
                thread::sleep(Duration::from_millis(10));
            }
            stream = (!last).then_some(open);
        }
        asked
    });
    (port, serve)
}

fn http(host: &str, port: u16) -> Http {
    Http::new(host.into(), port, Resolver::default(), runtime().unwrap())
}

fn post(http: &mut Http) -> Result<Vec<u8>, LinkError> {
    http.post(b"body", Instant::now() + Duration::from_secs(5))
}

#[test]
fn an_answer_is_read_in_whatever_way_it_is_written() {
    let (port, serve) = connector(vec![
        (vec!["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"], false),
        (vec!["HTTP/1.1 200 ", "OK\r\ncontent-length:6\r\n", "\r\nans", "wer"], false),
        (vec!["HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "3\r\nans\r\n", "3\r\nwer\r\n0\r\n\r\n"], false),
        (vec!["HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nans", "wer"], true),
        // The connection is made again.
        (vec!["HTTP/1.0 200 OK\r\n\r\nanswer"], true),
        (vec!["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"], true),
    ]);
    let mut http = http("localhost", port);
    for _ in 0..6 {
        assert_eq!(post(&mut http).unwrap(), b"answer");
    }
    for asked in serve.join().unwrap() {
        assert!(asked.starts_with("POST /connector/api HTTP/1.1\r\n"), "{asked}");
        let host = format!("host: localhost:{port}\r\n");
        assert!(asked.to_lowercase().contains(&host), "{asked}");
    }
}

#[test]
fn the_host_stands_in_the_request_as_in_the_configuration() {
    for (host, expected) in
        [("::1", "[::1]:12345"), ("hsm.example", "hsm.example:12345"), ("10.0.0.1", "10.0.0.1:12345")]
    {
        assert_eq!(http(host, 12345).authority(), expected);
    }
}

#[test]
fn an_answer_of_another_status_is_shown_with_its_status_and_words() {
    let (port, serve) = connector(vec![(vec!["HTTP/1.1 502 Bad Gateway\r\nContent-Length: 9\r\n\r\nno device"], true)]);
    let text = post(&mut http("127.0.0.1", port)).unwrap_err().trouble().text().to_owned();
    assert!(text.contains("HTTP status 502") && text.contains("said: no device"), "{text}");
    serve.join().unwrap();
}

#[test]
fn a_connector_that_ends_the_connection_or_is_not_there_is_told_apart() {
    let (port, serve) = connector(vec![(vec!["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nan"], true)]);
    let mut http = http("127.0.0.1", port);
    assert!(matches!(post(&mut http), Err(LinkError::Broken(_))));
    serve.join().unwrap();
    // Nobody listens any more.
    let error = post(&mut http).unwrap_err();
    assert!(matches!(error, LinkError::NotReached(_)), "{error:?}");
    let text = error.trouble().text().to_owned();
    assert!(text.contains("is yubihsm-connector running there?"), "{text}");
}

#[test]
fn a_connector_that_says_nothing_costs_the_deadline_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut http = http("127.0.0.1", listener.local_addr().unwrap().port());
    let begin = Instant::now();
    let error = http.post(b"body", begin + Duration::from_millis(200)).unwrap_err();
    assert!(matches!(error, LinkError::Late), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[test]
fn a_connection_that_ended_while_nobody_used_it_is_made_again_and_nothing_is_sent_twice() {
    let (port, serve) = connector(vec![
        // It says nothing of its end, which comes afterwards.
        (vec!["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nanswer"], true),
        (vec!["HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"], true),
    ]);
    let mut http = http("127.0.0.1", port);
    assert_eq!(post(&mut http).unwrap(), b"answer");
    thread::sleep(Duration::from_millis(100));
    assert_eq!(post(&mut http).unwrap(), b"second");
    assert_eq!(serve.join().unwrap().len(), 2);
}
