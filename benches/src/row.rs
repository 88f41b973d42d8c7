//! A result, and a table of them.

use serde::Serialize;

/// One measure against its baseline.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What was measured, with its unit.
    pub measure: String,
    /// The value.
    pub value: f64,
    /// What it is compared with, in the same unit; 0 where there is nothing to compare with.
    pub baseline: f64,
    /// How often the baseline goes into the value, or the value itself where there is none.
    pub ratio: f64,
    /// What the ratio may be at most, if anything was promised.
    pub bar: Option<f64>,
    /// Whether it is.
    pub holds: Option<bool>,
}

impl Row {
    /// A value against a baseline.
    pub fn new(measure: impl Into<String>, value: f64, baseline: f64, ratio: f64) -> Row {
        Row { measure: measure.into(), value, baseline, ratio, bar: None, holds: None }
    }

    /// A value alone.
    pub fn alone(measure: impl Into<String>, value: f64) -> Row {
        Row::new(measure, value, 0.0, value)
    }

    /// Promises that the ratio is `bar` at most.
    pub fn at_most(mut self, bar: f64) -> Row {
        self.bar = Some(bar);
        self.holds = Some(self.ratio <= bar);
        self
    }
}

/// The rows for people.
pub fn table(rows: &[Row]) -> String {
    let width = rows.iter().map(|row| row.measure.len()).max().unwrap_or(0);
    let mut text = format!(
        "{:<width$}  {:>12}  {:>12}  {:>8}  {:>6}\n",
        "measure", "value", "baseline", "ratio", "bar"
    );
    for row in rows {
        let baseline = match row.baseline {
            0.0 => "-".into(),
            baseline => format!("{baseline:.1}"),
        };
        let bar = row.bar.map_or(String::new(), |bar| format!("{bar:.2}"));
        let verdict = match row.holds {
            Some(true) => "  holds",
            Some(false) => "  MISSED",
            None => "",
        };
        text += &format!(
            "{:<width$}  {:>12.1}  {baseline:>12}  {:>8.2}  {bar:>6}{verdict}\n",
            row.measure, row.value, row.ratio
        );
    }
    text
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n => values[n / 2],
    }
}
