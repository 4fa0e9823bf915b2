//! One file per noun.

pub(crate) mod alert;
pub(crate) mod apply;
pub(crate) mod audit;
pub(crate) mod cluster;
pub(crate) mod completions;
pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod dev;
pub(crate) mod disk;
pub(crate) mod mount;
pub(crate) mod node;
pub(crate) mod receiver;
pub(crate) mod rule;
pub(crate) mod status;
pub(crate) mod token;
pub(crate) mod user;
pub(crate) mod volume;
mod which;

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use mainstay_common::{ExitCode, Failure};
use mainstay_proto::v1 as pb;

use crate::{
    args::{Cli, Global, ListArgs, Verb, WatchArgs},
    connect::Session,
    output::{listing::Listing, row::Row, watch},
};

/// Carries out what the command line says.
///
/// # Errors
/// Three lines and an exit code.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let global = cli.global;
    match cli.verb {
        Verb::Dev(args) => dev::run(&args),
        Verb::Completions(args) => completions::run(&args),
        Verb::Context(verb) => on_one_thread(context::run(verb, &global)),
        Verb::Status(args) => on_one_thread(status::run(args, &global)),
        Verb::Node(verb) => on_one_thread(node::run(verb, &global)),
        Verb::Disk(verb) => on_one_thread(disk::run(verb, &global)),
        Verb::Mount(verb) => on_one_thread(mount::run(verb, &global)),
        Verb::Volume(verb) => on_one_thread(volume::run(verb, &global)),
        Verb::Container(verb) => on_one_thread(container::run(verb, &global)),
        Verb::Apply(args) => on_one_thread(apply::run(args, &global)),
        Verb::Alert(verb) => on_one_thread(alert::run(verb, &global)),
        Verb::Rule(verb) => on_one_thread(rule::run(verb, &global)),
        Verb::Receiver(verb) => on_one_thread(receiver::run(verb, &global)),
        Verb::Audit(args) => on_one_thread(audit::run(args, &global)),
        Verb::Token(verb) => on_one_thread(token::run(verb, &global)),
        Verb::User(verb) => on_one_thread(user::run(verb, &global)),
        Verb::Cluster(verb) => on_one_thread(cluster::run(verb, &global)),
    }
}

fn on_one_thread(work: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(ExitCode::Failed, "cannot start", error.to_string(), "check this machine's limits: ulimit -a")
    })?;
    let outcome = runtime.block_on(work);
    // A name that is still being looked up must not keep the program.
    runtime.shutdown_background();
    outcome
}

/// Prints a listing, once or until Ctrl-C.
async fn list<R: Row>(
    watch: WatchArgs,
    global: &Global,
    session: &mut Session,
    mut fetch: impl AsyncFnMut(&mut Session) -> Result<Listing<R>, Failure>,
) -> Result<(), Failure> {
    let mut fetch = async || {
        let mut listing = fetch(session).await?;
        listing.notes.extend(session.staleness());
        Ok(listing)
    };
    if watch.watch { watch::follow(global.output, fetch).await } else { fetch().await?.print(global.output) }
}

/// What a listing asks for.
fn filter<O: ValueEnum + Send + Sync + 'static>(args: &ListArgs<O>) -> pb::ListRequest {
    pb::ListRequest { node: args.node.clone().unwrap_or_default(), ..pb::ListRequest::default() }
}

/// What would fill a listing of things that agents report.
fn filler(noun: &str, args_node: Option<&str>, else_because: &str) -> String {
    match args_node {
        Some(node) => format!("no {noun} on {}", mainstay_common::text::Shown::new(node)),
        None => format!("no {noun}: {else_because}"),
    }
}

/// Asks on a terminal before something that hurts; elsewhere `--yes` must say so beforehand.
///
/// # Errors
/// Where nobody can be asked, or the answer is no.
fn confirm(question: &str, yes: bool, command: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    let (stdin, mut stderr) = (std::io::stdin(), std::io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Failure::new(
            ExitCode::Usage,
            "this must be confirmed",
            "there is no terminal to ask on",
            format!("{command} --yes"),
        ));
    }
    // Whoever cannot read the question answers nothing.
    write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush()).unwrap_or(());
    let mut answer = String::new();
    stdin.read_line(&mut answer).unwrap_or(0);
    if is_yes(&answer) {
        return Ok(());
    }
    Err(Failure::new(ExitCode::Failed, "not done", "the answer was no", format!("{command}, and answer y")))
}

fn is_yes(answer: &str) -> bool {
    matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_yes_is_yes() {
        assert!(is_yes("y\n") && is_yes(" Yes \n"));
        for no in ["", "\n", "n\n", "yess\n", "yo\n"] {
            assert!(!is_yes(no), "{no:?}");
        }
    }
}
