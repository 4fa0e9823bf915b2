//! `mainstay`: the command line.

mod args;
mod connect;
mod output;
mod verbs;

use std::{env, ffi::OsString, process::ExitCode};

use args::{Cli, usage};
use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use clap_complete::CompleteEnv;
use output::{Format, out};

fn main() -> ExitCode {
    // `dev` has the agent in it, whose probes are this program again.
    mainstay_agent::become_child_if_asked();
    CompleteEnv::with_factory(Cli::command).var(verbs::completions::VARIABLE).complete();
    let arguments: Vec<OsString> = env::args_os().collect();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Whoever closed the pipe has read enough.
            error.print().unwrap_or(());
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let failure = usage::failure(&error);
            out::complain(&failure, usage::asks_for_json(&arguments));
            return ExitCode::from(failure.code.number());
        }
    };
    let as_json = cli.global.output == Format::Json;
    match verbs::run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            out::complain(&failure, as_json);
            ExitCode::from(failure.code.number())
        }
    }
}
