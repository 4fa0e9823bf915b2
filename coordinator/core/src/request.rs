//! Requests with a name: who does not know what came of one asks again, and gets the first answer.

use std::time::Duration;

use mainstay_common::Timestamp;
use minicbor::{Decode, Encode};

use crate::{
    Actor, Consequence, Entry, Table,
    codec::{encode, fnv1a},
};

/// How long an answer is kept.
pub const KEPT_FOR: Duration = Duration::from_secs(24 * 3_600);
/// Answers that are kept of one actor. Whoever asks more is refused: forgetting would carry out something twice.
pub const MAX_PER_ACTOR: usize = 1_000;
/// Bytes of the longest name.
const MAX_NAME: usize = 128;

/// A request's name, together with who gave it: two actors do not know of each other's names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
pub struct Named {
    /// Who asks.
    #[n(0)]
    pub actor: Actor,
    /// The name.
    #[n(1)]
    pub name: String,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Answer {
    /// When it was proposed.
    #[n(0)]
    pub at: Timestamp,
    /// A digest of what it asked for.
    #[n(1)]
    pub command: u64,
    /// What it brought about.
    #[n(2)]
    pub consequence: Consequence,
}

/// Why a request was not even looked at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// The same name for something else.
    #[error("the request name {0:?} was used for another command within the last 24 h")]
    Reused(String),
    /// Nobody gives names like that.
    #[error("a request's name has 1 to {MAX_NAME} bytes")]
    Name,
    /// There is no room to remember another.
    #[error("{0} made more than {MAX_PER_ACTOR} named requests within 24 h")]
    TooMany(String),
}

/// Answers of the last 24 h. Of what was refused there is none: it changed nothing, so it may be tried anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    pub(crate) answered: Table<Named, Answer>,
    /// The same by age, to forget the oldest first.
    pub(crate) by_age: Table<(Timestamp, Named), ()>,
}

impl Requests {
    /// The answer to this entry's request, if it was given before.
    ///
    /// # Errors
    /// [`Rejected`] for a name that cannot be used.
    pub fn answer(&self, entry: &Entry) -> Result<Option<Consequence>, Rejected> {
        let Some(named) = named(entry) else { return Ok(None) };
        if !(1..=MAX_NAME).contains(&named.name.len()) {
            return Err(Rejected::Name);
        }
        match self.answered.get(&named).filter(|answer| entry.at.since(answer.at) <= KEPT_FOR) {
            Some(answer) => answer.to(digest(entry), named.name).map(Some),
            // What ends something must not be kept out by what was asked before.
            None if entry.command.is_essential() || self.count(&named.actor, entry.at) < MAX_PER_ACTOR => Ok(None),
            None => Err(Rejected::TooMany(named.actor.to_string())),
        }
    }

    /// What came of a request that asks for that, if it was answered before.
    ///
    /// # Errors
    /// [`Rejected::Reused`] where the name was for something else.
    pub fn recall(&self, named: Named, asked: u64, now: Timestamp) -> Result<Option<Consequence>, Rejected> {
        let answer = self.answered.get(&named).filter(|answer| now.since(answer.at) <= KEPT_FOR);
        answer.map(|answer| answer.to(asked, named.name)).transpose()
    }

    /// Keeps the answer to this entry's request, and forgets what is too old.
    pub(crate) fn keep(&mut self, entry: &Entry, consequence: &Consequence) {
        let Some(named) = named(entry) else { return };
        let old = |(at, _): &&(Timestamp, Named)| entry.at.since(*at) > KEPT_FOR;
        while let Some(oldest) = self.by_age.first().map(|(oldest, ())| oldest).filter(old).cloned() {
            self.by_age.remove(&oldest);
            self.answered.remove(&oldest.1);
        }
        if self.count(&named.actor, entry.at) < MAX_PER_ACTOR {
            let answer = Answer { at: entry.at, command: digest(entry), consequence: consequence.clone() };
            self.by_age.insert((entry.at, named.clone()), ());
            if let Some(before) = self.answered.insert(named.clone(), answer).filter(|before| before.at != entry.at) {
                self.by_age.remove(&(before.at, named));
            }
        }
    }

    /// Answers of one actor that still count.
    fn count(&self, actor: &Actor, now: Timestamp) -> usize {
        let first = Named { actor: actor.clone(), name: String::new() };
        let of_actor = self.answered.from(&first).take_while(|(named, _)| named.actor == *actor);
        of_actor.filter(|(_, answer)| now.since(answer.at) <= KEPT_FOR).count()
    }
}

fn named(entry: &Entry) -> Option<Named> {
    entry.request.as_ref().map(|name| Named { actor: entry.actor.clone(), name: name.clone() })
}

impl Answer {
    /// The answer to whoever asks for that under this name.
    fn to(&self, asked: u64, name: String) -> Result<Consequence, Rejected> {
        if self.command == asked { Ok(self.consequence.clone()) } else { Err(Rejected::Reused(name)) }
    }
}

