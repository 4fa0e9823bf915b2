//! Replicas on machines of their own, parted from each other while somebody writes: what was acknowledged stays, whoever
//! has a majority goes on, and nobody else pretends to.

use std::{
    thread,
    time::{Duration, Instant},
};

use mainstay_tests::{
    Replicas, Writer, eventually,
    machine::has,
    networks::NEEDS,
    wait::{holds, throughout},
};

/// A majority that lost its leader to a partition goes on within this time; usual is less than a second. Machines are
/// shared.
const GOES_ON: Duration = Duration::from_secs(4);
const SOON: Duration = Duration::from_secs(30);

/// The term and the leader in it.
fn leadership(replicas: &Replicas) -> (u64, String) {
    let rows = replicas.status();
    let leader = rows.iter().find(|row| row["role"] == "leader").unwrap();
    (leader["term"].as_u64().unwrap(), leader["replica"].as_str().unwrap().to_owned())
}

#[test]
fn a_leader_that_is_cut_off_answers_nothing_it_cannot_know_and_the_others_go_on() {
    if !has(&NEEDS) {
        return;
    }
    let mut replicas = Replicas::found_apart(3);
    let writer = Writer::start(&replicas);
    let leader = replicas.leader();
    let address = replicas.member(&leader).listen.clone();
    writer.goes_on(SOON);
    let parted = Instant::now();
    replicas.part(&leader);
    let took = writer.goes_on_since(Instant::now(), SOON);
    println!("leader cut off: the majority goes on after {took:?}");
    assert!(took < GOES_ON, "{took:?}");

    // Whoever asks the one that is cut off is told so, and for its own view it says how it knows it.
    let ask = |words: &[&str]| replicas.mainstay(&[words, &["--coordinator", &address]].concat());
    thread::scope(|scope| {
        let write = scope.spawn(|| ask(&["token", "create"]).refused(3));
        let read = scope.spawn(|| ask(&["token", "ls"]).refused(3));
        let stale = ask(&["cluster", "status", "--stale", "-o", "json"]).rows();
        assert!(stale.iter().all(|row| row["role"] != "leader"), "{stale:?}");
        ask(&["token", "ls", "--stale"]).done();
        let (write, read) = (write.join().unwrap(), read.join().unwrap());
        assert!(write.contains("no replica leads now"), "{write}");
        assert!(read.contains("no leader answers") && read.contains("--stale"), "{read}");
    });
    // The command line knows all addresses, and finds those who can answer.
    let rows = replicas.status();
    let cut_off = rows.iter().find(|row| row["replica"] == *leader).unwrap();
    assert_eq!((&cut_off["role"], &cut_off["healthy"]), (&"follower".into(), &false.into()), "{rows:?}");
    replicas.mainstay(&["token", "create"]).done();

    println!("healed after {:?}", parted.elapsed());
    let (term, _) = leadership(&replicas);
    replicas.heal();
    replicas.settle();
    assert_eq!(leadership(&replicas).0, term, "who comes back disturbs nobody");
    writer.goes_on(SOON);
    writer.check(&replicas);
}

#[test]
fn a_follower_that_is_cut_off_or_comes_and_goes_costs_nobody_the_leadership() {
    if !has(&NEEDS) {
        return;
    }
    let mut replicas = Replicas::found_apart(3);
    let before = leadership(&replicas);
    let leader = before.1.clone();
    let follower = replicas.others(&leader).remove(0);
    let writer = Writer::start(&replicas);
    let goes_on = |longest: Duration| {
        let took = writer.goes_on(SOON);
        holds(took < longest, || format!("a write took {took:?}"))
    };
    replicas.part(&follower);
    throughout("the leader does not feel it", Duration::from_secs(2), || goes_on(Duration::from_secs(1)));
    replicas.heal();
    replicas.settle();
    assert_eq!(leadership(&replicas), before, "a follower that was cut off did not depose the leader");

    // Its cable is loose.
    let cable = replicas.machine(&follower).clone();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(10) {
        for is_up in [false, true] {
            cable.link(is_up);
            throughout("writes go on", Duration::from_millis(400), || goes_on(Duration::from_secs(1)));
        }
    }
    println!(
        "a follower's link flapped for {:?}: half of the writes within {:?}",
        begun.elapsed(),
        writer.median_since(begun)
    );
    replicas.settle();
    assert_eq!(leadership(&replicas), before, "a follower that came and went did not depose the leader");

    // And the same at the leader: whoever leads in the end, writes go on and nothing is lost.
    let cable = replicas.machine(&leader).clone();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(4) {
        for is_up in [false, true] {
            cable.link(is_up);
            let pause = Duration::from_millis(if is_up { 600 } else { 200 });
            throughout("nobody ends", pause, || {
                let ended = replicas.ids().into_iter().find(|id| replicas.daemon(id).ended().is_some());
                holds(ended.is_none(), || format!("{ended:?}"))
            });
        }
    }
    println!("the leader's link flapped: the next write within {:?}", writer.goes_on(SOON));
    replicas.settle();
    let now = leadership(&replicas);
    println!("terms meanwhile: {}", now.0 - before.0);
    writer.check(&replicas);
}

