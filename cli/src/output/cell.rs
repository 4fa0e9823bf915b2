//! One cell of a table: readings and states as people read them.

use std::time::Duration;

use mainstay_common::{
    Timestamp,
    text::{Shown, columns},
    time, unit,
};

use super::{look::Look, style::Tone};

/// A reading older than this says how old it is.
const FRESH: Duration = Duration::from_secs(60);

/// Which side a column is flush with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

/// What a cell says. Text from outside is escaped when the cell is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// With a symbol and in its colour.
    tone: Option<Tone>,
    head: String,
    /// Follows the head without colour.
    tail: String,
}

impl Cell {
    fn plain(text: impl Into<String>) -> Self {
        Self { tone: None, head: text.into(), tail: String::new() }
    }

    /// What is not known: never 0, never empty.
    pub(crate) fn unknown() -> Self {
        Self::plain("?")
    }

    /// What does not apply here.
    pub(crate) fn none() -> Self {
        Self::plain("-")
    }

    /// A text from outside; an empty one is not known.
    pub(crate) fn text(text: &(impl AsRef<[u8]> + ?Sized)) -> Self {
        if text.as_ref().is_empty() { Self::unknown() } else { Self::plain(Shown::new(text).to_string()) }
    }

    /// Symbol and word.
    pub(crate) fn state(tone: Tone, word: &str) -> Self {
        Self { tone: Some(tone), head: word.to_owned(), tail: String::new() }
    }

    /// Symbol and word, and for how long.
    pub(crate) fn state_for(tone: Tone, word: &str, since: Option<Timestamp>, now: Timestamp) -> Self {
        let tail = since.map_or_else(String::new, |since| format!(" {}", time::span(now.since(since))));
        Self { tail, ..Self::state(tone, word) }
    }

    /// A number.
    pub(crate) fn number(number: Option<impl Into<u64>>) -> Self {
        number.map_or_else(Self::unknown, |number| Self::plain(number.into().to_string()))
    }

    /// A size in three digits.
    pub(crate) fn bytes(bytes: Option<u64>) -> Self {
        bytes.map_or_else(Self::unknown, |bytes| Self::plain(unit::bytes(bytes)))
    }

    /// Percent, with the reading's age where that is worth a word.
    pub(crate) fn percent(percent: Option<u64>, read_at: Option<Timestamp>, now: Timestamp) -> Self {
        let Some(percent) = percent else { return Self::unknown() };
        let age = read_at.map(|read_at| now.since(read_at)).filter(|age| *age >= FRESH);
        let tail = age.map_or_else(String::new, |age| format!(" ({})", time::span(age)));
        Self { tail, ..Self::plain(format!("{percent}%")) }
    }

    /// A part of one CPU: one decimal below ten.
    pub(crate) fn cpu(percent: Option<f64>) -> Self {
        percent.map_or_else(Self::unknown, |percent| {
            Self::plain(if percent < 9.95 { format!("{percent:.1}%") } else { format!("{percent:.0}%") })
        })
    }

    /// How long ago.
    pub(crate) fn age(since: Option<Timestamp>, now: Timestamp) -> Self {
        since.map_or_else(Self::unknown, |since| Self::plain(time::span(now.since(since))))
    }

    /// A moment to come, or how long it is past.
    pub(crate) fn until(at: Option<Timestamp>, now: Timestamp) -> Self {
        at.map_or_else(Self::unknown, |at| {
            Self::plain(if at > now {
                format!("in {}", time::span(at.since(now)))
            } else {
                format!("{} ago", time::span(now.since(at)))
            })
        })
    }

    /// A waiting time in milliseconds.
    pub(crate) fn latency(millis: Option<f64>) -> Self {
        millis.map_or_else(Self::unknown, |millis| {
            Self::plain(if millis < 0.95 {
                format!("{millis:.1} ms")
            } else if millis < 999.5 {
                format!("{millis:.0} ms")
            } else {
                format!("{:.1} s", millis / 1_000.0)
            })
        })
    }

    /// Columns that it takes in full.
    pub(crate) fn columns(&self) -> usize {
        let symbol = if self.tone.is_some() { 2 } else { 0 };
        symbol + columns(&self.head) + columns(&self.tail)
    }

