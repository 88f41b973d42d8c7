//! Draws measurements: how often the baseline goes into each, and what was promised.

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::svg::{FAINT, GRID, INK, MARGIN, Svg, small, value};

#[derive(Deserialize)]
struct Results {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    measure: String,
    baseline: f64,
    ratio: f64,
    bar: Option<f64>,
    holds: Option<bool>,
}

const LEFT: f64 = 470.0;
const STEP: f64 = 24.0;
/// What one of the baseline is drawn as; the axis ends at three.
const ONE: f64 = 100.0;
const MOST: f64 = 3.0;

/// The picture of results in JSON.
pub fn draw(title: &'static str, json: &str) -> Result<String> {
    let results: Results = serde_json::from_str(json).context("these are no results")?;
    let rows: Vec<_> = results.rows.iter().filter(|row| row.baseline > 0.0).collect();
    let mut svg = Svg::new(title);
    let note =
        "each measure as a multiple of its baseline, in one run; a tick is what was promised";
    svg.text(MARGIN, 69.0, &small(FAINT), note);
    let top = 92.0;
    let bottom = top + STEP * rows.len() as f64 + 8.0;
    for multiple in [1.0, 2.0, MOST] {
        let x = LEFT + ONE * multiple;
        svg.line(x, top, bottom, GRID);
        let style = format!(r#"text-anchor="middle" {}"#, small(FAINT));
        svg.text(x, bottom + 18.0, &style, &format!("{multiple} x"));
    }
    for (index, row) in rows.iter().enumerate() {
        let y = top + STEP * index as f64 + 8.0;
        let style = format!(r#"text-anchor="end" {}"#, small(INK));
        svg.text(LEFT - 12.0, y + 11.0, &style, &row.measure);
        let color = match row.holds {
            Some(true) => "#3f9168",
            Some(false) => "#cf5c54",
            None => "#8b949e",
        };
        let width = ONE * row.ratio.min(MOST + 0.2);
        svg.bar(LEFT, y, width, 13.0, color);
        if let Some(bar) = row.bar {
            svg.line(LEFT + ONE * bar.min(MOST), y - 4.0, y + 17.0, INK);
        }
        let x = LEFT + width.max(ONE * row.bar.unwrap_or(0.0).min(MOST)) + 6.0;
        svg.text(x, y + 11.0, &value(color), &label(row.ratio));
    }
    svg.line(LEFT, top, bottom, FAINT);
    Ok(svg.finish(bottom + 34.0))
}

/// Nothing is drawn as 0 but what is.
fn label(ratio: f64) -> String {
    if ratio > 0.0 && ratio < 0.01 {
        format!("1/{:.0}", 1.0 / ratio)
    } else if ratio >= 100.0 {
        format!("{ratio:.0}")
    } else {
        format!("{ratio:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::label;

    #[test]
    fn small_ratios_are_fractions() {
        assert_eq!(label(0.0), "0.00");
        assert_eq!(label(0.01), "0.01");
        assert_eq!(label(0.0001), "1/10000");
        assert_eq!(label(1.1), "1.10");
        assert_eq!(label(12345.6), "12346");
    }
}
