//! Counts what test programs report, in the two languages they speak: the
//! lines of Rust's test harness, and TAP.

/// How many checks passed, failed and were skipped, and which failed.
#[derive(Default)]
pub struct Tally {
    passed: u64,
    failed: u64,
    skipped: u64,
    failures: Vec<String>,
    /// A line that has not ended yet.
    partial: Vec<u8>,
    program: Option<Program>,
    begun: Vec<String>,
    /// What each program has reported, once it has ended.
    ended: Vec<(String, [u64; 3])>,
}

/// What a running program has reported.
#[derive(Default)]
struct Program {
    name: String,
    passed: u64,
    failed: u64,
    skipped: u64,
    /// TAP's `1..N`.
    planned: Option<u64>,
    /// It reported in a language known here, if only that it had no tests.
    reported: bool,
    failures: Vec<String>,
    /// Inside the list of names that follows Rust's `failures:`.
    in_list: bool,
    list: Vec<String>,
}

/// How a script says that a program starts: this and the program's name.
pub const BEGIN: &str = "@@ begin ";
/// How a script says that it ended: this and the exit status.
pub const END: &str = "@@ end ";

/// A TAP program's exit status if all was skipped.
const KSFT_SKIP: u8 = 4;

impl Tally {
    /// Counts one check.
    pub fn check(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
    }

    /// Counts one check that cannot be made here, and says why.
    pub fn skip(&mut self, name: &str, reason: &str) {
        println!("\n== {name}: skipped: {reason}");
        self.skipped += 1;
    }

    /// A program starts.
    pub fn begin(&mut self, name: &str) {
        self.interrupt();
        self.begun.push(name.to_owned());
        self.program = Some(Program { name: name.to_owned(), ..Program::default() });
    }

    /// The program prints.
    pub fn feed(&mut self, piece: &[u8]) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(part);
            if part.ends_with(b"\n") {
                let line = std::mem::take(&mut self.partial);
                self.line(String::from_utf8_lossy(&line).trim_end());
            }
        }
    }

    /// The program ended.
    pub fn end(&mut self, status: u8) {
        let Some(mut program) = self.program.take() else {
            return;
        };
        let ended_early = program.planned.is_some_and(|planned| planned > program.results());
        if ended_early {
            program.fail("ended before its last test");
        } else if status != 0 && program.failed == 0 {
            let all_skipped = status == KSFT_SKIP && program.passed == 0;
            if all_skipped {
                program.skipped = program.skipped.max(1);
            } else {
                program.fail(&format!("exit status {status}"));
            }
        } else if !program.reported {
            // It speaks with its exit status only.
            program.passed += 1;
        }
        self.add(program);
    }

    /// The program that runs will not end, since the guest is gone.
    pub fn interrupt(&mut self) {
        if let Some(mut program) = self.program.take() {
            program.fail("did not end");
            self.add(program);
        }
    }

    /// Counts a failure if this program never started.
    pub fn must_have_begun(&mut self, name: &str) {
        if !self.begun.iter().any(|begun| begun == name) {
            self.check(&format!("{name}: did not run"), false);
        }
    }

    /// Counts what another one has counted.
    pub fn append(&mut self, mut other: Self) {
        other.interrupt();
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.failures.append(&mut other.failures);
    }

    /// What programs with such names have counted.
    pub fn of_programs(&self, wanted: impl Fn(&str) -> bool) -> Self {
        let mut tally = Self::default();
        for (_, [passed, failed, skipped]) in self.ended.iter().filter(|(name, _)| wanted(name)) {
            tally.passed += passed;
            tally.failed += failed;
            tally.skipped += skipped;
        }
        tally
    }

    /// True if nothing failed.
    pub fn is_good(&self) -> bool {
        self.failed == 0
    }

    /// The names of what failed.
    pub fn failures(&self) -> &[String] {
        &self.failures
    }

    fn add(&mut self, program: Program) {
        self.passed += program.passed;
        self.failed += program.failed;
        self.skipped += program.skipped;
        let counts = [program.passed, program.failed, program.skipped];
        self.ended.push((program.name.clone(), counts));
        let name = &program.name;
        self.failures.extend(program.failures.iter().map(|test| format!("{name}: {test}")));
    }

    fn line(&mut self, line: &str) {
        if let Some(name) = line.strip_prefix(BEGIN) {
            return self.begin(name);
        }
        if let Some(status) = line.strip_prefix(END) {
            return self.end(status.parse().unwrap_or(u8::MAX));
        }
        if let Some(program) = &mut self.program {
            program.line(line);
        }
    }
}

