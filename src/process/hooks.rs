//! State hooks, each run by a small process of its own.
//!
//! The confined signer starts no program, and a hook whose node is not up yet has to be started again. So each hook has
//! a process that was started before the signer confined itself, that can run this one command and nothing else, and
//! that ends as soon as the hook has named a height. The signer sends it a question without words and gets back a
//! height; the command itself it never names.

use crate::{
    config::{Config, HookConfig},
    process::{
        frames::{self, read_json, read_short_json, write_json},
        helper::{self, Helper},
        hook::{self, HookError},
    },
};
use highwater_core::consensus::ChainId;
use rustix::process::{Signal, getpgrp, getpid, kill_process_group};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io, sync::mpsc::channel, thread, time::Duration};

/// The hidden command that becomes the process of a hook.
pub const HOOK_COMMAND: &str = "state-hook";

/// How much longer than its hook the process may take.
const GRACE: Duration = Duration::from_secs(2);

/// The hooks of a configuration.
#[derive(Default)]
pub struct Hooks(BTreeMap<ChainId, Hook>);

/// A hook and its process.
pub struct Hook {
    helper: Helper,
    /// Whether an answer is still to come.
    asked: bool,
}

/// What the process of a hook has to know.
#[derive(Deserialize, Serialize)]
struct HookTask {
    command: Vec<String>,
    timeout: Duration,
}

impl Hooks {
    /// Starts a process for the hook of every served chain that `may_run`, and runs all of those hooks.
    pub fn start(config: &Config, may_run: impl Fn(&ChainId) -> bool) -> io::Result<Self> {
        let open = config.served_chains().filter(|chain| may_run(&chain.id));
        let hooks = open.filter_map(|chain| Some((chain.id.clone(), chain.state_hook.as_ref()?)));
        hooks.map(|(chain, config)| Ok((chain, Hook::start(config)?))).collect::<io::Result<_>>().map(Self)
    }

    /// The hook of that chain.
    pub fn take(&mut self, chain: &ChainId) -> Option<Hook> {
        self.0.remove(chain)
    }
}

impl Hook {
    fn start(config: &HookConfig) -> io::Result<Self> {
        let helper = Helper::start(HOOK_COMMAND)?;
        let task = HookTask { command: config.command.clone(), timeout: config.timeout };
        write_json(&mut *helper.control(), &task)?;
        helper.control().set_read_timeout(Some(config.timeout + GRACE))?;
        let mut hook = Self { helper, asked: false };
        hook.ask()?;
        Ok(hook)
    }

    /// Has the hook run, unless it does already.
    fn ask(&mut self) -> io::Result<()> {
        if !self.asked {
            frames::ask(&mut *self.helper.control())?;
            self.asked = true;
        }
        Ok(())
    }

    /// The height that the hook names.
    pub fn height(&mut self) -> Result<u64, HookError> {
        self.ask().map_err(HookError::Gone)?;
        let answer: Result<u64, String> = match read_short_json(&mut *self.helper.control()) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                return Err(HookError::Told("the state hook does not end".into()));
            }
            other => other.map_err(HookError::Gone)?,
        };
        self.asked = false;
        answer.map_err(HookError::Told)
    }
}

/// The program of the hidden command `state-hook`: for each question on its control stream it runs the hook. Ends with
/// the stream, and so does a hook that still runs.
pub fn run() -> io::Result<()> {
    let mut control = helper::standard_input()?;
    let mut questions = control.try_clone()?;
    let HookTask { command, timeout } = read_json(&mut questions)?;
    let config = HookConfig { command, timeout, fail_closed: true };
    let (ask, asked) = channel();
    thread::Builder::new().name("hook".into()).spawn(move || {
        for () in asked {
            let answer = hook::ask(&config).map_err(|error| error.to_string());
            if write_json(&mut control, &answer).is_err() {
                return;
            }
        }
    })?;
    while frames::is_asked(&mut questions)? {
        if ask.send(()).is_err() {
            break;
        }
    }
    // The signer has made this process the first of a group of its own; started by hand it is not.
    if getpgrp() == getpid() {
        let _ = kill_process_group(getpgrp(), Signal::KILL);
    }
    Ok(())
}
