//! `highwater state`: manages the watermark of a chain.

use super::{CliError, ConfigArgs, Exit, output};
use crate::{
    config::{ChainConfig, Config},
    daemon::claim::Claim,
    keyring,
    state::{
        self, Age, Place, Theirs,
        foreign::{self, Program},
    },
};
use clap::{Args, Subcommand, ValueEnum};
use highwater_core::{
    consensus::{ChainId, HEIGHT_MAX, Hrs},
    disk,
    watermark::{HostId, Identity, Mark, Mode, Record},
};
use serde_json::json;
use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

/// Manage the watermark.
#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// Write the mark for another program and retire the state file: `start` refuses it until `import`
    Export(Export),
    /// Import the state of tmkms, of CometBFT, or of a Highwater on another machine
    Import(Import),
    /// Make the state file of a chain that has none
    Init(InitState),
    /// Never sign at or below a height again
    Raise(Raise),
    /// Show the mark, even while a signer uses it
    Show(Show),
}

/// Selects the chain and the form of the answer.
#[derive(Args, Debug)]
pub(super) struct Common {
    #[command(flatten)]
    config: ConfigArgs,
    /// Chain id; required if the configuration has several
    #[arg(long, value_name = "ID")]
    chain: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
pub(super) struct Show {
    #[command(flatten)]
    common: Common,
}

#[derive(Args, Debug)]
pub(super) struct InitState {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    begin: Begin,
}

/// Where a new watermark begins.
#[derive(Args, Clone, Copy, Debug)]
#[group(multiple = false)]
pub(super) struct Begin {
    /// The key may have signed up to this height: never sign at or below it
    #[arg(long, value_name = "H", value_parser = clap::value_parser!(u64).range(1..=HEIGHT_MAX))]
    height: Option<u64>,
    /// The key has never signed anything, anywhere
    #[arg(long)]
    never_signed: bool,
}

impl Begin {
    /// The first mark, if one was named.
    pub(super) fn mark(self) -> Option<Mark> {
        match self.height {
            Some(height) => Some(Mark::floor(Hrs::end_of(height))),
            None => self.never_signed.then_some(Mark::NEVER_SIGNED),
        }
    }
}

#[derive(Args, Debug)]
pub(super) struct Import {
    #[command(flatten)]
    common: Common,
    /// State file of the other program, or of a Highwater on another machine [default: the configured `state_file`,
    /// which belongs to tmkms]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Confirm that the file is not behind what the chain shows; needed if it is a copy, or older than the last boot
    #[arg(long)]
    i_checked_the_height: bool,
}

#[derive(Args, Debug)]
pub(super) struct Export {
    #[command(flatten)]
    common: Common,
    /// Format to write
    #[arg(long, value_enum)]
    format: ExportFormat,
    /// Write to this new file [default: for tmkms, over the tombstone at `state_file`; for cometbft, to standard
    /// output]
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ExportFormat {
    /// priv_validator_state.json
    Cometbft,
    /// tmkms's state file
    Tmkms,
}

#[derive(Args, Debug)]
pub(super) struct Raise {
    #[command(flatten)]
    common: Common,
    /// Never sign at or below this height again
    #[arg(long, value_name = "H", value_parser = clap::value_parser!(u64).range(1..=HEIGHT_MAX))]
    height: u64,
    /// Raise the mark however far: do not ask
    #[arg(long)]
    yes: bool,
}

impl StateCommand {
    pub(super) fn run(self) -> Result<(), CliError> {
        match self {
            Self::Export(command) => command.run(),
            Self::Import(command) => command.run(),
            Self::Init(command) => command.run(),
            Self::Raise(command) => command.run(),
            Self::Show(command) => command.run(),
        }
    }
}

impl Show {
    fn run(self) -> Result<(), CliError> {
        let (_, chain) = self.common.chain()?;
        let record = state::show(&chain.watermark())?;
        output::print(&if self.common.json {
            describe_json(&chain.watermark(), &record)
        } else {
            describe(&chain.watermark(), &record)
        })
    }
}

impl InitState {
    fn run(self) -> Result<(), CliError> {
        let mark = self.begin.mark().ok_or_else(|| {
            let text = "say where the watermark begins: --never-signed for a new key, --height H for one that may \
                        have signed up to height H";
            CliError::new(Exit::Usage, text)
        })?;
        let (config, chain) = self.common.chain()?;
        note_kept(place_of(&config, &chain)?.create(mark)?.as_deref());
        self.common.report("made", &chain)
    }
}

impl Import {
    fn run(self) -> Result<(), CliError> {
        let (config, chain) = self.common.chain()?;
        let place = place_of(&config, &chain)?;
        // Another signer with this key on this machine would sign past the mark that is imported here.
        let _claim = Claim::take(&place.identity)?;
        let age = if self.i_checked_the_height { Age::Checked } else { Age::Unknown };
        let imported = place.import(self.file.as_deref(), age)?;
        note_kept(imported.kept.as_deref());
        output::note(&format!(
            "imported the state of {}. Make sure that this was its latest state, and that it never signs with this key \
             again",
            imported.source
        ));
        self.common.report("imported", &chain)
    }
}

fn note_kept(kept: Option<&Path>) {
    if let Some(kept) = kept {
        output::note(&format!("the previous file is kept as {}", kept.display()));
    }
}

impl Export {
    fn run(self) -> Result<(), CliError> {
        let (_, chain) = self.common.chain()?;
        let program = match self.format {
            ExportFormat::Cometbft => Program::CometBft,
            ExportFormat::Tmkms => Program::Tmkms,
        };
        let ours = chain.watermark();
        // Opened first: once the file is retired, its mark needs a place to go.
        let file = self.output.as_deref().map(create_new).transpose()?;
        let exported = HostId::of_this_machine()
            .map_err(CliError::from)
            .and_then(|host| Ok(state::export(&ours, &chain.id, host)?))
            .inspect_err(|_| {
                // Remove our empty file, so that nothing takes it for a state file.
                self.output.as_deref().map(fs::remove_file);
            })?;
        let text = foreign::write(program, &exported.mark);
        match (file, &self.output, program) {
            (Some(mut file), Some(path), _) => {
                file.write_all(text.as_bytes())
                    .and_then(|()| file.sync_all())
                    .and_then(|()| disk::sync_parent(path))
                    .map_err(|error| CliError::io(&format!("cannot write {}", path.display()), &error))?;
            }
            (_, _, Program::Tmkms) => {
                let identity = state::show(&ours)?.header.identity().clone();
                Theirs::new(&chain.state_file).give_back(&exported.mark, &identity)?;
                output::note(&format!("tmkms continues from {}", chain.state_file.display()));
            }
            _ => output::print(&text)?,
        }
        output::note(&format!("{} is retired: this signer refuses it until `highwater state import`", ours.display()));
        if exported.repeated {
            output::note("this mark was exported before: never use more than one of the copies");
        }
        Ok(())
    }
}

impl Raise {
    fn run(self) -> Result<(), CliError> {
        let (_, chain) = self.common.chain()?;
        self.confirm(&chain)?;
        state::raise(&chain.watermark(), &chain.id, HostId::of_this_machine()?, self.height)?;
        self.common.report("raised", &chain)
    }
}

impl Raise {
    /// A height that the chain never reaches keeps the key from signing for ever, so a far one has to be confirmed.
    fn confirm(&self, chain: &ChainConfig) -> Result<(), CliError> {
        // The raise itself says what is wrong with a file that cannot be read.
        let Ok(record) = state::show(&chain.watermark()) else { return Ok(()) };
        let last = record.mark.hrs.height;
        if self.yes || record.mark == Mark::NEVER_SIGNED || self.height.saturating_sub(last) <= FAR {
            return Ok(());
        }
        let ahead = self.height - last;
        let warning = format!(
            "height {} is {ahead} above the mark of chain {} ({last}). Until the chain is above it, this key signs nothing, and \
             no command moves the mark back. The way back is to wait for two more heights of the chain, move the state file \
             away, and run `highwater state init --height H`: see \"A watermark far ahead of the chain\" in the runbook",
            self.height, chain.id
        );
        if !io::stdin().is_terminal() {
            let text = format!("{warning}. Nothing was changed. If this height is right, add --yes");
            return Err(CliError::new(Exit::Usage, text));
        }
        output::note(&warning);
        output::ask("If it is right, type the height again: ");
        let mut line = String::new();
        io::stdin().read_line(&mut line).map_err(|error| CliError::io("cannot read the answer", &error))?;
        if line.trim().parse() == Ok(self.height) {
            return Ok(());
        }
        Err(CliError::new(Exit::Usage, "that is not the same height: nothing was changed"))
    }
}

/// More heights than this above the mark are far: a day of a chain with a block each second.
const FAR: u64 = 100_000;

impl Common {
    /// Loads the configuration and selects the chain.
    fn chain(&self) -> Result<(Config, ChainConfig), CliError> {
        let config = self.config.load()?;
        let usage = |text: String| {
            let ids: Vec<_> = config.chains.iter().map(|chain| chain.id.as_str()).collect();
            CliError::new(Exit::Usage, text + &ids.join(", "))
        };
        let chain = match (&self.chain, config.chains.as_slice()) {
            (None, [chain]) => chain.clone(),
            (None, _) => return Err(usage("name one of the chains with --chain: ".to_owned())),
            (Some(id), _) => match ChainId::new(id).ok().and_then(|id| config.chain(&id)) {
                Some(chain) => chain.clone(),
                None => return Err(usage(format!("the configuration has no chain {id}, only "))),
            },
        };
        Ok((config, chain))
    }

