//! The audit: who did what, when, from where, and what came of it. Made of entries alone; kept beside the state.

use mainstay_common::{ReplicaId, Timestamp, text};
use minicbor::{Decode, Encode};

use crate::{
    Actor, Command, Consequence, Entry, Origin, Rejected, alert, ca, cluster, declare, node, notify, token, user,
};

/// One entry, for people. The numbers are the format on disk: never change or re-use one.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    /// Its place in the log.
    #[n(0)]
    pub index: u64,
    /// When it was proposed.
    #[n(1)]
    pub at: Timestamp,
    /// Who wanted it.
    #[n(2)]
    pub actor: Actor,
    /// From where.
    #[n(3)]
    pub from: Origin,
    /// The caller's own name for the request.
    #[n(4)]
    pub request: Option<String>,
    /// Noun and verb: one of [`Command::KINDS`].
    #[n(5)]
    pub kind: String,
    /// What it was about: a name.
    #[n(6)]
    pub target: String,
    /// The rest, in words, without secrets.
    #[n(7)]
    pub details: String,
    /// Why it was refused; `None` where it was not.
    #[n(8)]
    pub refused: Option<String>,
    /// The replica that took it in and proposed it; `None` in entries of earlier versions.
    #[n(9)]
    pub through: Option<ReplicaId>,
}

impl Record {
    /// What the audit says of an entry.
    #[must_use]
    pub fn of(index: u64, entry: &Entry, outcome: &Result<Consequence, Rejected>) -> Self {
        let (target, details) = words(&entry.command);
        Self {
            index,
            at: entry.at,
            actor: entry.actor.clone(),
            from: entry.from.clone(),
            request: entry.request.clone(),
            kind: entry.command.kind().into(),
            target,
            details,
            refused: outcome.as_ref().err().map(ToString::to_string),
            through: entry.through.clone(),
        }
    }

    /// One line: `node remove n1`, and what follows.
    #[must_use]
    pub fn what(&self) -> String {
        let details = if self.details.is_empty() { String::new() } else { format!(": {}", self.details) };
        format!("{} {}{details}", self.kind, self.target)
    }
}

/// Target and details.
fn words(command: &Command) -> (String, String) {
    match command {
        Command::Cluster(cluster::Command::Advertise(replica, address, peers, key, version)) => {
            let peers = peers.iter().map(|peers| format!(", by replicas at {}", text::Shown::new(peers)));
            let key = key.iter().map(|key| format!(", with key {key}"));
            let version = version.iter().map(|version| format!(", knows entries of version {version}"));
            let rest: String = peers.chain(key).chain(version).collect();
            (replica.to_string(), text::Shown::new(address).to_string() + &rest)
        }
        Command::Cluster(cluster::Command::Remove(replica)) => (replica.to_string(), String::new()),
        Command::Cluster(cluster::Command::Backup) => ("state".into(), "with what opens the CA's key".into()),
        Command::Cluster(cluster::Command::Restore(restore)) => {
            let (address, key) = (text::Shown::new(&restore.address), restore.key);
            (format!("generation {}", restore.generation), format!("one replica at {address} with key {key}"))
        }
        Command::Node(node::Command::Label(node, labels)) => {
            let pairs = labels.iter().map(|(key, value)| format!("{key}={}", text::Shown::new(value)));
            (node.to_string(), pairs.collect::<Vec<_>>().join(" "))
        }
        Command::Node(node::Command::Remove(node)) => (node.to_string(), String::new()),
        Command::Token(token::Command::Create(id, token)) => {
            let role = token.role.map_or_else(String::new, |role| format!("{}s, ", role.as_str()));
            (id.to_string(), format!("admits {}, {role}until {}", token.uses_left, token.expires_at))
        }
        Command::Token(token::Command::Redeem(shown)) => {
            (shown.token.to_string(), format!("{} with key {}", shown.node, shown.key))
        }
        Command::Token(token::Command::Join(shown)) => {
            let (address, key) = (text::Shown::new(&shown.address), shown.key);
            (shown.token.to_string(), format!("a replica at {address} with key {key}"))
        }
        Command::Token(token::Command::Revoke(id)) => (id.to_string(), String::new()),
        Command::User(user::Command::Add(name, user) | user::Command::Reissue(name, user)) => {
            (name.to_string(), format!("{} with key {}", user.role, user.key))
        }
        Command::User(user::Command::Revoke(name)) => (name.to_string(), String::new()),
        Command::Alert(command) => of_alert(command),
        Command::Notify(command) => of_notify(command),
        Command::Ca(command) => of_ca(command),
        Command::Declare(declare) => (format!("of revision {}", declare.expecting), of_declare(declare)),
    }
}

