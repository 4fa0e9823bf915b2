//! What clients of real processes were answered under kills and partitions is what one register would have answered: by a
//! checker that is not ours.

use std::time::{Duration, Instant};

use mainstay_tests::{
    Replicas,
    machine::has,
    networks::NEEDS,
    register::{Clients, Done, Load, Operation},
    wait::{holds, throughout},
};
use todc_utils::{
    Action::{Call, Response},
    History, WGLChecker,
    specifications::register::{RegisterOperation, RegisterSpecification},
};

/// As large as the checker bears: it looks at every order that the moments allow.
const LOAD: Load = Load { clients: 8, operations: 25, span: Duration::from_secs(10), stale: false };

/// Whether some order of these operations, each between its question and its answer, is what a register does. What nobody
/// knows may have been done at any moment since, or not at all: which is the same as after everything else.
fn is_linearizable(history: &[Done]) -> bool {
    let end = history.iter().flat_map(|done| [Some(done.called), done.answered]).flatten().max().unwrap();
    let mut actions: Vec<(Instant, bool, usize)> = Vec::new();
    for (number, done) in history.iter().enumerate() {
        actions.push((done.called, false, number));
        actions.push((done.answered.unwrap_or(end), true, number));
    }
    // At the same moment a question goes before an answer: that only allows more.
    actions.sort_unstable();
    let action = |(_, is_answer, number): (Instant, bool, usize)| {
        let (asked, got) = match history[number].operation {
            Operation::Read(value) => (RegisterOperation::Read(None), RegisterOperation::Read(Some(value))),
            Operation::Write(value) => (RegisterOperation::Write(value), RegisterOperation::Write(value)),
        };
        (number, if is_answer { Response(got) } else { Call(asked) })
    };
    let history = History::from_actions(actions.into_iter().map(action).collect());
    WGLChecker::<RegisterSpecification<u64>>::is_linearizable(history)
}

/// Lets them work; nobody may end meanwhile by itself.
fn works(replicas: &mut Replicas, span: Duration) {
    throughout("replicas go on", span, || {
        let ids = replicas.ids();
        let ended = ids.iter().find(|id| replicas.runs(id) && replicas.daemon(id).ended().is_some());
        holds(ended.is_none(), || format!("{ended:?} ended"))
    });
}

fn summary(history: &[Done]) -> String {
    let of = |wanted: fn(&Done) -> bool| history.iter().filter(|done| wanted(done)).count();
    let reads = of(|done| matches!(done.operation, Operation::Read(_)));
    let doubts = of(|done| done.answered.is_none());
    format!("{reads} reads, {} writes, of which nobody knows {doubts}", history.len() - reads)
}

#[test]
fn registers_are_linearizable_under_kills_and_partitions() {
    if !has(&NEEDS) {
        return;
    }
    let mut replicas = Replicas::found_apart(3);
    let clients = ["a", "b", "c"].map(|name| Clients::start(&replicas, name, LOAD));
    let second = Duration::from_secs(1);
    works(&mut replicas, second);
    let leader = replicas.leader();
    replicas.part(&leader);
    works(&mut replicas, second);
    // Members change meanwhile, and the change may not be done when the next leader dies.
    let by = replicas.leader();
    let fourth = replicas.join_by(&by);
    replicas.heal();
    let leader = replicas.leader();
    replicas.take(&leader).kill();
    assert!(clients.iter().all(Clients::work), "the faults come too late");
    works(&mut replicas, second);
    replicas.begin(&leader);
    works(&mut replicas, second);
    let leader = replicas.leader();
    replicas.deafen(&leader);
    println!("the last fault comes while clients work: {}", clients.iter().all(Clients::work));
    works(&mut replicas, second * 2);
    replicas.heal();
    for (clients, name) in clients.into_iter().zip(["a", "b", "c"]) {
        let history = clients.history();
        let begun = Instant::now();
        let is_one_register = is_linearizable(&history);
        println!("register {name}: {}; checked in {:?}", summary(&history), begun.elapsed());
        assert!(history.len() > 100, "too little was answered: {}", summary(&history));
        assert!(is_one_register, "{history:#?}");
    }
    replicas.settle();
    assert_eq!(replicas.status().len(), 4, "{fourth} is in");
}

#[test]
fn a_replicas_own_view_is_not_linearizable_and_the_checker_sees_it() {
    if !has(&NEEDS) {
        return;
    }
    let mut replicas = Replicas::found_apart(3);
    let load = Load { span: Duration::from_secs(3), stale: true, ..LOAD };
    let clients = Clients::start(&replicas, "a", load);
    let follower = replicas.others(&replicas.leader()).remove(0);
    replicas.part(&follower);
    works(&mut replicas, Duration::from_secs(2));
    replicas.heal();
    let history = clients.history();
    println!("{}", summary(&history));
    assert!(!is_linearizable(&history), "a replica that was cut off showed what was long overwritten: {history:#?}");
}

#[test]
fn the_checker_takes_what_a_register_does_and_nothing_else() {
    let begun = Instant::now();
    let at = |millis| begun + Duration::from_millis(millis);
    let done =
        |operation, called, answered: Option<u64>| Done { operation, called: at(called), answered: answered.map(at) };
    use Operation::{Read, Write};
    let stale = [done(Write(1), 0, Some(1)), done(Write(2), 2, Some(3)), done(Read(1), 4, Some(5))];
    assert!(!is_linearizable(&stale), "an old value after a new one was acknowledged");
    let meanwhile = [done(Write(1), 0, Some(1)), done(Write(2), 2, Some(6)), done(Read(1), 4, Some(5))];
    assert!(is_linearizable(&meanwhile), "an old value while the new one is on its way");
    let lost = [done(Write(1), 0, Some(1)), done(Read(0), 2, Some(3))];
    assert!(!is_linearizable(&lost), "what was acknowledged is gone");
    let doubt = [done(Write(1), 0, None), done(Read(0), 2, Some(3)), done(Read(1), 4, Some(5))];
    assert!(is_linearizable(&doubt), "what nobody knows was done late");
    let undone = [done(Write(1), 0, None), done(Read(1), 2, Some(3)), done(Read(0), 4, Some(5))];
    assert!(!is_linearizable(&undone), "it was seen, then not");
    let never = [done(Write(1), 0, None), done(Read(0), 2, Some(3))];
    assert!(is_linearizable(&never), "it was never done");
}
