//! `mainstay node`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use mainstay_common::{
    Failure, Timestamp,
    process::now,
    state::{EngineState, SwarmState},
    text::Shown,
};
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::{
    args::{Global, ListArgs, YesArgs, complete},
    connect::{Call, Session},
    output::{
        Format,
        cell::Cell,
        json,
        listing::Listing,
        look::Look,
        out,
        row::{Row as _, rfc3339},
        rows::{NodeOrder, NodeRow},
        sheet::{self, Sheet},
        style::Tone,
        swarm::SwarmObject,
    },
};

/// Machines with an agent.
#[derive(Subcommand, Debug)]
pub(crate) enum NodeVerb {
    /// List them
    Ls(ListArgs<NodeOrder>),
    /// Show everything known about one
    Show {
        /// Its name
        #[arg(add = ArgValueCandidates::new(complete::nodes))]
        name: String,
    },
    /// Set and take away labels
    Label(LabelArgs),
    /// Take one out of the cluster: its agent is refused from then on
    Rm {
        /// Its name
        #[arg(add = ArgValueCandidates::new(complete::nodes))]
        name: String,
        #[command(flatten)]
        yes: YesArgs,
    },
}

/// `mainstay node label`
#[derive(Args, Debug)]
pub(crate) struct LabelArgs {
    /// Its name
    #[arg(add = ArgValueCandidates::new(complete::nodes))]
    name: String,
    /// key=value sets a label, key- takes it away
    #[arg(required = true, value_name = "KEY=VALUE|KEY-", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    _yes: YesArgs,
}

/// An empty value takes the label away.
fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() && !value.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some((key, _)) if !key.is_empty() => Err(format!("an empty value is none: {key}- takes the label away")),
        Some(_) => Err("a label needs a key: write key=value".into()),
        None => match text.strip_suffix('-') {
            Some(key) if !key.is_empty() => Ok((key.to_owned(), String::new())),
            _ => Err("write key=value to set a label, key- to take it away".into()),
        },
    }
}

/// Carries out a verb.
pub(crate) async fn run(verb: NodeVerb, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    match verb {
        NodeVerb::Ls(args) => ls(&args, global, &mut session).await,
        NodeVerb::Show { name } => show(name, global, &mut session).await,
        NodeVerb::Label(args) => label(args, global, &mut session).await,
        NodeVerb::Rm { name, yes } => rm(name, yes, &mut session).await,
    }?;
    session.close().await;
    Ok(())
}

async fn ls(args: &ListArgs<NodeOrder>, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let because = "mainstay token create makes a token, and with it a machine joins: mainstay-agent enroll";
    super::list(args.watch, global, session, async |session| {
        let answer = session.look(async |mut viewer| viewer.list_nodes(super::filter(args)).await).await?;
        let rows: Vec<NodeRow> = answer.rows.into_iter().map(NodeRow::from).collect();
        let filler = match &args.node {
            Some(node) => format!("no node matches {}", Shown::new(node)),
            None => format!("no nodes yet: {because}"),
        };
        Ok(Listing::new(rows, filler).sorted(args.sort.unwrap_or_default()))
    })
    .await
}

async fn show(name: String, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let request = pb::GetNodeRequest { name };
    let answer = session.look(async |mut viewer| viewer.get_node(request.clone()).await).await?;
    let row = NodeRow::from(answer.row.clone().unwrap_or_default());
    let text = match global.output {
        Format::Json => json::pretty(&whole(&row, &answer))?,
        Format::Yaml => json::yaml(&whole(&row, &answer))?,
        Format::Name => row.name() + "\n",
        Format::Table | Format::Wide => text(&row, &answer, now(), &Look::of_stdout()),
    };
    out::say(&text)
}

fn text(row: &NodeRow, answer: &pb::GetNodeResponse, now: Timestamp, look: &Look) -> String {
    let detail = answer.detail.clone().unwrap_or_default();
    let count = |(noun, count): (&str, Option<u64>)| (noun.to_owned(), Cell::number(count));
    let counts = [
        ("disks", answer.disks),
        ("mounts", answer.mounts),
        ("volumes", answer.volumes),
        ("containers", answer.containers),
    ];
    let links = answer.links.iter().map(|link| (Shown::new(&link.name).to_string(), link_cell(link)));
    Sheet::new(vec![Cell::text(&row.name), row.state_cell(now)])
        .row(row, &["NAME", "STATE"], now)
        .group("reports", counts.map(count).into())
        .group("engine", answer.engine.iter().flat_map(|engine| engine_lines(engine, now)).collect())
        .group("swarm", answer.swarm.iter().flat_map(swarm_lines).collect())
        .group("complaints", answer.errors.iter().map(|error| complaint(error, now)).collect())
        .group("links", links.collect())
        .detail(&detail)
        .text(look)
}

