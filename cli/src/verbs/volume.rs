//! `mainstay volume`.

use clap::Subcommand;
use mainstay_common::Failure;
use mainstay_proto::v1 as pb;

use super::which;
use crate::{
    args::{Global, ListArgs, Which},
    connect::Session,
    output::{
        cell::Cell,
        listing::Listing,
        rows::{VolumeOrder, VolumeRow},
    },
};

/// Container volumes.
#[derive(Subcommand, Debug)]
pub(crate) enum VolumeVerb {
    /// List them, largest first
    Ls(ListArgs<VolumeOrder>),
    /// Show everything known about one
    Show(Which),
}

/// Carries out a verb.
pub(crate) async fn run(verb: VolumeVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        VolumeVerb::Ls(args) => ls(&args, global, &mut session).await,
        VolumeVerb::Show(args) => show(&args, global, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

async fn ls(args: &ListArgs<VolumeOrder>, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let because = "docker volume create makes one, and it shows here by itself";
    super::list(args.watch, global, session, async |session| {
        let answer = session.look(async |mut viewer| viewer.list_volumes(super::filter(args)).await).await?;
        let rows: Vec<VolumeRow> = answer.rows.into_iter().map(VolumeRow::from).collect();
        let filler = super::filler("volumes", args.node.as_deref(), because);
        let mut listing = Listing::new(rows, filler).sorted(args.sort.unwrap_or_default());
        let nodes = listing.rows.iter().map(|row| &*row.node.0);
        listing.notes = super::container::unknown_notes("volumes", &answer.unknown, nodes);
        Ok(listing)
    })
    .await
}

async fn show(args: &Which, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let fetch = async |session: &mut Session, request: pb::ListRequest| {
        let answer = session.look(async |mut viewer| viewer.list_volumes(request.clone()).await).await?;
        Ok(answer
            .rows
            .into_iter()
            .map(|mut row| {
                let detail = row.detail.take();
                (VolumeRow::from(row), detail)
            })
            .collect())
    };
    which::show("volume", args, global, session, fetch, |row, _| (vec![Cell::text(&row.name)], &["NAME"])).await
}
