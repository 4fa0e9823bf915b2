//! `mainstay alert`.

use clap::{Args, Subcommand};
use mainstay_common::{Failure, Timestamp, process::now, state::DeliveryState, text::Shown};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::{
    args::{Global, ListArgs},
    connect::Session,
    output::{
        Format,
        cell::Cell,
        json,
        listing::{Listing, unknown},
        look::Look,
        out,
        row::{Row as _, Text, rfc3339},
        rows::{AlertOrder, AlertRow, RuleRow},
        sheet::Sheet,
        style::Tone,
    },
};

/// Where a rule holds.
#[derive(Subcommand, Debug)]
pub(crate) enum AlertVerb {
    /// List what fires or is about to, worst first
    Ls(LsArgs),
    /// Show one, its rule, and who was told
    Show {
        /// As listed by -o name: rule/node/target
        id: String,
    },
}

/// `mainstay alert ls`
#[derive(Args, Clone, Debug)]
pub(crate) struct LsArgs {
    #[command(flatten)]
    list: ListArgs<AlertOrder>,
    /// Only this rule, or those that a glob matches
    #[arg(long, value_name = "NAME|GLOB")]
    rule: Option<String>,
    /// Resolved ones too
    #[arg(long)]
    all: bool,
}

/// Carries out a verb.
pub(crate) async fn run(verb: AlertVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        AlertVerb::Ls(args) => ls(&args, global, &mut session).await,
        AlertVerb::Show { id } => show(&id, global, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

async fn fetch(session: &mut Session, request: pb::ListAlertsRequest) -> Result<Vec<AlertRow>, Failure> {
    let answer = session.look(async |mut viewer| viewer.list_alerts(request.clone()).await).await?;
    Ok(answer.rows.into_iter().map(AlertRow::from).collect())
}

async fn ls(args: &LsArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    super::list(args.list.watch, global, session, async |session| {
        let request = pb::ListAlertsRequest {
            node: args.list.node.clone().unwrap_or_default(),
            rule: args.rule.clone().unwrap_or_default(),
            all: args.all,
        };
        let rows = fetch(session, request).await?;
        let filler = super::filler("alerts", args.list.node.as_deref(), "mainstay rule ls shows what is watched for");
        Ok(Listing::new(rows, filler).sorted(args.list.sort.unwrap_or_default()))
    })
    .await
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    row: AlertRow,
    rule_as_applied: Option<RuleRow>,
    deliveries: Vec<Delivery>,
}

#[derive(Serialize)]
struct Delivery {
    id: Text,
    receiver: Text,
    event: Text,
    state: &'static str,
    attempts: u32,
    #[serde(serialize_with = "rfc3339")]
    owed_at: Option<Timestamp>,
    #[serde(serialize_with = "rfc3339")]
    not_before: Option<Timestamp>,
    #[serde(serialize_with = "rfc3339")]
    done_at: Option<Timestamp>,
    answer: Text,
}

impl From<pb::DeliveryRow> for Delivery {
    fn from(row: pb::DeliveryRow) -> Self {
        Self {
            id: row.id.into(),
            receiver: row.receiver.into(),
            event: row.event.into(),
            state: DeliveryState::from_number(row.state).map_or("unknown", DeliveryState::as_str),
            attempts: row.attempts,
            owed_at: Some(Timestamp(row.owed_at_ms)),
            not_before: row.not_before_ms.map(Timestamp),
            done_at: row.done_at_ms.map(Timestamp),
            answer: Text(row.answer),
        }
    }
}

impl Delivery {
    /// `✖ given up 3m: 404 Not Found`
    fn line(&self, now: Timestamp) -> (String, Cell) {
        let tone = match self.state {
            "delivered" => Tone::Good,
            "given_up" => Tone::Bad,
            _ => Tone::Busy,
        };
        let answer = if self.answer.0.is_empty() { String::new() } else { format!(": {}", Shown::new(&self.answer)) };
        let word = format!("{}{answer}", self.state.replace('_', " "));
        let named = format!("{} to {}", Shown::new(&self.event), Shown::new(&self.receiver));
        (named, Cell::state_for(tone, &word, self.done_at.or(self.owed_at), now))
    }
}

async fn show(id: &str, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let request = pb::GetAlertRequest { id: id.to_owned() };
    let answer = session.look(async |mut viewer| viewer.get_alert(request.clone()).await).await?;
    let Some(row) = answer.row else {
        let all = pb::ListAlertsRequest { all: true, ..pb::ListAlertsRequest::default() };
        let names: Vec<String> = fetch(session, all).await?.iter().map(AlertRow::name).collect();
        return Err(unknown("alert", &Shown::new(id).to_string(), &names));
    };
    let whole = Whole {
        row: row.into(),
        rule_as_applied: answer.rule.map(RuleRow::from),
        deliveries: answer.deliveries.into_iter().map(Delivery::from).collect(),
    };
    let text = match global.output {
        Format::Json => json::pretty(&whole)?,
        Format::Yaml => json::yaml(&whole)?,
        Format::Name => whole.row.name() + "\n",
        Format::Table | Format::Wide => sheet(&whole, now(), &Look::of_stdout()),
    };
    out::say(&text)
}

fn sheet(whole: &Whole, now: Timestamp, look: &Look) -> String {
    let rule = whole.rule_as_applied.as_ref().map_or_else(Vec::new, |rule| {
        use crate::output::{row::Row as _, table::Column};
        let lines = RuleRow::COLUMNS
            .iter()
            .map(|column: &Column<RuleRow>| (column.title.to_lowercase(), (column.cell)(rule, now)));
        lines.collect()
    });
    Sheet::new(vec![Cell::text(&whole.row.id), whole.row.state_cell(now)])
        .row(&whole.row, &["RULE", "STATE"], now)
        .group("rule", rule)
        .group("told", whole.deliveries.iter().map(|delivery| delivery.line(now)).collect())
        .text(look)
}
