//! `rollcall man` and `rollcall completions`: what the definition of the arguments says, for readers of manuals and for shells.

use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::arguments::Arguments;
use super::failure::Failure;
use super::output::{print, write};

#[derive(Debug, Args)]
pub(super) struct CompletionsArguments {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArguments {
    /// A command, such as `drain` or `zk ls` [default: rollcall itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    command: Vec<String>,
    /// Write the pages of all commands into this folder, made if need be, as rollcall.1, rollcall-drain.1 and so on
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints what a shell reads to complete command lines.
pub(super) fn completions(arguments: &CompletionsArguments) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = Arguments::command();
    let name = command.get_name().to_owned();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    write(&script, false)
}

/// Prints a manual page, or writes all of them.
pub(super) fn man(arguments: &ManArguments) -> Result<(), Failure> {
    let mut command = Arguments::command();
    command.build();
    match &arguments.dir {
        Some(dir) => write_all(&command, dir),
        None => write(&page(find(&command, &arguments.command)?), false),
    }
}

fn find<'a>(root: &'a Command, names: &[String]) -> Result<&'a Command, Failure> {
    let mut command = root;
    for name in names {
        command = command.find_subcommand(name).ok_or_else(|| {
            let whole = command.get_bin_name().unwrap_or("rollcall");
            Failure::usage(format!(
                "{whole} has no command {name:?}; `{whole} --help` lists those that it has"
            ))
        })?;
    }
    Ok(command)
}

fn page(command: &Command) -> Vec<u8> {
    let mut page = Vec::new();
    let man =
        Man::new(command.clone()).source(concat!("rollcall ", env!("CARGO_PKG_VERSION"))).manual("rollcall");
    man.render(&mut page).expect("a text in memory takes any text");
    page
}

fn write_all(root: &Command, dir: &Path) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("cannot write the pages: {error}"));
    fs_err::create_dir_all(dir).map_err(failed)?;
    let mut left = vec![root];
    let mut count = 0;
    while let Some(command) = left.pop() {
        let name = command.get_display_name().unwrap_or_else(|| command.get_name());
        fs_err::write(dir.join(format!("{name}.1")), page(command)).map_err(failed)?;
        count += 1;
        left.extend(command.get_subcommands().filter(|command| command.get_name() != "help"));
    }
    let dir = dir.display();
    print(&format!("wrote {count} pages; read the first with `man {dir}/rollcall.1`"))
}
