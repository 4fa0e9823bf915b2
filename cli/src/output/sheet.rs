//! Everything about one thing: `show`.

use mainstay_common::{
    Timestamp,
    text::{columns, exact},
    time, unit,
};
use mainstay_proto::v1 as pb;
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use super::{
    cell::Cell,
    look::Look,
    row::{Row, rounded},
    style,
};

/// Groups of named values, under a title.
#[derive(Debug, Default)]
pub(crate) struct Sheet {
    title: Vec<Cell>,
    groups: Vec<Group>,
}

#[derive(Debug)]
struct Group {
    title: &'static str,
    lines: Vec<(String, Cell)>,
}

impl Sheet {
    pub(crate) fn new(title: Vec<Cell>) -> Self {
        Self { title, groups: Vec::new() }
    }

    /// The values of a row, named as its columns, without those that the title says.
    pub(crate) fn row<R: Row>(mut self, row: &R, without: &[&str], now: Timestamp) -> Self {
        let told = R::COLUMNS.iter().filter(|column| !without.contains(&column.title));
        let lines = told.map(|column| (column.title.to_lowercase(), (column.cell)(row, now))).collect();
        self.groups.push(Group { title: "", lines });
        self
    }

    /// A group of its own; none where there is nothing in it.
    pub(crate) fn group(mut self, title: &'static str, lines: Vec<(String, Cell)>) -> Self {
        if !lines.is_empty() {
            self.groups.push(Group { title, lines });
        }
        self
    }

    /// What is known besides: notes, then readings.
    pub(crate) fn detail(self, detail: &pb::Detail) -> Self {
        let note = |note: &pb::Note| (words(&note.name), Cell::text(&note.text));
        let reading = |reading: &pb::NamedReading| (short(&reading.name), value(reading));
        self.group("notes", detail.notes.iter().map(note).collect())
            .group("readings", detail.readings.iter().map(reading).collect())
    }

    /// As text; values of one group are flush.
    pub(crate) fn text(&self, look: &Look) -> String {
        let title: Vec<String> = self.title.iter().map(|cell| cell.whole(look)).collect();
        let mut text = title.join("  ") + "\n";
        for group in &self.groups {
            let keys = group.lines.iter().map(|(key, _)| columns(key)).max().unwrap_or(0) + 2;
            if !group.title.is_empty() {
                text += &format!("\n{}\n", style::bold(group.title, look.colour));
            }
            for (key, cell) in &group.lines {
                let space = " ".repeat(keys - columns(key));
                text += &format!("  {key}{space}{}\n", cell.whole(look));
            }
        }
        text
    }
}

/// `rclone_last_error` as words.
fn words(name: &str) -> String {
    mainstay_common::text::Shown::new(name).to_string().replace('_', " ")
}

/// A metric's name without what all of them begin with.
fn short(name: &str) -> String {
    let name = mainstay_common::text::Shown::new(name).to_string();
    name.strip_prefix("mainstay_").map_or(name.clone(), str::to_owned)
}

/// A reading in its unit.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a size or a moment")]
fn value(reading: &pb::NamedReading) -> Cell {
    let (value, name) = (reading.value, reading.name.as_str());
    let is_moment = name.ends_with("timestamp_seconds") || name == "mainstay_boot_time_seconds";
    let text = match reading.unit.as_str() {
        "bytes" if (0.0..9e18).contains(&value) => unit::bytes(value as u64),
        "seconds" if is_moment && (0.0..9e12).contains(&value) => Timestamp((value * 1_000.0) as i64).to_string(),
        "seconds" if (60.0..9e12).contains(&value) => time::span(std::time::Duration::from_secs_f64(value)),
        "seconds" => format!("{} s", rounded(value, 6)),
        _ => rounded(value, 3).to_string(),
    };
    Cell::text(&text)
}

/// A row and everything else known about it, for scripts: the row's keys, then `readings` and `notes`.
#[derive(Serialize)]
pub(crate) struct Whole<'a, R> {
    #[serde(flatten)]
    pub(crate) row: &'a R,
    #[serde(serialize_with = "readings")]
    pub(crate) readings: &'a [pb::NamedReading],
    #[serde(serialize_with = "notes")]
    pub(crate) notes: &'a [pb::Note],
}

/// Name to value; whole numbers as integers.
pub(crate) fn readings<S: Serializer>(readings: &[pb::NamedReading], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(readings.len()))?;
    for reading in readings {
        map.serialize_entry(&reading.name, &Number(reading.value))?;
    }
    map.end()
}

/// Name to texts: a name may have several.
pub(crate) fn notes<S: Serializer>(notes: &[pb::Note], serializer: S) -> Result<S::Ok, S::Error> {
    let mut names: Vec<(&str, Vec<String>)> = Vec::new();
    for note in notes {
        let text = exact(&note.text);
        match names.iter_mut().find(|(name, _)| *name == note.name) {
            Some((_, texts)) => texts.push(text),
            None => names.push((&note.name, vec![text])),
        }
    }
    serializer.collect_map(names)
}

/// A value that is an integer in JSON where it is one.
struct Number(f64);

impl Serialize for Number {
    #[expect(clippy::cast_possible_truncation, reason = "checked to be a whole number below 2^53")]
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < 9e15 {
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readings_are_told_in_their_unit() {
        for (name, unit, number, text) in [
            ("mainstay_memory_total_bytes", "bytes", 67_430_000_000.0, "62.8 GiB"),
            ("mainstay_boot_time_seconds", "seconds", 1_700_000_000.0, "2023-11-14T22:13:20.000Z"),
            ("mainstay_uptime_seconds", "seconds", 90_061.4, "1d 1h"),
            ("mainstay_disk_latency_seconds", "seconds", 0.000_031_4, "0.000031 s"),
            ("mainstay_load1", "", 0.25, "0.25"),
            ("mainstay_cpus", "", 8.0, "8"),
        ] {
            let reading = pb::NamedReading { name: name.into(), unit: unit.into(), value: number };
            assert_eq!(value(&reading), Cell::text(text), "{name}");
        }
    }

    #[test]
    fn a_note_may_have_several_texts() {
        let note = |name: &str, text: &[u8]| pb::Note { name: name.into(), text: text.to_vec() };
        let all = [note("alias", b"/a"), note("reason", b"EIO"), note("alias", b"/b\xff")];
        let value = notes(&all, serde_json::value::Serializer).unwrap();
        assert_eq!(value, serde_json::json!({ "alias": ["/a", "/b\\xff"], "reason": ["EIO"] }));
    }
}