fn digest(entry: &Entry) -> u64 {
    entry.asked.unwrap_or_else(|| fnv1a(&encode(&entry.command)))
}

#[cfg(test)]
mod tests {
    use mainstay_common::identity::HumanRole;

    use super::*;
    use crate::{Command, Founding, KeyFingerprint, Origin, State, node};

    const NOON: Timestamp = Timestamp(1_767_268_800_000);

    #[test]
    fn who_asks_again_gets_the_first_answer() {
        let mut state = state();
        let remove = entry("anna", "q1", Command::Node(node::Command::Remove("n1".parse().unwrap())));
        let first = state.apply(1, &remove);
        assert!(first.is_ok());
        let before = state.clone();
        assert_eq!(state.apply(2, &Entry { at: NOON.plus(Duration::from_secs(60)), ..remove.clone() }), first);
        assert_eq!(state, before, "an answer changes nothing");
        let other = Entry { actor: anna("eve"), ..remove.clone() };
        assert!(matches!(state.apply(3, &other), Err(crate::Rejected::Node(node::Rejected::Unknown(_)))));
        let late = Entry { at: NOON.plus(KEPT_FOR + Duration::from_secs(1)), ..remove };
        assert!(matches!(state.apply(4, &late), Err(crate::Rejected::Node(node::Rejected::Unknown(_)))));
    }

    #[test]
    fn a_name_is_for_one_request() {
        let mut state = state();
        state.apply(1, &entry("anna", "q1", label("a"))).unwrap();
        let reused = state.apply(2, &entry("anna", "q1", label("b")));
        assert_eq!(reused, Err(Rejected::Reused("q1".into()).into()));
        assert_eq!(state.apply(3, &entry("anna", "", label("b"))), Err(Rejected::Name.into()));
    }

    #[test]
    fn too_many_are_refused_until_the_first_are_old_but_ends_are_not() {
        let mut state = state();
        for number in 0..MAX_PER_ACTOR {
            state.apply(1, &entry("anna", &format!("q{number}"), label("a"))).unwrap();
        }
        let one_more = entry("anna", "more", label("a"));
        assert!(matches!(state.apply(2, &one_more), Err(crate::Rejected::Request(Rejected::TooMany(_)))));
        state.apply(3, &entry("eve", "more", label("a"))).unwrap();
        let remove = Command::Node(node::Command::Remove("n2".parse().unwrap()));
        state.apply(4, &entry("anna", "end", remove)).unwrap();
        let next_day = Entry { at: NOON.plus(KEPT_FOR + Duration::from_secs(1)), ..one_more };
        state.apply(5, &next_day).unwrap();
        assert_eq!((state.requests.answered.len(), state.requests.by_age.len()), (1, 1));
    }

    #[test]
    fn what_is_made_anew_at_every_attempt_does_not_make_another_request_of_it() {
        let mut state = state();
        let asked = |asked, zone: &str| Entry { asked: Some(asked), ..entry("anna", "q1", label(zone)) };
        let first = state.apply(1, &asked(7, "a"));
        let before = state.clone();
        assert_eq!(state.apply(2, &asked(7, "b")), first);
        assert_eq!(state, before);
        assert_eq!(state.apply(3, &asked(8, "a")), Err(Rejected::Reused("q1".into()).into()));
        let named = |who: &str, name: &str| Named { actor: anna(who), name: name.into() };
        let recall = |named, asked, now| state.requests.recall(named, asked, now);
        assert_eq!(recall(named("anna", "q1"), 7, NOON), Ok(first.ok()));
        assert_eq!(recall(named("anna", "q1"), 8, NOON), Err(Rejected::Reused("q1".into())));
        assert_eq!(recall(named("eve", "q1"), 7, NOON), Ok(None));
        assert_eq!(recall(named("anna", "q1"), 7, NOON.plus(KEPT_FOR + Duration::from_secs(1))), Ok(None));
    }

    fn label(zone: &str) -> Command {
        Command::Node(node::Command::Label("n1".parse().unwrap(), [("zone".into(), zone.into())].into()))
    }

    fn anna(name: &str) -> Actor {
        Actor::Human(name.parse().unwrap(), HumanRole::Admin)
    }

    fn entry(who: &str, name: &str, command: Command) -> Entry {
        let request = Some(name.into());
        Entry { at: NOON, actor: anna(who), from: Origin::Socket, request, command, asked: None, through: None }
    }

    fn state() -> State {
        let mut state = State::founded(Founding {
            id: "c1".parse().unwrap(),
            name: "prod".into(),
            replica: "r1".parse().unwrap(),
            address: "h:1".into(),
        });
        for name in ["n1", "n2"] {
            state.nodes.admit(NOON, &name.parse().unwrap(), KeyFingerprint([1; 32]));
        }
        state
    }
}
