//! `mainstay container`.

use std::collections::BTreeSet;

use clap::Subcommand;
use mainstay_common::{Failure, Timestamp, process::now, text::Shown, time::span};
use mainstay_proto::v1 as pb;

use super::which;
use crate::{
    args::{Global, ListArgs, Which},
    connect::Session,
    output::{
        cell::Cell,
        listing::Listing,
        rows::{ContainerOrder, ContainerRow, container_tone},
    },
};

/// Containers, stopped ones too.
#[derive(Subcommand, Debug)]
pub(crate) enum ContainerVerb {
    /// List them, bad news first
    Ls(ListArgs<ContainerOrder>),
    /// Show everything known about one
    Show(Which),
}

/// Carries out a verb.
pub(crate) async fn run(verb: ContainerVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        ContainerVerb::Ls(args) => ls(&args, global, &mut session).await,
        ContainerVerb::Show(args) => show(&args, global, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

async fn ls(args: &ListArgs<ContainerOrder>, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let because = "what Docker runs on any node shows here by itself";
    super::list(args.watch, global, session, async |session| {
        let answer = session.look(async |mut viewer| viewer.list_containers(super::filter(args)).await).await?;
        let rows: Vec<ContainerRow> = answer.rows.into_iter().map(ContainerRow::from).collect();
        let filler = super::filler("containers", args.node.as_deref(), because);
        let mut listing = Listing::new(rows, filler).sorted(args.sort.unwrap_or_default());
        listing.notes = unknown_notes("containers", &answer.unknown, listing.rows.iter().map(|row| &*row.node.0));
        Ok(listing)
    })
    .await
}

/// Nodes whose engine does not tell now: their rows are old or missing, not gone. That a node has no engine at all is
/// worth a word only where it had one, or where there is nothing else to see. `shown` are the nodes of all rows.
pub(super) fn unknown_notes<'a>(
    noun: &str,
    unknown: &[pb::Trouble],
    shown: impl Iterator<Item = &'a [u8]>,
) -> Vec<String> {
    let now = now();
    let shown: BTreeSet<&[u8]> = shown.collect();
    let is_news = |trouble: &pb::Trouble| shown.is_empty() || shown.contains(trouble.node.as_bytes());
    let told = unknown.iter().filter(|trouble| trouble.state != "missing" || is_news(trouble));
    let note = |trouble: &pb::Trouble| {
        let why = match trouble.state.as_str() {
            "missing" => "there is no container engine",
            "unreachable" => "the node is unreachable",
            "refused" => "Docker does not listen",
            "denied" => "the agent may not ask Docker",
            "timeout" => "Docker does not answer",
            _ => "Docker answers with an error",
        };
        let since = Timestamp(trouble.since_ms);
        let age = if since.0 > 0 { format!(" for {}", span(now.since(since))) } else { String::new() };
        let reason =
            if trouble.reason.is_empty() { String::new() } else { format!(": {}", Shown::new(&trouble.reason)) };
        format!("{noun} of {} are unknown{age}: {why}{reason}", Shown::new(&trouble.node))
    };
    told.map(note).collect()
}

async fn show(args: &Which, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let fetch = async |session: &mut Session, request: pb::ListRequest| {
        let answer = session.look(async |mut viewer| viewer.list_containers(request.clone()).await).await?;
        Ok(answer
            .rows
            .into_iter()
            .map(|mut row| {
                let detail = row.detail.take();
                (ContainerRow::from(row), detail)
            })
            .collect())
    };
    which::show("container", args, global, session, fetch, |row, _| {
        let state = Cell::state(container_tone(row.state), row.state.as_str());
        (vec![Cell::text(&row.name), state], &["NAME", "STATE"])
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_engine_is_told_of_where_it_left_rows_or_nothing_is_shown() {
        let trouble = |node: &str, state: &str| pb::Trouble {
            node: node.into(),
            state: state.into(),
            reason: "there is no socket".into(),
            ..pb::Trouble::default()
        };
        let unknown = [trouble("n1", "missing"), trouble("n2", "timeout"), trouble("n3", "missing")];
        let nodes = |shown: &[&'static str]| {
            let notes = unknown_notes("containers", &unknown, shown.iter().map(|node| node.as_bytes()));
            notes.iter().map(|note| note["containers of ".len()..][..2].to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(nodes(&[]), ["n1", "n2", "n3"]);
        assert_eq!(nodes(&["n3", "n4", "n3"]), ["n2", "n3"]);
    }
}
