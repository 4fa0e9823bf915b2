//! `mainstay status`: one screen.

use clap::Args;
use mainstay_common::{
    Failure, Timestamp,
    process::now,
    state::NodeState,
    text::{Shown, columns},
    time::span,
};
use mainstay_proto::v1 as pb;
use serde::{Serialize, Serializer};

use crate::{
    args::{Global, WatchArgs},
    connect::Session,
    output::{
        Format,
        cell::{Align, Cell, cut},
        json,
        look::Look,
        out,
        row::{Text, rfc3339},
        rows::{AlertRow, node_tone},
        style::{Tone, bold},
        watch::{self, Watched},
    },
};

/// `mainstay status`
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    watch: WatchArgs,
}

/// How the whole fares.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Screen {
    cluster: String,
    version: String,
    replicas: Vec<Replica>,
    #[serde(serialize_with = "by_state")]
    nodes: Vec<(Option<NodeState>, u64)>,
    disks: u64,
    mounts: u64,
    volumes: u64,
    containers: u64,
    /// What fires, worst first.
    alerts: Vec<AlertRow>,
    firing: u64,
    pending: u64,
    /// Messages that no receiver took yet, and those that were given up.
    deliveries_owed: u64,
    deliveries_given_up: u64,
    /// When somebody took a backup of the cluster last.
    #[serde(serialize_with = "rfc3339")]
    backed_up_at: Option<Timestamp>,
    troubles: Vec<Trouble>,
}

#[derive(Clone, Debug, Serialize)]
struct Replica {
    id: String,
    address: String,
    role: String,
    healthy: bool,
}

#[derive(Clone, Debug, Serialize)]
struct Trouble {
    node: Text,
    noun: String,
    target: Text,
    state: String,
    #[serde(serialize_with = "rfc3339")]
    since: Option<Timestamp>,
    reason: Text,
}

/// Shows the screen, once or until Ctrl-C.
pub(crate) async fn run(args: StatusArgs, global: &Global) -> Result<(), Failure> {
    let mut session = Session::open(global)?;
    let format = global.output;
    if args.watch.watch {
        watch::follow(format, async || fetch(&mut session).await).await?;
    } else {
        let screen = fetch(&mut session).await?;
        out::say(&screen.text(format, now(), &Look::of_stdout())?)?;
        if format.is_for_people() {
            screen.remarks().iter().for_each(out::remark);
        }
    }
    session.close().await;
    Ok(())
}

async fn fetch(session: &mut Session) -> Result<Screen, Failure> {
    session.look(async |mut viewer| viewer.get_status(pb::GetStatusRequest {}).await).await.map(Screen::from)
}

impl From<pb::GetStatusResponse> for Screen {
    fn from(status: pb::GetStatusResponse) -> Self {
        let replica =
            |row: pb::ReplicaRow| Replica { id: row.id, address: row.address, role: row.role, healthy: row.healthy };
        let trouble = |trouble: pb::Trouble| Trouble {
            node: trouble.node.into(),
            noun: trouble.noun,
            target: Text(trouble.target),
            state: trouble.state,
            since: Some(Timestamp(trouble.since_ms)).filter(|since| since.0 > 0),
            reason: trouble.reason.into(),
        };
        Self {
            cluster: status.cluster,
            version: status.version,
            replicas: status.replicas.into_iter().map(replica).collect(),
            nodes: status.nodes.into_iter().map(|count| (NodeState::from_number(count.state), count.count)).collect(),
            disks: status.disks,
            mounts: status.mounts,
            volumes: status.volumes,
            containers: status.containers,
            alerts: status.alerts.into_iter().map(AlertRow::from).collect(),
            firing: status.firing,
            pending: status.pending,
            deliveries_owed: status.deliveries_owed,
            deliveries_given_up: status.deliveries_given_up,
            backed_up_at: status.backed_up_at_ms.map(Timestamp),
            troubles: status.troubles.into_iter().map(trouble).collect(),
        }
    }
}