fn of_alert(command: &alert::Command) -> (String, String) {
    use alert::Command as C;
    let reading = |space: &alert::Space| format!("{} % full", space.percent_used());
    match command {
        C::Pend(pend) => (pend.alert.to_string(), format!("{}, {}", pend.severity, reading(&pend.space))),
        C::Fire(episode, severity, space) => (episode.alert.to_string(), format!("{severity}, {}", reading(space))),
        C::Escalate(episode, space) => (episode.alert.to_string(), reading(space)),
        C::Resolve(episode, end, _) | C::Drop(episode, end) => (episode.alert.to_string(), end.as_str().into()),
        C::Turn(episode, turn, _) => {
            let word = match turn {
                alert::Turn::Critical => "critical",
                alert::Turn::Warning => "no longer critical",
                alert::Turn::Clear => "gone",
                alert::Turn::Back => "there again",
            };
            (episode.alert.to_string(), word.into())
        }
        C::Unknown(episode) | C::Known(episode, _) => (episode.alert.to_string(), String::new()),
    }
}

fn of_notify(command: &notify::Command) -> (String, String) {
    use notify::Command as C;
    let of = |claim: &notify::Claim, rest: &str| {
        let details = format!("to {}, attempt {}{rest}", claim.id.receiver, claim.attempt);
        (claim.id.to_string(), details)
    };
    match command {
        C::Claim(claim) => of(claim, &format!(", term {}", claim.fence)),
        C::Delivered(claim) => of(claim, ""),
        C::Again(claim, again) => of(claim, &format!(": {}", text::Shown::new(&again.reason))),
        C::GiveUp(claim, reason) => of(claim, &format!(": {}", text::Shown::new(reason))),
        C::Test(receiver) => (receiver.to_string(), String::new()),
    }
}

fn of_ca(command: &ca::Command) -> (String, String) {
    use ca::Command as C;
    let step = |step: &ca::Step| {
        let forced = if step.force { "forced" } else { "" };
        (format!("version {}", step.version), forced.to_owned())
    };
    match command {
        C::Adopt(root) | C::Begin(_, root) => (format!("root {}", root.key), String::new()),
        C::Issue(it) | C::Finish(it) | C::Back(it) => step(it),
        C::Acknowledge(holders, version) => (format!("version {version}"), ca::named(holders)),
    }
}

fn of_declare(declare: &declare::Declare) -> String {
    let word = |there: bool| if there { "set" } else { "removed" };
    let lines = declare.changes.iter().map(|change| match change {
        declare::Change::Receiver(name, to) => {
            let to = to.as_ref().map(|receiver| format!(" ({receiver})")).unwrap_or_default();
            format!("receiver {name} {}{to}", if to.is_empty() { "removed" } else { "set" })
        }
        declare::Change::Route(matcher, to) => format!("route {matcher} {}", word(to.is_some())),
        declare::Change::Rule(rule, place, to) => {
            let to = to.as_ref().map_or_else(|| "removed".into(), ToString::to_string);
            format!("rule {rule} {place} {to}")
        }
    });
    lines.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use mainstay_common::identity::HumanRole;

    use super::*;

    #[test]
    fn a_record_says_who_what_when_from_where_and_what_came_of_it() {
        let command = Command::Node(node::Command::Remove("n1".parse().unwrap()));
        let outcome = Err(node::Rejected::Unknown("n1".into()).into());
        let record = record(command, outcome);
        assert_eq!(record.what(), "node remove n1");
        assert_eq!((record.index, record.at), (9, Timestamp(5)));
        assert_eq!((record.actor.to_string(), record.from.to_string()), ("admin/anna".into(), "10.0.0.9:1".into()));
        assert_eq!(record.refused.as_deref(), Some("node \"n1\" is unknown"));
        assert_eq!(crate::codec::decode(&crate::codec::encode(&record)), Ok(record));
    }

    #[test]
    fn a_record_holds_no_secret_and_no_lines_of_others() {
        let address = notify::Address::Url("https://chat.example/s3cret".into());
        let receiver = notify::Receiver::Webhook(notify::Webhook { address, allow_private_address: true });
        let changes = vec![declare::Change::Receiver("ops".parse().unwrap(), Some(receiver))];
        let declare = declare::Declare { changes, expecting: 3 };
        let declared = record(Command::Declare(declare), Ok(Consequence::Declared(9))).what();
        let expected = "receiver ops set (webhook https://chat.example/… allow_private_address)";
        assert_eq!(declared, format!("declaration apply of revision 3: {expected}"));
        let labels = [("zone".to_owned(), "a\nroot did it".to_owned())].into();
        let labelled = record(
            Command::Node(node::Command::Label("n1".parse().unwrap(), labels)),
            Ok(Consequence::Node(node::Consequence::Removed("n1".parse().unwrap()))),
        );
        assert_eq!(labelled.what().lines().count(), 1);
    }

    fn record(command: Command, outcome: Result<Consequence, Rejected>) -> Record {
        let actor = Actor::Human("anna".parse().unwrap(), HumanRole::Admin);
        let from = Origin::Peer("10.0.0.9:1".into());
        Record::of(
            9,
            &Entry { at: Timestamp(5), actor, from, request: Some("r".into()), command, asked: None, through: None },
            &outcome,
        )
    }
}
