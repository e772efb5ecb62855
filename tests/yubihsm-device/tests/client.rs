//! The crate's own client through the front. Run with `cargo test -- --ignored`: the signer's tests need no such check
//! every time.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};
use yubihsm::{Client, Connector, Credentials, HttpConfig};

/// RFC 8032, section 7.1, test 2: seed, message, signature.
const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
const MESSAGE: &[u8] = &[0x72];
const SIGNATURE: &str = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da\
                         085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
const PASSWORD: &str = "correct horse";

struct Device {
    child: Child,
    /// It ends with this.
    _stdin: Option<ChildStdin>,
    address: SocketAddr,
    control: SocketAddr,
}

impl Device {
    fn start(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("yubihsm-device-{}-{name}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("seed"), SEED).unwrap();
        fs::write(dir.join("scalar"), SEED).unwrap();
        fs::write(dir.join("password"), format!("{PASSWORD}\n")).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_yubihsm-device"));
        command.current_dir(&dir).args("--auth 4 password --ed25519 1 seed --secp256k1 2 scalar".split(' '));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        fs::remove_dir_all(dir).unwrap();
        let (address, control) = line.trim_end().split_once(' ').unwrap();
        let stdin = child.stdin.take();
        Self { child, _stdin: stdin, address: address.parse().unwrap(), control: control.parse().unwrap() }
    }

    fn client(&self, key: u16, password: &str) -> Result<Client, yubihsm::client::Error> {
        let config = HttpConfig { port: self.address.port(), ..HttpConfig::default() };
        Client::open(Connector::http(&config), Credentials::from_password(key, password.as_bytes()), true)
    }

    fn open(&self) -> Client {
        self.client(4, PASSWORD).unwrap()
    }

    fn fault(&self, method: &str, route: &str) -> String {
        request(self.control, &format!("{method} /fault/{route} HTTP/1.1\r\n\r\n"))
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn request(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{text}: {answer}");
    answer
}

fn signs(client: &Client) -> bool {
    client.sign_ed25519(1, MESSAGE).is_ok_and(|signature| format!("{signature:x}") == SIGNATURE)
}

#[test]
#[ignore = "checks the tests' own device"]
fn the_client_signs_with_the_keys_and_credentials_of_the_arguments() {
    let device = Device::start("signs");
    let client = device.open();
    let signature = client.sign_ed25519(1, MESSAGE).unwrap();
    assert_eq!(format!("{signature:x}"), SIGNATURE);
    client.sign_ecdsa_prehash_raw(2, [7; 32]).unwrap();
    assert_eq!(client.list_objects(&[]).unwrap().len(), 3);
    let log = device.fault("GET", "log");
    assert!(log.contains("\nsessions 1\nsignatures 2\n"), "{log}");
    let status = request(device.address, "GET /connector/status HTTP/1.1\r\nHost: device\r\n\r\n");
    assert!(status.contains("\r\n\r\nstatus=OK\n"), "{status}");
}

#[test]
#[ignore = "checks the tests' own device"]
fn wrong_credentials_are_an_error_and_the_device_lives_on() {
    let device = Device::start("credentials");
    for (key, password, words) in [(4, "wrong", "invalid credentials"), (3, PASSWORD, "auth key not found")] {
        let error = device.client(key, password).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
    // A cryptogram that does not fit, which the client itself never sends.
    let mut stream = TcpStream::connect(device.address).unwrap();
    let mut post = |body: &[u8]| {
        let head = format!("POST /connector/api HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
        let mut answer = [0; 1024];
        let length = stream.read(&mut answer).unwrap();
        let start = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        answer[start..length].to_vec()
    };
    let session = post(&[0x03, 0, 10, 0, 4, 1, 2, 3, 4, 5, 6, 7, 8])[3];
    assert_eq!(post(&[&[0x04, 0, 17, session][..], &[0; 16]].concat()), [0x7f, 0, 1, 4]);
    assert_eq!(post(&[0x06, 0, 0])[..3], [0x86, 0, 10]);
    assert!(signs(&device.open()));
}

#[test]
#[ignore = "checks the tests' own device"]
fn every_fault_is_seen_by_the_client_and_passes() {
    let device = Device::start("faults");
    let client = device.open();

    device.fault("POST", "drop/2");
    assert!(!signs(&client) && !signs(&client) && signs(&client));

    device.fault("POST", "lose-session");
    // The client keeps the dead session.
    assert!(!signs(&client) && !signs(&client) && client.session().unwrap().is_open());
    let client = device.open();
    assert!(signs(&client));

    device.fault("POST", "power-cycle");
    assert!(!signs(&client));

    device.fault("POST", "sessions-full");
    let error = device.client(4, PASSWORD).err().unwrap().to_string();
    assert!(error.to_lowercase().contains("sessions full"), "{error}");
    let client = device.open();

    for (route, at_least) in [("latency/137", 137), ("hang/1", 950)] {
        device.fault("POST", route);
        let start = Instant::now();
        assert!(signs(&client));
        assert!(start.elapsed() >= Duration::from_millis(at_least), "{route}: {:?}", start.elapsed());
        device.fault("POST", "latency/0");
    }

    device.fault("POST", "down");
    while TcpStream::connect(device.address).is_ok() {
        thread::sleep(Duration::from_millis(2));
    }
    assert!(!signs(&client));
    device.fault("POST", "up");
    while TcpStream::connect(device.address).is_err() {
        thread::sleep(Duration::from_millis(2));
    }
    assert!(signs(&client));
}

#[test]
#[ignore = "checks the tests' own device"]
fn sixteen_sessions_are_the_most_and_a_forgotten_one_makes_room() {
    let device = Device::start("sessions");
    let clients: Vec<_> = (0..16).map(|_| device.open()).collect();
    assert!(device.client(4, PASSWORD).is_err());
    device.fault("POST", "lose-session");
    assert!(!signs(&clients[3]));
    // Those of the first mock and those of the next work side by side.
    let newest = device.open();
    assert!(signs(&newest) && signs(&clients[0]) && signs(&clients[15]) && !signs(&clients[3]));
    device.fault("POST", "power-cycle");
    assert!(!signs(&newest) && (0..40).all(|_| device.fault("POST", "power-cycle").len() > 1 && signs(&device.open())));
}
