//! CPU use of containers: a rate needs two readings.

use std::{sync::Arc, time::Duration};

use mainstay_common::metric::catalogue::CONTAINER_CPU_SECONDS_TOTAL;

use super::{Container, Seen};

/// Computes every container's CPU use since the table that was there before. A row that the agent did not send again
/// used nothing; a counter that went back started again at zero and tells nothing.
pub(super) fn rates(before: Option<&Seen<Container>>, now: &mut Seen<Container>) {
    let Some(before) = before else { return };
    let span = now.read_at.since(before.read_at);
    // Two readings closer than this tell more about the kernel's ticks than about the container.
    let too_close = span < Duration::from_millis(500);
    let rows: Vec<_> = now.rows.iter().map(|(key, row)| (key.clone(), Arc::clone(row))).collect();
    for (key, row) in rows {
        let old = before.rows.get(&key);
        let percent =
            if too_close { old.and_then(|old| old.cpu_percent) } else { old.and_then(|old| rate(old, &row, span)) };
        if row.cpu_percent != percent {
            now.rows.insert(key, Arc::new(Container { cpu_percent: percent, ..row.as_ref().clone() }));
        }
    }
}

fn rate(old: &Container, new: &Container, span: Duration) -> Option<f64> {
    let used = new.readings.get(&CONTAINER_CPU_SECONDS_TOTAL)? - old.readings.get(&CONTAINER_CPU_SECONDS_TOTAL)?;
    (used >= 0.0).then(|| used / span.as_secs_f64() * 100.0)
}