impl Program {
    fn line(&mut self, line: &str) {
        self.in_list &= line.starts_with("    ");
        if self.in_list {
            self.list.push(line.trim().to_owned());
        } else if line == "failures:" {
            // Said twice; only the second is followed by names at once.
            self.in_list = true;
            self.list.clear();
        } else if let Some(summary) = line.strip_prefix("test result: ") {
            self.reported = true;
            self.failures.append(&mut self.list);
            self.passed += count(summary, "passed");
            self.failed += count(summary, "failed");
            self.skipped += count(summary, "ignored");
        } else if let Some(plan) = line.strip_prefix("1..") {
            self.reported = true;
            let number: String = plan.chars().take_while(char::is_ascii_digit).collect();
            self.planned = number.parse().ok();
            if self.planned == Some(0) {
                self.skipped += 1;
            }
        } else if let Some(test) = line.strip_prefix("not ok ") {
            self.reported = true;
            if is_excused(test) {
                self.skipped += 1;
            } else {
                self.fail(test);
            }
        } else if let Some(test) = line.strip_prefix("ok ") {
            self.reported = true;
            if is_excused(test) {
                self.skipped += 1;
            } else {
                self.passed += 1;
            }
        }
    }

    fn fail(&mut self, reason: &str) {
        self.failed += 1;
        self.failures.push(reason.to_owned());
    }

    fn results(&self) -> u64 {
        self.passed + self.failed + self.skipped
    }
}

/// `N` of `N passed` in `ok. 3 passed; 0 failed; ...`.
fn count(summary: &str, word: &str) -> u64 {
    let words: Vec<_> = summary.split([' ', ';']).filter(|word| !word.is_empty()).collect();
    let pair = words.windows(2).find(|pair| pair[1] == word);
    pair.and_then(|pair| pair[0].parse().ok()).unwrap_or(0)
}

/// TAP's directives for tests that did not run, or may fail.
fn is_excused(test: &str) -> bool {
    let test = test.to_ascii_uppercase();
    ["# SKIP", "# TODO", "# XFAIL"].iter().any(|directive| test.contains(directive))
}

impl std::fmt::Display for Tally {
    /// The last line of a test run, in the form that tools look for.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.skipped > 0 {
            write!(f, ", {} skipped", self.skipped)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(output: &str) -> Tally {
        let mut tally = Tally::default();
        // Pieces that end anywhere.
        for piece in output.as_bytes().chunks(7) {
            tally.feed(piece);
        }
        tally.interrupt();
        tally
    }

    #[test]
    fn the_harness_of_rust_is_understood() {
        let tally = after(
            "@@ begin cache\n\nrunning 4 tests\ntest a ... ok\ntest b::c ... FAILED\n\n\
             failures:\n\n---- b::c stdout ----\n    0: main\n\nfailures:\n    b::c\n\n\
             test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out\n\
             @@ end 101\n",
        );
        assert_eq!(tally.to_string(), "2 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures(), ["cache: b::c"]);
    }

    #[test]
    fn tap_is_understood() {
        let tally = after(
            "@@ begin abi\nTAP version 13\n1..3\n# ok 9 no result\nok 1 open\n\
             ok 2 hugetlb # SKIP no pages\nnot ok 3 read\n@@ end 1\n",
        );
        assert_eq!(tally.to_string(), "1 passed, 1 failed, 1 skipped");
        assert_eq!(tally.failures(), ["abi: 3 read"]);
        assert_eq!(tally.of_programs(|name| name == "abi").to_string(), tally.to_string());
        assert_eq!(tally.of_programs(|name| name != "abi").to_string(), "0 passed, 0 failed");
    }

    #[test]
    fn a_crash_is_a_failure() {
        assert_eq!(
            after("@@ begin a\nrunning 2 tests\n@@ end 139\n").to_string(),
            "0 passed, 1 failed"
        );
        let tally = after("@@ begin a\n1..2\nok 1 x\n@@ end 0\n");
        assert_eq!(tally.failures(), ["a: ended before its last test"]);
        assert_eq!(after("@@ begin a\nok 1 x\n").to_string(), "1 passed, 1 failed");
    }

    #[test]
    fn an_exit_status_is_a_result_where_there_is_no_other() {
        assert_eq!(after("@@ begin a\nhello\n@@ end 0\n").to_string(), "1 passed, 0 failed");
        assert_eq!(
            after("@@ begin a\n1..0 # SKIP no device\n@@ end 4\n").to_string(),
            "0 passed, 0 failed, 1 skipped"
        );
        let empty = "@@ begin a\ntest result: ok. 0 passed; 0 failed; 0 ignored\n@@ end 0\n";
        assert_eq!(after(empty).to_string(), "0 passed, 0 failed");
    }
}
