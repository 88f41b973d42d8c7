//! What the results of the MPI programs say: a table, and whether they show what they should.

use std::fmt::Write;

use crate::mpi_results::{MEASURES, Results, Speed, Stale, distinct, share};

/// What must have been run; the third path is shown where it was.
const PATHS: [&str; 2] = ["mtl/ofi", "pml/ucx"];
/// The catalogue with its control.
const WAYS: usize = 7;

/// What the results say in words; an error where they do not show what they should.
pub fn verdict(results: &Results) -> Result<String, String> {
    let mut faults = results.problems.clone();
    let (paths, ways) = (results.paths(), results.ways());
    for path in PATHS.iter().filter(|path| !paths.contains(path)) {
        faults.push(format!("there is no result for {path}"));
    }
    if ways.len() < WAYS {
        faults.push(format!(
            "{} of {WAYS} ways of changing memory have no result",
            WAYS - ways.len()
        ));
    }
    for path in &paths {
        for (way, plugin) in ways.iter().flat_map(|way| [(way, false), (way, true)]) {
            let kind = if plugin { "with the plug-in" } else { "stock" };
            let fault = match results.cell(path, way, plugin) {
                None => Some("there is no result"),
                Some(row) => fault(row),
            };
            faults.extend(fault.map(|fault| format!("{path}, {kind}, {way}: {fault}")));
        }
    }
    if !faults.is_empty() {
        return Err(faults.join("\n"));
    }
    let count = |plugin, value: fn(&Stale) -> u64| -> u64 {
        let rows = results.stale().filter(|row| row.plugin == plugin && !row.is_control());
        rows.map(value).sum()
    };
    Ok(format!(
        "Stock, {} of {} messages arrived with wrong bytes and no error, by {} paths in {} ways of \
         changing memory.\nWith the plug-ins, {} of {}.",
        count(false, |row| row.corrupted),
        count(false, |row| row.transfers),
        paths.len(),
        ways.len() - 1,
        count(true, |row| row.corrupted),
        count(true, |row| row.transfers),
    ))
}

/// What a row should not say.
fn fault(row: &Stale) -> Option<&'static str> {
    let harmless = row.plugin || row.is_control();
    if row.transfers == 0 {
        return Some("there were no messages");
    }
    if harmless && row.corrupted > 0 {
        return Some("messages arrived with wrong bytes");
    }
    (!harmless && row.corrupted == 0).then_some("all bytes were right, so this shows nothing")
}

/// All rows, aligned.
pub fn table(results: &Results) -> String {
    // Writing to a string cannot fail.
    let mut text = String::new();
    let paths = results.paths();
    let _ = write!(text, "{:<26}", "");
    for path in &paths {
        let _ = write!(text, "  {path:<21}");
    }
    text = text.trim_end().to_owned();
    let _ = write!(text, "\n{:<26}", "memory changes by");
    for _ in &paths {
        let _ = write!(text, "  {:<10} {:<10}", "stock", "plug-in");
    }
    text = text.trim_end().to_owned() + "\n";
    let _ = writeln!(text, "{}", "-".repeat(26 + 23 * paths.len()));
    for way in results.ways() {
        let mut line = format!("{way:<26}");
        for path in &paths {
            let cells = [false, true].map(|plugin| share(results.cell(path, way, plugin)));
            let _ = write!(line, "  {:<10} {:<10}", cells[0], cells[1]);
        }
        text = text + line.trim_end() + "\n";
    }
    text += "Messages that arrived with wrong bytes; half of them after the sender's memory \
             changed,\nhalf after the receiver's.\n";
    if !paths.contains(&"btl/openib") {
        text += "btl/openib was not run: Debian's does not speak RoCE, and no other was built.\n";
    }
    for path in distinct(results.speed().map(|row| row.path.as_str())) {
        text += &speed_table(results, path);
    }
    text
}

