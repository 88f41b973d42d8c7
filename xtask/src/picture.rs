//! Draws the demonstration's result for the README: an SVG with a background
//! of its own, so that it can be read on light and on dark pages.

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::svg::{FAINT, GRID, INK, MARGIN, Svg, small, value};

/// What the demonstration writes.
#[derive(Deserialize)]
struct Summary {
    rows: Vec<Row>,
}

/// The transfers of one mode, while memory changed in one way.
#[derive(Deserialize)]
struct Row {
    mode: String,
    way: String,
    transfers: u64,
    corrupted: u64,
    hit_rate: f64,
    us_per_transfer: f64,
}

/// A mode as it is drawn.
struct Mode {
    /// What the rows call it.
    key: &'static str,
    label: &'static str,
    color: &'static str,
}

/// In the order in which they are drawn. The one that corrupts stands out.
const MODES: [Mode; 3] = [
    Mode { key: "every-time", label: "register every time", color: "#8b949e" },
    Mode { key: "unaided", label: "cache, unaided", color: "#cf5c54" },
    Mode { key: "regcache", label: "regcache", color: "#3f9168" },
];

const TITLE: &str = "Corrupted transfers, by what happened to the memory";

/// Where bars begin: right of the longest name of a way.
const LEFT: f64 = 236.0;
/// The longest bar; what is right of it is for its label.
const LONGEST: f64 = 520.0;
const BAR: f64 = 10.0;
const STEP: f64 = 13.0;
/// From one way to the next.
const GROUP: f64 = 53.0;
/// The same for the thicker bars of the times.
const ROW: f64 = 18.0;
const GROUP_OF_TIMES: f64 = 68.0;

/// The picture of a summary in JSON.
pub fn draw(json: &str) -> Result<String> {
    let summary: Summary = serde_json::from_str(json).context("this is no summary")?;
    let rows = &summary.rows;
    let mut ways: Vec<&str> = Vec::new();
    for row in rows {
        if !MODES.iter().any(|mode| mode.key == row.mode) {
            bail!("the mode {:?} is unknown", row.mode);
        }
        if !ways.contains(&row.way.as_str()) {
            ways.push(&row.way);
        }
    }
    if ways.is_empty() {
        bail!("the summary has no rows");
    }
    let mut svg = Svg::new(TITLE);
    let mut y = svg.heading();
    y = svg.corruption(y, rows, &ways);
    y = svg.time(y + 30.0, rows, &ways);
    Ok(svg.finish(y + 14.0))
}

impl Svg {
    /// The title and what the colours mean. Returns where the next thing goes.
    fn heading(&mut self) -> f64 {
        let note =
            "RDMA sends between registered buffers: share of transfers that delivered wrong bytes";
        self.text(MARGIN, 69.0, &small(FAINT), note);
        let mut x = MARGIN;
        for mode in &MODES {
            self.bar(x, 87.0, 12.0, 12.0, mode.color);
            self.text(x + 19.0, 97.5, &small(INK), mode.label);
            x += 52.0 + 7.0 * mode.label.len() as f64;
        }
        122.0
    }

