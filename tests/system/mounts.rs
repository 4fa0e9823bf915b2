//! Real rclone mounts: frozen, cut off, killed, under odd names, and what rclone itself tells.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    time::{Duration, Instant},
};

use mainstay_common::text::{Shown, exact};
use mainstay_tests::{
    Cluster, Held, Outcome, RcloneLab, eventually,
    machine::has,
    rclone_lab::RcloneMount,
    wait::{holds, throughout},
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);
/// What operators are promised.
const HUNG_LIMIT: Duration = Duration::from_secs(15);
/// No reading may be older, at an interval of a second.
const FRESH: Duration = Duration::from_secs(10);
/// How long the others are watched while two hang.
const WATCHED: Duration = Duration::from_secs(120);
/// In so long, whatever comes and goes was there.
const WINDOW: Duration = Duration::from_secs(12);
/// On a busy machine a thread or a child more is there for a moment.
const SLACK: usize = 2;

#[test]
fn a_frozen_rclone_and_a_frozen_server_hang_and_hold_up_nothing_else() {
    if !has(&RcloneLab::NEEDS) {
        return;
    }
    let lab = RcloneLab::open();
    let server = lab.serve("served");
    let steady = lab.mount("steady", &[]);
    let frozen = lab.mount("frozen", &[]);
    let cut = lab.mount_remote("cut", server.remote().as_ref(), &["--dir-cache-time", "2s", "--poll-interval", "0"]);
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    for mount in [&steady, &frozen, &cut] {
        becomes(&cluster, mount, "ok");
    }
    let agent = cluster.agent("n1").pid();
    let before = Held::most_within(agent, WINDOW);

    let since = Instant::now();
    frozen.freeze();
    server.freeze();
    let mut took = BTreeMap::new();
    eventually("both hang", LIMIT, || {
        for (name, mount) in [("frozen", &frozen), ("cut", &cut)] {
            if state(&cluster, mount) == "hung" {
                took.entry(name).or_insert_with(|| since.elapsed());
            }
        }
        holds(took.len() == 2, || format!("{took:?}"))
    });
    say(&format!("hung after: {took:.1?}"));
    assert!(took.values().all(|took| *took <= HUNG_LIMIT), "{took:?}");

    let hanging = Held::most_within(agent, WINDOW);
    let mut clocks = Clocks::default();
    let mut last = Held::default();
    let end = Instant::now() + WATCHED;
    throughout("all others are fresh", WATCHED, || {
        clocks.look(&cluster, &steady);
        for mount in [&frozen, &cut] {
            holds(state(&cluster, mount) == "hung", || {
                cluster.row("mount", "path", &mount.path()).unwrap().to_string()
            })?;
        }
        holds(state(&cluster, &steady) == "ok", || format!("{:?}", cluster.rows("mount")))?;
        if Instant::now() + WINDOW >= end {
            last = last.max(Held::by(agent));
        }
        clocks.are_fresh()
    });
    say(&format!(
        "the agent holds: {before} -> {hanging} -> {last} after {WATCHED:?}; oldest reading {:.1?}",
        clocks.worst()
    ));
    // What grew with every question would have grown by dozens.
    for (hanging_is, last_is) in [
        (hanging.threads, last.threads),
        (hanging.descriptors, last.descriptors),
        (hanging.children, last.children),
        // One child for the mount that was asked; whoever is seen to be stopped is not asked.
        (before.children + 1, hanging.children),
    ] {
        assert!(last_is <= hanging_is + SLACK, "{before} -> {hanging} -> {last}");
    }

    let since = Instant::now();
    frozen.thaw();
    becomes(&cluster, &frozen, "ok");
    say(&format!("the thawed rclone is ok after {:.1?}", since.elapsed()));
    let since = Instant::now();
    server.thaw();
    becomes(&cluster, &cut, "ok");
    say(&format!("the mount of the thawed server is ok after {:.1?}", since.elapsed()));
    eventually("no child is left over", LIMIT, || {
        let now = Held::by(agent);
        holds(now.children <= before.children, || format!("{before} -> {now}"))
    });
}

