//! Cuts texts and lists at their limits, and counts what was cut.

use super::limits::{Cuts, LIST_BYTES, LIST_ROWS, Limit, NAME_BYTES, PATH_BYTES};

#[derive(Debug, Default)]
pub(super) struct Scissors(Cuts);

impl Scissors {
    /// How often each limit was met.
    pub(super) fn done(self) -> Cuts {
        self.0
    }

    pub(super) fn count(&mut self, limit: Limit, count: usize) {
        self.0.add(limit, count);
    }

    /// A text of at most so many bytes, cut at a character.
    pub(super) fn text(&mut self, text: String, most: usize) -> String {
        self.shorten(text, most, Limit::Texts)
    }

    /// The value of a label.
    pub(super) fn label(&mut self, value: String, most: usize) -> String {
        self.shorten(value, most, Limit::Labels)
    }

    fn shorten(&mut self, mut text: String, most: usize, limit: Limit) -> String {
        if text.len() > most {
            text.truncate(text.floor_char_boundary(most));
            // What was cut off must not stay in memory for as long as the rest.
            text.shrink_to_fit();
            self.count(limit, 1);
        }
        text
    }

    /// A path or key of at most so many bytes.
    pub(super) fn bytes(&mut self, mut bytes: Vec<u8>, most: usize) -> Vec<u8> {
        if bytes.len() > most {
            bytes.truncate(most);
            bytes.shrink_to_fit();
            self.count(Limit::Texts, 1);
        }
        bytes
    }

    /// At most so many rows.
    pub(super) fn rows<W, R>(
        &mut self,
        rows: Vec<W>,
        most: usize,
        limit: Limit,
        row: impl Fn(&mut Self, W) -> R,
    ) -> Vec<R> {
        self.count(limit, rows.len().saturating_sub(most));
        rows.into_iter().take(most).map(|sent| row(self, sent)).collect()
    }

    /// A list of paths within a row.
    pub(super) fn paths(&mut self, paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        self.list(paths, Vec::len, |cut, path| cut.bytes(path, PATH_BYTES))
    }

    /// A list of names within a row.
    pub(super) fn names(&mut self, names: Vec<String>) -> Vec<String> {
        self.list(names, String::len, |cut, name| cut.text(name, NAME_BYTES))
    }

    fn list<T>(&mut self, list: Vec<T>, len: impl Fn(&T) -> usize, each: impl Fn(&mut Self, T) -> T) -> Vec<T> {
        let (listed, mut left) = (list.len(), LIST_BYTES);
        let mut kept = Vec::new();
        for entry in list.into_iter().take(LIST_ROWS) {
            let entry = each(self, entry);
            match left.checked_sub(len(&entry)) {
                Some(rest) => left = rest,
                None => break,
            }
            kept.push(entry);
        }
        self.count(Limit::Lists, listed - kept.len());
        kept
    }
}
