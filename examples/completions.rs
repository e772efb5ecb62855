//! Writes what a shell completes after `highwater`: `cargo run --example completions DIRECTORY`. The package has these files.

use clap::Command;
use clap_complete::Shell;
use highwater::cli;
use std::{env, fs, io, path::PathBuf};

/// Each shell, and the name under which it looks for completions.
pub const FILES: [(Shell, &str); 3] =
    [(Shell::Bash, "highwater.bash"), (Shell::Fish, "highwater.fish"), (Shell::Zsh, "_highwater")];

#[allow(dead_code, reason = "a test includes this file")]
fn main() -> io::Result<()> {
    let directory = env::args_os().nth(1).map(PathBuf::from);
    let directory = directory.ok_or_else(|| io::Error::other("name the directory to write to"))?;
    fs::create_dir_all(&directory)?;
    for (shell, name) in FILES {
        fs::write(directory.join(name), completions(shell))?;
    }
    Ok(())
}

/// The completions of this command line, without the hidden commands.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut visible(&cli::command()), "highwater", &mut text);
    text
}

/// The command line without the hidden commands.
pub fn visible(command: &Command) -> Command {
    // clap takes names that live for ever.
    let mut shown = Command::new(&*command.get_name().to_owned().leak());
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if command.get_version().is_some() {
        shown = shown.version("");
    }
    let inside = command.get_subcommands().filter(|command| !command.is_hide_set());
    shown
        .args(command.get_arguments().cloned())
        .groups(command.get_groups().cloned())
        .subcommands(inside.map(visible))
        .subcommand_required(command.is_subcommand_required_set())
}
