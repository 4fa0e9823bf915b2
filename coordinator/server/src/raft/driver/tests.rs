use std::collections::VecDeque;

use super::*;

/// Replicas whose disks and network do everything at once, in one order.
struct Group {
    drivers: BTreeMap<u64, Driver>,
    /// Nothing goes to or from these.
    away: Vec<u64>,
    applied: BTreeMap<u64, Vec<Vec<u8>>>,
    answers: BTreeMap<Ticket, Answer>,
    committed: Vec<Ticket>,
    stopped: BTreeMap<u64, Stop>,
    /// Writes of this one are never done.
    hung: Option<u64>,
    /// Checkpoints for this one are for ever on their way.
    dawdles: Option<u64>,
}

impl Group {
    fn of(voters: &[u64]) -> Self {
        let conf_state = ConfState { voters: voters.to_vec(), ..ConfState::default() };
        let first = Position { index: 1, term: 1 };
        let kept = Kept {
            hard_state: HardState { term: 1, vote: 0, commit: 1 },
            checkpoint: first,
            conf_state,
            before: first,
            entries: vec![],
        };
        let drivers = voters.iter().map(|id| (*id, Driver::new(config(*id), kept.clone()))).collect();
        Self {
            drivers,
            away: vec![],
            applied: BTreeMap::new(),
            answers: BTreeMap::new(),
            committed: vec![],
            stopped: BTreeMap::new(),
            hung: None,
            dawdles: None,
        }
    }

    fn feed(&mut self, id: u64, input: Input) {
        let mut inputs = VecDeque::from([(id, input)]);
        while let Some((id, input)) = inputs.pop_front() {
            let Some(driver) = self.drivers.get_mut(&id) else { continue };
            driver.feed(input);
            for effect in driver.turn() {
                match effect {
                    Effect::Send(message) => {
                        if !self.away.contains(&message.to) && !self.away.contains(&id) {
                            inputs.push_back((message.to, Input::Message(message)));
                        }
                    }
                    Effect::Write(write) if self.hung != Some(id) => {
                        inputs.push_back((id, Input::Persisted(write.number)));
                    }
                    Effect::Apply(entry, ticket) => {
                        self.committed.extend(ticket);
                        if entry.kind == EntryKind::Normal && !entry.data.is_empty() {
                            self.applied.entry(id).or_default().push(entry.data);
                        }
                    }
                    Effect::Answer(ticket, answer) => {
                        assert_eq!(self.answers.insert(ticket, answer), None, "one answer");
                    }
                    Effect::MakeCheckpoint => {
                        let (at, conf_state) = (self.drivers[&id].applied, self.members(id));
                        inputs.push_back((id, Input::CheckpointMade(at, conf_state)));
                    }
                    Effect::Fetch { .. } if self.dawdles == Some(id) => {}
                    Effect::Fetch { checkpoint, .. } => inputs.push_back((id, Input::CheckpointReceived(checkpoint))),
                    Effect::Stop(why) => {
                        self.stopped.insert(id, why);
                    }
                    Effect::Write(_) | Effect::NoteCommit(_) | Effect::Install(_) | Effect::Leads(_) => {}
                    Effect::Leader(_) | Effect::Members(_) => {}
                }
            }
        }
    }

    fn ticks(&mut self, count: u64) {
        for _ in 0..count {
            for id in self.drivers.keys().copied().collect::<Vec<_>>() {
                self.feed(id, Input::Tick);
            }
        }
    }

    fn leader(&self) -> Option<u64> {
        let reachable = self.drivers.iter().filter(|(id, _)| !self.away.contains(id));
        reachable.filter(|(_, driver)| driver.told_leads.is_some()).map(|(id, _)| *id).next()
    }

    fn elect(&mut self) -> u64 {
        for _ in 0..100 {
            if let Some(leader) = self.leader() {
                return leader;
            }
            self.ticks(1);
        }
        panic!("nobody leads after 100 ticks: {:?}", self.drivers);
    }

    fn members(&self, id: u64) -> ConfState {
        self.drivers[&id].conf_state.clone()
    }

    /// A replica that knows nothing yet.
    fn join(&mut self, id: u64) {
        let kept = Kept {
            hard_state: HardState::default(),
            checkpoint: Position::default(),
            conf_state: ConfState::default(),
            before: Position::default(),
            entries: vec![],
        };
        self.drivers.insert(id, Driver::new(config(id), kept));
    }
}

fn config(id: u64) -> Config {
    Config { id, boot: 7, seed: id, keep_behind: 10, mistake: None }
}

