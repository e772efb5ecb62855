//! The connector in front of the device, and the port on which faults are asked for.

use crate::{
    device::{Device, Refusal, is_create_session, is_session_message, refuse},
    faults::{Faults, take},
    http,
};
use std::{
    io::{self, BufReader},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread,
    time::Duration,
};

const POLL_INTERVAL: Duration = Duration::from_millis(2);

/// A command on its way to the device, and the way back.
type Job = (Vec<u8>, mpsc::Sender<Vec<u8>>);

/// State shared by all connections of the connector.
pub struct Front {
    faults: Mutex<Faults>,
    jobs: Mutex<mpsc::Sender<Job>>,
    connections: Mutex<Vec<TcpStream>>,
}

impl Front {
    /// Starts the device's thread: it does one command at a time, whoever sends them. `make` makes the device there.
    pub fn start(make: impl FnOnce() -> Device + Send + 'static, down: bool) -> Arc<Self> {
        let (jobs, queue) = mpsc::channel();
        let faults = Mutex::new(Faults { down, ..Faults::default() });
        let front = Arc::new(Self { faults, jobs: Mutex::new(jobs), connections: Mutex::default() });
        let shared = Arc::clone(&front);
        thread::spawn(move || shared.run_device(make(), &queue));
        front
    }

    /// Listens at `address` whenever the connector is up.
    pub fn serve(self: &Arc<Self>, address: SocketAddr) -> io::Result<()> {
        loop {
            if self.faults().down {
                thread::sleep(POLL_INTERVAL);
            } else {
                self.serve_until_down(&TcpListener::bind(address)?)?;
                for connection in lock(&self.connections).drain(..) {
                    // An error means that it is gone already.
                    let _ = connection.shutdown(Shutdown::Both);
                }
            }
        }
    }

    fn serve_until_down(self: &Arc<Self>, listener: &TcpListener) -> io::Result<()> {
        listener.set_nonblocking(true)?;
        while !self.faults().down {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false)?;
                    stream.set_nodelay(true)?;
                    self.faults().counts.connections += 1;
                    lock(&self.connections).push(stream.try_clone()?);
                    let front = Arc::clone(self);
                    thread::spawn(move || {
                        // An error is the end of a client.
                        let _ = front.converse(&stream);
                        let _ = stream.shutdown(Shutdown::Both);
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(POLL_INTERVAL),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        let (mut requests, mut answers) = (BufReader::new(stream.try_clone()?), stream.try_clone()?);
        while let Some(request) = http::read(&mut requests)? {
            match (request.method.as_str(), request.path.as_str()) {
                ("GET", "/connector/status") => {
                    let address = stream.local_addr()?;
                    let (ip, port) = (address.ip(), address.port());
                    let status = format!("status=OK\nserial=*\nversion=3.0.4\npid=1\naddress={ip}\nport={port}\n");
                    if http::write_in(&mut answers, self.faults().style, status.as_bytes())? {
                        return Ok(());
                    }
                }
                ("POST", "/connector/api") => match self.ask_device(request.body) {
                    Some(answer) => {
                        let style = self.faults().style;
                        if http::write_in(&mut answers, style, &answer)? {
                            return Ok(());
                        }
                    }
                    None => return Ok(()),
                },
                _ => http::write(&mut answers, "404 Not Found", b"")?,
            }
        }
        Ok(())
    }

    /// The device's answer; `None` if the connection is to end without one.
    fn ask_device(&self, command: Vec<u8>) -> Option<Vec<u8>> {
        {
            let mut faults = self.faults();
            faults.counts.commands += 1;
            faults.counts.session_requests += u64::from(is_create_session(&command));
            if take(&mut faults.drop) {
                return None;
            }
        }
        let (reply, answer) = mpsc::channel();
        lock(&self.jobs).send((command, reply)).ok()?;
        answer.recv().ok()
    }

    /// Does what comes, also for clients that have gone.
    fn run_device(&self, mut device: Device, queue: &mpsc::Receiver<Job>) {
        for (command, reply) in queue {
            while self.faults().hangs() {
                thread::sleep(POLL_INTERVAL);
            }
            let answer = self.execute(&mut device, &command);
            let _ = reply.send(answer);
        }
    }

    fn execute(&self, device: &mut Device, command: &[u8]) -> Vec<u8> {
        let mut faults = self.faults();
        if std::mem::take(&mut faults.power_cycle) {
            device.power_cycle();
        }
        if is_create_session(command) && take(&mut faults.sessions_full) {
            return refuse(Refusal::SessionsFull);
        }
        if faults.lose_session > 0 && device.forget_session_of(command) {
            faults.lose_session -= 1;
        }
        let latency = if is_session_message(command) { faults.latency } else { Duration::ZERO };
        device.deny = faults.deny;
        if std::mem::take(&mut faults.tamper) {
            device.tamper_with_log();
        }
        if std::mem::take(&mut faults.forget_log) {
            device.forget_log();
        }
        drop(faults);
        thread::sleep(latency);
        let done = device.execute(command);
        let counts = &mut self.faults().counts;
        counts.sessions += u64::from(done.opened);
        counts.signatures += u64::from(done.signed);
        counts.open_sessions = device.open_sessions() as u64;
        counts.log_entries = device.log_entries().into();
        done.answer
    }

    /// Does what is asked for on one control connection.
    pub fn control(&self, stream: &TcpStream) -> io::Result<()> {
        let (mut requests, mut answers) = (BufReader::new(stream.try_clone()?), stream.try_clone()?);
        while let Some(request) = http::read(&mut requests)? {
            let route = request.path.strip_prefix("/fault/").unwrap_or_default();
            let answer = match (request.method.as_str(), route) {
                ("GET", "log") => Some(self.faults().log()),
                ("POST", route) => self.faults().set(route).map(|()| String::new()),
                _ => None,
            };
            match answer {
                Some(text) => http::write(&mut answers, "200 OK", text.as_bytes())?,
                None => http::write(&mut answers, "404 Not Found", b"")?,
            }
        }
        Ok(())
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.faults)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("the lock is never poisoned")
}
