//! `mainstay audit`.

use std::time::Duration;

use clap::Args;
use mainstay_common::{Failure, Timestamp, process::now, time::parse_span};
use mainstay_proto::v1 as pb;

use crate::{
    args::{Global, WatchArgs},
    connect::Session,
    output::{listing::Listing, rows::AuditRow},
};

/// `mainstay audit`
#[derive(Args, Clone, Debug)]
pub(crate) struct AuditArgs {
    /// How far back, or the moment itself (RFC 3339)
    #[arg(long, value_name = "SPAN|TIME", default_value = "24h", value_parser = parse_since)]
    since: Since,
    /// Only what this one did, or those that a glob matches: admin/anna, agent/n1, token/*
    #[arg(long, value_name = "NAME|GLOB")]
    actor: Option<String>,
    /// The newest so many
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: u32,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Where a listing begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Since {
    Ago(Duration),
    At(Timestamp),
}

fn parse_since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Ok(Since::At(Timestamp(at.as_millisecond())));
    }
    parse_span(text).map(Since::Ago).map_err(|error| format!("{error}; or a moment like 2026-08-22T10:00:00Z"))
}

/// Carries it out.
pub(crate) async fn run(args: AuditArgs, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    super::list(args.watch, global, &mut session, async |session| {
        let since = match args.since {
            Since::At(at) => at,
            Since::Ago(span) => Timestamp(now().0.saturating_sub(i64::try_from(span.as_millis()).unwrap_or(i64::MAX))),
        };
        let actor = args.actor.clone().unwrap_or_default();
        let request = pb::ListAuditRequest { since_ms: since.0, actor, limit: args.limit };
        let answer = session.look(async |mut viewer| viewer.list_audit(request.clone()).await).await?;
        let rows: Vec<AuditRow> = answer.rows.into_iter().map(AuditRow::from).collect();
        let mut listing = Listing::new(rows, "nothing was decided in that time").sorted(());
        if answer.more {
            listing.notes.push(format!("only the newest {}: --limit shows more", args.limit));
        }
        Ok(listing)
    })
    .await?;
    session.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_or_a_moment() {
        assert_eq!(parse_since("90m"), Ok(Since::Ago(Duration::from_secs(5_400))));
        assert_eq!(parse_since("1970-01-01T00:00:01Z"), Ok(Since::At(Timestamp(1_000))));
        assert!(parse_since("yesterday").unwrap_err().contains("2026-08-22T10:00:00Z"));
    }
}
