//! Draws how often each order of eviction hits on each trace.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::svg::{FAINT, GRID, INK, MARGIN, Svg, small, value};

#[derive(Deserialize)]
struct Results {
    capacity: usize,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    trace: String,
    policy: String,
    hit_ratio: f64,
}

const LEFT: f64 = 318.0;
const LONGEST: f64 = 440.0;
const BAR: f64 = 10.0;
const STEP: f64 = 12.0;
const GAP: f64 = 12.0;
/// Ours comes first.
const COLORS: [&str; 6] = ["#3f9168", "#8b949e", "#4a7ebb", "#b08a3c", "#8a63b0", "#cf5c54"];

/// The picture of results in JSON.
pub fn draw(title: &'static str, json: &str) -> Result<String> {
    let results: Results = serde_json::from_str(json).context("these are no results")?;
    let policies = distinct(results.rows.iter().map(|row| &row.policy));
    let traces = distinct(results.rows.iter().map(|row| &row.trace));
    if traces.is_empty() {
        bail!("the results have no rows");
    }
    let mut svg = Svg::new(title);
    let note = format!(
        "share of requests that find their region, in caches of {} regions; regcache itself was \
         driven, the others simulated",
        results.capacity
    );
    svg.text(MARGIN, 69.0, &small(FAINT), &note);
    let mut x = MARGIN;
    for (policy, color) in policies.iter().zip(COLORS.iter().cycle()) {
        svg.bar(x, 87.0, 12.0, 12.0, color);
        svg.text(x + 19.0, 97.5, &small(INK), policy);
        x += 52.0 + 8.0 * policy.len() as f64;
    }
    let top = 116.0;
    let height = STEP * policies.len() as f64 + GAP;
    let bottom = top + height * traces.len() as f64 + GAP;
    for percent in [25, 50, 75, 100] {
        let x = LEFT + LONGEST * f64::from(percent) / 100.0;
        svg.line(x, top, bottom, GRID);
        let style = format!(r#"text-anchor="middle" {}"#, small(FAINT));
        svg.text(x, bottom + 18.0, &style, &format!("{percent} %"));
    }
    for (index, trace) in traces.iter().enumerate() {
        let y = top + GAP + height * index as f64;
        let style = format!(r#"text-anchor="end" {}"#, small(INK));
        svg.text(LEFT - 12.0, y + (height - GAP) / 2.0 + 4.0, &style, trace);
        for row in results.rows.iter().filter(|row| row.trace == **trace) {
            let Some(place) = policies.iter().position(|policy| **policy == row.policy) else {
                continue;
            };
            let (y, color) = (y + STEP * place as f64, COLORS[place % COLORS.len()]);
            let width = LONGEST * row.hit_ratio;
            svg.bar(LEFT, y, width, BAR, color);
            let label = format!("{:.1}", 100.0 * row.hit_ratio);
            svg.text(LEFT + width + 6.0, y + 9.0, &value(color), &label);
        }
    }
    svg.line(LEFT, top, bottom, FAINT);
    Ok(svg.finish(bottom + 34.0))
}

/// Each once, in the order in which they first come.
fn distinct<'a>(names: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_policy_is_drawn_on_every_trace() {
        let row = |trace, policy, ratio| {
            format!(r#"{{"trace": "{trace}", "policy": "{policy}", "hit_ratio": {ratio}}}"#)
        };
        let rows = [row("loop", "a", 0.5), row("loop", "b", 0.25), row("zipf", "a", 1.0)];
        let svg = draw("title", &format!(r#"{{"capacity": 7, "rows": [{}]}}"#, rows.join(",")));
        let svg = svg.expect("well formed");
        for text in [">loop<", ">zipf<", ">50.0<", ">25.0<", ">100.0<", ">a<", ">b<"] {
            assert_eq!(svg.matches(text).count(), 1, "{text}");
        }
        assert!(svg.contains("caches of 7 regions"));
        assert!(draw("title", r#"{"capacity": 7, "rows": []}"#).is_err());
    }
}
