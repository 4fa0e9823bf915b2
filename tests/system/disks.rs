//! Real disks, as `df` sees them.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, time::Duration};

use mainstay_common::text::Shown;
use mainstay_tests::{
    Cluster, DiskLab, Outcome,
    disk_lab::{Df, LabDisk},
    eventually,
    machine::has,
    wait::holds,
};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn disks_equal_df_when_they_fill_and_say_when_they_cannot_be_written() {
    if !has(&DiskLab::NEEDS) {
        return;
    }
    let lab = DiskLab::open();
    let disks = [lab.ext4("ext4", 32), lab.tmpfs("tmpfs", 16)];
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    for disk in &disks {
        equals_df(&cluster, disk, "ok");
        disk.fill();
        assert_eq!(disk.df().avail, 0);
        let full = equals_df(&cluster, disk, "ok");
        assert_eq!(full["avail_bytes"], 0, "{full}");

        disk.remount("ro");
        equals_df(&cluster, disk, "readonly");
        let shown = shown(&cluster, disk);
        assert_eq!(shown["readings"]["mainstay_disk_readonly"], 1, "{shown}");
        disk.remount("rw");
        equals_df(&cluster, disk, "ok");

        disk.unmount();
        eventually("what is unmounted is no disk", LIMIT, || {
            holds(cluster.row("disk", "mount", &disk.path()).is_none(), || disk.path())
        });
    }
    let ext4 = &disks[0];
    let told = cluster.mainstay(&["disk", "show", "n1", &ext4.path()]).refused(1);
    assert!(told.contains(&ext4.path()), "{told}");
}

#[test]
fn other_places_of_a_disk_are_its_aliases() {
    if !has(&DiskLab::NEEDS) {
        return;
    }
    let lab = DiskLab::open();
    let disk = lab.ext4("d", 32);
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    equals_df(&cluster, &disk, "ok");
    assert!(shown(&cluster, &disk)["notes"]["alias"].is_null());

    let (first, second) = (lab.bind(&disk, "first place"), lab.bind(&disk, "second\nplace"));
    let aliases = serde_json::json!([first.path(), second.path()]);
    eventually("aliases are shown", LIMIT, || {
        let shown = shown(&cluster, &disk);
        holds(shown["notes"]["alias"] == aliases, || shown.to_string())
    });
    for place in [&first, &second] {
        assert!(cluster.row("disk", "mount", &place.path()).is_none(), "{}", place.path());
    }

    // The place that stands for it goes; the disk is still there.
    disk.unmount();
    let row = equals_df(&cluster, &first, "ok");
    assert_eq!(row["fs"], "ext4");
    first.unmount();
    equals_df(&cluster, &second, "ok");
}

#[test]
fn a_disk_may_be_mounted_at_any_name() {
    if !has(&DiskLab::NEEDS) {
        return;
    }
    let lab = DiskLab::open();
    let names: [&[u8]; 4] = [b"my disk", b"two\nlines", b"back\\slash\\040", b"no utf-8 \xff \x1b[31m"];
    let disks = names.map(|name| lab.tmpfs(OsStr::from_bytes(name), 1));
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    for disk in &disks {
        equals_df(&cluster, disk, "ok");
        assert_eq!(shown(&cluster, disk)["mount"], disk.path());
    }
    let table = cluster.mainstay(&["disk", "ls", "-o", "wide"]).done();
    for disk in &disks {
        let name = Shown::new(disk.at.as_os_str().as_bytes()).to_string();
        assert_eq!(table.lines().filter(|line| line.contains(&name)).count(), 1, "{name}: {table}");
    }
    assert!(!table.contains('\x1b'), "{table:?}");
}

/// Waits until the row of a disk is what `df` says; the row.
fn equals_df(cluster: &Cluster, disk: &LabDisk, state: &str) -> Value {
    cluster.row_becomes(("disk", "mount", &disk.path()), LIMIT, |row| {
        let count = |key: &str| row[key].as_u64();
        let ours = (|| {
            Some(Df {
                size: count("total_bytes")?,
                used: count("used_bytes")?,
                avail: count("avail_bytes")?,
                inodes: count("inodes_total")?,
                inodes_used: count("inodes_used")?,
            })
        })();
        ours == Some(disk.df()) && row["state"] == state && row["node"] == "n1"
    })
}

/// `disk show` of it, by the name that it really has.
fn shown(cluster: &Cluster, disk: &LabDisk) -> Value {
    let context = cluster.coordinator_folder().join("admin.context");
    let mut command = cluster.command_as(&context, &["-o", "json", "disk", "show", "n1"]);
    Outcome::of(command.arg(&disk.at)).json()
}