/// Latency and bandwidth of one path.
fn speed_table(results: &Results, path: &str) -> String {
    let names = format!("{:>9}{:>10}{:>8}{:>8}", "stock", "plug-in", "ratio", "+/-");
    let mut text = format!("\n{path:<10}{:>22}{:>42}\n", "latency, us", "bandwidth, MB/s");
    text += &format!("{:<10}{names}    {names}\n", "bytes");
    let rows = || results.speed().filter(|row| row.path == path);
    for bytes in distinct(rows().map(|row| row.bytes)) {
        let halves = MEASURES.map(|measure| {
            let row = rows().find(|row| row.bytes == bytes && row.measure == measure);
            row.map_or_else(String::new, |Speed { stock, plugin, ratio, error, .. }| {
                let (stock, plugin) = (digits(*stock), digits(*plugin));
                format!("{stock:>9}{plugin:>10}{ratio:>8.3}{error:>8.3}")
            })
        });
        text += &format!("{bytes:<10}{:<35}    {}\n", halves[0], halves[1]);
    }
    let halves = MEASURES.map(|measure| {
        let mean = results.mean(path, measure);
        mean.map_or_else(String::new, |(mean, error)| format!("{mean:>27.3}{error:>8.3}"))
    });
    text + &format!("{:<10}{:<35}    {}\n", "all sizes", halves[0], halves[1])
}

/// A number with three digits that count.
fn digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mpi_results::Row;

    /// Results as they should be, but for one row.
    fn results(wrong: impl Fn(&str, &str, bool) -> Option<u64>) -> Results {
        let mut rows = Vec::new();
        for path in ["mtl/ofi", "pml/ucx"] {
            for way in ["none (untouched)", "a", "b", "c", "d", "e", "f"] {
                for plugin in [false, true] {
                    let expected = if plugin || way.starts_with("none") { 0 } else { 20 };
                    let corrupted = wrong(path, way, plugin).unwrap_or(expected);
                    rows.push(Row::Stale(Stale {
                        path: path.to_owned(),
                        way: way.to_owned(),
                        plugin,
                        transfers: 20,
                        corrupted,
                        sender: corrupted / 2,
                        receiver: corrupted - corrupted / 2,
                    }));
                }
            }
        }
        Results { hosts: 1, problems: Vec::new(), rows }
    }

    #[test]
    fn what_should_be_is_good() {
        let verdict = verdict(&results(|_, _, _| None)).unwrap();
        assert!(verdict.contains("240 of 240 messages"), "{verdict}");
        assert!(verdict.contains("by 2 paths in 6 ways"), "{verdict}");
        assert!(verdict.contains("With the plug-ins, 0 of 240."), "{verdict}");
    }

    #[test]
    fn one_wrong_row_is_a_fault_that_names_it() {
        for (way, plugin, corrupted) in [
            ("b", true, 1),
            ("none (untouched)", false, 1),
            ("none (untouched)", true, 1),
            ("e", false, 0),
        ] {
            let fault = verdict(&results(|path, w, p| {
                (path == "pml/ucx" && w == way && p == plugin).then_some(corrupted)
            }));
            let fault = fault.unwrap_err();
            let kind = if plugin { "with the plug-in" } else { "stock" };
            assert!(fault.starts_with(&format!("pml/ucx, {kind}, {way}: ")), "{fault}");
            assert_eq!(fault.lines().count(), 1);
        }
    }

    #[test]
    fn what_is_missing_is_a_fault() {
        let fault = |kept: fn(&Stale) -> bool| {
            let mut results = results(|_, _, _| None);
            results.rows.retain(|row| matches!(row, Row::Stale(row) if kept(row)));
            verdict(&results).unwrap_err()
        };
        let row = fault(|row| row.path != "mtl/ofi" || row.way != "f" || !row.plugin);
        assert_eq!(row, "mtl/ofi, with the plug-in, f: there is no result");
        assert_eq!(fault(|row| row.path != "pml/ucx"), "there is no result for pml/ucx");
        assert!(fault(|row| row.way != "f").starts_with("1 of 7 ways"));
    }

    #[test]
    fn a_problem_voids_what_is_good() {
        let mut results = results(|_, _, _| None);
        results.problems.push("not active".to_owned());
        assert_eq!(verdict(&results).unwrap_err(), "not active");
    }

    #[test]
    fn all_is_in_the_table() {
        let table = table(&results(|_, _, _| None));
        assert_eq!(table.matches("20 of 20").count(), 12);
        assert!(table.contains("mtl/ofi                pml/ucx"), "{table}");
    }
}
