//! `highwater start`: sign until a signal ends it.

use super::{CliError, ConfigArgs, Exit};
use crate::{
    config::Config,
    daemon::{self, Options},
    process::{panic, signals},
    record::log::LogFormat,
};
use clap::Args;
use std::path::PathBuf;

/// Sign for the configured validators.
#[derive(Args, Debug)]
pub(super) struct Start {
    #[command(flatten)]
    config: ConfigArgs,
    /// Log connection attempts and pings too
    #[arg(short, long)]
    verbose: bool,
    /// How log lines on standard error look
    #[arg(long, value_enum, default_value_t)]
    pub(super) log_format: LogFormat,
}

impl Start {
    /// As typed without options.
    pub(super) fn with(config: PathBuf) -> Self {
        Self { config: ConfigArgs { config: Some(config) }, verbose: false, log_format: LogFormat::default() }
    }

    pub(super) fn run(self) -> Result<(), CliError> {
        // First, because SIGHUP would end the process, which a supervisor may take for an ordinary stop. Every process of the
        // signer inherits the ignored signals.
        signals::outlive();
        let (config, warnings) = Config::load(&self.config.path())?;
        let line: fn(&str) -> String = match self.log_format {
            LogFormat::Json => |message| LogFormat::Json.fatal(message),
            LogFormat::Text => |message| LogFormat::Text.fatal(message),
        };
        panic::end_process_with(line, || std::process::exit(Exit::Software as i32));
        let options = Options { format: self.log_format, verbose: self.verbose };
        Ok(daemon::run(config, &warnings, &options)?)
    }
}
