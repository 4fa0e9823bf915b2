//! A full disk becomes a message, decided once.

use std::{cell::Cell, fs, path::Path, time::Duration};

use mainstay_tests::{Cluster, DiskLab, WebhookReceiver, eventually, machine::has, wait::holds};

/// Holds and margins that a story can wait for.
const SOON: &str = "hold = \"2s\"\ncritical_hold = \"2s\"\nclear_margin = \"5%\"\nclear_hold = \"2s\"\n";
const PATIENCE: Duration = Duration::from_secs(60);

/// A node with a small disk, a rule for it, and a receiver that counts.
struct Story {
    cluster: Cluster,
    receiver: WebhookReceiver,
    disk: mainstay_tests::disk_lab::LabDisk,
    _lab: DiskLab,
    /// How often the coordinator was killed.
    deaths: Cell<u32>,
}

impl Story {
    fn begin() -> Option<Self> {
        if !has(&DiskLab::NEEDS) {
            return None;
        }
        let lab = DiskLab::open();
        let disk = lab.tmpfs("full", 64);
        let receiver = WebhookReceiver::start();
        let mut cluster = Cluster::found();
        cluster.add_agent("n1", &[]);
        let story = Self { cluster, receiver, disk, _lab: lab, deaths: Cell::new(0) };
        story.declare("warning = \"50%\"\ncritical = \"20%\"\n");
        Some(story)
    }

    fn mount(&self) -> &Path {
        &self.disk.at
    }

    fn declare(&self, levels: &str) {
        let text = format!(
            "[[receiver]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"{}\"\nallow_private_address = true\n\
             [[rule]]\nname = \"fs.space\"\nmatch = {{ mount = \"{}\" }}\n{levels}{SOON}",
            self.receiver.url(),
            self.mount().display()
        );
        let file = self.cluster.folder().join("alerts.toml");
        fs::write(&file, text).unwrap();
        self.cluster.mainstay(&["apply", "-f", file.to_str().unwrap()]).done();
    }

    /// Leaves so many MiB of 64 in use.
    fn use_mib(&self, mib: usize) {
        fs::write(self.mount().join("file"), vec![7; mib << 20]).unwrap();
    }

    /// Waits until exactly these events arrived, however often the coordinator dies meanwhile.
    fn hears(&mut self, events: &[&str]) {
        eventually(&format!("{events:?} arrive"), PATIENCE, || {
            if self.cluster.revive_coordinator() {
                self.deaths.set(self.deaths.get() + 1);
            }
            let heard = self.receiver.events();
            holds(heard == events, || format!("{heard:?}"))
        });
    }

    /// Warning, critical, over.
    fn whole(&mut self) {
        self.use_mib(40);
        self.hears(&["fired"]);
        self.use_mib(60);
        self.hears(&["fired", "escalated"]);
        self.use_mib(1);
        self.hears(&["fired", "escalated", "resolved"]);
    }

    /// The alert of this disk; other stories' disks may have theirs.
    fn alert(&self, more: &[&str]) -> Option<serde_json::Value> {
        let rows = self.cluster.mainstay(&[&["alert", "ls", "-o", "json"], more].concat()).rows();
        rows.into_iter().find(|row| row["target"] == self.disk.path())
    }

    /// What the log has of it, also after every death.
    fn audited(&self, action: &str) -> usize {
        let rows = self.cluster.mainstay(&["audit", "-o", "json"]).rows();
        let about = |row: &serde_json::Value| row["object"].as_str().unwrap_or_default().contains(&self.disk.path());
        rows.iter().filter(|row| row["action"] == action && row["outcome"] == "done" && about(row)).count()
    }
}

#[test]
fn a_disk_fires_escalates_and_resolves_once_each() {
    let Some(mut story) = Story::begin() else { return };
    story.use_mib(40);
    story.hears(&["fired"]);
    let alert = story.alert(&[]).unwrap();
    assert_eq!((&alert["state"], &alert["severity"]), (&"firing".into(), &"warning".into()), "{alert}");
    assert_eq!(alert["id"], format!("fs.space/n1/{}", story.mount().display()));
    let shown = story.cluster.mainstay(&["alert", "show", alert["id"].as_str().unwrap()]).done();
    assert!(shown.contains("fired to ops") && shown.contains("delivered"), "{shown}");
    assert!(story.cluster.mainstay(&["status"]).done().contains("fs.space"));
    story.whole();

    for one in story.receiver.arrived() {
        assert_eq!(one.text("id"), one.key);
        let (alert, event, since) = (one.text("alert"), one.text("event"), one.text("since"));
        assert_eq!(one.key, format!("{alert}@{since}#{event}"));
        for key in ["rule", "severity", "node", "target", "summary", "text", "cluster"] {
            assert!(!one.text(key).is_empty(), "{key}: {}", one.body);
        }
        assert!(one.body["value"].is_number(), "{}", one.body);
    }
    assert!(story.receiver.counts().values().all(|count| *count == 1), "{:?}", story.receiver.counts());
    assert_eq!(story.alert(&[]), None, "what is resolved shows with --all only");
    assert_eq!(story.alert(&["--all"]).unwrap()["state"], "resolved");
    for action in ["alert fire", "alert escalate", "alert resolve"] {
        assert_eq!(story.audited(action), 1, "{action}");
    }
    assert_eq!(story.audited("delivery delivered"), 3);
}

