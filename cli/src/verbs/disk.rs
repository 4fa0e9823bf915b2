//! `mainstay disk`.

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
        rows::{DiskOrder, DiskRow, disk_tone},
    },
};

/// Local filesystems.
#[derive(Subcommand, Debug)]
pub(crate) enum DiskVerb {
    /// List them, fullest first
    Ls(ListArgs<DiskOrder>),
    /// Show everything known about one
    Show(Which),
}

/// Carries out a verb.
pub(crate) async fn run(verb: DiskVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        DiskVerb::Ls(args) => ls(&args, global, &mut session).await,
        DiskVerb::Show(args) => show(&args, global, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

async fn ls(args: &ListArgs<DiskOrder>, global: &Global, session: &mut Session) -> Result<(), Failure> {
    super::list(args.watch, global, session, async |session| {
        let answer = session.look(async |mut viewer| viewer.list_disks(super::filter(args)).await).await?;
        let rows: Vec<DiskRow> = answer.rows.into_iter().map(DiskRow::from).collect();
        let filler =
            super::filler("disks", args.node.as_deref(), "agents report them; mainstay node ls lists the nodes");
        Ok(Listing::new(rows, filler).sorted(args.sort.unwrap_or_default()))
    })
    .await
}

async fn show(args: &Which, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let fetch = async |session: &mut Session, request: pb::ListRequest| {
        let answer = session.look(async |mut viewer| viewer.list_disks(request.clone()).await).await?;
        Ok(answer
            .rows
            .into_iter()
            .map(|mut row| {
                let detail = row.detail.take();
                (DiskRow::from(row), detail)
            })
            .collect())
    };
    which::show("disk", args, global, session, fetch, |row, _| {
        let state = Cell::state(disk_tone(row.state), row.state.as_str());
        (vec![Cell::text(&row.mount), state], &["MOUNT", "STATE"])
    })
    .await
}
