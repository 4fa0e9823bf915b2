//! Stories: what happens on the left, and below it everything that the coordinator does about it, recorded.
//!
//! A line is a time and what happens; lines with `->` are answers. `MAINSTAY_RECORD=1` writes the answers anew: they are
//! reviewed like code.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod world;

use std::{fs, path::Path, time::Duration};

use mainstay_common::state::DiskState;
use mainstay_core::{
    Actor, Command,
    alert::{Change, RuleId, Where, quantity::read_span},
    declare::Declared,
    notify::{self, Matcher},
};
use world::{MIDNIGHT, Manner, Seen, World, seen, webhook};

#[test]
fn every_story_ends_as_it_is_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 10, "where are the stories?");
    let mut wrong = Vec::new();
    for path in paths {
        let written = fs::read_to_string(&path).unwrap();
        let told = tell(&written);
        if written == told {
            continue;
        }
        if std::env::var_os("MAINSTAY_RECORD").is_some() {
            fs::write(&path, told).unwrap();
        } else {
            wrong.push(format!("{}:\n{}", path.display(), difference(&written, &told)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn difference(written: &str, told: &str) -> String {
    let (mut a, mut b) = (written.lines(), told.lines());
    for number in 1.. {
        match (a.next(), b.next()) {
            (None, None) => break,
            (a, b) if a == b => {}
            (a, b) => return format!("line {number}\n  written: {}\n  told:    {}", a.unwrap_or(""), b.unwrap_or("")),
        }
    }
    "only the end differs".into()
}

fn tell(script: &str) -> String {
    let mut world = World::new();
    let mut told = String::new();
    for line in script.lines().filter(|line| !line.trim_start().starts_with("->")) {
        told += line;
        told.push('\n');
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (time, what) = line.split_once(' ').unwrap_or_else(|| panic!("{line}"));
        let parts: Vec<u64> = time.split(':').map(|part| part.parse().unwrap()).collect();
        let [hours, minutes, seconds] = [0, 1, 2].map(|at| parts.get(at).copied().unwrap_or(0));
        world.now = MIDNIGHT.plus(Duration::from_secs(hours * 3_600 + minutes * 60 + seconds));
        world.done.clear();
        happen(&mut world, what.trim());
        world.settle();
        for done in &world.done {
            told += &format!("           -> {done}\n");
        }
    }
    told
}

fn happen(world: &mut World, what: &str) {
    let words: Vec<&str> = what.split_whitespace().collect();
    match words[..] {
        ["time", "passes"] => {}
        ["agents", "every", span] => world.interval = read_span(span).unwrap(),
        ["another", "replica", "leads"] => world.lead(),
        ["remove", "node", name] => world.remove(name),
        ["test", name] => drop(world.propose(Actor::Root, test(name))),
        ["receiver", name] => declare(world, |wished| drop(wished.receivers.insert(name.parse().unwrap(), webhook()))),
        ["no", "receiver", name] => declare(world, |wished| drop(wished.receivers.remove(&name.parse().unwrap()))),
        ["route", ref keys @ .., "to", name] => {
            let matcher = matcher(keys);
            declare(world, |wished| drop(wished.routes.insert(matcher, [name.parse().unwrap()].into())));
        }
        ["rule", ref keys @ ..] => {
            let (place, change) = rule(what, keys);
            declare(world, |wished| {
                wished.rules.insert((RuleId::FsSpace, place), change);
            });
        }
        [name, "took", "it"] => {
            let late = world.hanging.iter().position(|send| send.claim.id.receiver.as_str() == name);
            let send = world.hanging.remove(late.expect("something hangs"));
            world.take(send);
        }
        [name, manner @ ("takes" | "hangs" | "fails" | "refuses")] => {
            let manner = match manner {
                "hangs" => Manner::Hangs,
                "fails" => Manner::Fails,
                "refuses" => Manner::Refuses,
                _ => Manner::Takes,
            };
            world.manners.insert(name.parse().unwrap(), manner);
        }
        [node, "session"] => world.session(node),
        [node, "no", "disks"] => world.sample(node, &[]),
        [node, "disk", ..] => {
            let disks: Vec<Seen> = what.split_once("disk").unwrap().1.split(',').map(disk).collect();
            world.sample(node, &disks);
        }
        _ => panic!("nobody knows what {what:?} means"),
    }
}

fn declare(world: &mut World, change: impl FnOnce(&mut Declared)) {
    drop(world.declare(change));
}

fn test(name: &str) -> Command {
    Command::Notify(notify::Command::Test(name.parse().unwrap()))
}

/// `/data avail 9% [of 4TiB] [readonly|unread|empty]`
fn disk(text: &str) -> Seen {
    let words: Vec<&str> = text.split_whitespace().collect();
    let [mount, "avail", percent, ref rest @ ..] = words[..] else { panic!("{text}") };
    let mut disk = seen(mount, percent.trim_end_matches('%').parse().unwrap());
    let mut rest = rest.iter();
    while let Some(word) = rest.next() {
        match *word {
            "of" => disk.size = rest.next().unwrap().parse::<mainstay_core::alert::quantity::Size>().unwrap().0,
            "readonly" => disk.state = DiskState::Readonly,
            "unread" => disk.read = false,
            "empty" => disk.size = 0,
            _ => panic!("{text}"),
        }
    }
    disk
}

fn matcher(keys: &[&str]) -> Matcher {
    let mut matcher = Matcher::default();
    for (key, value) in keys.iter().filter_map(|word| word.split_once('=')) {
        match key {
            "severity" => matcher.severity = Some(value.parse().unwrap()),
            "node" => matcher.node = Some(value.parse().unwrap()),
            "mount" => matcher.mount = Some(value.parse().unwrap()),
            _ => panic!("{key}"),
        }
    }
    matcher
}

/// `rule node=db* warning=50% hold=5m`; a level of two parts is written with `+` for ` and `.
fn rule(what: &str, keys: &[&str]) -> (Where, Change) {
    let (mut place, mut change) = (Where::default(), Change::default());
    for (key, value) in keys.iter().filter_map(|word| word.split_once('=')) {
        match key {
            "node" => place.node = Some(value.parse().unwrap()),
            "mount" => place.mount = Some(value.parse().unwrap()),
            "warning" => change.warning = Some(value.replace('+', " and ").parse().unwrap()),
            "critical" => change.critical = Some(value.replace('+', " and ").parse().unwrap()),
            "hold" => change.hold = Some(read_span(value).unwrap()),
            "critical_hold" => change.critical_hold = Some(read_span(value).unwrap()),
            "clear_hold" => change.clear_hold = Some(read_span(value).unwrap()),
            "clear_margin" => change.clear_margin = Some(value.parse().unwrap()),
            _ => panic!("{what}"),
        }
    }
    (place, change)
}