    /// Prints the file's new content.
    fn report(&self, done: &str, chain: &ChainConfig) -> Result<(), CliError> {
        let path = chain.watermark();
        let record = state::show(&path)?;
        if self.json {
            return output::print(&describe_json(&path, &record));
        }
        output::print(&format!("{done}\n{}", describe(&path, &record)))
    }
}

/// Where the state of `chain` is, and the identity that it must have. Opens the key.
pub(super) fn place_of(config: &Config, chain: &ChainConfig) -> Result<Place, CliError> {
    let key = config.consensus_key(&chain.id);
    let key = key.ok_or_else(|| CliError::new(Exit::Config, format!("chain {} has no consensus key", chain.id)))?;
    let identity =
        Identity { chain: chain.id.clone(), key: keyring::public_key(config, chain, key, state::key_in_state_file)? };
    let theirs = Theirs::new(&chain.state_file);
    Ok(Place { path: chain.watermark(), theirs, identity, host: HostId::of_this_machine()? })
}

fn create_new(path: &Path) -> Result<fs::File, CliError> {
    disk::create_private(path).map_err(|error| CliError::io(&format!("cannot create {}", path.display()), &error))
}

fn describe(path: &Path, record: &Record) -> String {
    let Record { mode, sequence, header, mark } = record;
    let (identity, host) = (header.identity(), header.host());
    let mode = match mode {
        Mode::Active => "active",
        Mode::Retired => "retired: exported to another program",
    };
    let meaning = match mark.signed {
        Some(_) => "last signed",
        None if *mark == Mark::NEVER_SIGNED => "nothing signed yet",
        None => "nothing at or below it will be signed",
    };
    let Hrs { height, round, step } = mark.hrs;
    let place = if mark.hrs == Hrs::end_of(height) {
        format!("the end of height {height}")
    } else {
        format!("height {height} round {round} {step}")
    };
    format!(
        "chain     {}\nkey       {}\nmark      {place} ({meaning})\nmode      {mode}\nsequence  {sequence}\n\
         host      {host}\nfile      {}",
        identity.chain,
        identity.key,
        path.display()
    )
}

fn describe_json(path: &Path, record: &Record) -> String {
    let Record { mode, sequence, header, mark } = record;
    let (identity, host) = (header.identity(), header.host());
    json!({
        "schema": 1,
        "chain_id": identity.chain.as_str(),
        "public_key": identity.key.to_string(),
        "height": mark.hrs.height,
        "round": mark.hrs.round,
        "step": mark.hrs.step.to_string(),
        "signed": mark.signed.is_some(),
        "retired": *mode == Mode::Retired,
        "sequence": sequence,
        "host": host.to_string(),
        "file": path.display().to_string(),
    })
    .to_string()
}