    /// Exactly `width` columns, cut or filled up; the rest of a line is not filled up at its end.
    pub(crate) fn draw(&self, width: usize, align: Align, last: bool, look: &Look) -> String {
        let symbol = self.tone.map_or_else(String::new, |tone| format!("{} ", tone.symbol(look.unicode)));
        let head = cut(&format!("{symbol}{}", self.head), width, look.unicode);
        let left = width.saturating_sub(columns(&head));
        let tail = if left > 1 { cut(&self.tail, left, look.unicode) } else { String::new() };
        let space = " ".repeat(left.saturating_sub(columns(&tail)));
        let head = self.tone.map_or_else(|| head.clone(), |tone| tone.paint(&head, look.colour));
        match align {
            Align::Right => format!("{space}{head}{tail}"),
            Align::Left if last => format!("{head}{tail}"),
            Align::Left => format!("{head}{tail}{space}"),
        }
    }

    /// All of it.
    pub(crate) fn whole(&self, look: &Look) -> String {
        self.draw(self.columns(), Align::Left, true, look)
    }
}

/// Cuts a text that is escaped already.
pub(crate) fn cut(text: &str, width: usize, unicode: bool) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let wide = columns(c.encode_utf8(&mut [0; 4]));
        let fits = wide <= left;
        left = left.saturating_sub(wide);
        fits
    };
    let mut kept: String = text.chars().take_while(fits).collect();
    if width > 0 {
        kept.push(if unicode { '…' } else { '>' });
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp(43_200_000);
    const PLAIN: Look = Look { size: None, colour: false, unicode: true };

    #[test]
    fn unknown_is_a_question_mark_and_old_readings_tell_their_age() {
        let ago = |seconds: i64| Some(Timestamp(NOON.0 - seconds * 1_000));
        for (cell, text) in [
            (Cell::percent(Some(41), ago(5), NOON), "41%"),
            (Cell::percent(Some(41), ago(180), NOON), "41% (3m)"),
            (Cell::percent(None, ago(5), NOON), "?"),
            (Cell::bytes(None), "?"),
            (Cell::bytes(Some(195_421_011_968)), "182 GiB"),
            (Cell::number(None::<u64>), "?"),
            (Cell::text(b""), "?"),
            (Cell::state_for(Tone::Bad, "hung", ago(250), NOON), "✖ hung 4m 10s"),
            (Cell::until(ago(-3_600), NOON), "in 1h"),
            (Cell::until(ago(3_600), NOON), "1h ago"),
            (Cell::latency(Some(0.31)), "0.3 ms"),
            (Cell::latency(Some(1_512.0)), "1.5 s"),
            (Cell::cpu(Some(9.96)), "10%"),
            (Cell::cpu(Some(0.04)), "0.0%"),
        ] {
            assert_eq!(cell.whole(&PLAIN), text);
        }
    }

    #[test]
    fn colours_take_no_room() {
        let cell = Cell::state_for(Tone::Good, "ready", Some(NOON), NOON);
        let drawn = cell.draw(14, Align::Left, false, &Look { colour: true, ..PLAIN });
        assert_eq!(drawn, "\u{1b}[32m● ready\u{1b}[0m 0s    ");
        assert_eq!(cell.draw(14, Align::Right, false, &PLAIN), "    ● ready 0s");
    }

    #[test]
    fn cutting_counts_columns_and_keeps_to_ascii_where_it_must() {
        assert_eq!(Cell::text("日本語テキスト").draw(7, Align::Left, false, &PLAIN), "日本語…");
        assert_eq!(Cell::text("日本語テキスト").draw(6, Align::Left, false, &PLAIN), "日本… ");
        assert_eq!(Cell::text("/mnt/media").draw(6, Align::Left, false, &Look { unicode: false, ..PLAIN }), "/mnt/>");
        assert_eq!(
            Cell::state_for(Tone::Bad, "hung", Some(Timestamp(0)), NOON).draw(8, Align::Left, false, &PLAIN),
            "✖ hung …"
        );
    }
}