fn engine_lines(engine: &pb::Engine, now: Timestamp) -> Vec<(String, Cell)> {
    let state = EngineState::from_number(engine.state);
    let tone = match state {
        Some(EngineState::Ok) => Tone::Good,
        Some(EngineState::Missing) => Tone::Idle,
        Some(EngineState::Refused | EngineState::Denied | EngineState::Timeout | EngineState::Error) => Tone::Bad,
        None => Tone::Unknown,
    };
    let since = Some(Timestamp(engine.state_since_ms)).filter(|since| since.0 > 0);
    let word = state.map_or("unknown", EngineState::as_str);
    let mut lines = vec![("state".to_owned(), Cell::state_for(tone, word, since, now))];
    let texts = [("version", &engine.version), ("root", &engine.root), ("reason", &engine.reason)];
    lines.extend(known(&texts));
    lines
}

fn swarm_lines(swarm: &pb::Swarm) -> Vec<(String, Cell)> {
    let state = SwarmState::from_number(swarm.state);
    let tone = match state {
        Some(SwarmState::Active) => Tone::Good,
        Some(SwarmState::Inactive) => Tone::Idle,
        Some(SwarmState::Pending) => Tone::Busy,
        Some(SwarmState::Error | SwarmState::Locked) => Tone::Bad,
        None => Tone::Unknown,
    };
    let mut lines = vec![("state".to_owned(), Cell::state(tone, state.map_or("unknown", SwarmState::as_str)))];
    if state == Some(SwarmState::Active) {
        lines.push(("role".to_owned(), Cell::text(if swarm.manager { "manager" } else { "worker" })));
    }
    lines.extend(known(&[
        ("node id", &swarm.node_id),
        ("availability", &swarm.availability),
        ("reachability", &swarm.reachability),
        ("error", &swarm.error),
    ]));
    if let Some(view) = &swarm.view {
        let counts = [("nodes", view.nodes.len()), ("services", view.services.len()), ("tasks", view.tasks.len())];
        lines.extend(counts.map(|(name, count)| (name.to_owned(), Cell::number(u64::try_from(count).ok()))));
    }
    lines
}

fn complaint(error: &pb::CollectorError, now: Timestamp) -> (String, Cell) {
    let since = Some(Timestamp(error.since_ms)).filter(|since| since.0 > 0);
    let reason = Shown::new(&error.reason).to_string();
    (Shown::new(&error.collector).to_string(), Cell::state_for(Tone::Warning, &reason, since, now))
}

fn known(texts: &[(&str, &String)]) -> Vec<(String, Cell)> {
    let known = texts.iter().filter(|(_, text)| !text.is_empty());
    known.map(|(name, text)| ((*name).to_owned(), Cell::text(text))).collect()
}

/// What came in and went out.
fn link_cell(link: &pb::Link) -> Cell {
    use mainstay_common::metric::{Readings, catalogue as m};
    let wire = link.readings.clone().unwrap_or_default();
    let readings = Readings::from_lists(&wire.metric, &wire.value);
    let size = |metric| readings.count(metric).map_or_else(|| "?".to_owned(), mainstay_common::unit::bytes);
    let (received, sent) = (size(&m::NETWORK_RECEIVE_BYTES_TOTAL), size(&m::NETWORK_TRANSMIT_BYTES_TOTAL));
    Cell::text(&format!("{received} received, {sent} sent"))
}

/// Everything, for scripts.
#[derive(Serialize)]
struct WholeNode<'a> {
    #[serde(flatten)]
    row: &'a NodeRow,
    disks: Option<u64>,
    mounts: Option<u64>,
    volumes: Option<u64>,
    containers: Option<u64>,
    engine: Option<EngineObject<'a>>,
    swarm: Option<SwarmObject<'a>>,
    complaints: Vec<ComplaintObject<'a>>,
    #[serde(serialize_with = "sheet::readings")]
    readings: &'a [pb::NamedReading],
    #[serde(serialize_with = "sheet::notes")]
    notes: &'a [pb::Note],
}

