//! Groups of replicas in one process, with real threads and real disks.

#![expect(clippy::unwrap_used, reason = "a panic in a test is a failed test")]

mod board;
mod disk;
mod toy;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use mainstay_coordinator::raft::{
    ChangeError, End, Log, Machine as _, ProposeError, ReadError, Running, Settings, Unadmitted,
    driver::{Change, ChangeRefused, MemberRole},
    join, start_member,
    store::{self, Checkpoint, ConfState, Identity, Preparing, Store},
};

use futures_util::future::{select_all, select_ok};

use self::{
    board::{Board, Wire},
    disk::{Mood, MoodyDisk},
    toy::Toy,
};

/// How long anything may take before a test gives up on it.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long somebody who was refused waits for news before it asks again.
const PATIENCE: Duration = Duration::from_millis(20);

struct Group {
    _folder: tempfile::TempDir,
    board: Arc<Board>,
    disks: BTreeMap<u64, MoodyDisk>,
    replicas: BTreeMap<u64, (Log<Toy>, Running<Toy>)>,
    /// The life of each that runs, and how many there were.
    lives: BTreeMap<u64, u64>,
    begun: u64,
}

impl Group {
    fn of(size: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let conf_state = ConfState { voters: (1..=size).collect(), ..ConfState::default() };
        let first = Checkpoint { index: 1, term: 1, conf_state, sections: Toy::default().sections() };
        let mut group = Self {
            board: Arc::default(),
            disks: BTreeMap::new(),
            replicas: BTreeMap::new(),
            lives: BTreeMap::new(),
            begun: 0,
            _folder: folder,
        };
        for id in 1..=size {
            let disk = group.disk(id);
            Store::create(disk, identity(id), settings().store, &first).unwrap();
            group.start(id);
        }
        group
    }

    fn folder(&self, id: u64) -> PathBuf {
        self._folder.path().join(id.to_string())
    }

    fn disk(&mut self, id: u64) -> MoodyDisk {
        let path = self.folder(id);
        self.disks.entry(id).or_insert_with(|| MoodyDisk::at(&path)).clone()
    }

    fn start(&mut self, id: u64) {
        let disk = self.disk(id);
        let (life, log, running) = self.live(id, disk);
        self.lives.insert(id, life);
        self.replicas.insert(id, (log, running));
    }

    /// A life of that replica, on whatever disk.
    fn live(&mut self, id: u64, disk: MoodyDisk) -> (u64, Log<Toy>, Running<Toy>) {
        self.begun += 1;
        let life = self.begun;
        let wire = Arc::new(Wire { own: id, life, board: Arc::clone(&self.board) });
        let (log, running) = start_member(disk, settings(), vec![], wire, Toy::default()).unwrap();
        self.board.plug(id, life, log.clone());
        (life, log, running)
    }

    fn unplug(&self, id: u64) {
        self.board.unplug(self.lives[&id]);
    }

    /// Without a word to the others.
    async fn kill(&mut self, id: u64) {
        self.unplug(id);
        self.board.isolate(id);
        let (_, running) = self.replicas.remove(&id).unwrap();
        running.end().await;
        self.board.heal();
    }

    fn log(&self, id: u64) -> Log<Toy> {
        self.replicas[&id].0.clone()
    }

    async fn leader(&self) -> u64 {
        self.leader_but(0).await
    }

    async fn leader_but(&self, other: u64) -> u64 {
        let others = self.replicas.iter().filter(|(id, _)| **id != other);
        let leads = others.map(|(id, (log, _))| {
            let (id, mut leader) = (*id, log.leader());
            Box::pin(async move { leader.wait_for(Option::is_some).await.map(|_| id) })
        });
        within("somebody leads", select_ok(leads)).await.unwrap().0
    }

