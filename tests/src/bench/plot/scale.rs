//! From values to places on the paper.

/// An axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    /// Where `low` and `high` are on the paper.
    from: f64,
    to: f64,
    logarithmic: bool,
}

impl Scale {
    /// Whole powers of ten around the values.
    pub(super) fn logarithmic(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (mut low, mut high) = (f64::INFINITY, 0.0_f64);
        for value in values.filter(|value| *value > 0.0) {
            low = low.min(value);
            high = high.max(value);
        }
        if high == 0.0 {
            (low, high) = (1.0, 10.0);
        }
        let (low, high) = (low.log10().floor(), high.log10().ceil());
        Self {
            low,
            high: high.max(low + 1.0),
            from,
            to,
            logarithmic: true,
        }
    }

    /// From zero.
    pub(super) fn linear(high: f64, from: f64, to: f64) -> Self {
        Self {
            low: 0.0,
            high: if high > 0.0 { high } else { 1.0 },
            from,
            to,
            logarithmic: false,
        }
    }

    pub(super) fn place(&self, value: f64) -> f64 {
        let value = if self.logarithmic {
            value.max(f64::MIN_POSITIVE).log10()
        } else {
            value
        };
        let share = (value - self.low) / (self.high - self.low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Values with a label: powers of ten, or at most six even steps.
    pub(super) fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let mut ticks = Vec::new();
            let mut power = self.low;
            while power <= self.high {
                ticks.push(10_f64.powf(power));
                power += 1.0;
            }
            return ticks;
        }
        let rough = self.high / 6.0;
        let ten = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * ten);
        let step = step.into_iter().find(|step| *step >= rough).unwrap_or(rough);
        let mut ticks = vec![0.0];
        let mut next = step;
        while next <= self.high {
            ticks.push(next);
            next += step;
        }
        ticks
    }
}

/// `1`, `10`, `1k`, `2.5M`.
pub(super) fn label(value: f64) -> String {
    let size = value.abs();
    let (value, unit) = match () {
        () if size >= 1e9 => (value / 1e9, "G"),
        () if size >= 1e6 => (value / 1e6, "M"),
        () if size >= 1e3 => (value / 1e3, "k"),
        () => (value, ""),
    };
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let scale = Scale::logarithmic([26.0, 51_000.0].into_iter(), 0.0, 100.0);
        assert_eq!(
            scale.ticks().into_iter().map(label).collect::<Vec<_>>(),
            ["10", "100", "1k", "10k", "100k"]
        );
        assert_eq!(scale.place(1000.0), 50.0);
        let scale = Scale::linear(11.0, 0.0, 110.0);
        assert_eq!(scale.ticks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(scale.place(5.5), 55.0);
        assert_eq!(label(2_500_000.0), "2.5M");
        assert_eq!(label(0.25), "0.25");
    }
}
