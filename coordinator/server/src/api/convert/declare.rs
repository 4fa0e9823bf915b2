//! Declarations from the wire: words become values here, and what is none is named with its file and line.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use mainstay_common::{ReceiverName, process::config::nearest, state::Severity};
use mainstay_core::{
    alert::{Change, RuleId, Where, quantity::read_span},
    declare::{self, Contradiction, Declared, Step},
    notify::{Address, Matcher, Receiver, Webhook},
};
use mainstay_proto::v1 as pb;
use tonic::Status;

use crate::{api::failure, leader::receiver};

/// Kinds of receivers there are.
const KINDS: [&str; 1] = ["webhook"];

/// What was declared, and where each of it stands.
#[derive(Debug, Default)]
pub(crate) struct Wished {
    pub(crate) declared: Declared,
    places: Places,
}

#[derive(Debug, Default)]
struct Places {
    receivers: BTreeMap<ReceiverName, pb::Place>,
    routes: BTreeMap<Matcher, pb::Place>,
    rules: BTreeMap<(RuleId, Where), pb::Place>,
}

/// Reads everything.
///
/// # Errors
/// The first that makes no sense.
pub(crate) fn wished(asked: &pb::DeclareRequest) -> Result<Wished, Status> {
    let mut wished = Wished::default();
    for receiver in &asked.receivers {
        let place = receiver.place.clone().unwrap_or_default();
        let name: ReceiverName = read(&place, "receiver", "name", &receiver.name)?;
        let value = webhook(&place, receiver)?;
        let before = wished.places.receivers.insert(name.clone(), place.clone());
        once(&place, &format!("receiver {name}"), before.as_ref())?;
        wished.declared.receivers.insert(name, value);
    }
    for route in &asked.routes {
        let place = route.place.clone().unwrap_or_default();
        let matcher = matcher(&place, &route.r#match)?;
        let names = route.receivers.iter().map(|name| read(&place, "route", "receivers", name));
        let names = names.collect::<Result<BTreeSet<ReceiverName>, Status>>()?;
        let before = wished.places.routes.insert(matcher.clone(), place.clone());
        once(&place, &format!("the route for {matcher}"), before.as_ref())?;
        wished.declared.routes.insert(matcher, names);
    }
    for rule in &asked.rules {
        let place = rule.place.clone().unwrap_or_default();
        let name: RuleId = read(&place, "rule", "name", &rule.name)?;
        let key = (name, narrowed(&place, &rule.r#match)?);
        let change = change(&place, rule)?;
        let before = wished.places.rules.insert(key.clone(), place.clone());
        once(&place, &format!("rule {name} {}", key.1), before.as_ref())?;
        wished.declared.rules.insert(key, change);
    }
    Ok(wished)
}

impl Wished {
    /// Why the state refuses them, with the file and line of what is to blame.
    pub(crate) fn refused(&self, why: &declare::Rejected) -> Status {
        let declare::Rejected::Contradiction(contradiction) = why else {
            return failure::declarations_changed(&why.to_string());
        };
        let place = match contradiction {
            Contradiction::Tie { rule, one, other } => {
                let place = |narrowed: &Where| self.places.rules.get(&(*rule, narrowed.clone()));
                // The later one is the one that somebody just wrote.
                [place(one), place(other)].into_iter().flatten().max_by_key(|place| place.line)
            }
            Contradiction::Receiver { route, .. } | Contradiction::Nobody(route) => self.places.routes.get(route),
            Contradiction::Levels { rule, place } => self.places.rules.get(&(*rule, place.clone())),
            Contradiction::TooMany(_) => None,
        };
        let place = place.cloned().unwrap_or_default();
        failure::declaration(&at(&place), "declarations contradict each other", &why.to_string())
    }
}

/// One step as the wire has it.
pub(crate) fn change_row(step: &Step) -> pb::Change {
    let kind = match (&step.before, &step.after) {
        (None, _) => pb::ChangeKind::Add,
        (Some(_), None) => pb::ChangeKind::Remove,
        (Some(_), Some(_)) => pb::ChangeKind::Change,
    };
    pb::Change {
        kind: kind.into(),
        what: step.what.clone(),
        before: step.before.clone().unwrap_or_default(),
        after: step.after.clone().unwrap_or_default(),
    }
}

fn at(place: &pb::Place) -> String {
    if place.file.is_empty() { String::new() } else { format!("{}:{}", place.file, place.line) }
}

fn wrong(place: &pb::Place, what: &str, why: &str) -> Status {
    failure::declaration(&at(place), what, why)
}

fn read<T: FromStr<Err: std::fmt::Display>>(place: &pb::Place, noun: &str, key: &str, text: &str) -> Result<T, Status> {
    text.parse()
        .map_err(|error: T::Err| wrong(place, &format!("the {noun}'s {key} makes no sense"), &error.to_string()))
}

fn once(place: &pb::Place, what: &str, before: Option<&pb::Place>) -> Result<(), Status> {
    before.map_or(Ok(()), |before| {
        Err(wrong(place, &format!("{what} is declared twice"), &format!("the other one stands at {}", at(before))))
    })
}

fn webhook(place: &pb::Place, declared: &pb::DeclaredReceiver) -> Result<Receiver, Status> {
    let what = format!("receiver {:?} makes no sense", declared.name);
    let wrong = |why: &str| wrong(place, &what, why);
    if !KINDS.contains(&declared.kind.as_str()) {
        return Err(wrong(&format!("{:?} is no kind of receiver: there is {}", declared.kind, KINDS.join(", "))));
    }
    let address = match (declared.url.as_str(), declared.url_file.as_str()) {
        ("", "") => return Err(wrong("it has neither url nor url_file")),
        (url, "") => Address::Url(url.into()),
        ("", path) => Address::File(path.into()),
        _ => return Err(wrong("it has both url and url_file")),
    };
    let webhook = Webhook { address, allow_private_address: declared.allow_private_address };
    let made = Receiver::Webhook(webhook);
    // What could never be sent is refused now.
    receiver(&made).map_err(|why| wrong(&why))?;
    Ok(made)
}

/// The values of a `match`, whose keys must be among these.
fn keys<'a, const N: usize>(
    place: &pb::Place,
    given: &'a BTreeMap<String, String>,
    known: [&str; N],
) -> Result<[Option<&'a String>; N], Status> {
    if let Some(odd) = given.keys().find(|key| !known.contains(&key.as_str())) {
        let near = nearest(odd, known)
            .map_or_else(|| format!("there is {}", known.join(", ")), |near| format!("nearest: `{near}`"));
        return Err(wrong(place, &format!("match has an unknown key `{odd}`"), &near));
    }
    Ok(known.map(|key| given.get(key)))
}

fn matcher(place: &pb::Place, given: &BTreeMap<String, String>) -> Result<Matcher, Status> {
    let [severity, rule, node, mount] = keys(place, given, ["severity", "rule", "node", "mount"])?;
    let pattern = |key, text: Option<&String>| text.map(|text| read(place, "route", key, text)).transpose();
    Ok(Matcher {
        severity: severity.map(|word| read::<Severity>(place, "route", "severity", word)).transpose()?,
        rule: pattern("rule", rule)?,
        node: pattern("node", node)?,
        mount: pattern("mount", mount)?,
    })
}

fn narrowed(place: &pb::Place, given: &BTreeMap<String, String>) -> Result<Where, Status> {
    let [node, mount] = keys(place, given, ["node", "mount"])?;
    let pattern = |key, text: Option<&String>| text.map(|text| read(place, "rule", key, text)).transpose();
    Ok(Where { node: pattern("node", node)?, mount: pattern("mount", mount)? })
}

fn change(place: &pb::Place, rule: &pb::DeclaredRule) -> Result<Change, Status> {
    let span = |key: &str, text: &Option<String>| {
        let read = |text: &String| {
            read_span(text)
                .map_err(|error| wrong(place, &format!("the rule's {key} makes no sense"), &error.to_string()))
        };
        text.as_ref().map(read).transpose()
    };
    let level = |key: &str, text: &Option<String>| text.as_ref().map(|text| read(place, "rule", key, text)).transpose();
    Ok(Change {
        warning: level("warning", &rule.warning)?,
        critical: level("critical", &rule.critical)?,
        hold: span("hold", &rule.hold)?,
        critical_hold: span("critical_hold", &rule.critical_hold)?,
        clear_margin: rule.clear_margin.as_ref().map(|text| read(place, "rule", "clear_margin", text)).transpose()?,
        clear_hold: span("clear_hold", &rule.clear_hold)?,
    })
}