#[test]
fn what_is_proposed_at_the_leader_is_applied_everywhere() {
    let mut group = Group::of(&[1, 2, 3]);
    let leader = group.elect();
    group.feed(leader, Input::Propose(1, b"a".to_vec()));
    group.feed(leader, Input::Propose(2, b"b".to_vec()));
    assert_eq!(group.committed, [1, 2]);
    // Followers hear of it with the next heartbeat.
    group.ticks(1);
    assert_eq!(group.applied.len(), 3);
    // Followers hear of the last with the next heartbeat.
    group.ticks(1);
    assert!(group.applied.values().all(|applied| *applied == [b"a", b"b"]));
    let follower = leader % 3 + 1;
    group.feed(follower, Input::Propose(3, b"c".to_vec()));
    assert_eq!(group.answers[&3], Answer::Refused(Some(leader)));
}

#[test]
fn a_leader_that_is_cut_off_answers_unknown_and_no_read() {
    let mut group = Group::of(&[1, 2, 3]);
    let old = group.elect();
    group.away = vec![old];
    group.feed(old, Input::Propose(1, b"a".to_vec()));
    group.feed(old, Input::Read(2));
    assert!(group.answers.is_empty());
    group.ticks(60);
    assert_eq!(group.answers[&1], Answer::Unknown);
    assert_eq!(group.answers[&2], Answer::NotReadable);
    let new = group.leader().unwrap();
    group.feed(new, Input::Propose(3, b"b".to_vec()));
    group.away.clear();
    group.ticks(5);
    assert!(group.applied.values().all(|applied| *applied == [b"b"]), "{:?}", group.applied);
    group.feed(old, Input::Read(4));
    assert_eq!(group.answers[&4], Answer::Readable);
}

#[test]
fn a_learner_gets_its_vote_when_it_has_caught_up_and_leaves_by_removal() {
    let mut group = Group::of(&[1]);
    group.ticks(1);
    group.drivers.get_mut(&1).unwrap().campaign_if_sole();
    group.ticks(1);
    group.feed(1, Input::Propose(1, b"a".to_vec()));
    group.join(2);
    group.feed(1, Input::Change(2, Change::Add(2)));
    assert_eq!(group.answers[&2], Answer::Changed);
    assert_eq!(group.members(1).learners, [2]);
    group.ticks(30);
    assert_eq!(group.members(1).voters, [1, 2]);
    assert_eq!(group.members(2), group.members(1));
    group.feed(1, Input::Change(3, Change::Remove(1)));
    assert_eq!(group.answers[&3], Answer::ChangeRefused(ChangeRefused::Leads(1)));
    group.feed(1, Input::Transfer(None));
    assert_eq!(group.elect(), 2);
    group.feed(2, Input::Change(4, Change::Remove(1)));
    assert_eq!(group.answers[&4], Answer::Changed);
    assert_eq!(group.members(2).voters, [2]);
    group.feed(2, Input::Change(5, Change::Remove(2)));
    assert_eq!(group.answers[&5], Answer::ChangeRefused(ChangeRefused::Last(2)));
}

#[test]
fn a_change_that_would_leave_no_majority_is_refused() {
    let mut group = Group::of(&[1, 2]);
    let leader = group.elect();
    let other = 3 - leader;
    group.drivers.get_mut(&leader).unwrap().peers.forget();
    group.feed(leader, Input::Change(2, Change::Remove(other)));
    assert_eq!(group.answers[&2], Answer::ChangeRefused(ChangeRefused::Pending), "too new to know");
    group.ticks(6);
    group.away = vec![other];
    group.ticks(1);
    group.drivers.get_mut(&leader).unwrap().peers.forget();
    group.feed(leader, Input::Change(1, Change::Remove(other)));
    let refused = ChangeRefused::NoMajority { alive: 1, voters: 2 };
    assert_eq!(group.answers[&1], Answer::ChangeRefused(refused));
}

#[test]
fn a_voter_is_replaced_in_one_joint_step_that_ends_by_itself() {
    let mut group = Group::of(&[1, 2, 3]);
    let leader = group.elect();
    group.join(4);
    group.ticks(2);
    group.feed(leader, Input::Change(1, Change::Add(4)));
    let gone = leader % 3 + 1;
    group.feed(leader, Input::Change(3, Change::Replace { remove: gone, promote: 4 }));
    assert_eq!(group.answers[&3], Answer::ChangeRefused(ChangeRefused::Behind(4)));
    group.ticks(10);
    group.feed(leader, Input::Change(2, Change::Replace { remove: gone, promote: 4 }));
    assert_eq!(group.answers[&2], Answer::Changed);
    group.ticks(3);
    let members = group.members(leader);
    assert!(members.voters.contains(&4) && !members.voters.contains(&gone), "{members:?}");
    assert_eq!((members.voters.len(), members.voters_outgoing.len()), (3, 0));
}

#[test]
fn a_leader_whose_disk_hangs_gives_way_and_ends_later() {
    let mut group = Group::of(&[1, 2, 3]);
    let old = group.elect();
    group.hung = Some(old);
    group.feed(old, Input::Propose(1, b"a".to_vec()));
    group.ticks(30);
    let new = group.leader().unwrap();
    assert_ne!(new, old);
    group.ticks(200);
    assert_eq!(group.stopped, BTreeMap::from([(old, Stop::DiskHangs)]));
}