    /// Three bars for each way.
    fn corruption(&mut self, top: f64, rows: &[Row], ways: &[&str]) -> f64 {
        let bottom = top + GROUP * ways.len() as f64;
        for percent in [25, 50, 75, 100] {
            let x = LEFT + LONGEST * f64::from(percent) / 100.0;
            self.line(x, top, bottom, GRID);
            let style = format!(r#"text-anchor="middle" {}"#, small(FAINT));
            self.text(x, bottom + 18.0, &style, &format!("{percent} %"));
        }
        for (index, way) in ways.iter().enumerate() {
            let top = top + GROUP * index as f64 + 9.0;
            let style = format!(r#"text-anchor="end" font-size="14" fill="{INK}""#);
            self.text(LEFT - 14.0, top + STEP + BAR - 0.5, &style, way);
            for (index, mode) in MODES.iter().enumerate() {
                let y = top + STEP * index as f64;
                let of = rows.iter().filter(|row| row.mode == mode.key && row.way == *way);
                let (corrupted, transfers) = of.fold((0, 0), |(corrupted, transfers), row| {
                    (corrupted + row.corrupted, transfers + row.transfers)
                });
                if transfers == 0 {
                    continue;
                }
                let share = corrupted as f64 / transfers as f64;
                // One wrong byte in a million transfers can be seen too.
                let width = if corrupted == 0 { 0.0 } else { (LONGEST * share).max(2.0) };
                if corrupted > 0 {
                    self.bar(LEFT, y, width, BAR, mode.color);
                }
                let label = share_of(corrupted, share);
                let style = value(mode.color);
                self.text(LEFT + width + 6.0, y + BAR - 1.0, &style, &label);
            }
        }
        self.line(LEFT, top, bottom, FAINT);
        bottom + 18.0
    }

    /// A bar for each mode, for memory that stays and for memory that changes:
    /// only the first is what caches are for.
    fn time(&mut self, top: f64, rows: &[Row], ways: &[&str]) -> f64 {
        let style = format!(r#"font-size="15" font-weight="600" fill="{INK}""#);
        self.text(MARGIN, top + 12.0, &style, "Microseconds per transfer");
        let note = "median; the bars compare with each other, not with other machines";
        self.text(LEFT, top + 12.0, &small(FAINT), note);
        let top = top + 24.0;
        let (changed, untouched): (Vec<_>, Vec<_>) = ways
            .iter()
            .partition(|way| rows.iter().any(|row| row.way == **way && row.corrupted > 0));
        let groups = [("memory untouched", untouched), ("memory changed each time", changed)];
        let of = |mode: &Mode, ways: &[&str], value: fn(&Row) -> f64| {
            let rows = rows.iter().filter(|row| row.mode == mode.key);
            median(rows.filter(|row| ways.contains(&row.way.as_str())).map(value).collect())
        };
        let time = |row: &Row| row.us_per_transfer;
        let longest = groups
            .iter()
            .flat_map(|(_, ways)| MODES.iter().filter_map(|mode| of(mode, ways, time)))
            .fold(f64::MIN_POSITIVE, f64::max);
        let mut y = top;
        for (name, ways) in groups.iter().filter(|(_, ways)| !ways.is_empty()) {
            let style = format!(r#"text-anchor="end" font-size="14" fill="{INK}""#);
            self.text(LEFT - 14.0, y + 9.0 + ROW + 11.0, &style, name);
            for (index, mode) in MODES.iter().enumerate() {
                let hit_rate = of(mode, ways, |row| row.hit_rate);
                let (Some(time), Some(hit_rate)) = (of(mode, ways, time), hit_rate) else {
                    continue;
                };
                let y = y + 9.0 + ROW * index as f64;
                // The label is longer than those above.
                let width = ((LONGEST - 50.0) * time / longest).max(2.0);
                self.bar(LEFT, y, width, 14.0, mode.color);
                let time = if time < 10.0 { format!("{time:.1}") } else { format!("{time:.0}") };
                let hits = format!("{} % hits", tenths(hit_rate * 100.0));
                let label = if hit_rate > 0.0 {
                    format!("{time} µs, {hits}")
                } else {
                    format!("{time} µs")
                };
                self.text(LEFT + width + 6.0, y + 11.5, &value(mode.color), &label);
            }
            y += GROUP_OF_TIMES;
        }
        self.line(LEFT, top, y, FAINT);
        y
    }
}

/// Nothing but no corruption at all is drawn as 0.
fn share_of(corrupted: u64, share: f64) -> String {
    match share * 100.0 {
        _ if corrupted == 0 => "0".to_owned(),
        0.0..0.1 => "< 0.1 %".to_owned(),
        percent => format!("{} %", tenths(percent)),
    }
}

/// With one digit after the point, cut off, so that only what is 100 says so.
fn tenths(percent: f64) -> String {
    let tenths = (percent * 10.0 + 1e-6).floor() / 10.0;
    format!("{tenths}")
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        return Some(values[middle]);
    }
    Some((values.get(middle.checked_sub(1)?)? + values[middle]) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_only_what_is_zero() {
        assert_eq!(share_of(0, 0.0), "0");
        assert_eq!(share_of(1, 1e-6), "< 0.1 %");
        assert_eq!(share_of(58, 0.58), "58 %");
        assert_eq!(share_of(1999, 0.9995), "99.9 %");
        assert_eq!(share_of(5, 1.0), "100 %");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn every_way_is_drawn_and_names_are_escaped() {
        let row = |mode, corrupted| {
            format!(
                r#"{{"mode": "{mode}", "way": "a < b", "transfers": 10, "corrupted": {corrupted},
                "registrations": 1, "hit_rate": 0.9, "us_per_transfer": 12.5}}"#
            )
        };
        let rows = [row("every-time", 0), row("unaided", 10), row("regcache", 0)].join(",");
        let svg = draw(&format!(r#"{{"rows": [{rows}]}}"#)).expect("the rows are well formed");
        assert!(svg.contains(">a &lt; b<"));
        assert_eq!(svg.matches(">0<").count(), 2);
        assert_eq!(svg.matches(">100 %<").count(), 2, "the axis and the bar");
    }

    #[test]
    fn an_unknown_mode_is_an_error() {
        let row = r#"{"mode": "x", "way": "y", "transfers": 1, "corrupted": 0,
            "registrations": 1, "hit_rate": 0, "us_per_transfer": 1}"#;
        assert!(draw(&format!(r#"{{"rows": [{row}]}}"#)).is_err());
        assert!(draw(r#"{"rows": []}"#).is_err());
    }
}
