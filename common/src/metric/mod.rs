//! Readings: what they are called, and sets of their values.
//!
//! [`catalogue`] is the one place where a reading is declared. The wire, `/metrics`, history, rules and the docs all
//! come from it.

pub mod catalogue;
pub mod openmetrics;

pub use catalogue::{CATALOGUE, Kind, Metric, Unit};

/// Values of some metrics of one thing at one moment. A metric that is not in it is unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Readings(Vec<(u16, f64)>);

impl Readings {
    /// No reading at all.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Keeps a value; `None` and what is not finite leave the metric unknown.
    pub fn set(&mut self, metric: &Metric, value: impl Into<Option<f64>>) {
        let Some(value) = value.into().filter(|v| v.is_finite()) else { return };
        match self.0.binary_search_by_key(&metric.number, |(number, _)| *number) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (metric.number, value)),
        }
    }

    /// Keeps a count or a size. Exact up to 2^53.
    #[expect(clippy::cast_precision_loss, reason = "9 PB and above lose their last bytes")]
    pub fn set_count(&mut self, metric: &Metric, value: impl Into<Option<u64>>) {
        self.set(metric, value.into().map(|v| v as f64));
    }

    /// The value, if it is known.
    #[must_use]
    pub fn get(&self, metric: &Metric) -> Option<f64> {
        self.0.binary_search_by_key(&metric.number, |(number, _)| *number).ok().map(|at| self.0[at].1)
    }

    /// The value as a count or size, if it is known and one.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a count")]
    pub fn count(&self, metric: &Metric) -> Option<u64> {
        self.get(metric).filter(|v| (0.0..=9.0e18).contains(v)).map(|v| v.round() as u64)
    }

    /// Every metric that is known, with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Metric, f64)> + '_ {
        self.0.iter().filter_map(|(number, value)| Metric::from_number(*number).map(|metric| (metric, *value)))
    }

    /// True where nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As it travels: numbers and values.
    #[must_use]
    pub fn to_lists(&self) -> (Vec<u32>, Vec<f64>) {
        self.0.iter().map(|(number, value)| (u32::from(*number), *value)).unzip()
    }

    /// From the wire. Metrics that only a newer version knows, repeated ones and odd values are left out.
    #[must_use]
    pub fn from_lists(numbers: &[u32], values: &[f64]) -> Self {
        let mut readings = Self::new();
        for (number, value) in numbers.iter().zip(values).take(CATALOGUE.len()) {
            if let Some(metric) = u16::try_from(*number).ok().and_then(Metric::from_number) {
                readings.set(metric, *value);
            }
        }
        readings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_is_not_zero() {
        let mut readings = Readings::new();
        readings.set(&catalogue::DISK_USED_BYTES, f64::NAN);
        readings.set_count(&catalogue::DISK_TOTAL_BYTES, 0);
        assert_eq!(readings.get(&catalogue::DISK_USED_BYTES), None);
        assert_eq!(readings.count(&catalogue::DISK_TOTAL_BYTES), Some(0));
    }

    #[test]
    fn a_set_survives_the_wire_and_newer_metrics_are_left_out() {
        let mut readings = Readings::new();
        readings.set_count(&catalogue::MOUNT_USED_BYTES, 5);
        readings.set_count(&catalogue::DISK_USED_BYTES, 7);
        let (mut numbers, mut values) = readings.to_lists();
        assert_eq!(Readings::from_lists(&numbers, &values), readings);
        numbers.push(60_000);
        values.push(1.0);
        assert_eq!(Readings::from_lists(&numbers, &values), readings);
    }
}