#[test]
fn a_receiver_that_fails_gets_the_same_message_later_and_order_is_kept() {
    let Some(mut story) = Story::begin() else { return };
    story.receiver.answers("503 Service Unavailable");
    story.use_mib(60);
    let failing = story.cluster.row_becomes(("receiver", "name", "ops"), PATIENCE, |row| !row["last_error"].is_null());
    assert!(failing["last_error"].as_str().unwrap().contains("503"), "{failing}");
    assert_eq!(failing["owed"], 1);
    story.receiver.answers("204 No Content");
    story.hears(&["fired"]);
    story.use_mib(1);
    story.hears(&["fired", "resolved"]);
    assert!(story.receiver.counts().values().all(|count| *count == 1));
}

#[test]
fn a_coordinator_whose_own_disk_is_full_still_says_so() {
    if !has(&DiskLab::NEEDS) {
        return;
    }
    let lab = DiskLab::open();
    let disk = lab.tmpfs("own", 100);
    let mut cluster = Cluster::found_on(disk.at.join("data"));
    cluster.add_agent("n1", &[]);
    let receiver = WebhookReceiver::start();
    let declare = |text: &str| {
        let file = cluster.folder().join("alerts.toml");
        fs::write(&file, text).unwrap();
        cluster.mainstay(&["apply", "-f", file.to_str().unwrap()])
    };
    let rule = format!(
        "[[rule]]\nname = \"fs.space\"\nmatch = {{ mount = \"{}\" }}\ncritical = \"20%\"\n{SOON}",
        disk.at.display()
    );
    let webhook = |name: &str, url: &str, more: &str| {
        format!("[[receiver]]\nname = \"{name}\"\nkind = \"webhook\"\nurl = \"{url}\"\n{more}")
    };
    let ops = webhook("ops", &receiver.url(), "allow_private_address = true\n");
    declare(&format!("{ops}[[route]]\nreceivers = [\"ops\"]\n{rule}warning = \"30%\"\n")).done();

    cluster.agent_signal("n1", rustix::process::Signal::STOP);
    disk.fill();
    let large = |round: usize| {
        let one = |n: usize| webhook(&format!("r{n}"), &format!("https://h.example/{round}{}", "x".repeat(900)), "");
        declare(&(0..400).map(one).collect::<String>())
    };
    assert!((0..40).map(large).any(|outcome| outcome.code != 0), "a full disk refuses what can wait");
    cluster.agent_signal("n1", rustix::process::Signal::CONT);
    eventually("the full disk is told of", PATIENCE, || {
        let heard = receiver.events();
        holds(heard.iter().any(|event| event == "fired"), || format!("{heard:?}"))
    });
}

#[test]
fn a_silent_node_resolves_nothing() {
    let Some(mut story) = Story::begin() else { return };
    story.use_mib(40);
    story.hears(&["fired"]);
    story.cluster.agent("n1").signal(rustix::process::Signal::STOP);
    let mount = story.mount().display().to_string();
    story.cluster.row_becomes(("alert", "target", &mount), PATIENCE, |row| row["state"] == "unknown");
    story.use_mib(1);
    story.cluster.agent("n1").signal(rustix::process::Signal::CONT);
    story.hears(&["fired", "resolved"]);
}

#[test]
fn a_test_message_arrives_and_a_private_address_is_refused_unless_allowed() {
    let Some(story) = Story::begin() else { return };
    let told = story.cluster.mainstay(&["receiver", "test", "ops"]).done();
    assert!(told.contains("ops took the test"), "{told}");
    assert_eq!(story.receiver.arrived()[0].text("rule"), "test");

    let file = story.cluster.folder().join("private.toml");
    let receiver = |url: &str| format!("[[receiver]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"{url}\"\n");
    fs::write(&file, receiver(&story.receiver.url())).unwrap();
    let refused = story.cluster.mainstay(&["apply", "-f", file.to_str().unwrap()]).refused(2);
    assert!(refused.contains("private.toml:1") && refused.contains("allow_private_address"), "{refused}");
    // A name that leads to this machine is found out when it is dialled.
    fs::write(&file, receiver("https://localhost:1/hook")).unwrap();
    story.cluster.mainstay(&["apply", "-f", file.to_str().unwrap()]).done();
    let failed = story.cluster.mainstay(&["receiver", "test", "ops"]).refused(1);
    assert!(failed.contains("allow_private_address"), "{failed}");
}

