//! `mainstay mount`.

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
        rows::{MountOrder, MountRow, mount_tone},
    },
};

/// rclone, FUSE, NFS and CIFS mounts.
#[derive(Subcommand, Debug)]
pub(crate) enum MountVerb {
    /// List them, bad news first
    Ls(ListArgs<MountOrder>),
    /// Show everything known about one
    Show(Which),
}

/// Carries out a verb.
pub(crate) async fn run(verb: MountVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        MountVerb::Ls(args) => ls(&args, global, &mut session).await,
        MountVerb::Show(args) => show(&args, global, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

async fn ls(args: &ListArgs<MountOrder>, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let because = "rclone, FUSE, NFS and CIFS mounts of every node show here by themselves";
    super::list(args.watch, global, session, async |session| {
        let answer = session.look(async |mut viewer| viewer.list_mounts(super::filter(args)).await).await?;
        let rows: Vec<MountRow> = answer.rows.into_iter().map(MountRow::from).collect();
        let filler = super::filler("mounts", args.node.as_deref(), because);
        Ok(Listing::new(rows, filler).sorted(args.sort.unwrap_or_default()))
    })
    .await
}

async fn show(args: &Which, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let fetch = async |session: &mut Session, request: pb::ListRequest| {
        let answer = session.look(async |mut viewer| viewer.list_mounts(request.clone()).await).await?;
        Ok(answer
            .rows
            .into_iter()
            .map(|mut row| {
                let detail = row.detail.take();
                (MountRow::from(row), detail)
            })
            .collect())
    };
    which::show("mount", args, global, session, fetch, |row, now| {
        let state = Cell::state_for(mount_tone(row.state), row.state.as_str(), row.state_since, now);
        (vec![Cell::text(&row.path), state], &["PATH", "STATE"])
    })
    .await
}
