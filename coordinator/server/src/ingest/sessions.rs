//! Who has a session here: one for each node. Decides who speaks for a node when two say that they do; time comes in as
//! an argument.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use mainstay_common::NodeId;
use tokio::sync::oneshot;

use super::share::Share;
use crate::gate::{Pace, Paid};

/// So often may a session take the place of one that did not end: a network that flaps does it a few times, two machines
/// with one identity do it for ever.
const TAKEOVERS: Pace = Pace::new(Duration::from_secs(15), 4);
/// Agents that may come back each second after a restart.
const BACK_PER_SECOND: u64 = 500;
/// Nobody's reconnect is spread over less.
const LEAST_SPREAD: Duration = Duration::from_secs(2);

/// Calls of one node that have not said their Hello yet: one that is real, and one that was left behind.
const KNOCKS: u32 = 2;

/// Where a session comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    /// Two machines never have the same.
    pub(super) boot_id: String,
}

impl Origin {
    /// True where one machine came back before its last session was seen to end.
    pub(super) fn is_one_machine(&self, other: &Self) -> bool {
        self.boot_id == other.boot_id && self.address.ip().to_canonical() == other.address.ip().to_canonical()
    }
}

/// A session that may begin.
#[derive(Debug)]
pub(super) struct Begun {
    id: u64,
    /// What the node may fill.
    pub(super) share: Arc<Mutex<Share>>,
    /// Gives who takes its place.
    pub(super) replaced: oneshot::Receiver<Origin>,
    /// Whose place it takes.
    pub(super) replaces: Option<Origin>,
}

/// A session that may not begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contested {
    /// Who has the session.
    pub(super) by: Origin,
    /// When its place may be taken again.
    pub(super) wait: Duration,
}

/// A call that has not said its Hello yet. It counts until it is dropped.
#[derive(Debug)]
pub(super) struct Knock {
    sessions: Arc<Sessions>,
    node: NodeId,
}

impl Drop for Knock {
    fn drop(&mut self) {
        if let Some(desk) = self.sessions.lock().nodes.get_mut(&self.node) {
            desk.knocks = desk.knocks.saturating_sub(1);
        }
    }
}

/// All nodes that ever had a session.
#[derive(Debug, Default)]
pub(crate) struct Sessions(Mutex<Desks>);

#[derive(Debug, Default)]
struct Desks {
    next: u64,
    expected: usize,
    nodes: BTreeMap<NodeId, Desk>,
}

#[derive(Debug, Default)]
struct Desk {
    knocks: u32,
    share: Arc<Mutex<Share>>,
    stands: Option<Stand>,
    takeovers: Paid,
}

#[derive(Debug)]
struct Stand {
    id: u64,
    origin: Origin,
    replaced: oneshot::Sender<Origin>,
}

impl Sessions {
    /// A call begins, and holds whatever it sends until its Hello is whole. `None` where too many do.
    pub(super) fn knock(self: &Arc<Self>, node: &NodeId) -> Option<Knock> {
        let mut desks = self.lock();
        let desk = desks.nodes.entry(node.clone()).or_default();
        (desk.knocks < KNOCKS).then(|| {
            desk.knocks += 1;
            Knock { sessions: Arc::clone(self), node: node.clone() }
        })
    }

    /// The newest session of a node is the one that counts; the older one is told.
    ///
    /// # Errors
    /// [`Contested`] where places were taken too often.
    pub(super) fn begin(&self, node: &NodeId, origin: &Origin, now: Instant) -> Result<Begun, Contested> {
        let mut desks = self.lock();
        let id = desks.next;
        desks.next += 1;
        let desk = desks.nodes.entry(node.clone()).or_default();
        let before = desk.stands.take();
        if let Some(stand) = before.as_ref().filter(|stand| !stand.replaced.is_closed()) {
            let wait = TAKEOVERS.take(&mut desk.takeovers, 1, now);
            if !wait.is_zero() {
                TAKEOVERS.refund(&mut desk.takeovers, 1);
                let by = stand.origin.clone();
                desk.stands = before;
                return Err(Contested { by, wait });
            }
        }
        let (sender, replaced) = oneshot::channel();
        desk.stands = Some(Stand { id, origin: origin.clone(), replaced: sender });
        let replaces = before.and_then(|stand| stand.replaced.send(origin.clone()).is_ok().then_some(stand.origin));
        Ok(Begun { id, share: Arc::clone(&desk.share), replaced, replaces })
    }

    /// A session is over.
    pub(super) fn end(&self, node: &NodeId, begun: &Begun) {
        if let Some(desk) = self.lock().nodes.get_mut(node) {
            desk.stands.take_if(|stand| stand.id == begun.id);
        }
    }

