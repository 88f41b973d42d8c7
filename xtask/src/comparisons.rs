//! Draws the cache against its peers: times on a logarithmic axis, and what was promised.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::svg::{FAINT, GRID, INK, MARGIN, Svg, small, value};

#[derive(Deserialize)]
struct Results {
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    measure: String,
    ours_ns: Option<f64>,
    peer: Option<String>,
    peer_ns: Option<f64>,
    ratio: f64,
    bar: Option<f64>,
    holds: Option<bool>,
    spread: f64,
    bytes: Option<(f64, Option<f64>)>,
}

const LEFT: f64 = 392.0;
/// The longest bar; what is right of it is for its label.
const LONGEST: f64 = 330.0;
const BAR: f64 = 10.0;
const STEP: f64 = 12.0;
const GAP: f64 = 9.0;

const KEPT: &str = "#3f9168";
const MISSED: &str = "#cf5c54";
const OURS: &str = "#4a7ebb";
const PEER: &str = "#a8b0b9";

/// The picture of results in JSON.
pub fn draw(title: &'static str, json: &str) -> Result<String> {
    let results: Results = serde_json::from_str(json).context("these are no results")?;
    let groups = groups(&results.rows);
    if groups.is_empty() {
        bail!("the results have no times");
    }
    let mut svg = Svg::new(title);
    legend(&mut svg);
    let axis = Axis::of(&results.rows);
    let top = 126.0;
    let height = |group: &Vec<&Row>| STEP * (1 + group.len()) as f64 + GAP;
    let bottom = top + groups.iter().map(height).sum::<f64>() + GAP;
    for decade in axis.decades() {
        let x = LEFT + axis.width(decade);
        svg.line(x, top, bottom, GRID);
        let style = format!(r#"text-anchor="middle" {}"#, small(FAINT));
        svg.text(x, bottom + 18.0, &style, &time(decade));
    }
    let mut y = top + GAP;
    for group in &groups {
        self::group(&mut svg, &axis, y, group);
        y += height(group);
    }
    svg.line(LEFT, top, bottom, FAINT);
    let mut y = bottom + 44.0;
    for row in &results.rows {
        if let Some((ours, peers)) = row.bytes {
            svg.text(MARGIN, y, &small(INK), &bytes(row, ours, peers));
            y += 20.0;
        }
    }
    Ok(svg.finish(y))
}

/// Rows of one measure that follow each other, with different peers: drawn with ours once.
fn groups(rows: &[Row]) -> Vec<Vec<&Row>> {
    let mut groups: Vec<Vec<&Row>> = Vec::new();
    for row in rows.iter().filter(|row| row.ours_ns.is_some()) {
        match groups.last_mut() {
            Some(group) if group[0].measure == row.measure => group.push(row),
            _ => groups.push(vec![row]),
        }
    }
    groups
}

fn legend(svg: &mut Svg) {
    let note = "medians of turns in one run; the axis is logarithmic; a line is what was promised";
    svg.text(MARGIN, 69.0, &small(FAINT), note);
    let mut x = MARGIN;
    for (color, label) in [
        (KEPT, "regcache, promise kept"),
        (MISSED, "promise missed"),
        (OURS, "nothing promised"),
        (PEER, "peer, with regcache's ratio to it"),
    ] {
        svg.bar(x, 87.0, 12.0, 12.0, color);
        svg.text(x + 19.0, 97.5, &small(INK), label);
        x += 48.0 + 6.4 * label.len() as f64;
    }
}

fn group(svg: &mut Svg, axis: &Axis, top: f64, rows: &[&Row]) {
    let noisy = rows.iter().any(|row| row.spread > NOISY);
    let style = format!(r#"text-anchor="end" font-size="12" fill="{INK}""#);
    let label = format!("{}{}", rows[0].measure, if noisy { " (noisy)" } else { "" });
    svg.text(LEFT - 10.0, top + 9.0, &style, &label);
    let holds: Vec<_> = rows.iter().filter_map(|row| row.holds).collect();
    let color = match holds.as_slice() {
        [] => OURS,
        holds if holds.iter().all(|holds| *holds) => KEPT,
        _ => MISSED,
    };
    let Some(ours) = rows[0].ours_ns else { return };
    let width = axis.width(ours);
    svg.bar(LEFT, top, width, BAR, color);
    let mut end = width;
    for row in rows {
        // The line is where our bar should end for this peer.
        if let (Some(peer), Some(bar)) = (row.peer_ns, row.bar) {
            let x = axis.width(peer * bar);
            svg.line(LEFT + x, top - 2.0, top + BAR + 2.0, INK);
            end = end.max(x);
        }
    }
    svg.text(LEFT + end + 6.0, top + 9.0, &value(color), &time(ours));
    for (index, row) in rows.iter().enumerate() {
        let (Some(name), Some(peer)) = (&row.peer, row.peer_ns) else { continue };
        let (y, width) = (top + STEP * (index + 1) as f64, axis.width(peer));
        svg.bar(LEFT, y, width, BAR, PEER);
        let label = format!("{}, {name}: {:.2}", time(peer), row.ratio);
        svg.text(LEFT + width + 6.0, y + 9.0, &value(FAINT), &label);
    }
}

/// As in the measuring program: a wider spread is not to be believed.
const NOISY: f64 = 0.15;

/// From a power of ten below all times to the longest.
struct Axis {
    from: f64,
    to: f64,
}

impl Axis {
    fn of(rows: &[Row]) -> Axis {
        let times = rows.iter().flat_map(|row| [row.ours_ns, row.peer_ns]).flatten();
        let (from, to) = times.fold((f64::MAX, 1.0_f64), |(from, to), nanos| {
            (from.min(nanos.max(0.01)), to.max(nanos))
        });
        Axis { from: from.log10().floor(), to: to.log10() }
    }

    fn width(&self, nanos: f64) -> f64 {
        let share = (nanos.max(0.01).log10() - self.from) / (self.to - self.from).max(1.0);
        LONGEST * share.clamp(0.004, 1.0)
    }

    fn decades(&self) -> impl Iterator<Item = f64> {
        let (from, to) = (self.from as i32, self.to.floor() as i32);
        (from..=to).map(|power| 10_f64.powi(power))
    }
}

fn time(nanos: f64) -> String {
    match nanos {
        0.0..9.95 => format!("{} ns", (nanos * 10.0).round() / 10.0),
        9.95..999.5 => format!("{nanos:.0} ns"),
        999.5..9_950.0 => format!("{:.1} µs", nanos / 1e3),
        9_950.0..999_500.0 => format!("{:.0} µs", nanos / 1e3),
        _ => format!("{:.1} ms", nanos / 1e6),
    }
}

fn bytes(row: &Row, ours: f64, peers: Option<f64>) -> String {
    let mut text = format!("{}: {ours:.0} bytes", row.measure);
    if let (Some(name), Some(peers)) = (&row.peer, peers) {
        text += &format!(", {name} {peers:.0}");
    }
    if let (Some(bar), Some(holds)) = (row.bar, row.holds) {
        text += &format!("; {bar:.0} promised: {}", if holds { "kept" } else { "missed" });
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROWS: &str = r#"{"rows": [
        {"measure": "memory", "ours_ns": null, "peer": "P", "peer_ns": null, "ratio": 100.0,
         "bar": 256.0, "holds": true, "spread": 0.0, "bytes": [100.0, 90.0]},
        {"measure": "hit", "ours_ns": 3.0, "peer": "P", "peer_ns": 40.0, "ratio": 0.075,
         "bar": 0.1, "holds": true, "spread": 0.01},
        {"measure": "hit", "ours_ns": 3.0, "peer": "floor", "peer_ns": 4.0, "ratio": 0.75,
         "bar": 0.5, "holds": false, "spread": 0.3}]}"#;

    #[test]
    fn ours_is_drawn_once_for_all_its_peers() {
        let svg = draw("title", ROWS).expect("well formed");
        assert_eq!(svg.matches(">3 ns<").count(), 1);
        assert!(svg.contains(">40 ns, P: 0.07<") || svg.contains(">40 ns, P: 0.08<"));
        assert!(svg.contains(">4 ns, floor: 0.75<"));
        assert!(svg.contains(">hit (noisy)<"));
        assert!(svg.contains(">memory: 100 bytes, P 90; 256 promised: kept<"));
    }

    #[test]
    fn one_missed_promise_colours_the_bar() {
        let svg = draw("title", ROWS).expect("well formed");
        // In the legend, on the bar, on its label.
        assert_eq!(svg.matches(MISSED).count(), 3);
        assert_eq!(svg.matches(KEPT).count(), 1);
    }

    #[test]
    fn the_axis_begins_at_a_decade() {
        let axis = Axis { from: 0.0, to: 3.0 };
        assert_eq!(axis.width(1000.0), LONGEST);
        assert!((axis.width(10.0) - LONGEST / 3.0).abs() < 1e-9);
        assert_eq!(axis.decades().collect::<Vec<_>>(), [1.0, 10.0, 100.0, 1000.0]);
    }

    #[test]
    fn times_are_short() {
        let texts = [0.26, 9.94, 44.4, 999.4, 1500.0, 32_000.0, 2.5e6].map(time);
        assert_eq!(texts, ["0.3 ns", "9.9 ns", "44 ns", "999 ns", "1.5 µs", "32 µs", "2.5 ms"]);
    }

    #[test]
    fn nothing_to_draw_is_an_error() {
        assert!(draw("title", r#"{"rows": []}"#).is_err());
    }
}