#[test]
fn declarations_show_their_difference_and_wrong_ones_their_line() {
    let cluster = Cluster::found();
    let file = cluster.folder().join("a.toml");
    let apply = |text: &str, more: &[&str]| {
        fs::write(&file, text).unwrap();
        cluster.mainstay(&[&["apply", "-f", file.to_str().unwrap()], more].concat())
    };
    let ops = "[[receiver]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"https://chat.example/s3cret\"\n";
    let rule = "[[rule]]\nname = \"fs.space\"\nmatch = { node = \"db*\" }\nhold = \"5m\"\n";
    let planned = apply(&format!("{ops}{rule}"), &["--dry-run"]).done();
    assert!(planned.contains("+ receiver ops") && planned.contains("2 to add"), "{planned}");
    assert!(!planned.contains("s3cret"), "{planned}");
    assert!(cluster.rows("receiver").is_empty());
    assert!(apply(&format!("{ops}{rule}"), &[]).done().contains("2 added"));
    assert!(apply(&format!("{ops}{rule}"), &[]).done().contains("nothing to change"));
    let changed = apply(&rule.replace("5m", "7m"), &[]).done();
    assert!(changed.contains("1 changed, 0 removed") && changed.contains("7m"), "{changed}");
    assert_eq!(cluster.rows("receiver").len(), 1, "what is not declared stays");
    assert_eq!(apply(rule, &["--prune"]).code, 2, "somebody must say yes");
    assert!(apply(rule, &["--prune", "--yes"]).done().contains("1 removed"));
    assert!(cluster.rows("receiver").is_empty());

    for (text, says) in [
        ("[[rule]]\nname = \"fs.spac\"\n", "fs.space"),
        ("\n[[rule]]\nname = \"fs.space\"\nwarning = \"10 gigs\"\n", "a.toml:2"),
        ("[[rule]]\nname = \"fs.space\"\nhold = \"10 minutes\"\n", "nearest unit is m"),
        ("[[rule]]\nname = \"fs.space\"\nmatch = { nod = \"x\" }\nhold = \"1m\"\n", "node"),
        (
            "[[rule]]\nname = \"fs.space\"\nmatch = { node = \"a*\" }\nhold = \"1m\"\n[[rule]]\nname = \"fs.space\"\nmatch = { node = \"*b\" }\nhold = \"2m\"\n",
            "a.toml:5",
        ),
        ("[[route]]\nreceivers = [\"nobody\"]\n", "nobody"),
        ("[[receiver]]\nname = \"x\"\nkind = \"pigeon\"\n", "webhook"),
        ("[[receiver]]\nname = \"x\"\nkind = \"webhook\"\n", "url"),
        ("[[reciever]]\nname = \"x\"\n", "nearest: `receiver`"),
    ] {
        let refused = apply(text, &[]).refused(2);
        assert!(refused.contains(says) && refused.contains("a.toml"), "{text}: {refused}");
    }
}

/// The coordinator is killed -9 at a named point; everything is told once, whatever it was.
fn killed_at(point: &str) {
    let Some(mut story) = Story::begin() else { return };
    story.cluster.restart_coordinator_to_die_at(point);
    story.whole();
    assert_eq!(story.deaths.get(), 1, "it was never at {point}");
    let name = point.split(':').next().unwrap();
    for (key, count) in story.receiver.counts() {
        // It died between the receiver's answer and its record: the same id comes again.
        let most = if name == "answered" { 2 } else { 1 };
        assert!(count <= most, "{key} came {count} times");
    }
    for action in ["alert fire", "alert escalate", "alert resolve"] {
        assert_eq!(story.audited(action), 1, "{action}");
    }
}

macro_rules! killed {
    ($($story:ident $point:literal,)*) => {$(
        #[test]
        fn $story() {
            killed_at($point);
        }
    )*};
}

killed! {
    killed_before_it_proposes_to_fire "before-fire",
    killed_when_a_decision_is_on_disk_and_not_applied "log-written:2",
    killed_when_a_decision_is_applied_and_not_answered "log-applied:3",
    killed_before_it_claims_a_delivery "before-claim",
    killed_when_a_claim_is_recorded_and_nothing_sent "claim-recorded",
    killed_between_the_receivers_answer_and_its_record "answered",
    killed_when_the_outcome_is_recorded "recorded",
    killed_before_it_proposes_to_resolve "before-resolve",
}
