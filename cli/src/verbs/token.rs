//! `mainstay token`.

use std::time::Duration;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use mainstay_common::{
    ExitCode, Failure, Timestamp,
    process::{now, random},
    text::Shown,
    time::{parse_span, span},
    token::{JoinToken, Secret},
};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::{
    args::{Global, WatchArgs, YesArgs, complete},
    connect::{Call, Session},
    output::{Format, json, listing::Listing, out, row::rfc3339, rows::TokenRow},
};

/// How long a token counts where nobody says.
const AGENT_TTL: Duration = Duration::from_secs(3_600);
/// The same for a replica, which will know everything.
const REPLICA_TTL: Duration = Duration::from_secs(15 * 60);

/// Join tokens, which turn a machine into a node.
#[derive(Subcommand, Debug)]
pub(crate) enum TokenVerb {
    /// Make one, and print it alone on standard output
    Create(CreateArgs),
    /// List them; their secrets are kept nowhere
    Ls(WatchArgs),
    /// Make one worthless; nodes that came in with it stay
    Revoke {
        /// Its id
        #[arg(add = ArgValueCandidates::new(complete::tokens))]
        id: String,
        #[command(flatten)]
        _yes: YesArgs,
    },
}

/// `mainstay token create`
#[derive(Args, Debug)]
pub(crate) struct CreateArgs {
    /// What its holder becomes: agent or replica
    #[arg(long, default_value = "agent", value_parser = ["agent", "replica"], hide_possible_values = true)]
    role: String,
    /// How long it counts: 24h at most, 15m for a replica [default: 1h, 15m for a replica]
    #[arg(long, value_name = "SPAN", value_parser = parse_span)]
    ttl: Option<Duration>,
    /// How many machines it admits
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    #[command(flatten)]
    _yes: YesArgs,
}

/// Carries out a verb.
pub(crate) async fn run(verb: TokenVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        TokenVerb::Create(args) => create(args, global, &mut session).await,
        TokenVerb::Ls(watch) => ls(watch, global, &mut session).await,
        TokenVerb::Revoke { id, .. } => revoke(id, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Created<'a> {
    id: &'a str,
    token: &'a str,
    role: &'a str,
    #[serde(serialize_with = "rfc3339")]
    expires_at: Option<Timestamp>,
}

/// A token that was just made, and nobody else knows.
pub(super) struct Made {
    pub(super) id: String,
    pub(super) token: String,
    pub(super) role: String,
    pub(super) expires_at: Timestamp,
}

/// Makes one. Its secret is made here: the coordinator gets its hash alone, so the same may be asked for again.
///
/// # Errors
/// What the coordinator says.
pub(super) async fn make(role: &str, ttl: Duration, uses: u32, session: &mut Session) -> Result<Made, Failure> {
    let secret = Secret(random());
    let ttl_ms = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
    let secret_sha256 = secret.sha256().to_vec();
    let request = pb::CreateTokenRequest { role: role.to_owned(), ttl_ms, uses, secret_sha256 };
    let call =
        Call::Hides("mainstay token ls; mainstay token revoke one that was made and not printed; then make another");
    let made = session.administer(call, async |mut admin| admin.create_token(request.clone()).await).await?;
    let token = if made.token.is_empty() {
        let odd =
            |why: &str| Failure::new(ExitCode::Failed, "the coordinator's answer does not fit", why, "report this");
        let id = made.id.parse().map_err(|_| odd("the token has no id"))?;
        let ca_pin = made.ca_pin.try_into().map_err(|_| odd("it tells no fingerprint of its CA"))?;
        JoinToken { role: made.role.clone(), id, secret, ca_pin }.to_string()
    } else {
        // An older coordinator makes the secret itself.
        made.token
    };
    Ok(Made { id: made.id, token, role: made.role, expires_at: Timestamp(made.expires_at_ms) })
}

async fn create(args: CreateArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let usual = if args.role == "replica" { REPLICA_TTL } else { AGENT_TTL };
    let made = make(&args.role, args.ttl.unwrap_or(usual), args.uses, session).await?;
    let expires_at = made.expires_at;
    let object = Created { id: &made.id, token: &made.token, role: &made.role, expires_at: Some(expires_at) };
    out::say(&match global.output {
        Format::Json => json::pretty(&object)?,
        Format::Yaml => json::yaml(&object)?,
        Format::Name => format!("{}\n", Shown::new(&made.id)),
        Format::Table | Format::Wide => format!("{}\n", Shown::new(&made.token)),
    })?;
    if global.output.is_for_people() {
        let machines = if args.uses == 1 { "one machine".to_owned() } else { format!("{} machines", args.uses) };
        let address = session.context().addresses.first().map_or("HOST:PORT", String::as_str);
        out::remark(&format!(
            "for {machines}, within {}; there, as root: {} --token-file FILE --coordinator {address}",
            span(expires_at.since(now()).max(Duration::from_secs(1))),
            if made.role == "replica" { "mainstay-coordinator join" } else { "mainstay-agent enroll" }
        ));
    }
    Ok(())
}

async fn ls(watch: WatchArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    super::list(watch, global, session, async |session| {
        let call = Call::Looks;
        let answer =
            session.administer(call, async |mut admin| admin.list_tokens(pb::ListTokensRequest {}).await).await?;
        let rows: Vec<TokenRow> = answer.rows.into_iter().map(TokenRow::from).collect();
        Ok(Listing::new(rows, "no tokens yet: mainstay token create makes one").sorted(()))
    })
    .await
}

async fn revoke(id: String, session: &mut Session) -> Result<(), Failure> {
    let shown = Shown::new(&id).to_string();
    let request = pb::RevokeTokenRequest { id };
    let call = Call::Changes("mainstay token ls");
    session.administer(call, async |mut admin| admin.revoke_token(request.clone()).await).await?;
    out::say(&format!("{shown} revoked\n"))?;
    out::remark("nodes that came in with it stay; mainstay node rm takes one out");
    Ok(())
}
