//! `mainstay apply`: receivers, routes and rules as files declare them.

mod changes;
mod files;

use std::path::PathBuf;

use clap::Args;
use mainstay_common::Failure;
use mainstay_proto::v1 as pb;

use crate::{
    args::{Global, YesArgs},
    connect::{Call, Session},
    output::{Format, json, look::Look, out},
};

/// `mainstay apply`
#[derive(Args, Clone, Debug)]
pub(crate) struct ApplyArgs {
    /// A TOML file, or a folder of them; - is standard input
    #[arg(short, long = "file", value_name = "FILE|DIR", required = true)]
    files: Vec<PathBuf>,
    /// Show what would change, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Take out what is not declared here
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    yes: YesArgs,
}

/// Carries it out: what is shown is what is done, or nothing is.
pub(crate) async fn run(args: ApplyArgs, global: &Global) -> Result<(), Failure> {
    let declared = files::read(&args.files)?;
    let mut session = Session::open(global)?;
    let asked = pb::DeclareRequest { prune: args.prune, dry_run: true, ..declared };
    let planned = declare(&mut session, asked.clone()).await?;
    let for_people = global.output.is_for_people();
    if for_people {
        out::say(&changes::text(&planned.changes, &Look::of_stdout()))?;
    }
    if args.dry_run || planned.changes.is_empty() {
        report(&planned.changes, args.dry_run, global)?;
    } else {
        let removed = changes::count(&planned.changes, pb::ChangeKind::Remove);
        if removed > 0 {
            let things = if removed == 1 { "1 thing".to_owned() } else { format!("{removed} things") };
            super::confirm(&format!("take out {things}?"), args.yes.yes, "mainstay apply")?;
        }
        let revision = Some(planned.revision);
        declare(&mut session, pb::DeclareRequest { dry_run: false, revision, ..asked }).await?;
        report(&planned.changes, false, global)?;
    }
    session.close().await;
    Ok(())
}

async fn declare(session: &mut Session, request: pb::DeclareRequest) -> Result<pb::DeclareResponse, Failure> {
    let changes = Call::Changes("mainstay apply --dry-run shows what is left to change");
    let call = if request.dry_run { Call::Looks } else { changes };
    session.administer(call, async |mut admin| admin.declare(request.clone()).await).await
}

fn report(planned: &[pb::Change], dry_run: bool, global: &Global) -> Result<(), Failure> {
    match global.output {
        Format::Json => out::say(&json::pretty(&changes::rows(planned))?),
        Format::Yaml => out::say(&json::yaml(&changes::rows(planned))?),
        Format::Name => out::say(&changes::names(planned)),
        Format::Table | Format::Wide => out::say(&changes::summary(planned, dry_run)),
    }
}