#[derive(Serialize)]
struct EngineObject<'a> {
    state: Option<EngineState>,
    #[serde(serialize_with = "rfc3339")]
    state_since: Option<Timestamp>,
    version: &'a str,
    root: &'a str,
    reason: &'a str,
}

#[derive(Serialize)]
struct ComplaintObject<'a> {
    collector: &'a str,
    reason: &'a str,
    #[serde(serialize_with = "rfc3339")]
    since: Option<Timestamp>,
}

fn whole<'a>(row: &'a NodeRow, answer: &'a pb::GetNodeResponse) -> WholeNode<'a> {
    let moment = |ms: i64| Some(Timestamp(ms)).filter(|at| at.0 > 0);
    let detail = answer.detail.as_ref();
    WholeNode {
        row,
        disks: answer.disks,
        mounts: answer.mounts,
        volumes: answer.volumes,
        containers: answer.containers,
        engine: answer.engine.as_ref().map(|engine| EngineObject {
            state: EngineState::from_number(engine.state),
            state_since: moment(engine.state_since_ms),
            version: &engine.version,
            root: &engine.root,
            reason: &engine.reason,
        }),
        swarm: answer.swarm.as_ref().map(SwarmObject::from),
        complaints: answer
            .errors
            .iter()
            .map(|error| ComplaintObject {
                collector: &error.collector,
                reason: &error.reason,
                since: moment(error.since_ms),
            })
            .collect(),
        readings: detail.map_or(&[], |detail| &detail.readings),
        notes: detail.map_or(&[], |detail| &detail.notes),
    }
}

async fn label(args: LabelArgs, global: &Global, session: &mut Session) -> Result<(), Failure> {
    let name = args.name;
    let set: BTreeMap<String, String> = args.labels.into_iter().collect();
    let request = pb::LabelNodeRequest { name: name.clone(), set };
    let call = Call::Changes("mainstay node ls -o wide");
    let answer = session.operate(call, async |mut operator| operator.label_node(request.clone()).await).await?;
    let row = NodeRow::from(pb::NodeRow { name, labels: answer.labels, ..pb::NodeRow::default() });
    out::say(&match global.output {
        Format::Json => json::pretty(&Labelled { name: &row.name(), labels: &row.labels })?,
        Format::Yaml => json::yaml(&Labelled { name: &row.name(), labels: &row.labels })?,
        Format::Name => row.name() + "\n",
        Format::Table | Format::Wide if row.labels.is_empty() => format!("{} has no labels now\n", row.name()),
        Format::Table | Format::Wide => format!("{}  {}\n", row.name(), Shown::new(&row.labels_text())),
    })
}

#[derive(Serialize)]
struct Labelled<'a> {
    name: &'a str,
    labels: &'a BTreeMap<String, String>,
}

async fn rm(name: String, yes: YesArgs, session: &mut Session) -> Result<(), Failure> {
    let shown = Shown::new(&name).to_string();
    // Before anybody is asked: whether it is there, and in what state.
    let request = pb::GetNodeRequest { name: name.clone() };
    let there = session.look(async |mut viewer| viewer.get_node(request.clone()).await).await?;
    let row = NodeRow::from(there.row.unwrap_or_default());
    let state = row.state.map_or("unknown", mainstay_common::state::NodeState::as_str);
    let cluster = Shown::new(&session.context().cluster).to_string();
    let question =
        format!("remove {shown} ({state}) from cluster {cluster}? Its agent ends, and its key never comes back.");
    super::confirm(&question, yes.yes, &format!("mainstay node rm {shown}"))?;
    let call = Call::Changes("mainstay node ls");
    let request = pb::RemoveNodeRequest { name };
    session.administer(call, async |mut admin| admin.remove_node(request.clone()).await).await?;
    out::say(&format!("{shown} removed\n"))?;
    out::remark(
        "to bring it back: mainstay-agent enroll with a fresh token (mainstay token create), in a new data directory",
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_set_with_a_value_and_taken_away_with_a_dash() {
        let parsed = |text| parse_label(text).unwrap();
        assert_eq!(parsed("zone=a"), ("zone".into(), "a".into()));
        assert_eq!(parsed("url=x=y"), ("url".into(), "x=y".into()));
        assert_eq!(parsed("rack-"), ("rack".into(), String::new()));
        for bad in ["zone", "=a", "zone=", "-", ""] {
            assert!(parse_label(bad).is_err(), "{bad}");
        }
    }
}
