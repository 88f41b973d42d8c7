//! Draws what MPI delivered, stock and with the plug-ins, and what they cost.

use crate::mpi_results::{MEASURES, Results, Speed, Stale, share};
use crate::svg::{FAINT, GRID, INK, MARGIN, Svg, WIDTH, small};

const TITLE: &str = "MPI messages that arrived with wrong bytes";

const STOCK: &str = "#c0c7ce";
const PLUGIN: &str = "#3f9168";
const WRONG: &str = "#cf5c54";
const RIGHT: &str = "#e3f1ea";

/// Where cells begin: right of the longest name of a way.
const LEFT: f64 = 236.0;
/// From one way to the next.
const ROW: f64 = 33.0;
const CELL: f64 = 27.0;
const GAP: f64 = 6.0;

/// A chart, without what is written around it.
const CHART_WIDTH: f64 = 322.0;
const CHART_HEIGHT: f64 = 108.0;
/// With that.
const CHARTS: f64 = CHART_HEIGHT + 92.0;
/// A ratio this far from 1 stands out.
const TOLERANCE: f64 = 0.03;
const AMBER: &str = "#a8761d";

/// The picture of all results.
pub fn draw(results: &Results) -> String {
    let mut svg = Svg::new(TITLE);
    let machines = if results.hosts == 1 { "on one machine" } else { "on two machines" };
    let note = format!(
        "two ranks {machines}, RDMA, messages of 1 MiB: half of them after the sender's memory \
         changed, half after the receiver's"
    );
    svg.text(MARGIN, 69.0, &small(FAINT), &note);
    let mut y = svg.cells(96.0, results);
    let paths = results.paths();
    if results.speed().next().is_some() {
        y = svg.legend(y + 40.0);
        for path in paths {
            for (measure, left) in MEASURES.iter().zip([MARGIN + 52.0, 486.0]) {
                svg.chart(left, y, results, path, measure);
            }
            y += CHARTS;
        }
    }
    svg.finish(y - 8.0)
}