impl Screen {
    fn text(&self, format: Format, now: Timestamp, look: &Look) -> Result<String, Failure> {
        match format {
            Format::Json => json::pretty(self),
            Format::Yaml => json::yaml(self),
            Format::Name => Ok(format!("{}\n", Shown::new(&self.cluster))),
            Format::Table | Format::Wide => {
                let (head, blocks) = self.blocks(format, now, look)?;
                Ok(head.into_iter().chain(blocks).flat_map(|line| [line, "\n".into()]).collect())
            }
        }
    }

    /// `prod  ● 3/3 replicas, leader c2   nodes ● 41 ready  ▲ 1 stale`
    fn head(&self, now: Timestamp, look: &Look) -> Vec<String> {
        let healthy = self.replicas.iter().filter(|replica| replica.healthy).count();
        let tone = match healthy {
            all if all == self.replicas.len() => Tone::Good,
            most if most * 2 > self.replicas.len() => Tone::Warning,
            _ => Tone::Bad,
        };
        let leader = self.replicas.iter().find(|replica| replica.role == "leader");
        let leader = leader.map_or_else(|| "no leader".into(), |leader| format!("leader {}", Shown::new(&leader.id)));
        let replicas = count_cell(tone, &format!("{healthy}/{}", self.replicas.len()));
        let cluster = bold(&Shown::new(&self.cluster).to_string(), look.colour);
        let replicas = format!("{cluster}  {} replicas, {leader}", replicas.whole(look));
        let indent = " ".repeat(columns(&Shown::new(&self.cluster).to_string()) + 2);
        let nodes = self.node_counts(look);
        let backup = self.backed_up_at.map(|at| format!("   backup {} ago", span(now.since(at)))).unwrap_or_default();
        let things = format!(
            "{indent}{}  {}  {}  {}{backup}",
            counted(self.disks, "disk"),
            counted(self.mounts, "mount"),
            counted(self.volumes, "volume"),
            counted(self.containers, "container")
        );
        let mut head = vec![format!("{replicas}   {nodes}"), things];
        head.extend(self.alert_counts().map(|counts| format!("{indent}{counts}")));
        head
    }

    /// What alerts and their messages come to; nothing where all is quiet.
    fn alert_counts(&self) -> Option<String> {
        let counts = [
            (self.firing, "alert firing", "alerts firing"),
            (self.pending, "alert pending", "alerts pending"),
            (self.deliveries_owed, "message owed", "messages owed"),
            (self.deliveries_given_up, "message given up", "messages given up"),
        ];
        let told = counts.iter().filter(|(count, ..)| *count > 0);
        let words = told.map(|(count, one, many)| format!("{count} {}", if *count == 1 { one } else { many }));
        let words = words.collect::<Vec<_>>().join("  ");
        (!words.is_empty()).then_some(words)
    }

    /// Worst last, as the eye ends there.
    fn node_counts(&self, look: &Look) -> String {
        if self.nodes.is_empty() {
            return "no nodes".into();
        }
        let mut nodes = self.nodes.clone();
        nodes.sort_by_key(|(state, _)| std::cmp::Reverse(node_tone(*state)));
        let one = |(state, count): &(Option<NodeState>, u64)| {
            let word = state.map_or("unknown", NodeState::as_str);
            format!("{} {word}", count_cell(node_tone(*state), &count.to_string()).whole(look))
        };
        format!("nodes {}", nodes.iter().map(one).collect::<Vec<_>>().join("  "))
    }

