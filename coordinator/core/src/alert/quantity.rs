//! Percentages, sizes and levels as people write them.

use std::{fmt, str::FromStr, time::Duration};

use mainstay_common::time::parse_span;
use minicbor::{Decode, Encode};

use super::model::Space;

/// Hundredths of a percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Percent(#[n(0)] pub u16);

/// Bytes; as text always whole in its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(transparent)]
pub struct Size(#[n(0)] pub u64);

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuantity {
    /// No percentage.
    #[error("{0:?} is no percentage: write for example 10% or 2.5%, at most 100%")]
    Percent(String),
    /// No size.
    #[error("{0:?} is no size: write for example 100GiB or 500MB{near}", near = nearest(.1))]
    Size(String, Option<&'static str>),
    /// No span.
    #[error("{0:?} is no span of time: write for example 10s, 5m, 1h30m or 7d{near}", near = nearest(.1))]
    Span(String, Option<&'static str>),
    /// No level.
    #[error("{0:?} is no level: write a percentage, a size, or both as in \"10% and 100GiB\"")]
    Level(String),
}

fn nearest(unit: &Option<&'static str>) -> String {
    unit.map(|unit| format!("; the nearest unit is {unit}")).unwrap_or_default()
}

const SIZES: [(&str, u64); 11] = [
    ("PiB", 1 << 50),
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("PB", 1_000_000_000_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];
const SPANS: [&str; 5] = ["ms", "s", "m", "h", "d"];

/// The unit that a wrong one was probably meant to be: the same letters in another case, or its beginning.
fn unit_like(wrong: &str, units: impl Iterator<Item = &'static str> + Clone) -> Option<&'static str> {
    let wrong = wrong.trim().to_ascii_lowercase();
    let first = wrong.chars().next()?;
    let same = units.clone().find(|unit| unit.eq_ignore_ascii_case(&wrong));
    same.or_else(|| units.clone().find(|unit| wrong.starts_with(&unit.to_ascii_lowercase())))
        .or_else(|| units.clone().find(|unit| unit.to_ascii_lowercase().starts_with(first)))
}

impl FromStr for Percent {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let invalid = || InvalidQuantity::Percent(text.into());
        let number = text.trim().strip_suffix('%').ok_or_else(invalid)?.trim_end();
        let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(part) || part.len() > 2 {
            return Err(invalid());
        }
        let whole: u16 = whole.parse().map_err(|_| invalid())?;
        let hundredths: u16 = format!("{part:0<2}").parse().map_err(|_| invalid())?;
        let all = whole.checked_mul(100).and_then(|whole| whole.checked_add(hundredths));
        all.filter(|all| *all <= 10_000).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 100, self.0 % 100);
        match part {
            0 => write!(f, "{whole}%"),
            part if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            part => write!(f, "{whole}.{part:02}%"),
        }
    }
}

impl FromStr for Size {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let trimmed = text.trim();
        let end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let unit = trimmed[end..].trim_start();
        let invalid = || {
            let near = unit_like(
                unit.trim_start_matches(['.', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']),
                SIZES.iter().map(|(unit, _)| *unit),
            );
            InvalidQuantity::Size(text.into(), near)
        };
        let number: u64 = trimmed[..end].parse().map_err(|_| invalid())?;
        let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?;
        number.checked_mul(*factor).map(Self).ok_or_else(invalid)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            SIZES.iter().find(|(_, factor)| self.0.is_multiple_of(*factor) && self.0 > 0).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

/// Reads a span as a declaration has it.
///
/// # Errors
/// [`InvalidQuantity::Span`] with the unit that was probably meant.
pub fn read_span(text: &str) -> Result<Duration, InvalidQuantity> {
    parse_span(text).map_err(|_| {
        let unit = text.trim().trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').trim();
        InvalidQuantity::Span(text.into(), unit_like(unit, SPANS.iter().copied()).filter(|near| *near != unit))
    })
}

/// A span as a declaration has it: `10m`, `1h30m`.
#[must_use]
pub fn write_span(span: Duration) -> String {
    let mut left = span.as_millis();
    let mut text = String::new();
    for (unit, millis) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if left >= millis {
            text += &format!("{}{unit}", left / millis);
            left %= millis;
        }
    }
    if text.is_empty() { "0s".into() } else { text }
}

/// Below this a level is reached. Where several are given, all must hold: a percentage alone is far too early on a large
/// filesystem, a size alone far too late on a small one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Level {
    /// Of used and available, as df counts.
    #[n(0)]
    pub percent: Option<Percent>,
    /// Bytes.
    #[n(1)]
    pub size: Option<Size>,
    /// Reached below this too.
    #[n(2)]
    pub floor: Option<Floor>,
}

/// So little that no percentage matters, on filesystems that are larger than a certain size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Floor {
    /// Available below this.
    #[n(0)]
    pub below: Size,
    /// On filesystems above this.
    #[n(1)]
    pub above: Size,
}

impl Level {
    /// Whether a filesystem is below it, or not yet `margin` above it.
    ///
    /// The margin is a share of the whole. Next to a size it counts at most half of that size: 3% of 100 TiB would have
    /// to be freed for a level of 100 GiB.
    #[must_use]
    pub fn holds(&self, space: Space, margin: Percent) -> bool {
        let (whole, available) = (space.whole(), u128::from(space.available));
        let share = |percent: Percent| whole * u128::from(percent.0);
        let below = |size: Size| {
            let size = u128::from(size.0);
            available < size + (share(margin) / 10_000).min(size / 2)
        };
        let scarce = self.percent.is_none_or(|percent| available * 10_000 < share(percent) + share(margin))
            && self.size.is_none_or(below);
        let given = self.percent.is_some() || self.size.is_some();
        (given && scarce) || self.floor.is_some_and(|floor| whole > u128::from(floor.above.0) && below(floor.below))
    }
}

impl FromStr for Level {
    type Err = InvalidQuantity;

    fn from_str(text: &str) -> Result<Self, InvalidQuantity> {
        let (main, floor) = match text.split_once(", or ") {
            Some((main, floor)) => (main, Some(floor)),
            None => (text, None),
        };
        let mut level = Self { percent: None, size: None, floor: None };
        for part in main.split(" and ") {
            if part.contains('%') {
                let percent = part.parse()?;
                if level.percent.replace(percent).is_some() {
                    return Err(InvalidQuantity::Level(text.into()));
                }
            } else if part.trim().starts_with(|c: char| c.is_ascii_digit()) {
                let size = part.parse()?;
                if level.size.replace(size).is_some() {
                    return Err(InvalidQuantity::Level(text.into()));
                }
            } else {
                return Err(InvalidQuantity::Level(text.into()));
            }
        }
        if let Some(floor) = floor {
            let (below, above) =
                floor.split_once(" of more than ").ok_or_else(|| InvalidQuantity::Level(text.into()))?;
            level.floor = Some(Floor { below: below.parse()?, above: above.parse()? });
        }
        Ok(level)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.percent, self.size) {
            (Some(percent), Some(size)) => write!(f, "{percent} and {size}")?,
            (Some(percent), None) => write!(f, "{percent}")?,
            (None, Some(size)) => write!(f, "{size}")?,
            (None, None) => {}
        }
        match self.floor {
            Some(floor) => write!(f, ", or {} of more than {}", floor.below, floor.above),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn quantities_are_read_with_their_units_only() {
        assert_eq!("10%".parse(), Ok(Percent(1_000)));
        assert_eq!(" 2.5 %".parse(), Ok(Percent(250)));
        assert_eq!("100GiB".parse(), Ok(Size(100 * GIB)));
        assert_eq!("500 MB".parse(), Ok(Size(500_000_000)));
        for bad in ["10", "101%", "-1%", "1.234%", "%", ".5%", "1e1%"] {
            assert!(bad.parse::<Percent>().is_err(), "{bad}");
        }
        for (bad, near) in [("100gb", "GB"), ("100 GIB", "GiB"), ("5 Gigs", "GiB"), ("10G", "GiB"), ("1.5TiB", "TiB")] {
            let error = bad.parse::<Size>().unwrap_err().to_string();
            assert!(error.ends_with(&format!("the nearest unit is {near}")), "{error}");
        }
        assert!("99999999999PiB".parse::<Size>().is_err());
        assert_eq!(read_span("1h30m"), Ok(Duration::from_secs(5_400)));
        let error = read_span("10 minutes").unwrap_err().to_string();
        assert!(error.ends_with("the nearest unit is m"), "{error}");
    }

    #[test]
    fn levels_read_back() {
        for text in ["10% and 100GiB", "5%", "20GiB", "5% and 20GiB, or 1GiB of more than 8GiB"] {
            assert_eq!(text.parse::<Level>().unwrap().to_string(), text);
        }
        for bad in ["", "and", "10% and 5%", "1GiB and 2GiB", "full", "10% or 5%", "10% and", "5%, or 1GiB"] {
            assert!(bad.parse::<Level>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn both_limits_must_hold_at_once() {
        let level: Level = "10% and 100GiB".parse().unwrap();
        assert!(level.holds(space(95, 5), Percent(0)));
        assert!(!level.holds(space(90, 10), Percent(0)), "exactly at the level is not below it");
        assert!(!level.holds(space(9_800, 200), Percent(0)), "2% of a large filesystem are enough");
        assert!(!level.holds(space(0, 50), Percent(0)), "a small empty filesystem is empty");
        assert!(level.holds(space(88, 12), Percent(300)), "3 points above are not reached");
        assert!(!level.holds(space(87, 13), Percent(300)));
        assert!(level.holds(space(99_870, 130), Percent(300)), "half of 100GiB counts at most");
        assert!(!level.holds(space(99_850, 150), Percent(300)));
    }

    #[test]
    fn a_floor_holds_on_large_filesystems_only() {
        let level: Level = "5% and 20GiB, or 1GiB of more than 8GiB".parse().unwrap();
        let half = Space { used: 8 * GIB, available: GIB / 2 + GIB / 4 };
        assert!(level.holds(half, Percent(0)), "8.6% are above 5%, but less than 1GiB");
        assert!(!level.holds(Space { used: 4 * GIB, available: GIB / 2 }, Percent(0)));
    }

    proptest! {
        #[test]
        fn more_space_never_reaches_a_level(used in 0u64..1_000, available in 0u64..1_000, margin in 0u16..2_000) {
            let level: Level = "10% and 90GiB, or 1GiB of more than 8GiB".parse().unwrap();
            let margin = Percent(margin);
            if !level.holds(space(used, available), margin) && used > 0 {
                prop_assert!(!level.holds(space(used - 1, available + 1), margin));
                prop_assert!(!level.holds(space(used, available), Percent(0)), "the margin lets go earlier");
            }
        }

        #[test]
        fn every_quantity_reads_back(percent in 0u16..=10_000, size in any::<u64>()) {
            prop_assert_eq!(Percent(percent).to_string().parse(), Ok(Percent(percent)));
            prop_assert_eq!(Size(size).to_string().parse(), Ok(Size(size)));
            let span = Duration::from_millis(size >> 8);
            prop_assert_eq!(read_span(&write_span(span)), Ok(span));
        }
    }

    fn space(used: u64, available: u64) -> Space {
        Space { used: used * GIB, available: available * GIB }
    }
}
