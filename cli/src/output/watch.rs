//! `--watch`: the screen drawn anew on a terminal, changes as lines elsewhere.

use std::{collections::BTreeMap, io::IsTerminal as _, time::Duration};

use mainstay_common::{ExitCode, Failure, Timestamp, process::now, time::span};
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{
    Format, json,
    listing::{Listing, Table},
    look::{Look, Size},
    out,
    row::Row,
    style::{Tone, dim},
};

/// Time between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// A reading that was only made again is no change.
const NO_NEWS: [&str; 2] = ["read_at", "last_seen"];

/// What can be followed.
pub(crate) trait Watched {
    /// A line of titles, and blocks of lines, the first most important.
    fn blocks(&self, format: Format, now: Timestamp, look: &Look) -> Result<(Option<String>, Vec<String>), Failure>;

    /// What is said besides, a line each.
    fn remarks(&self) -> Vec<String>;

    /// What is different since `before`, ready to print; everything where there is nothing before.
    fn changes(&self, before: Option<&Self>, format: Format, now: Timestamp, look: &Look) -> Result<String, Failure>;
}

/// Shows what `fetch` gets until Ctrl-C. When nobody answers, what was seen stays, and it goes on trying.
///
/// # Errors
/// What the first fetch says, and later everything but that nobody answers.
pub(crate) async fn follow<W: Watched>(
    format: Format,
    mut fetch: impl AsyncFnMut() -> Result<W, Failure>,
) -> Result<(), Failure> {
    let (mut ends, mut resized) = (Ends::new()?, on(SignalKind::window_change())?);
    let mut seen = tokio::select! {
        seen = fetch() => seen?,
        () = ends.come() => return Ok(()),
    };
    let on_terminal = std::io::stdout().is_terminal() && format.is_for_people();
    let mut screen = if on_terminal { Some(Screen::enter()?) } else { None };
    if screen.is_none() {
        out::say(&seen.changes(None, format, now(), &Look::of_stdout())?)?;
        if format.is_for_people() {
            seen.remarks().iter().for_each(out::remark);
        }
    }
    let mut silent: Option<(Failure, Timestamp)> = None;
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        if let Some(screen) = &mut screen {
            screen.show(&frame(&seen, silent.as_ref(), format, now(), &Look::of_stdout())?)?;
        }
        tokio::select! {
            () = ends.come() => return Ok(()),
            _ = resized.recv() => continue,
            _ = ticks.tick() => {}
        }
        let fetched = tokio::select! {
            fetched = fetch() => fetched,
            () = ends.come() => return Ok(()),
        };
        match fetched {
            Ok(fresh) => {
                silent = None;
                if screen.is_none() {
                    out::say(&fresh.changes(Some(&seen), format, now(), &Look::of_stdout())?)?;
                }
                seen = fresh;
            }
            Err(failure) if failure.code == ExitCode::Unreachable => {
                if screen.is_none() && silent.is_none() {
                    out::complain(&failure, format == Format::Json);
                }
                let since = silent.map_or_else(now, |(_, since)| since);
                silent = Some((failure, since));
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// Everything that ends a watch in peace.
struct Ends {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Ends {
    fn new() -> Result<Self, Failure> {
        Ok(Self {
            interrupt: on(SignalKind::interrupt())?,
            terminate: on(SignalKind::terminate())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

fn on(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind).map_err(|error| {
        Failure::new(ExitCode::Failed, "cannot watch signals", error.to_string(), "try without --watch")
    })
}

/// The terminal's other screen. Whatever happens, the first one comes back.
struct Screen {
    shown: String,
}

impl Screen {
    fn enter() -> Result<Self, Failure> {
        // Other screen, no cursor.
        out::say("\x1b[?1049h\x1b[?25l")?;
        Ok(Self { shown: String::new() })
    }

    /// Draws over what is there; nothing where nothing changed. DEC mode 2026 keeps half a frame from being seen.
    fn show(&mut self, lines: &[String]) -> Result<(), Failure> {
        let drawn = format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\r\n"));
        if drawn != self.shown {
            out::say(&format!("\x1b[?2026h{drawn}\x1b[?2026l"))?;
            self.shown = drawn;
        }
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // There is no one to tell: the terminal is gone, or the reason is told later.
        out::say("\x1b[?25h\x1b[?1049l").unwrap_or(());
    }
}

/// The screen's lines: as many blocks as fit, how many do not, and what is said besides.
fn frame(
    seen: &impl Watched,
    silent: Option<&(Failure, Timestamp)>,
    format: Format,
    now: Timestamp,
    look: &Look,
) -> Result<Vec<String>, Failure> {
    let size = look.size.unwrap_or(Size { columns: 80, lines: 24 });
    let mut foot = seen.remarks();
    if let Some((failure, since)) = silent {
        let text = format!("no answer for {}: {}; trying again", span(now.since(*since)), failure.why);
        foot.push(text);
    }
    let mut foot: Vec<String> = foot.iter().map(|line| super::cell::cut(line, size.columns, look.unicode)).collect();
    if silent.is_some()
        && let Some(last) = foot.last_mut()
    {
        *last = Tone::Bad.paint(last, look.colour);
    }
    let (head, blocks) = seen.blocks(format, now, look)?;
    let room = size.lines.saturating_sub(foot.len() + usize::from(head.is_some()));
    let mut lines: Vec<String> = head.into_iter().collect();
    lines.extend(crop(&blocks, room, look));
    lines.extend(foot);
    Ok(lines)
}

/// The blocks that fit into `room` lines; where some do not, the last line says how many.
fn crop(blocks: &[String], room: usize, look: &Look) -> Vec<String> {
    let height = |block: &String| block.split('\n').count();
    let fits = |room: usize| {
        let mut used = 0;
        let within = |block: &&String| {
            used += height(block);
            used <= room
        };
        blocks.iter().take_while(within).count()
    };
    let mut kept = fits(room);
    let mut more = None;
    if kept < blocks.len() {
        kept = fits(room.saturating_sub(1));
        let dots = if look.unicode { "…" } else { "..." };
        more = Some(dim(&format!("{dots} {} more", blocks.len() - kept), look.colour));
    }
    blocks[..kept].iter().flat_map(|block| block.split('\n').map(str::to_owned)).chain(more).collect()
}

impl<R: Row> Watched for Listing<R> {
    fn blocks(&self, format: Format, now: Timestamp, look: &Look) -> Result<(Option<String>, Vec<String>), Failure> {
        let table = Table::settle(&self.rows, format, now, look);
        let head = table.head(look).filter(|_| !self.rows.is_empty());
        Ok((head, table.rows(look).collect()))
    }

    fn remarks(&self) -> Vec<String> {
        Self::remarks(self).map(std::borrow::Cow::into_owned).collect()
    }

    fn changes(&self, before: Option<&Self>, format: Format, now: Timestamp, look: &Look) -> Result<String, Failure> {
        let known: BTreeMap<String, Value> =
            before.iter().flat_map(|before| &before.rows).map(|row| (row.name(), news(row))).collect();
        let table = Table::settle(&self.rows, format, now, look);
        let mut text = String::new();
        if before.is_none_or(|before| before.rows.is_empty()) && format.is_for_people() && !self.rows.is_empty() {
            text.extend(table.head(look).map(|head| head + "\n"));
        }
        for (row, line) in self.rows.iter().zip(table.rows(look)) {
            if known.get(&row.name()) == Some(&news(row)) {
                continue;
            }
            text += &match format {
                Format::Json => json::line(row)?,
                Format::Yaml => format!("---\n{}", json::yaml(row)?),
                Format::Name => row.name() + "\n",
                Format::Table | Format::Wide => line + "\n",
            };
        }
        for gone in before.iter().flat_map(|before| &before.rows) {
            let name = gone.name();
            if self.rows.iter().any(|row| row.name() == name) {
                continue;
            }
            text += &match format {
                Format::Json => json::line(&removed(gone))?,
                Format::Yaml => format!("---\n{}", json::yaml(&removed(gone))?),
                Format::Name => String::new(),
                Format::Table | Format::Wide => format!("{name}  removed\n"),
            };
        }
        Ok(text)
    }
}

/// What counts as a change.
fn news(row: &impl Row) -> Value {
    let mut value = row.value();
    if let Value::Object(keys) = &mut value {
        NO_NEWS.iter().for_each(|key| drop(keys.remove(*key)));
    }
    value
}

/// The row's name as scripts know it, and that it is gone.
fn removed<R: Row>(row: &R) -> Value {
    let value = row.value();
    let mut keys: serde_json::Map<String, Value> =
        R::KEY.iter().map(|key| ((*key).to_owned(), value[*key].clone())).collect();
    keys.insert("removed".into(), Value::Bool(true));
    Value::Object(keys)
}

#[cfg(test)]
mod tests {
    use mainstay_proto::v1 as pb;

    use super::*;
    use crate::output::rows::{NodeOrder, NodeRow};

    const NOON: Timestamp = Timestamp(43_200_000);
    const PIPE: Look = Look { size: None, colour: false, unicode: true };

    #[test]
    fn only_what_changed_is_a_line() {
        let before = nodes(&[("n1", 1, 0), ("n2", 1, 0), ("n3", 1, 0)]);
        let after = nodes(&[("n1", 1, 9_000), ("n2", 2, 0), ("n4", 7, 0)]);
        let text = |format| after.changes(Some(&before), format, NOON, &PIPE).unwrap();
        assert_eq!(text(Format::Name), "n2\nn4\n");
        let lines: Vec<Value> = text(Format::Json).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        assert_eq!((&lines[0]["name"], &lines[0]["state"]), (&"n2".into(), &"stale".into()));
        assert_eq!(lines[2], serde_json::json!({ "name": "n3", "removed": true }));
        assert!(text(Format::Table).ends_with("n3  removed\n"), "{}", text(Format::Table));
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let all = nodes(&[("n1", 3, 0), ("n2", 1, 0), ("n3", 1, 0), ("n4", 1, 0), ("n5", 1, 0)]);
        let look = Look { size: Some(Size { columns: 80, lines: 4 }), ..PIPE };
        let lines = frame(&all, None, Format::Table, NOON, &look).unwrap();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].starts_with("n1") && lines[3] == "… 3 more", "{lines:#?}");

        let silent =
            (Failure::new(ExitCode::Unreachable, "x", "h:1: connection refused", ""), Timestamp(NOON.0 - 3_000));
        let lines = frame(&all, Some(&silent), Format::Table, NOON, &look).unwrap();
        assert_eq!(lines[2..], ["… 4 more", "no answer for 3s: h:1: connection refused; trying again"]);
        let narrow = Look { size: Some(Size { columns: 40, lines: 20 }), ..PIPE };
        let lines = frame(&all, None, Format::Table, NOON, &narrow).unwrap();
        assert!(lines.len() <= 20 && lines.last().unwrap() == "… 3 more", "{lines:#?}");
    }

    fn nodes(rows: &[(&str, i32, i64)]) -> Listing<NodeRow> {
        let row = |(name, state, seen): &(&str, i32, i64)| {
            let last_seen_ms = Some(NOON.0 - seen);
            NodeRow::from(pb::NodeRow { name: (*name).into(), state: *state, last_seen_ms, ..pb::NodeRow::default() })
        };
        Listing::new(rows.iter().map(row).collect(), "nothing").sorted(NodeOrder::State)
    }
}