#[test]
fn a_killed_rclone_is_gone_and_nobody_is_behind_it() {
    if !has(&RcloneLab::NEEDS) {
        return;
    }
    let lab = RcloneLab::open();
    let mut mount = lab.mount("m", &[]);
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    becomes(&cluster, &mount, "ok");
    let pid = mount.pid().to_string();
    eventually("its process is known", LIMIT, || {
        let shown = shown(&cluster, &mount);
        holds(note(&shown, "rclone_pid") == pid, || shown.to_string())
    });

    mount.kill();
    becomes(&cluster, &mount, "gone");
    eventually("nobody is behind it", LIMIT, || {
        let shown = shown(&cluster, &mount);
        let is = note(&shown, "reason") == "disconnected" && shown["notes"]["rclone_pid"].is_null();
        holds(is, || shown.to_string())
    });
    let sheet = cluster.mainstay(&["mount", "show", "n1", &mount.path()]).done();
    assert!(sheet.contains("gone") && !sheet.contains("rclone pid"), "{sheet}");

    mount.unmount();
    eventually("it is missed", LIMIT, || {
        let shown = shown(&cluster, &mount);
        holds(shown["state"] == "gone" && note(&shown, "reason") == "not_mounted", || shown.to_string())
    });
}

#[test]
fn uploads_cache_and_version_are_what_rclone_says() {
    if !has(&RcloneLab::NEEDS) {
        return;
    }
    let lab = RcloneLab::open();
    let cached = [
        "--vfs-cache-mode",
        "writes",
        "--vfs-cache-max-size",
        "1G",
        "--vfs-cache-poll-interval",
        "1s",
        "--vfs-write-back",
    ];
    let waiting = lab.mount("waiting", &[&cached[..], &["1h"]].concat());
    let busy = lab.mount("busy", &[&cached[..], &["100ms", "--bwlimit", "20k", "--transfers", "1"]].concat());
    waiting.write("a", 50_000);
    waiting.write("b", 3_000);
    busy.write("first", 8 << 20);
    busy.write("second", 8 << 20);
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    for (mount, queued, active, cached) in [(&waiting, 2, 0, 53_000), (&busy, 1, 1, 16 << 20)] {
        let told = eventually("uploads are as rclone says", LIMIT, || {
            let (ours, own) = (shown(&cluster, mount), mount.ask("vfs/stats"));
            let own = &own["diskCache"];
            let same = [
                ("mainstay_rclone_uploads_queued", "uploadsQueued"),
                ("mainstay_rclone_uploads_active", "uploadsInProgress"),
                ("mainstay_rclone_cache_used_bytes", "bytesUsed"),
                ("mainstay_rclone_cache_resets_failed", "erroredFiles"),
            ];
            let same = same.iter().all(|(ours_is, own_is)| ours["readings"][ours_is] == own[own_is]);
            let is = same
                && own["uploadsQueued"] == queued
                && own["uploadsInProgress"] == active
                && own["bytesUsed"] == cached;
            if is { Ok(ours) } else { Err(format!("{ours} {own}")) }
        });
        assert_eq!(told["upload_queue"], queued + active, "{told}");
        assert_eq!(told["cache_bytes"], cached, "{told}");
        assert_eq!(told["readings"]["mainstay_rclone_cache_max_bytes"], 1 << 30, "{told}");
        assert_eq!(note(&told, "rclone_version"), mount.ask("core/version")["version"]);
        assert_eq!(note(&told, "rclone_rc"), "ok");
        assert_eq!(note(&told, "rclone_pid"), mount.pid().to_string());
        assert!(!note(&told, "rclone_rc_open").is_empty(), "it needs no password: {told}");
        // The remote is a folder of this machine.
        eventually("the remote is asked, too", LIMIT, || {
            let (ours, own) = (shown(&cluster, mount), mount.ask("core/stats"));
            let is = ours["remote_state"] == "ok" && ours["readings"]["mainstay_rclone_errors_total"] == own["errors"];
            holds(is, || format!("{ours} {own}"))
        });
    }
}

#[test]
fn a_mount_may_have_any_name_and_findmnt_sees_the_same_ones() {
    if !has(&RcloneLab::NEEDS) {
        return;
    }
    let lab = RcloneLab::open();
    let names: [&[u8]; 5] = [b"plain", b"my files", b"two\nlines", b"back\\slash\\040", b"no utf-8 \xff \x1b[31m"];
    let mut mounts: Vec<RcloneMount> = names.iter().map(|name| lab.mount(OsStr::from_bytes(name), &[])).collect();
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    for mount in &mounts {
        becomes(&cluster, mount, "ok");
        let shown = shown(&cluster, mount);
        assert_eq!(shown["path"], mount.path());
        assert_eq!(shown["fs"], "fuse.rclone");
    }
    agree(&cluster, &lab, mounts.len());
    let table = cluster.mainstay(&["mount", "ls", "-o", "wide"]).done();
    for mount in &mounts {
        let name = Shown::new(mount.at.as_os_str().as_bytes()).to_string();
        assert_eq!(table.lines().filter(|line| line.contains(&name)).count(), 1, "{name}: {table}");
        // As copied from the table.
        let shown = cluster.mainstay(&["-o", "json", "mount", "show", "n1", &name]).json();
        assert_eq!(shown["path"], mount.path());
    }
    assert!(!table.contains('\x1b'), "{table:?}");

    let left = mounts.pop().unwrap();
    left.unmount();
    becomes(&cluster, &left, "gone");
    agree(&cluster, &lab, mounts.len());
}