#[test]
fn a_leader_that_hears_nobody_or_that_nobody_hears_gives_way() {
    if !has(&NEEDS) {
        return;
    }
    let replicas = Replicas::found_apart(3);
    let writer = Writer::start(&replicas);
    for (what, fault) in [("hears nobody", Replicas::deafen as fn(&Replicas, &str)), ("is not heard", Replicas::mute)] {
        let (term, leader) = leadership(&replicas);
        writer.goes_on(SOON);
        fault(&replicas, &leader);
        let took = writer.goes_on_since(Instant::now(), SOON);
        println!("leader {what}: the others go on after {took:?}");
        assert!(took < GOES_ON, "{took:?}");
        let next = eventually("another one leads", SOON, || {
            let (now, next) = leadership(&replicas);
            holds(next != leader && now > term, || format!("{next} in {now}")).map(|()| (now, next))
        });
        // It stays so while the fault does: PreVote.
        throughout("leadership stays", Duration::from_secs(2), || {
            let now = leadership(&replicas);
            holds(now == next, || format!("{now:?} after {next:?}"))
        });
        replicas.heal();
        replicas.settle();
        assert_eq!(leadership(&replicas), next, "who comes back disturbs nobody");
    }
    writer.goes_on(SOON);
    writer.check(&replicas);
}

#[test]
fn a_leader_and_one_follower_that_do_not_hear_each_other_take_nobody_along() {
    if !has(&NEEDS) {
        return;
    }
    let mut replicas = Replicas::found_apart(3);
    let before = leadership(&replicas);
    let follower = replicas.others(&before.1).remove(0);
    let address = replicas.member(&follower).listen.clone();
    let writer = Writer::start(&replicas);
    writer.goes_on(SOON);
    replicas.sever(&before.1, &follower);
    // The third one hears both, and does not vote for who misses a leader that is there.
    throughout("writes go on", Duration::from_secs(4), || {
        let took = writer.goes_on(SOON);
        holds(took < Duration::from_secs(1), || format!("a write took {took:?}"))
    });
    assert_eq!(leadership(&replicas), before, "leadership stays");
    let refused = replicas.mainstay(&["token", "ls", "--coordinator", &address]).refused(3);
    assert!(refused.contains("no leader answers"), "{refused}");
    replicas.heal();
    replicas.settle();
    assert_eq!(leadership(&replicas), before);
    replicas.mainstay(&["token", "ls", "--coordinator", &address]).done();
    writer.goes_on(SOON);
    writer.check(&replicas);
}

#[test]
fn a_leader_that_is_removed_while_it_is_cut_off_learns_it_when_it_is_back() {
    if !has(&NEEDS) {
        return;
    }
    let mut replicas = Replicas::found_apart(3);
    let writer = Writer::start(&replicas);
    let leader = replicas.leader();
    replicas.part(&leader);
    writer.goes_on(SOON);
    eventually("the majority gives it up", SOON, || {
        let removed = replicas.mainstay(&["cluster", "remove", &leader, "--yes"]);
        holds(removed.code == 0, || removed.stderr)
    });
    throughout("it cannot know", Duration::from_secs(1), || {
        let ended = replicas.daemon(&leader).ended();
        holds(ended.is_none(), || format!("{ended:?}"))
    });
    replicas.heal();
    let (code, said) = replicas.ends(&leader, SOON);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains(&format!("replica {leader} was removed from the cluster")), "{said}");
    replicas.forget(&leader);
    assert_eq!(replicas.add(), "r4", "an id is never used again");
    replicas.settle();
    writer.goes_on(SOON);
    writer.check(&replicas);
}

#[test]
fn a_network_that_loses_packets_costs_time_and_no_write() {
    if !has(&NEEDS) {
        return;
    }
    let replicas = Replicas::found_apart(3);
    let before = leadership(&replicas);
    let writer = Writer::start(&replicas);
    writer.goes_on(SOON);
    for id in replicas.ids() {
        replicas.machine(&id).loses(5);
    }
    let begun = Instant::now();
    writer.writes(100, SOON * 2);
    let (half, terms) = (writer.median_since(begun), leadership(&replicas).0 - before.0);
    println!(
        "5 % of all packets lost: 100 writes in {:?}, half of them within {half:?}, {terms} more terms",
        begun.elapsed()
    );
    replicas.heal();
    replicas.settle();
    writer.goes_on(SOON);
    writer.check(&replicas);
}

#[test]
fn followers_and_whole_clusters_are_killed_while_somebody_writes() {
    if !has(&NEEDS) {
        return;
    }
    let mut replicas = Replicas::found_apart(3);
    let writer = Writer::start(&replicas);
    let leader = replicas.leader();
    for follower in replicas.others(&leader) {
        let killed = Instant::now();
        replicas.take(&follower).kill();
        writer.writes(20, SOON);
        println!("{follower} killed: half of the writes within {:?}", writer.median_since(killed));
        replicas.start(&follower);
        replicas.settle();
    }
    assert_eq!(replicas.leader(), leader);
    writer.goes_on(SOON);
    for id in replicas.ids() {
        replicas.take(&id).kill();
    }
    let began = Instant::now();
    for id in replicas.ids() {
        replicas.begin(&id);
    }
    let took = writer.goes_on_since(began, SOON);
    println!("all killed: the first write {took:?} after the first of them starts");
    replicas.settle();
    writer.check(&replicas);
}
