//! What came out: a table, a verdict, and JSON for programs.

use std::fmt::Write;
use std::time::Duration;

use crate::modes::Mode;
use crate::ways::Way;

/// In how many ways a cache without the kernel's help must go wrong. If it does not, the
/// demonstration has not provoked what it is about.
const PROOF: usize = 5;

/// The transfers of one mode with one way of changing memory.
pub struct Row {
    pub mode: Mode,
    pub way: Way,
    pub transfers: u64,
    /// Those after which the receiver saw other bytes than were sent.
    pub corrupted: u64,
    /// Those of the corrupted for which the device reported an error.
    pub failed: u64,
    pub registrations: u64,
    pub hit_rate: f64,
    /// Spent on keys and transfers, not on changing memory or on its content.
    pub time: Duration,
}

impl Row {
    fn us_per_transfer(&self) -> f64 {
        self.time.as_secs_f64() * 1e6 / self.transfers as f64
    }
}

/// All rows, aligned, one line each.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<10}  {:<25}  {:>9}  {:>9}  {:>13}  {:>8}  {:>11}\n",
        "mode",
        "memory changes by",
        "transfers",
        "corrupted",
        "registrations",
        "hit rate",
        "us/transfer"
    );
    let mut last = None;
    for row in rows {
        if last.replace(row.mode) != Some(row.mode) {
            text += &"-".repeat(97);
            text.push('\n');
        }
        let _infallible = writeln!(
            text,
            "{:<10}  {:<25}  {:>9}  {:>9}  {:>13}  {:>6.1} %  {:>11.1}",
            row.mode.name(),
            row.way.name(),
            row.transfers,
            row.corrupted,
            row.registrations,
            row.hit_rate * 100.0,
            row.us_per_transfer()
        );
    }
    text += "us/transfer: getting the keys, sending, receiving and giving the keys back; without\n\
             changing the memory, filling and comparing.\n";
    text
}

/// The rows as one JSON object.
pub fn json(rows: &[Row]) -> String {
    let rows: Vec<String> = rows
        .iter()
        .map(|row| {
            // No name needs an escape.
            format!(
                "    {{\"mode\": \"{}\", \"way\": \"{}\", \"transfers\": {}, \"corrupted\": {}, \
                 \"registrations\": {}, \"hit_rate\": {:.4}, \"us_per_transfer\": {:.1}}}",
                row.mode.name(),
                row.way.name(),
                row.transfers,
                row.corrupted,
                row.registrations,
                row.hit_rate,
                row.us_per_transfer()
            )
        })
        .collect();
    format!("{{\n  \"rows\": [\n{}\n  ]\n}}\n", rows.join(",\n"))
}

/// What the rows say in words; an error where they do not show what they should.
pub fn verdict(rows: &[Row]) -> Result<String, String> {
    let of = |mode| rows.iter().filter(move |row| row.mode == mode);
    let corrupted = |mode| of(mode).map(|row| row.corrupted).sum::<u64>();
    let transfers = |mode| of(mode).map(|row| row.transfers).sum::<u64>();
    let registrations = |mode| of(mode).map(|row| row.registrations).sum::<u64>();
    let mut sentences = Vec::new();

    if corrupted(Mode::EveryTime) > 0 {
        return Err(
            "Transfers were corrupted although each one registered anew: the demonstration \
                    itself is broken."
                .into(),
        );
    }
    if of(Mode::Unaided).count() > 0 {
        let control = of(Mode::Unaided).find(|row| row.way == Way::Untouched);
        if control.is_some_and(|row| row.corrupted > 0) {
            return Err("Transfers were corrupted although the memory was left alone: the \
                        demonstration itself is broken."
                .into());
        }
        let changed = || of(Mode::Unaided).filter(|row| row.way != Way::Untouched);
        let ways = changed().filter(|row| row.corrupted > 0).count();
        if ways < PROOF {
            return Err(format!(
                "The cache without kernel notification was corrupted in {ways} ways only, fewer \
                 than {PROOF}: this run proves nothing."
            ));
        }
        let errors = match changed().map(|row| row.failed).sum::<u64>() {
            0 => "without an error".into(),
            failed => format!("with an error in {failed}"),
        };
        sentences.push(format!(
            "Without kernel notification, cached registrations delivered wrong bytes in {ways} of \
             {} ways of changing memory: {} of {} transfers, {errors}.",
            changed().count(),
            changed().map(|row| row.corrupted).sum::<u64>(),
            changed().map(|row| row.transfers).sum::<u64>()
        ));
    }
    if of(Mode::Regcache).count() > 0 {
        if corrupted(Mode::Regcache) > 0 {
            return Err(format!(
                "regcache delivered wrong bytes in {} of {} transfers.",
                corrupted(Mode::Regcache),
                transfers(Mode::Regcache)
            ));
        }
        let mut sentence = format!(
            "regcache delivered every byte right in all {} transfers",
            transfers(Mode::Regcache)
        );
        if of(Mode::EveryTime).count() > 0 {
            sentence += &format!(
                ", with {} registrations where registering every time took {}",
                registrations(Mode::Regcache),
                registrations(Mode::EveryTime)
            );
        }
        sentences.push(sentence + ".");
    } else {
        sentences.push("regcache was not asked.".into());
    }
    Ok(sentences.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(corrupted: impl Fn(Mode, Way) -> u64) -> Vec<Row> {
        let row = |mode, way| Row {
            mode,
            way,
            transfers: 10,
            corrupted: corrupted(mode, way),
            failed: 0,
            registrations: 20,
            hit_rate: 0.5,
            time: Duration::from_micros(25),
        };
        Mode::ALL.into_iter().flat_map(|mode| Way::ALL.map(|way| row(mode, way))).collect()
    }

    /// What the demonstration is expected to show.
    fn expected(mode: Mode, way: Way) -> u64 {
        if mode == Mode::Unaided && way != Way::Untouched { 9 } else { 0 }
    }

    #[test]
    fn the_verdict_counts() {
        let verdict = verdict(&rows(expected)).unwrap();
        assert!(verdict.contains("6 of 6 ways"), "{verdict}");
        assert!(verdict.contains("54 of 60 transfers, without an error"), "{verdict}");
        assert!(verdict.contains("all 70 transfers"), "{verdict}");
    }

    #[test]
    fn a_wrong_byte_where_none_may_be_fails() {
        for (mode, way) in [
            (Mode::Regcache, Way::PunchHole),
            (Mode::EveryTime, Way::PunchHole),
            (Mode::Unaided, Way::Untouched),
        ] {
            let wrong = |m, w| if (m, w) == (mode, way) { 1 } else { expected(m, w) };
            assert!(verdict(&rows(wrong)).is_err(), "{} {}", mode.name(), way.name());
        }
    }

    #[test]
    fn too_little_corruption_proves_nothing() {
        let spare = |spared: &'static [Way]| {
            move |mode, way| if spared.contains(&way) { 0 } else { expected(mode, way) }
        };
        assert!(verdict(&rows(spare(&[Way::Reload]))).is_ok());
        assert!(verdict(&rows(spare(&[Way::Reload, Way::RawRemap]))).is_err());
    }

    #[test]
    fn json_has_a_row_each() {
        let json = json(&rows(expected));
        assert_eq!(json.matches("\"mode\": \"unaided\"").count(), 7);
        assert!(json.contains(
            "{\"mode\": \"regcache\", \"way\": \"memfd PUNCH_HOLE\", \"transfers\": 10, \
             \"corrupted\": 0, \"registrations\": 20, \"hit_rate\": 0.5000, \
             \"us_per_transfer\": 2.5}"
        ));
    }
}
