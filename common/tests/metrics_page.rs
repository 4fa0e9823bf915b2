//! `docs/metrics.md` is the catalogue, written out.

use std::{env, fmt::Write as _, fs};

use mainstay_common::metric::catalogue::{CATALOGUE, Kind};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
const HEAD: &str = "# Metrics

What `/metrics` of `mainstay-agent run --metrics ADDR:PORT` and of the coordinator's `--http` say, in OpenMetrics text.
A value that is unknown is left out: it is never 0. This page is written by the catalogue's own test.

| name | kind | labels | what it is |
|---|---|---|---|
";

#[test]
fn the_page_lists_every_metric() {
    let mut page = HEAD.to_owned();
    for metric in CATALOGUE {
        let kind = match metric.kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
            Kind::StateSet => "state set",
            Kind::Info => "info",
        };
        writeln!(page, "| `{}` | {kind} | {} | {} |", metric.name, metric.labels.join(", "), metric.help)
            .expect("writing to a String");
    }
    if env::var_os("MAINSTAY_RECORD").is_some() {
        fs::write(PAGE, &page).expect("the page can be written");
    }
    let there = fs::read_to_string(PAGE).unwrap_or_default();
    assert!(there == page, "docs/metrics.md is not the catalogue; write it anew with MAINSTAY_RECORD=1");
}