    /// A node was removed.
    pub(super) fn forget(&self, node: &NodeId) {
        self.lock().nodes.remove(node);
    }

    /// So many nodes belong to the cluster at the start of this replica: they are all on their way.
    pub(crate) fn expect(&self, nodes: usize) {
        self.lock().expected = nodes;
    }

    /// Over how long a node's first reconnect is spread: as many come back together as ever came.
    pub(super) fn spread(&self) -> Duration {
        let desks = self.lock();
        spread(desks.nodes.len().max(desks.expected))
    }

    /// What all shares take, in bytes.
    pub(crate) fn view_bytes(&self) -> usize {
        let shares: Vec<_> = self.lock().nodes.values().map(|desk| Arc::clone(&desk.share)).collect();
        shares.iter().map(|share| share.lock().unwrap_or_else(PoisonError::into_inner).bytes()).sum()
    }

    fn lock(&self) -> MutexGuard<'_, Desks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// [`BACK_PER_SECOND`] agents each second.
fn spread(agents: usize) -> Duration {
    LEAST_SPREAD.max(Duration::from_millis((agents as u64).saturating_mul(1_000 / BACK_PER_SECOND)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_session_of_a_node_counts_and_the_older_one_learns_by_whom() {
        let (sessions, now) = (Sessions::default(), Instant::now());
        let mut older = sessions.begin(&node("n1"), &origin(1, "a"), now).unwrap();
        let other = sessions.begin(&node("n2"), &origin(2, "b"), now).unwrap();
        assert_eq!((&older.replaces, &other.replaces), (&None, &None));
        let newer = sessions.begin(&node("n1"), &origin(3, "c"), now).unwrap();
        assert_eq!(newer.replaces, Some(origin(1, "a")));
        assert_eq!(older.replaced.try_recv(), Ok(origin(3, "c")));
        sessions.end(&node("n1"), &older);
        let newest = sessions.begin(&node("n1"), &origin(4, "d"), now).unwrap();
        assert_eq!(newest.replaces, Some(origin(3, "c")), "the end of the older one ended nobody else");
        sessions.end(&node("n1"), &newest);
        let alone = sessions.begin(&node("n1"), &origin(5, "e"), now).unwrap();
        assert_eq!(alone.replaces, None);
        assert!(Arc::ptr_eq(&alone.share, &older.share), "the share is the node's, not the session's");
    }

    #[test]
    fn two_machines_that_fight_do_so_at_a_walk() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let mut standing = sessions.begin(&node("n1"), &origin(0, "x"), start).unwrap();
        let mut taken = 0;
        for tenth in 0..600_u64 {
            let who = origin(u8::try_from(tenth % 2).unwrap(), "x");
            match sessions.begin(&node("n1"), &who, start + Duration::from_millis(tenth * 100)) {
                Ok(begun) => {
                    taken += 1;
                    assert!(standing.replaced.try_recv().is_ok());
                    standing = begun;
                }
                Err(contested) => {
                    assert!(contested.wait <= Duration::from_secs(15));
                    assert!(standing.replaced.try_recv().is_err(), "who stands is not disturbed");
                }
            }
        }
        assert!((6..=8).contains(&taken), "{taken} in a minute");
        // A session that ended by itself is nobody's place to take.
        sessions.end(&node("n1"), &standing);
        assert!(sessions.begin(&node("n1"), &origin(7, "y"), start + Duration::from_secs(60)).is_ok());
    }

    #[test]
    fn half_a_hello_is_held_for_two_calls_of_a_node_and_no_more() {
        let sessions = Arc::new(Sessions::default());
        let knock = |name| sessions.knock(&node(name));
        let (first, _second) = (knock("n1"), knock("n1"));
        assert!(first.is_some() && knock("n1").is_none() && knock("n2").is_some());
        drop(first);
        assert!(knock("n1").is_some());
    }

    #[test]
    fn one_machine_is_one_address_and_one_boot() {
        assert!(origin(1, "a").is_one_machine(&Origin { address: ([10, 0, 0, 1], 99).into(), ..origin(1, "a") }));
        assert!(!origin(1, "a").is_one_machine(&origin(1, "b")));
        assert!(!origin(1, "a").is_one_machine(&origin(2, "a")));
    }

    #[test]
    fn reconnects_are_spread_by_how_many_there_are() {
        let seconds = |agents| spread(agents).as_secs_f64();
        assert_eq!([seconds(0), seconds(1_000), seconds(2_000), seconds(10_000)], [2.0, 2.0, 4.0, 20.0]);
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn origin(host: u8, boot_id: &str) -> Origin {
        Origin { address: ([10, 0, 0, host], 1).into(), boot_id: boot_id.into() }
    }
}
