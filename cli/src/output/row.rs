//! What every kind of row can tell: its keys for scripts, its columns for people, its place in a list.

use std::cmp::Ordering;

use mainstay_common::{Timestamp, text::exact};
use serde::{Serialize, Serializer};
use serde_json::Value;

use super::table::Column;

/// One line of a listing. Its fields, in their order, are the keys of JSON and YAML.
pub(crate) trait Row: Serialize + Sized + 'static {
    /// What `--sort` takes; the default is the listing's own order.
    type Order: Copy + Default;
    /// Keys that tell one row from all others.
    const KEY: &'static [&'static str];
    /// Columns for people.
    const COLUMNS: &'static [Column<Self>];

    /// What `-o name` prints and `show` takes; escaped.
    fn name(&self) -> String;

    /// Which of two comes first.
    fn compare(&self, other: &Self, order: Self::Order) -> Ordering;

    /// The row as JSON has it, keys in alphabetical order.
    fn value(&self) -> Value {
        // Only maps with keys that are no text cannot become JSON.
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Puts rows in order; where that leaves a doubt, by name.
pub(crate) fn sort<R: Row>(rows: &mut [R], order: R::Order) {
    rows.sort_by(|a, b| a.compare(b, order).then_with(|| a.name().cmp(&b.name())));
}

/// Largest first, what is not known last.
pub(crate) fn largest_first<V: PartialOrd>(a: Option<V>, b: Option<V>) -> Ordering {
    b.partial_cmp(&a).unwrap_or(Ordering::Equal)
}

/// Text from outside: exact in JSON, escaped elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Text(pub(crate) Vec<u8>);

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into_bytes())
    }
}

/// An empty text is not known.
impl Serialize for Text {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_empty() { serializer.serialize_none() } else { serializer.serialize_str(&exact(&self.0)) }
    }
}

/// RFC 3339, for `serialize_with`.
#[expect(clippy::ref_option, reason = "serde gives a reference to the field")]
pub(crate) fn rfc3339<S: Serializer>(moment: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match moment {
        Some(moment) => serializer.collect_str(moment),
        None => serializer.serialize_none(),
    }
}

/// At most so many decimals: a reading's noise is not worth a byte.
pub(crate) fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}
