//! Figures that have a bar: how every bench ends.

use std::process::ExitCode;

/// Prints `ratio NAME VALUE bar BAR holds|missed` for each figure, and remembers whether all hold.
#[derive(Debug, Default)]
pub struct Bars {
    is_missed: bool,
}

impl Bars {
    /// A figure that is better the smaller it is.
    pub fn at_most(&mut self, name: &str, value: f64, bar: f64) {
        self.told(name, value, bar, value <= bar);
    }

    /// A figure that is better the larger it is.
    pub fn at_least(&mut self, name: &str, value: f64, bar: f64) {
        self.told(name, value, bar, value >= bar);
    }

    /// 1 where a bar was missed.
    #[must_use]
    pub fn end(&self) -> ExitCode {
        ExitCode::from(u8::from(self.is_missed))
    }

    fn told(&mut self, name: &str, value: f64, bar: f64, holds: bool) {
        self.is_missed |= !holds;
        println!("ratio {name} {value:.2} bar {bar} {}", if holds { "holds" } else { "missed" });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_missed_bar_is_enough() {
        let mut bars = Bars::default();
        bars.at_most("a", 1.0, 1.0);
        bars.at_least("b", 1.0, 1.0);
        assert_eq!(bars.end(), ExitCode::SUCCESS);
        bars.at_least("c", 0.9, 1.0);
        bars.at_most("d", 0.9, 1.0);
        assert_eq!(bars.end(), ExitCode::from(1));
    }
}
