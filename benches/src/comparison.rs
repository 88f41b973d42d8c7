//! The cache against its peers: a result, and a table of them.

use serde::Serialize;

use crate::rounds::Outcome;

/// Where the middle half of a row's ratios spreads over more than this share of their median, the
/// machine was too busy to believe it.
pub const NOISY: f64 = 0.15;

/// The name of the cache in `peer`, where it is compared with itself.
pub const OURS: &str = "regcache";

/// One measure, ours against a peer's. Times are in nanoseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Comparison {
    /// What was measured.
    pub measure: String,
    /// Our time.
    pub ours_ns: Option<f64>,
    /// Who it is compared with, if anybody.
    pub peer: Option<String>,
    /// The peer's time.
    pub peer_ns: Option<f64>,
    /// How often the peer's goes into ours; for what has no peer, ours itself.
    pub ratio: f64,
    /// What the ratio may be at most, if anything was promised.
    pub bar: Option<f64>,
    /// Whether it is.
    pub holds: Option<bool>,
    /// How far the middle half of the ratios is apart, as a share of their median.
    pub spread: f64,
    /// Where something else than time was measured: in bytes, ours and the peer's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<(f64, Option<f64>)>,
}

impl Comparison {
    /// Our time against a peer's.
    pub fn new(measure: impl Into<String>, peer: &str, outcome: Outcome) -> Comparison {
        Comparison {
            measure: measure.into(),
            ours_ns: Some(outcome.value),
            peer: Some(peer.to_owned()),
            peer_ns: Some(outcome.peer),
            ratio: outcome.ratio,
            bar: None,
            holds: None,
            spread: outcome.spread,
            bytes: None,
        }
    }

    /// Our bytes; the ratio is their number, so that a bar is one of bytes.
    pub fn bytes(measure: impl Into<String>, ours: f64, peer: Option<(&str, f64)>) -> Comparison {
        Comparison {
            measure: measure.into(),
            ours_ns: None,
            peer: peer.map(|(name, _)| name.to_owned()),
            peer_ns: None,
            ratio: ours,
            bar: None,
            holds: None,
            spread: 0.0,
            bytes: Some((ours, peer.map(|(_, bytes)| bytes))),
        }
    }

    /// Promises that the ratio is `bar` at most.
    pub fn at_most(mut self, bar: impl Into<Option<f64>>) -> Comparison {
        self.bar = bar.into();
        self.holds = self.bar.map(|bar| self.ratio <= bar);
        self
    }

    /// Whether the machine was too busy to believe it.
    pub fn is_noisy(&self) -> bool {
        self.spread > NOISY
    }

    /// For people, in one line.
    pub fn line(&self) -> String {
        let number = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.1}"));
        let (ours, peers, unit) = match self.bytes {
            Some((ours, peers)) => (Some(ours), peers, "B "),
            None => (self.ours_ns, self.peer_ns, "ns"),
        };
        let ratio = if self.bytes.is_some() { "-".into() } else { format!("{:.3}", self.ratio) };
        let bar = self.bar.map_or(String::new(), |bar| format!("{bar:.2}"));
        let verdict = match self.holds {
            Some(true) => "  holds",
            Some(false) => "  MISSED",
            None => "",
        };
        let noisy = if self.is_noisy() {
            format!("  noisy: {:.0} %", 100.0 * self.spread)
        } else {
            String::new()
        };
        format!(
            "{:<58} {:>10} {unit}  {:>10} {unit}  {:<22} {ratio:>7} {bar:>7}{verdict}{noisy}",
            self.measure,
            number(ours),
            number(peers),
            self.peer.as_deref().unwrap_or("-"),
        )
    }
}

/// What stands above the lines.
pub fn heading() -> String {
    format!(
        "{:<58} {:>10}     {:>10}     {:<22} {:>7} {:>7}",
        "measure", "ours", "peer's", "peer", "ratio", "bar"
    )
}

/// A warning where the run cannot be believed, and how many promises were kept.
pub fn verdict(rows: &[Comparison]) -> String {
    let promised = rows.iter().filter(|row| row.holds.is_some()).count();
    let kept = rows.iter().filter(|row| row.holds == Some(true)).count();
    let noisy = rows.iter().filter(|row| row.is_noisy()).count();
    let mut text = format!("{kept} of {promised} bars hold");
    if noisy > 0 {
        text += &format!(
            "; NOISY: in {noisy} of {} rows the middle half of the turns spreads over more than \
             {:.0} % of the median; run it again on a quiet machine",
            rows.len(),
            100.0 * NOISY
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(ratio: f64, spread: f64) -> Outcome {
        Outcome { value: 4.0 * ratio, peer: 4.0, ratio, spread }
    }

    #[test]
    fn a_bar_holds_at_its_own_height_and_not_above() {
        let row = |ratio| Comparison::new("m", "p", outcome(ratio, 0.0)).at_most(0.5);
        assert_eq!(row(0.5).holds, Some(true));
        assert_eq!(row(0.51).holds, Some(false));
        assert_eq!(row(9.0).at_most(None).holds, None);
        assert_eq!(Comparison::bytes("m", 257.0, None).at_most(256.0).holds, Some(false));
    }

    #[test]
    fn rows_have_the_promised_fields() {
        let row = Comparison::new("m", "p", outcome(0.5, 0.0)).at_most(0.5);
        let json = serde_json::to_value(&row).unwrap();
        for field in ["measure", "ours_ns", "peer", "peer_ns", "ratio", "bar", "holds"] {
            assert!(!json[field].is_null(), "{field}");
        }
    }

    #[test]
    fn noise_is_said() {
        let quiet = Comparison::new("m", "p", outcome(0.5, 0.1)).at_most(0.5);
        let noisy = Comparison::new("m", "p", outcome(0.5, 0.2)).at_most(0.4);
        assert_eq!(verdict(std::slice::from_ref(&quiet)), "1 of 1 bars hold");
        assert!(verdict(&[quiet, noisy.clone()]).contains("NOISY: in 1 of 2"));
        assert!(noisy.line().contains("MISSED  noisy: 20 %"));
    }
}