/// `findmnt` and `mount ls` name the same places below the story's folder: no more, no less.
fn agree(cluster: &Cluster, lab: &RcloneLab, count: usize) {
    let theirs: Vec<String> =
        lab.space().findmnt("fuse.rclone").iter().map(|path| exact(path.as_os_str().as_bytes())).collect();
    assert_eq!(theirs.len(), count, "{theirs:?}");
    let folder = exact(lab.space().folder().as_os_str().as_bytes());
    eventually("mount ls agrees with findmnt", LIMIT, || {
        let here = |row: &Value| row["path"].as_str().filter(|path| path.starts_with(&folder)).map(str::to_owned);
        let rows = cluster.rows("mount").into_iter().filter(|row| row["state"] != "gone");
        let mut ours: Vec<String> = rows.filter_map(|row| here(&row)).collect();
        ours.sort();
        let mut theirs = theirs.clone();
        theirs.sort();
        holds(ours == theirs, || format!("{ours:?} {theirs:?}"))
    });
}

/// When readings last changed; one that does not change is not fresh.
#[derive(Default)]
struct Clocks {
    moved: BTreeMap<String, (Value, Instant)>,
    worst: Duration,
}

impl Clocks {
    /// Looks at the moments of all disks, of a mount, and of the host.
    fn look(&mut self, cluster: &Cluster, steady: &RcloneMount) {
        for disk in cluster.rows("disk") {
            self.note(format!("disk {}", disk["mount"]), &disk["read_at"]);
        }
        let mount = cluster.row("mount", "path", &steady.path()).unwrap_or_default();
        self.note("mount".to_owned(), &mount["read_at"]);
        let node = cluster.mainstay(&["-o", "json", "node", "show", "n1"]).json();
        self.note("host".to_owned(), &node["readings"]["mainstay_uptime_seconds"]);
        self.note("sample".to_owned(), &node["last_seen"]);
        assert_eq!(node["state"], "ready", "{node}");
    }

    fn note(&mut self, name: String, value: &Value) {
        assert!(!value.is_null(), "{name} has no moment");
        let now = Instant::now();
        let (before, moved) = self.moved.entry(name).or_insert_with(|| (value.clone(), now));
        if before != value {
            self.worst = self.worst.max(now - *moved);
            (*before, *moved) = (value.clone(), now);
        }
    }

    fn are_fresh(&self) -> Result<(), String> {
        match self.moved.iter().find(|(_, (_, moved))| moved.elapsed() > FRESH) {
            Some((name, (value, moved))) => Err(format!("{name} has been {value} for {:?}", moved.elapsed())),
            None => Ok(()),
        }
    }

    fn worst(&self) -> Duration {
        self.worst
    }
}

fn becomes(cluster: &Cluster, mount: &RcloneMount, state: &str) -> Value {
    cluster.row_becomes(("mount", "path", &mount.path()), LIMIT, |row| row["state"] == state)
}

fn state(cluster: &Cluster, mount: &RcloneMount) -> String {
    let row = cluster.row("mount", "path", &mount.path()).unwrap_or_default();
    row["state"].as_str().unwrap_or("not listed").to_owned()
}

/// `mount show` of it, by the name that it really has.
fn shown(cluster: &Cluster, mount: &RcloneMount) -> Value {
    let context = cluster.coordinator_folder().join("admin.context");
    let mut command = cluster.command_as(&context, &["-o", "json", "mount", "show", "n1"]);
    Outcome::of(command.arg(&mount.at)).json()
}

/// The only text of a note; empty where there is none.
fn note<'a>(shown: &'a Value, name: &str) -> &'a str {
    shown["notes"][name][0].as_str().unwrap_or_default()
}

/// Past the test harness, which keeps what a passing test prints.
fn say(line: &str) {
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap();
}
