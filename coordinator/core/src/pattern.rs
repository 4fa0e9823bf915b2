//! Names and globs that rules and routes match with.

use std::fmt;

use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

/// Bytes of the longest pattern.
const MAX: usize = 1_024;

/// A text, or a glob: `?` is one character, `*` any number of them but no `/`, `**` any number of folders.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPattern {
    /// Nothing would match.
    #[error("a pattern has 1 to {MAX} bytes")]
    Length,
    /// Brackets and braces would make it impossible to tell whether two rules contradict each other.
    #[error("{0:?} has a {1:?}: a pattern knows ?, * and ** only")]
    Character(String, char),
}

impl std::str::FromStr for Pattern {
    type Err = InvalidPattern;

    fn from_str(text: &str) -> Result<Self, InvalidPattern> {
        if !(1..=MAX).contains(&text.len()) {
            return Err(InvalidPattern::Length);
        }
        // `!` at the beginning would turn a glob into its opposite.
        let odd = |c: &char| matches!(c, '[' | ']' | '{' | '}' | '\\') || c.is_control();
        match text.chars().find(odd).or_else(|| text.chars().next().filter(|c| *c == '!')) {
            Some(c) => Err(InvalidPattern::Character(text.into(), c)),
            None => Ok(Self(text.to_owned())),
        }
    }
}

impl Pattern {
    /// True where it names one thing only.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.0.contains(['*', '?'])
    }

    /// Whether a text is meant.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        if self.is_exact() { self.0 == text } else { glob_match::glob_match(&self.0, text) }
    }

    /// Whether some text could be meant by both. Says yes rather than no: `*` counts as if it crossed folders.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        if self.is_exact() && other.is_exact() {
            return self == other;
        }
        let (a, b): (Vec<char>, Vec<char>) = (self.0.chars().collect(), other.0.chars().collect());
        // reach[j]: the pieces of `a` so far and the first j of `b` can stand for the same text.
        let mut reach = vec![false; b.len() + 1];
        reach[0] = true;
        for j in 0..b.len() {
            reach[j + 1] = reach[j] && b[j] == '*';
        }
        for &x in &a {
            let mut next = vec![false; b.len() + 1];
            next[0] = reach[0] && x == '*';
            for (j, &y) in b.iter().enumerate() {
                next[j + 1] = if x == '*' || y == '*' {
                    // The star stands for nothing, or for the other's piece.
                    reach[j + 1] || next[j]
                } else {
                    reach[j] && (x == y || x == '?' || y == '?')
                };
            }
            reach = next;
        }
        reach[b.len()]
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl<C> Encode<C> for Pattern {
    fn encode<W: encode::Write>(&self, to: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        to.str(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Pattern {
    fn decode(from: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        from.str()?.parse().map_err(decode::Error::message)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stay_within_a_folder_and_names_are_exact() {
        for (glob, text, matches) in [
            ("db*", "db-1", true),
            ("db*", "adb", false),
            ("/srv/*", "/srv/a", true),
            ("/srv/*", "/srv/a/b", false),
            ("/srv/**", "/srv/a/b", true),
            ("n?", "n1", true),
            ("n1", "n11", false),
        ] {
            assert_eq!(pattern(glob).matches(text), matches, "{glob} {text}");
        }
        for odd in ["", "n[12]", "{a,b}", "a\\*", "!n1", "a\nb"] {
            assert!(odd.parse::<Pattern>().is_err(), "{odd:?}");
        }
    }

    #[test]
    fn two_patterns_meet_where_one_text_can_be_both() {
        for (a, b, meet) in [
            ("db*", "*1", true),
            ("db*", "web*", false),
            ("a?c", "abc", true),
            ("*a", "*b", false),
            ("n*", "n*", true),
            ("*", "x", true),
        ] {
            assert_eq!(pattern(a).meets(&pattern(b)), meet, "{a} {b}");
            assert_eq!(pattern(b).meets(&pattern(a)), meet, "{b} {a}");
        }
    }

    proptest! {
        #[test]
        fn what_matches_both_proves_that_they_meet(a in "[ab*?]{1,5}", b in "[ab*?]{1,5}", text in "[ab]{0,6}") {
            let (a, b) = (pattern(&a), pattern(&b));
            if a.matches(&text) && b.matches(&text) {
                prop_assert!(a.meets(&b), "{a} {b} {text}");
            }
        }
    }

    fn pattern(text: &str) -> Pattern {
        text.parse().unwrap()
    }
}