impl Svg {
    /// A row for each way, two columns for each path. Returns where it ends.
    fn cells(&mut self, top: f64, results: &Results) -> f64 {
        let paths = results.paths();
        let group = (WIDTH - MARGIN - LEFT + GAP) / paths.len().max(1) as f64;
        let width = group / 2.0 - GAP;
        let middle = r#"text-anchor="middle""#;
        for (index, path) in paths.iter().enumerate() {
            let left = LEFT + group * index as f64;
            let style = format!(r#"{middle} font-size="14" font-weight="600" fill="{INK}""#);
            self.text(left + width + GAP / 2.0, top + 10.0, &style, path);
            for (kind, left) in [("stock", left), ("plug-in", left + width + GAP)] {
                let style = format!("{middle} {}", small(FAINT));
                self.text(left + width / 2.0, top + 29.0, &style, kind);
            }
        }
        let top = top + 38.0;
        for (row, way) in results.ways().iter().enumerate() {
            let y = top + ROW * row as f64;
            let style = format!(r#"text-anchor="end" font-size="14" fill="{INK}""#);
            self.text(LEFT - 14.0, y + 18.5, &style, way);
            for (index, path) in paths.iter().enumerate() {
                let left = LEFT + group * index as f64;
                for (plugin, x) in [(false, left), (true, left + width + GAP)] {
                    let cell = results.cell(path, way, plugin);
                    let (fill, ink) = colors(cell, plugin);
                    self.bar(x, y, width, CELL, fill);
                    let style =
                        format!(r#"{middle} font-size="13" font-weight="600" fill="{ink}""#);
                    self.text(x + width / 2.0, y + 18.0, &style, &share(cell));
                }
            }
        }
        top + ROW * results.ways().len() as f64
    }

    /// What the charts below are. Returns where they begin.
    fn legend(&mut self, top: f64) -> f64 {
        let style = format!(r#"font-size="20" font-weight="600" fill="{INK}""#);
        self.text(MARGIN, top, &style, "What the cure costs");
        let note = "medians by message size, from buffers that are used again and again; below each, \
                    plug-in / stock";
        self.text(MARGIN, top + 23.0, &small(FAINT), note);
        let top = top + 41.0;
        let mut x = MARGIN;
        for (color, label) in [(STOCK, "stock"), (PLUGIN, "plug-in")] {
            self.bar(x, top, 12.0, 12.0, color);
            self.text(x + 19.0, top + 10.5, &small(INK), label);
            x += 52.0 + 7.0 * label.len() as f64;
        }
        top + 40.0
    }

    /// Two curves, sizes and ratios below them.
    fn chart(&mut self, left: f64, top: f64, results: &Results, path: &str, measure: &str) {
        let rows: Vec<&Speed> =
            results.speed().filter(|row| row.path == path && row.measure == measure).collect();
        let Some(axis) = Axis::of(&rows) else { return };
        let (what, unit) =
            if measure == MEASURES[0] { ("latency, µs", 1.0) } else { ("bandwidth, MB/s", -1.0) };
        let style = format!(r#"font-size="14" font-weight="600" fill="{INK}""#);
        self.text(left, top, &style, &format!("{path}: {what}"));
        if let Some((mean, error)) = results.mean(path, measure) {
            let style = format!(r#"text-anchor="end" {}"#, small(FAINT));
            let text = format!("all: {mean:.2} ± {error:.2}");
            self.text(left + CHART_WIDTH, top, &style, &text);
        }
        let (top, bottom) = (top + 16.0, top + 16.0 + CHART_HEIGHT);
        for decade in axis.from..=axis.to {
            let y = axis.y(bottom, 10_f64.powi(decade));
            self.level(y, left, left + CHART_WIDTH, GRID);
            let style = format!(r#"text-anchor="end" font-size="11" fill="{FAINT}""#);
            self.text(left - 7.0, y + 4.0, &style, &power(decade));
        }
        self.line(left, top, bottom, FAINT);
        let step = CHART_WIDTH / rows.len() as f64;
        let x = |index: usize| left + step * (index as f64 + 0.5);
        for (color, width, value) in
            [(STOCK, 5.0, (|row| row.stock) as fn(&Speed) -> f64), (PLUGIN, 1.8, |row| row.plugin)]
        {
            let points = rows.iter().enumerate();
            let points: Vec<_> =
                points.map(|(index, row)| (x(index), axis.y(bottom, value(row)))).collect();
            self.curve(&points, width, color);
        }
        for (index, row) in rows.iter().enumerate() {
            let style = format!(r#"text-anchor="middle" font-size="10" fill="{FAINT}""#);
            self.text(x(index), bottom + 15.0, &style, &size(row.bytes));
            // Twice the error is what chance seldom does.
            let worse = (row.ratio - 1.0) * unit > TOLERANCE.max(2.0 * row.error);
            let (color, weight) = if worse { (AMBER, 600) } else { (INK, 400) };
            let style = format!(
                r#"text-anchor="middle" font-size="10" font-weight="{weight}" fill="{color}""#
            );
            self.text(x(index), bottom + 30.0, &style, &format!("{:.2}", row.ratio));
        }
    }
}

/// Of a cell and of what is written in it.
fn colors(cell: Option<&Stale>, plugin: bool) -> (&'static str, &'static str) {
    match cell {
        Some(row) if row.corrupted > 0 => (WRONG, "#ffffff"),
        Some(_) if plugin => (RIGHT, PLUGIN),
        _ => (GRID, FAINT),
    }
}

/// Powers of ten around all values.
struct Axis {
    from: i32,
    to: i32,
}

impl Axis {
    fn of(rows: &[&Speed]) -> Option<Axis> {
        let values =
            rows.iter().flat_map(|row| [row.stock, row.plugin]).filter(|value| *value > 0.0);
        let logs: Vec<f64> = values.map(f64::log10).collect();
        let from = logs.iter().copied().reduce(f64::min)?.floor() as i32;
        let to = logs.iter().copied().reduce(f64::max)?.ceil() as i32;
        Some(Axis { from, to: to.max(from + 1) })
    }

    fn y(&self, bottom: f64, value: f64) -> f64 {
        let share = (value.log10() - f64::from(self.from)) / f64::from(self.to - self.from);
        bottom - CHART_HEIGHT * share.clamp(0.0, 1.0)
    }
}

/// A power of ten in full.
fn power(decade: i32) -> String {
    let value = 10_f64.powi(decade);
    match decade {
        ..0 => format!("{value:.*}", decade.unsigned_abs() as usize),
        0..3 => format!("{value:.0}"),
        3..6 => format!("{:.0},000", value / 1e3),
        _ => format!("{:.0},000,000", value / 1e6),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => bytes.to_string(),
        1024..1_048_576 => format!("{}K", bytes / 1024),
        _ => format!("{}M", bytes / 1_048_576),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mpi_results::Row;

    fn results() -> Results {
        let stale = |plugin, corrupted| {
            Row::Stale(Stale {
                path: "pml/ucx".to_owned(),
                way: "a < b".to_owned(),
                plugin,
                transfers: 20,
                corrupted,
                sender: corrupted,
                receiver: 0,
            })
        };
        let speed = |measure: &str, bytes, ratio| {
            Row::Speed(Speed {
                path: "pml/ucx".to_owned(),
                measure: measure.to_owned(),
                bytes,
                stock: 10.0,
                plugin: 10.0 * ratio,
                ratio,
                error: 0.01,
            })
        };
        let rows = vec![
            stale(false, 19),
            stale(true, 0),
            speed("latency_us", 1, 1.0),
            speed("latency_us", 65536, 1.1),
            speed("bandwidth_mb_s", 1, 1.1),
        ];
        Results { hosts: 1, problems: Vec::new(), rows }
    }

    #[test]
    fn all_is_drawn_and_names_are_escaped() {
        let svg = draw(&results());
        for text in [">a &lt; b<", ">19 of 20<", ">0<", ">64K<", ">all: 1.05 ± 0.01<"] {
            assert_eq!(svg.matches(text).count(), 1, "{text}");
        }
        assert_eq!(svg.matches("<polyline").count(), 4);
    }

    #[test]
    fn only_what_is_worse_stands_out() {
        // Bandwidth may grow.
        assert_eq!(draw(&results()).matches(AMBER).count(), 1);
    }

    #[test]
    fn numbers_are_short() {
        assert_eq!([-2, 0, 2, 5, 6].map(power), ["0.01", "1", "100", "100,000", "1,000,000"]);
        assert_eq!([1, 1024, 262_144, 4_194_304].map(size), ["1", "1K", "256K", "4M"]);
    }
}
