//! Sizes as people read them.

/// Three digits and a binary unit: `182 GiB`, `1.20 TiB`, `512 B`.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1_000 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    // 999.5 would round to four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// How full, as `df` counts: used of used and available, rounded down so that 100 means full. `None` where nothing is.
#[must_use]
pub fn percent_floor(used: u64, available: u64) -> Option<u8> {
    let whole = u128::from(used) + u128::from(available);
    (u128::from(used) * 100).checked_div(whole).and_then(|percent| u8::try_from(percent).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        for (size, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_023, "1.00 KiB"),
            (1_048_576, "1.00 MiB"),
            (195_421_011_968, "182 GiB"),
            (1_023 * 1_048_576, "1.00 GiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(size), text, "{size}");
        }
    }

    #[test]
    fn only_full_is_100_percent() {
        assert_eq!(percent_floor(999, 1), Some(99));
        assert_eq!(percent_floor(1_000, 0), Some(100));
        assert_eq!(percent_floor(0, 0), None);
    }
}
