//! The real set-up, as the README writes it.

use std::time::Duration;

use mainstay_tests::{Cluster, eventually, shell::sh, wait::holds};

#[test]
fn a_machine_joins_and_its_disks_equal_df() {
    let mut cluster = Cluster::found();
    cluster.add_agent("n1", &[]);
    eventually("disks equal df", Duration::from_secs(20), || {
        let row = cluster.row("disk", "mount", "/").ok_or("no row for /")?;
        let df = sh("df -B1 --output=size,used,avail,itotal,iused / | tail -n 1");
        let df: Vec<u64> = df.split_whitespace().map(|word| word.parse().unwrap()).collect();
        let ours =
            ["total_bytes", "used_bytes", "avail_bytes", "inodes_total", "inodes_used"].map(|key| row[key].as_u64());
        // Others write on this disk between our look and df's.
        let near = ours.iter().zip(&df).all(|(ours, df)| ours.is_some_and(|ours| ours.abs_diff(*df) * 1_000 <= *df));
        holds(near, || format!("{ours:?} {df:?}"))
    });
    assert!(cluster.take_agent("n1").stop() < Duration::from_secs(5));
    assert!(cluster.take_coordinator().stop() < Duration::from_secs(5));
}
