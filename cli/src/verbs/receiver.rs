//! `mainstay receiver`.

use std::time::Duration;

use clap::Subcommand;
use mainstay_common::{ExitCode, Failure, state::DeliveryState, text::Shown, time::span};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::{
    args::{Global, WatchArgs},
    connect::{Call, Session},
    output::{Format, json, listing::Listing, out, row::Text, rows::ReceiverRow},
};

/// How long a test waits for its outcome: longer than one attempt may take.
const TEST_LIMIT: Duration = Duration::from_secs(30);
/// How often the outcome is asked for.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Where messages go.
#[derive(Subcommand, Debug)]
pub(crate) enum ReceiverVerb {
    /// List them, and what their last attempts came to
    Ls(WatchArgs),
    /// Send one a message that says it is a test, and wait for its answer
    Test {
        /// Its name
        name: String,
    },
}

/// Carries out a verb.
pub(crate) async fn run(verb: ReceiverVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        ReceiverVerb::Ls(watch) => ls(watch, global, &mut session).await,
        ReceiverVerb::Test { name } => test(name, global, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

async fn ls(watch: WatchArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    super::list(watch, global, session, async |session| {
        let answer = session.look(async |mut viewer| viewer.list_receivers(pb::ListReceiversRequest {}).await).await?;
        let rows: Vec<ReceiverRow> = answer.rows.into_iter().map(ReceiverRow::from).collect();
        Ok(Listing::new(rows, "no receivers, so nobody is told: mainstay apply -f FILE declares one").sorted(()))
    })
    .await
}

/// What `-o json` prints.
#[derive(Serialize)]
struct Tested {
    receiver: String,
    delivery: String,
    state: &'static str,
    attempts: u32,
    answer: Text,
}

async fn test(name: String, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let request = pb::TestReceiverRequest { name: name.clone() };
    let call = Call::Changes("mainstay receiver ls");
    let owed = session.operate(call, async |mut operator| operator.test_receiver(request.clone()).await).await?;
    let row = outcome(&owed.delivery, &name, session).await?;
    let state = DeliveryState::from_number(row.state);
    let shown = Shown::new(&name).to_string();
    if state != Some(DeliveryState::Delivered) {
        let answer = if row.answer.is_empty() {
            format!("no answer within {}", span(TEST_LIMIT))
        } else {
            Shown::new(&row.answer).to_string()
        };
        let waits = state != Some(DeliveryState::GivenUp);
        let why = if waits { format!("{answer}; it is tried again by itself") } else { answer };
        return Err(Failure::new(
            ExitCode::Failed,
            format!("{shown} did not take the test"),
            why,
            "mainstay receiver ls",
        ));
    }
    let tested = Tested {
        receiver: shown,
        delivery: owed.delivery,
        state: DeliveryState::Delivered.as_str(),
        attempts: row.attempts,
        answer: Text(row.answer),
    };
    out::say(&match global.output {
        Format::Json => json::pretty(&tested)?,
        Format::Yaml => json::yaml(&tested)?,
        Format::Name => format!("{}\n", Shown::new(&tested.delivery)),
        Format::Table | Format::Wide => format!("{} took the test\n", tested.receiver),
    })
}

/// Asks until the delivery has ended, or its first attempt failed, or patience is over.
async fn outcome(delivery: &str, receiver: &str, session: &mut Session) -> Result<pb::DeliveryRow, Failure> {
    let deadline = tokio::time::Instant::now() + TEST_LIMIT;
    let mut again = tokio::time::interval(ASK_EVERY);
    loop {
        again.tick().await;
        let request = pb::GetDeliveryRequest { id: delivery.to_owned(), receiver: receiver.to_owned() };
        let row =
            session.look(async |mut viewer| viewer.get_delivery(request.clone()).await).await?.row.unwrap_or_default();
        let ended = match DeliveryState::from_number(row.state) {
            Some(DeliveryState::Delivered | DeliveryState::GivenUp) => true,
            Some(DeliveryState::Owed) => row.attempts > 0,
            Some(DeliveryState::Claimed) | None => false,
        };
        if ended || tokio::time::Instant::now() >= deadline {
            return Ok(row);
        }
    }
}