    /// Proposes until it is done, wherever the leader is.
    async fn write(&self, number: u64) -> Duration {
        let begin = Instant::now();
        let mut ids = self.replicas.keys().copied().cycle();
        let mut id = ids.next().unwrap();
        loop {
            let log = self.log(id);
            let attempt = tokio::time::timeout(Duration::from_secs(1), log.propose(number));
            match attempt.await {
                Ok(Ok(())) => return begin.elapsed(),
                Ok(Err(ProposeError::NotLeader(Some(leader)))) if self.replicas.contains_key(&leader) => id = leader,
                Ok(Err(
                    ProposeError::NotLeader(_) | ProposeError::Unknown | ProposeError::Ending | ProposeError::Broken(_),
                ))
                | Err(_) => id = ids.next().unwrap(),
                Ok(Err(other)) => panic!("{other}"),
            }
            assert!(begin.elapsed() < DEADLINE, "{number} is not done");
            // Whoever knows no leader may hear of one.
            drop(tokio::time::timeout(PATIENCE, log.known_leader().changed()).await);
        }
    }

    async fn all_have(&self, count: usize) {
        for (id, (log, _)) in &self.replicas {
            let mut state = log.watch();
            let has_all = state.wait_for(|state| state.0.len() == count);
            drop(within(&format!("{id} has {count}"), has_all).await.unwrap());
        }
        let states: Vec<_> = self.replicas.values().map(|(log, _)| log.read()).collect();
        assert!(states.iter().all(|state| **state == *states[0]));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_written_survives_the_leader() {
    let mut group = Group::of(3);
    for number in 0..20 {
        group.write(number).await;
    }
    let leader = group.leader().await;
    group.kill(leader).await;
    for number in 20..40 {
        group.write(number).await;
    }
    group.start(leader);
    group.all_have(40).await;
    let reads = group.log(leader).read_now().await.unwrap();
    assert_eq!(reads.0.len(), 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_at_once_come_back_with_everything() {
    let mut group = Group::of(3);
    for number in 0..10 {
        group.write(number).await;
    }
    for id in 1..=3 {
        group.kill(id).await;
    }
    for id in 1..=3 {
        group.start(id);
    }
    group.write(10).await;
    group.all_have(11).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_promises_nothing() {
    let group = Group::of(3);
    group.write(0).await;
    let old = group.leader().await;
    group.board.isolate(old);
    let lost = tokio::spawn({
        let log = group.log(old);
        async move { log.propose(99).await }
    });
    let new = group.leader_but(old).await;
    group.log(new).propose(1).await.unwrap();
    assert_eq!(lost.await.unwrap(), Err(ProposeError::Unknown));
    assert_eq!(group.log(old).read_now().await.err(), Some(ReadError::NoLeader));
    assert!(matches!(group.log(old).propose(2).await, Err(ProposeError::NotLeader(_))));
    group.board.heal();
    group.write(3).await;
    group.all_have(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_with_a_slow_disk_delays_nobody() {
    let group = Group::of(3);
    group.write(0).await;
    let leader = group.leader().await;
    group.disks[&(leader % 3 + 1)].set(Mood::Slow(Duration::from_millis(300)));
    let mut times = Vec::new();
    for number in 1..30 {
        times.push(group.write(number).await);
    }
    times.sort();
    assert!(times[times.len() / 2] < Duration::from_millis(150), "{times:?}");
    assert_eq!(group.leader().await, leader);
    group.disks[&(leader % 3 + 1)].set(Mood::Well);
    group.all_have(30).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_whose_disk_hangs_gives_way_within_three_seconds_and_ends() {
    let mut group = Group::of(3);
    group.write(0).await;
    let old = group.leader().await;
    group.disks[&old].set(Mood::Hung);
    let begin = Instant::now();
    let (log, running) = group.replicas.remove(&old).unwrap();
    let stuck = tokio::spawn({
        let log = log.clone();
        async move { log.propose(1).await }
    });
    let new = group.leader_but(old).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    group.log(new).propose(2).await.unwrap();
    assert_eq!(stuck.await.unwrap(), Err(ProposeError::Unknown));
    let end = tokio::time::timeout(DEADLINE, log.ended()).await.unwrap();
    assert!(matches!(&end, End::Broken(why) if why.contains("10 s")), "{end:?}");
    group.disks[&old].set(Mood::Well);
    drop(running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_hangs_under_a_checkpoint_too_keeps_no_replica_from_its_end() {
    let mut group = Group::of(3);
    group.write(0).await;
    let old = group.leader().await;
    group.disks[&old].set(Mood::HungIn("checkpoint-"));
    for number in 1..60 {
        group.write(number).await;
    }
    assert_eq!(group.leader().await, old, "entries go on");
    assert_eq!(group.log(old).status().await.unwrap().checkpoint.index, 1);
    group.disks[&old].set(Mood::Hung);
    let (log, running) = group.replicas.remove(&old).unwrap();
    let begin = Instant::now();
    let stuck = tokio::spawn({
        let log = log.clone();
        async move { log.propose(100).await }
    });
    group.leader_but(old).await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    // Told to end before its patience is over: the process must not wait for the disk either.
    assert_eq!(tokio::time::timeout(Duration::from_secs(4), running.end()).await.unwrap(), End::Asked);
    assert_eq!(stuck.await.unwrap(), Err(ProposeError::Unknown));
    group.disks[&old].set(Mood::Well);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_ends_the_replica_and_not_the_group() {
    let mut group = Group::of(3);
    group.write(0).await;
    let old = group.leader().await;
    group.disks[&old].set(Mood::Broken);
    assert!(matches!(group.log(old).propose(1).await, Err(ProposeError::Broken(_) | ProposeError::Unknown)));
    let (log, running) = group.replicas.remove(&old).unwrap();
    assert!(matches!(log.ended().await, End::Broken(_)));
    drop(running);
    group.unplug(old);
    group.write(2).await;
    group.disks[&old].set(Mood::Well);
    group.start(old);
    group.write(1).await;
    group.all_have(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_fails_no_write() {
    let mut group = Group::of(3);
    let mut number = 0;
    let mut longest = Duration::ZERO;
    for id in [1, 2, 3, 1, 2, 3] {
        for _ in 0..10 {
            longest = longest.max(group.write(number).await);
            number += 1;
        }
        let (_, running) = group.replicas.remove(&id).unwrap();
        let (written, end) = tokio::join!(group.write(number), running.end());
        number += 1;
        longest = longest.max(written);
        assert_eq!(end, End::Asked);
        group.unplug(id);
        group.start(id);
    }
    let count = usize::try_from(number).unwrap();
    group.all_have(count).await;
    // An election alone would take longer than a transfer, but a busy machine has its own time.
    assert!(longest < Duration::from_secs(5), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_join_by_checkpoint_and_leave() {
    let mut group = Group::of(1);
    for number in 0..50 {
        group.write(number).await;
    }
    for id in [2, 3] {
        let disk = group.disk(id);
        join(disk, identity(id), &settings()).unwrap();
        group.start(id);
        change(&group.log(1), Change::Add(id)).await.unwrap();
    }
    let voters = |log: &Log<Toy>| log.members().borrow().voters.clone();
    let log = group.log(1);
    let mut members = log.members();
    drop(within("all vote", members.wait_for(|members| members.voters == [1, 2, 3])).await.unwrap());
    group.write(50).await;
    group.all_have(51).await;
    let status = log.status().await.unwrap();
    assert!(status.members.iter().all(|member| member.role == MemberRole::Voter), "{status:?}");

    assert_eq!(change(&log, Change::Remove(1)).await, Err(ChangeError::Refused(ChangeRefused::Leads(1))));
    log.transfer(Some(2));
    assert_eq!(group.leader_but(1).await, 2);
    change(&group.log(2), Change::Remove(1)).await.unwrap();
    group.write(51).await;
    assert_eq!(voters(&group.log(2)), [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_disk_went_back_in_time_is_refused_by_who_knows_better() {
    let mut group = Group::of(3);
    for number in 0..20 {
        group.write(number).await;
    }
    let leader = group.leader().await;
    let id = leader % 3 + 1;
    group.all_have(20).await;
    group.kill(id).await;
    let before = group.folder(99);
    copy(&group.folder(id), &before);
    group.start(id);
    group.write(20).await;
    group.all_have(21).await;
    assert_eq!(group.board.turned_away(group.lives[&id]), None, "a restart is nothing to be refused for");

    group.kill(id).await;
    copy(&before, &group.folder(id));
    let disk = group.disk(id);
    let (life, log, running) = group.live(id, disk);
    let why = within("it is refused", group.board.turns_away(life)).await;
    let Unadmitted::WentBack(what) = why else { panic!("{why}") };
    assert!(what.peer == id && what.had > what.shown.last.index, "{what}");
    log.barred(why.to_string());
    assert_eq!(log.ended().await, End::Barred(why.to_string()));
    drop(running);
    group.write(21).await;
    group.all_have(22).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_another_state_than_most_finds_out_at_a_checkpoint_and_ends() {
    let mut group = Group::of(3);
    group.write(toy::ODD).await;
    for number in 0..30 {
        group.write(number).await;
    }
    let logs: Vec<_> = group.replicas.iter().map(|(id, (log, _))| (*id, log.clone())).collect();
    let ends = logs.into_iter().map(|(id, log)| async move { (id, log.ended().await) });
    let (ended, ..) = tokio::time::timeout(DEADLINE, select_all(ends.map(Box::pin))).await.unwrap();
    let (odd, end) = ended;
    assert!(matches!(&end, End::Barred(why) if why.contains("state at entry 25")), "{end:?}");
    group.unplug(odd);
    let (log, _) = group.replicas.remove(&odd).unwrap();
    group.write(30).await;
    group.all_have(32).await;
    let others = group.replicas.values().next().unwrap().0.read();
    assert_ne!(log.read().0[0], others.0[0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_on_copies_of_one_directory_the_later_is_refused() {
    let mut group = Group::of(3);
    group.write(0).await;
    let leader = group.leader().await;
    let id = leader % 3 + 1;
    group.all_have(1).await;
    group.kill(id).await;
    let copied = group.folder(99);
    copy(&group.folder(id), &copied);
    group.start(id);
    group.write(1).await;
    group.all_have(2).await;
    let (copy, _log, running) = group.live(id, MoodyDisk::at(&copied));
    let why = within("the copy is refused", group.board.turns_away(copy)).await;
    assert_eq!(why, Unadmitted::Copied(id));
    drop(running);
    assert_eq!(group.board.turned_away(group.lives[&id]), None);
    group.write(2).await;
    group.all_have(3).await;
}

/// A data directory as it is, in the place of another.
fn copy(from: &Path, to: &Path) {
    fs::remove_dir_all(to).unwrap_or(());
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Another change may not be done yet.
async fn change(log: &Log<Toy>, change: Change) -> Result<(), ChangeError> {
    let begin = Instant::now();
    loop {
        match log.change(change).await {
            Err(ChangeError::Refused(ChangeRefused::Pending)) if begin.elapsed() < DEADLINE => {
                drop(tokio::time::timeout(PATIENCE, log.watch().changed()).await);
            }
            answer => return answer,
        }
    }
}

fn identity(replica: u64) -> Identity {
    Identity { cluster: "c1".parse().unwrap(), generation: 1, replica }
}

fn settings() -> Settings {
    let store = store::Settings {
        segment_bytes: 64 << 10,
        ballast_bytes: 0,
        entries_behind: 10,
        preparing: Preparing::InBackground,
        ..store::Settings::default()
    };
    Settings { store, checkpoint_entries: 25, ..Settings::default() }
}

async fn within<T>(what: &str, comes: impl Future<Output = T>) -> T {
    let came = tokio::time::timeout(DEADLINE, comes).await;
    came.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}
