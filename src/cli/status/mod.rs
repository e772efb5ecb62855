//! `highwater status`: asks the running signer over its control socket what it is doing.

mod view;

use super::{CliError, ConfigArgs, Exit, output};
use crate::{
    config::{self, home},
    show::status::Status,
};
use clap::Args;
use std::{
    env,
    io::{self, IsTerminal as _, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use view::{Paint, View};

/// Show what the running signer is doing.
#[derive(Args, Debug)]
pub(super) struct StatusCommand {
    #[command(flatten)]
    config: ConfigArgs,
    /// Control socket of the signer [default: the one for the configuration file, in $RUNTIME_DIRECTORY, beside that
    /// file, or in /run/highwater]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
    /// Refresh every second until interrupted
    #[arg(long, conflicts_with = "json")]
    watch: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How often `--watch` refreshes.
const EVERY: Duration = Duration::from_secs(1);
/// How long a signer may take to answer. It answers from memory.
const PATIENCE: Duration = Duration::from_secs(3);
/// Far above the status of a signer with a hundred nodes.
const ANSWER_MAX_BYTES: u64 = 4 * 1024 * 1024;

impl StatusCommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        let socket = self.find_socket()?;
        let mut view = View::new(Paint::for_terminal(io::stdout().is_terminal()));
        if self.watch {
            return watch(&socket, &mut view);
        }
        let (status, text) = ask(&socket)?;
        let answer = if self.json { text } else { view.draw(&status) };
        output::print(answer.trim_end())?;
        // The status above says why.
        if status.ready { Ok(()) } else { Err(CliError::new(Exit::CheckWarning, "")) }
    }

    fn find_socket(&self) -> Result<PathBuf, CliError> {
        if let Some(socket) = &self.socket {
            return Ok(socket.clone());
        }
        let path = self.config.path();
        let runtime = || env::var_os(home::RUNTIME_VARIABLE);
        let mut candidates = home::control_sockets(runtime(), &path);
        if path == Path::new(config::DEFAULT_PATH) && !path.exists() {
            candidates.extend(home::service_sockets(runtime()));
        }
        let there = candidates.iter().find(|path| UnixStream::connect(path).is_ok());
        there.cloned().ok_or_else(|| {
            let tried: Vec<_> = candidates.iter().map(|path| path.display().to_string()).collect();
            let mut text = format!(
                "no signer with the configuration {} answers at {}: start it with `highwater start`, run this as its \
                 user, or name its configuration with -c or its socket with --socket",
                path.display(),
                tried.join(", ")
            );
            for other in home::other_sockets(&candidates) {
                text.push_str(&format!("\n  a signer with another configuration may listen at {}", other.display()));
            }
            CliError::new(Exit::Unavailable, text)
        })
    }
}

/// Asks the signer behind that socket for its status. Returns it parsed, and as received.
pub(super) fn ask(socket: &Path) -> Result<(Status, String), CliError> {
    let answer = exchange(socket).map_err(|error| {
        CliError::new(Exit::Unavailable, format!("the signer at {} does not answer: {error}", socket.display()))
    })?;
    let odd = |what: &str| {
        CliError::new(
            Exit::Software,
            format!("the program at {} is not a signer of this version: {what}", socket.display()),
        )
    };
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(|| odd("it does not speak HTTP"))?;
    if head.split(' ').nth(1) != Some("200") {
        return Err(odd(head.lines().next().unwrap_or_default()));
    }
    let status: Status = serde_json::from_str(body).map_err(|error| odd(&error.to_string()))?;
    match status.schema {
        Status::SCHEMA => Ok((status, body.to_owned())),
        other => Err(odd(&format!("its status has schema {other}, and this program knows {}", Status::SCHEMA))),
    }
}

fn exchange(socket: &Path) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX_BYTES).read_to_string(&mut answer)?;
    Ok(answer)
}

/// Redraws the status forever. If the signer goes away, waits for it to return.
fn watch(socket: &Path, view: &mut View) -> Result<(), CliError> {
    const HOME_AND_CLEAR: &str = "\x1b[H\x1b[2J";
    loop {
        let picture = match ask(socket) {
            Ok((status, _)) => view.draw(&status),
            Err(error) => format!("{}\n", error.message),
        };
        output::print(&format!("{HOME_AND_CLEAR}{picture}"))?;
        thread::sleep(EVERY);
    }
}
