//! What a declaration changes, for people and for scripts.

use mainstay_common::text::Shown;
use mainstay_proto::v1 as pb;
use serde::Serialize;

use crate::output::{look::Look, style::Tone};

/// One changed thing, as `-o json` has it.
#[derive(Debug, Serialize)]
pub(super) struct ChangeRow {
    change: &'static str,
    what: String,
    before: Option<String>,
    after: Option<String>,
}

fn kind(change: &pb::Change) -> pb::ChangeKind {
    pb::ChangeKind::try_from(change.kind).unwrap_or_default()
}

/// How many are of that kind.
pub(super) fn count(changes: &[pb::Change], of: pb::ChangeKind) -> usize {
    changes.iter().filter(|change| kind(change) == of).count()
}

/// For scripts.
pub(super) fn rows(changes: &[pb::Change]) -> Vec<ChangeRow> {
    let set = |text: &String| (!text.is_empty()).then(|| text.clone());
    let row = |change: &pb::Change| ChangeRow {
        change: match kind(change) {
            pb::ChangeKind::Add => "add",
            pb::ChangeKind::Change => "change",
            pb::ChangeKind::Remove => "remove",
            pb::ChangeKind::Unspecified => "unknown",
        },
        what: change.what.clone(),
        before: set(&change.before),
        after: set(&change.after),
    };
    changes.iter().map(row).collect()
}

/// `receiver ops`, a line each.
pub(super) fn names(changes: &[pb::Change]) -> String {
    changes.iter().map(|change| format!("{}\n", Shown::new(&change.what))).collect()
}

/// Every change with its values before and after.
pub(super) fn text(changes: &[pb::Change], look: &Look) -> String {
    changes.iter().map(|change| line(change, look)).collect()
}

fn line(change: &pb::Change, look: &Look) -> String {
    let [what, before, after] = [&change.what, &change.before, &change.after].map(|text| Shown::new(text).to_string());
    let arrow = if look.unicode { "→" } else { "->" };
    let (sign, tone, value) = match kind(change) {
        pb::ChangeKind::Add => ("+", Tone::Good, after),
        pb::ChangeKind::Remove => ("-", Tone::Bad, before),
        pb::ChangeKind::Change | pb::ChangeKind::Unspecified if before == after => {
            ("~", Tone::Warning, format!("{after} (its secret)"))
        }
        pb::ChangeKind::Change | pb::ChangeKind::Unspecified => {
            ("~", Tone::Warning, format!("{before} {arrow} {after}"))
        }
    };
    format!("{}: {value}\n", tone.paint(&format!("{sign} {what}"), look.colour))
}

/// `2 added, 1 changed, 0 removed`
pub(super) fn summary(changes: &[pb::Change], dry_run: bool) -> String {
    if changes.is_empty() {
        return "nothing to change\n".into();
    }
    let [added, changed, removed] =
        [pb::ChangeKind::Add, pb::ChangeKind::Change, pb::ChangeKind::Remove].map(|kind| count(changes, kind));
    if dry_run {
        format!("{added} to add, {changed} to change, {removed} to remove; nothing was changed\n")
    } else {
        format!("{added} added, {changed} changed, {removed} removed\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_before_and_after_and_no_escape_of_others() {
        let change = |kind: pb::ChangeKind, what: &str, before: &str, after: &str| pb::Change {
            kind: kind.into(),
            what: what.into(),
            before: before.into(),
            after: after.into(),
        };
        let changes = [
            change(pb::ChangeKind::Add, "rule fs.space node=db*", "", "hold=\"5m\""),
            change(pb::ChangeKind::Change, "rule fs.space everywhere", "hold=\"10m\"", "hold=\"\u{1b}[31m\""),
            change(
                pb::ChangeKind::Change,
                "receiver ops",
                "webhook https://a.example/…",
                "webhook https://a.example/…",
            ),
            change(pb::ChangeKind::Remove, "receiver dev", "webhook url_file /etc/x", ""),
        ];
        let look = Look { size: None, colour: false, unicode: true };
        insta::assert_snapshot!(text(&changes, &look) + &summary(&changes, true), @r#"
        + rule fs.space node=db*: hold="5m"
        ~ rule fs.space everywhere: hold="10m" → hold="\x1b[31m"
        ~ receiver ops: webhook https://a.example/… (its secret)
        - receiver dev: webhook url_file /etc/x
        1 to add, 2 to change, 1 to remove; nothing was changed
        "#);
        assert_eq!(rows(&changes)[0].before, None);
        assert_eq!(summary(&[], false), "nothing to change\n");
    }
}