    /// A line each, in columns: what, where, for how long, why.
    fn trouble_lines(&self, now: Timestamp, look: &Look) -> Vec<String> {
        let alerts = self.alerts.iter().map(|alert| alert_cells(alert, now));
        let cells: Vec<[Cell; 5]> = alerts.chain(self.troubles.iter().map(|trouble| trouble.cells(now))).collect();
        let width = |at: usize| cells.iter().map(|row| row[at].columns()).max().unwrap_or(0);
        let room = look.columns();
        // Long names are cut before the reason is.
        let most = |at: usize, most: usize| if room.is_some() { width(at).min(most) } else { width(at) };
        let widths = [width(0), most(1, 20), most(2, 28), width(3)];
        let taken = 2 + widths.iter().sum::<usize>() + 2 * widths.len();
        let line = |row: &[Cell; 5]| {
            let aligned = [Align::Left, Align::Left, Align::Left, Align::Right];
            let drawn: Vec<String> = (0..4).map(|at| row[at].draw(widths[at], aligned[at], false, look)).collect();
            let left = room.map_or(usize::MAX, |room| room.saturating_sub(taken));
            let reason = cut(&row[4].whole(look), left, look.unicode);
            format!("  {}  {reason}", drawn.join("  ")).trim_end().to_owned()
        };
        cells.iter().map(line).collect()
    }
}

impl Trouble {
    fn tone(&self) -> Tone {
        match (self.noun.as_str(), self.state.as_str()) {
            (_, "unknown") => Tone::Unknown,
            ("collector", _) | ("node", "stale") | ("mount", "slow" | "denied") | ("container", "restarting") => {
                Tone::Warning
            }
            _ => Tone::Bad,
        }
    }

    fn cells(&self, now: Timestamp) -> [Cell; 5] {
        let what = format!("{} {}", Shown::new(&self.noun), Shown::new(&self.state));
        let age = self.since.map_or_else(|| Cell::text("-"), |since| Cell::text(&span(now.since(since))));
        let target = if self.target.0.is_empty() { Cell::none() } else { Cell::text(&self.target) };
        let reason = if self.reason.0.is_empty() { Cell::text(" ") } else { Cell::text(&self.reason) };
        [Cell::state(self.tone(), &what), Cell::text(&self.node), target, age, reason]
    }
}

/// An alert in the columns of troubles.
fn alert_cells(alert: &AlertRow, now: Timestamp) -> [Cell; 5] {
    let what = format!("{} {}", Shown::new(&alert.rule), alert.severity_word());
    let age = alert.since.map_or_else(Cell::unknown, |since| Cell::text(&span(now.since(since))));
    [
        Cell::state(alert.tone(), &what),
        Cell::text(&alert.node),
        Cell::text(&alert.target),
        age,
        Cell::text(&alert.summary),
    ]
}

/// Symbol and number: `● 41`.
fn count_cell(tone: Tone, count: &str) -> Cell {
    Cell::state(tone, count)
}

fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// State to count.
fn by_state<S: Serializer>(nodes: &[(Option<NodeState>, u64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(nodes.iter().map(|(state, count)| (state.map_or("unknown", NodeState::as_str), count)))
}

impl Watched for Screen {
    fn blocks(&self, _format: Format, now: Timestamp, look: &Look) -> Result<(Option<String>, Vec<String>), Failure> {
        let mut lines = self.head(now, look);
        let head = lines.remove(0);
        lines.extend(self.trouble_lines(now, look));
        Ok((Some(head), lines))
    }

    fn remarks(&self) -> Vec<String> {
        if self.nodes.is_empty() {
            return vec![
                "a machine becomes a node with a token (mainstay token create) and mainstay-agent enroll".into(),
            ];
        }
        Vec::new()
    }

    fn changes(&self, before: Option<&Self>, format: Format, now: Timestamp, look: &Look) -> Result<String, Failure> {
        let value = |screen: &Self| serde_json::to_value(screen).unwrap_or_default();
        if before.is_some_and(|before| value(before) == value(self)) {
            return Ok(String::new());
        }
        match format {
            Format::Json => json::line(self),
            Format::Yaml => Ok(format!("---\n{}", json::yaml(self)?)),
            Format::Name | Format::Table | Format::Wide => self.text(format, now, look),
        }
    }
}
