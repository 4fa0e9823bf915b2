//! `/metrics` in OpenMetrics text, made from the catalogue.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{Kind, Metric, Readings, Unit};
use crate::text;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Series gathered by metric, in the catalogue's order.
#[derive(Debug, Default)]
pub struct Exposition {
    families: BTreeMap<u16, Vec<(String, f64)>>,
}

impl Exposition {
    /// Adds one series. Label values may be any bytes.
    pub fn add(&mut self, metric: &Metric, labels: &[(&str, &[u8])], value: impl Into<Option<f64>>) {
        if let Some(value) = value.into() {
            self.families.entry(metric.number).or_default().push((label_set(labels), value));
        }
    }

    /// Adds every reading, all with the same labels.
    pub fn add_all(&mut self, readings: &Readings, labels: &[(&str, &[u8])]) {
        for (metric, value) in readings.iter() {
            self.add(metric, labels, value);
        }
    }

    /// Adds a state set: one series per possible state, 1 for the one that holds.
    pub fn add_state<'a>(
        &mut self,
        metric: &Metric,
        labels: &[(&str, &[u8])],
        now: &str,
        all: impl Iterator<Item = &'a str>,
    ) {
        for state in all {
            let mut labels = labels.to_vec();
            labels.push(("state", state.as_bytes()));
            self.add(metric, &labels, if state == now { 1.0 } else { 0.0 });
        }
    }

    /// The whole text, `# EOF` included.
    #[must_use]
    pub fn render(&self) -> String {
        let mut out = String::new();
        for (number, series) in &self.families {
            if let Some(metric) = Metric::from_number(*number) {
                // Writing to a String cannot fail.
                family(&mut out, metric, series).unwrap_or(());
            }
        }
        out.push_str("# EOF\n");
        out
    }
}

fn family(out: &mut String, metric: &Metric, series: &[(String, f64)]) -> std::fmt::Result {
    let (name, kind) = match metric.kind {
        Kind::Counter => (metric.name.strip_suffix("_total").unwrap_or(metric.name), "counter"),
        Kind::Info => (metric.name.strip_suffix("_info").unwrap_or(metric.name), "info"),
        Kind::StateSet => (metric.name, "gauge"),
        Kind::Gauge => (metric.name, "gauge"),
    };
    writeln!(out, "# TYPE {name} {kind}")?;
    if metric.unit != Unit::None {
        writeln!(out, "# UNIT {name} {}", metric.unit.as_str())?;
    }
    writeln!(out, "# HELP {name} {}", metric.help)?;
    series.iter().try_for_each(|(labels, value)| writeln!(out, "{}{labels} {value}", metric.name))
}

fn label_set(labels: &[(&str, &[u8])]) -> String {
    let mut set = String::new();
    for (name, value) in labels {
        set.push(if set.is_empty() { '{' } else { ',' });
        set.push_str(name);
        set.push_str("=\"");
        for c in text::exact(value).chars() {
            match c {
                '\\' => set.push_str("\\\\"),
                '"' => set.push_str("\\\""),
                '\n' => set.push_str("\\n"),
                c => set.push(c),
            }
        }
        set.push('"');
    }
    if !set.is_empty() {
        set.push('}');
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metric::catalogue as m;

    #[test]
    fn families_are_whole_and_labels_escaped() {
        let mut exposition = Exposition::default();
        exposition.add(&m::DISK_USED_BYTES, &[("mount", b"/a \"b\"\n\xff")], 5.0);
        exposition.add(&m::CPU_SECONDS_TOTAL, &[("mode", b"user")], 1.5);
        exposition.add_state(&m::ENGINE_STATE, &[], "ok", ["ok", "missing"].into_iter());
        assert_eq!(
            exposition.render(),
            "# TYPE mainstay_cpu_seconds counter\n# UNIT mainstay_cpu_seconds seconds\n\
             # HELP mainstay_cpu_seconds CPU time spent in each mode, over all CPUs.\n\
             mainstay_cpu_seconds_total{mode=\"user\"} 1.5\n\
             # TYPE mainstay_disk_used_bytes gauge\n# UNIT mainstay_disk_used_bytes bytes\n\
             # HELP mainstay_disk_used_bytes Used space, as df counts.\n\
             mainstay_disk_used_bytes{mount=\"/a \\\"b\\\"\\n\\\\xff\"} 5\n\
             # TYPE mainstay_engine_state gauge\n# HELP mainstay_engine_state Whether the container engine answers.\n\
             mainstay_engine_state{state=\"ok\"} 1\nmainstay_engine_state{state=\"missing\"} 0\n# EOF\n"
        );
    }
}
