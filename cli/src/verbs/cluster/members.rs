//! Who decides: `mainstay cluster status|add|remove|transfer`.

use std::time::Duration;

use clap::Args;
use mainstay_common::{Failure, Timestamp, process::now, text::Shown, time::span};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::{
    args::{Global, WatchArgs, YesArgs},
    connect::{Call, Session},
    output::{Format, json, listing::Listing, out, row::rfc3339, rows::ReplicaRow},
    verbs::token,
};

/// How long a replica's token counts.
const TOKEN_LIFE: Duration = Duration::from_secs(15 * 60);
/// How to find out whether something was done.
const FIND_OUT: &str = "mainstay cluster status";

/// `mainstay cluster remove`
#[derive(Args, Debug)]
pub(crate) struct RemoveArgs {
    /// Its id, or an address of it
    #[arg(value_name = "REPLICA")]
    replica: String,
    #[command(flatten)]
    yes: YesArgs,
}

/// `mainstay cluster transfer`
#[derive(Args, Debug)]
pub(crate) struct TransferArgs {
    /// Who leads from now on: an id or an address; whoever is best prepared where it is not given
    #[arg(value_name = "REPLICA")]
    replica: Option<String>,
    #[command(flatten)]
    _yes: YesArgs,
}

pub(super) async fn status(watch: WatchArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    crate::verbs::list(watch, global, session, async |session| {
        let answer = session.look(async |mut viewer| viewer.get_cluster(pb::GetClusterRequest {}).await).await?;
        let rows: Vec<ReplicaRow> = answer.rows.into_iter().map(ReplicaRow::from).collect();
        Ok(Listing::new(rows, "no replicas").sorted(()))
    })
    .await
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Added<'a> {
    id: &'a str,
    token: &'a str,
    role: &'a str,
    #[serde(serialize_with = "rfc3339")]
    expires_at: Option<Timestamp>,
    join: String,
}

pub(super) async fn add(global: &Global, session: &mut Session) -> Result<(), Failure> {
    let made = token::make("replica", TOKEN_LIFE, 1, session).await?;
    let addresses = &session.context().addresses;
    let coordinator = global.coordinator.as_ref().or(addresses.first()).map_or("HOST:PORT", String::as_str);
    let join = format!(
        "mainstay-coordinator join --data-dir /var/lib/mainstay-coordinator --token-file replica.token --coordinator \
         {} --advertise HOST:7443",
        Shown::new(coordinator)
    );
    let expires_at = made.expires_at;
    let object = Added { id: &made.id, token: &made.token, role: &made.role, expires_at: Some(expires_at), join };
    out::say(&match global.output {
        Format::Json => json::pretty(&object)?,
        Format::Yaml => json::yaml(&object)?,
        Format::Name => format!("{}\n", Shown::new(&made.id)),
        Format::Table | Format::Wide => {
            format!("(umask 077; echo {} > replica.token)\n{}\n", Shown::new(&made.token), object.join)
        }
    })?;
    if global.output.is_for_people() {
        let left = span(expires_at.since(now()).max(Duration::from_secs(1)));
        out::remark(&format!(
            "once, within {left}, on the new machine, as root; HOST is what agents, operators and the other replicas \
             dial there. Then: mainstay-coordinator run"
        ));
    }
    Ok(())
}

pub(super) async fn remove(args: RemoveArgs, session: &mut Session) -> Result<(), Failure> {
    let shown = Shown::new(&args.replica).to_string();
    let cluster = Shown::new(&session.context().cluster).to_string();
    let question =
        format!("cluster {cluster}: remove replica {shown} for good? Its id and its data are never used again.");
    crate::verbs::confirm(&question, args.yes.yes, &format!("mainstay cluster remove {shown}"))?;
    let request = pb::RemoveReplicaRequest { replica: args.replica };
    let call = Call::Changes(FIND_OUT);
    let removed = session.administer(call, async |mut admin| admin.remove_replica(request.clone()).await).await?;
    out::say(&format!("{} removed\n", Shown::new(&removed.replica)))?;
    out::remark("its process ends by itself, with exit code 4; its data directory is of no use any more");
    Ok(())
}

pub(super) async fn transfer(args: TransferArgs, session: &mut Session) -> Result<(), Failure> {
    let request = pb::TransferLeadershipRequest { replica: args.replica.unwrap_or_default() };
    let call = Call::Changes(FIND_OUT);
    let answer = session.administer(call, async |mut admin| admin.transfer_leadership(request.clone()).await).await?;
    out::say(&format!("{} leads\n", Shown::new(&answer.replica)))
}
