//! One table of subcommands serves `zfs` and `zpool`: looking a name up, `help`, and the usage text.

use crate::fail::{Fail, Outcome, USAGE};
use std::fmt::Write;

/// The names a subcommand answers to, what runs it, and its usage (without the command's own name).
pub type Command = (&'static [&'static str], fn(&[String]) -> Outcome, &'static str);

/// Subcommands that OpenZFS has and are not here, and what to do instead.
pub type Absent = (&'static [&'static str], &'static str);

/// Runs `COMMAND ARGS` by its table of subcommands.
pub fn run(command: &str, table: &[Command], absent: &[Absent], args: &[String]) -> Outcome {
    let Some((name, rest)) = args.split_first() else {
        return Err(Fail { status: USAGE, message: format!("missing command\n{}", usage(command, table)) });
    };
    // zfs_main.c and zpool_main.c: `-V` and `--version` are the subcommand of that name.
    let (name, rest) = match name.as_str() {
        // What follows is not looked at.
        "-V" | "--version" => ("version", &[][..]),
        "help" | "-?" | "-h" | "--help" => return help(command, table, rest),
        other => (other, rest),
    };
    match table.iter().find(|(names, ..)| names.contains(&name)) {
        Some((_, _, usage)) if matches!(rest, [only] if only == "--help" || only == "-?") => {
            println!("usage:\n\t{usage}");
            Ok(())
        }
        Some((_, run, _)) => run(rest),
        None => Err(unknown(command, table, absent, name)),
    }
}

/// The status tells tools that there is no such command, also where people are told more.
fn unknown(command: &str, table: &[Command], absent: &[Absent], name: &str) -> Fail {
    let message = match absent.iter().find(|(names, _)| names.contains(&name)) {
        Some((_, why)) => format!("'{command} {name}' is not supported: {why}"),
        None => format!("unrecognized command '{name}'\n{}", usage(command, table)),
    };
    Fail { status: USAGE, message }
}

fn help(command: &str, table: &[Command], rest: &[String]) -> Outcome {
    match rest.first().and_then(|name| table.iter().find(|(names, ..)| names.contains(&name.as_str()))) {
        Some((_, _, usage)) => println!("usage:\n\t{usage}"),
        None => print!("{}", usage(command, table)),
    }
    Ok(())
}

fn usage(command: &str, table: &[Command]) -> String {
    let mut text = format!("usage: {command} command args ...\nwhere 'command' is one of the following:\n\n");
    for (_, _, usage) in table {
        let _ = writeln!(text, "\t{usage}");
    }
    text
}