#[test]
fn a_write_that_waited_for_room_did_not_hang() {
    let mut group = Group::of(&[1, 2, 3]);
    let leader = group.elect();
    let full = leader % 3 + 1;
    group.hung = Some(full);
    group.feed(full, Input::DiskFull(true));
    group.feed(leader, Input::Propose(1, b"a".to_vec()));
    group.ticks(1_000);
    group.feed(full, Input::DiskFull(false));
    group.ticks(190);
    assert_eq!(group.stopped, BTreeMap::new());
    group.ticks(20);
    assert_eq!(group.stopped, BTreeMap::from([(full, Stop::DiskHangs)]), "with room it has to be done in time");
}

#[test]
fn a_replica_whose_log_is_gone_stops() {
    let mut group = Group::of(&[1, 2, 3]);
    let leader = group.elect();
    group.feed(leader, Input::Propose(1, b"a".to_vec()));
    group.ticks(2);
    let wiped = leader % 3 + 1;
    group.join(wiped);
    group.ticks(2);
    assert!(matches!(group.stopped[&wiped], Stop::LogLost { .. }));
}

#[test]
fn a_hint_that_the_leader_is_gone_saves_the_waiting() {
    let mut group = Group::of(&[1, 2, 3]);
    let old = group.elect();
    group.ticks(1);
    group.away = vec![old];
    for id in [1, 2, 3].into_iter().filter(|id| *id != old) {
        group.feed(id, Input::LeaderGone(old));
    }
    assert!(group.leader().is_some_and(|new| new != old));
}

#[test]
fn a_sole_replica_does_not_lead_before_its_term_is_durable() {
    let mut group = Group::of(&[1]);
    group.hung = Some(1);
    group.drivers.get_mut(&1).unwrap().campaign_if_sole();
    group.feed(1, Input::Propose(1, b"a".to_vec()));
    assert_eq!((group.leader(), group.answers.len()), (None, 0));
}

#[test]
fn a_learner_asks_for_no_votes_whatever_it_is_told() {
    let mut group = Group::of(&[1, 2, 3]);
    let leader = group.elect();
    group.ticks(2);
    group.join(4);
    group.feed(leader, Input::Change(1, Change::Add(4)));
    group.ticks(2);
    assert_eq!(group.members(4).learners, [4]);
    group.feed(4, Input::LeaderGone(leader));
    assert_eq!((group.elect(), group.drivers[&4].status().role), (leader, Role::Learner));
}

#[test]
fn nobody_asks_for_votes_with_a_checkpoint_under_way() {
    let mut group = Group::of(&[1, 2, 3]);
    let leader = group.elect();
    let late = leader % 3 + 1;
    group.away = vec![late];
    for ticket in 0..30 {
        group.feed(leader, Input::Propose(ticket, b"a".to_vec()));
        if ticket % 15 == 14 {
            let (at, members) = (group.drivers[&leader].applied, group.members(leader));
            group.feed(leader, Input::CheckpointMade(at, members));
        }
    }
    (group.away, group.hung) = (vec![], Some(late));
    group.ticks(5);
    assert!(group.drivers[&late].outstanding.is_installing());
    group.away = vec![late];
    group.ticks(40);
    assert_eq!(group.drivers[&late].status().role, Role::Follower);
}

#[test]
fn what_a_checkpoint_on_its_way_needs_behind_it_is_kept_for_ten_minutes() {
    let mut group = Group::of(&[1, 2, 3]);
    let leader = group.elect();
    let slow = leader % 3 + 1;
    group.away = vec![slow];
    let mut ticket = 100;
    let mut advance = |group: &mut Group| {
        for _ in 0..50 {
            ticket += 1;
            group.feed(leader, Input::Propose(ticket, vec![1]));
        }
        let (at, conf_state) = (group.drivers[&leader].applied, group.members(leader));
        group.feed(leader, Input::CheckpointMade(at, conf_state));
        at.index
    };
    let first = |group: &Group| group.drivers[&leader].node.store().before().index;
    advance(&mut group);
    let offered = advance(&mut group);
    assert!(first(&group) > 1, "what it lacks is gone");
    // It takes the offer, and is never done.
    group.away = vec![];
    group.dawdles = Some(slow);
    group.ticks(10);
    let progress = |group: &Group| group.drivers[&leader].node.raft.prs().get(slow).unwrap().pending_snapshot;
    assert_eq!(progress(&group), offered);
    for _ in 0..5 {
        advance(&mut group);
    }
    assert!(first(&group) <= offered);
    for _ in 0..12_000 / 50 {
        group.feed(leader, Input::CheckpointSending(slow));
        group.ticks(50);
    }
    advance(&mut group);
    assert!(first(&group) > offered);
}
