//! What the measuring programs are told.

use std::time::Duration;

/// How to use them.
pub const USAGE: &str = "\
usage: [options] [FILE]
  FILE         write the results to FILE as JSON
  --turns N    turns of each that count (default 21)
  --millis N   how long one turn takes (default 20)
  --only TEXT  only measures whose name contains TEXT
";

/// The arguments of a measuring program.
#[derive(Debug, Clone, PartialEq)]
pub struct Arguments {
    /// Where the results go.
    pub out: Option<String>,
    /// How many turns count.
    pub turns: usize,
    /// How long one turn takes.
    pub time: Duration,
    /// What a measure's name must contain.
    pub only: String,
}

impl Arguments {
    /// This program's; or what is wrong with them.
    pub fn of_this_program() -> Result<Arguments, String> {
        Arguments::parse(std::env::args().skip(1))
    }

    fn parse(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut parsed = Arguments {
            out: None,
            turns: 21,
            time: Duration::from_millis(20),
            only: String::new(),
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value\n{USAGE}"));
            let number = |text: String| match text.parse::<u32>() {
                Ok(number) if number > 0 => Ok(number),
                _ => Err(format!("{word}: {text:?} is not a positive number\n{USAGE}")),
            };
            match word.as_str() {
                "--turns" => parsed.turns = number(value()?)? as usize,
                "--millis" => parsed.time = Duration::from_millis(number(value()?)?.into()),
                "--only" => parsed.only = value()?,
                _ if word.starts_with('-') || parsed.out.is_some() => {
                    return Err(format!("{word} is not understood\n{USAGE}"));
                }
                _ => parsed.out = Some(word),
            }
        }
        Ok(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Arguments, String> {
        Arguments::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_are_read_or_refused() {
        let all = parse("--turns 3 out.json --only random --millis 5").unwrap();
        assert_eq!((all.turns, all.time), (3, Duration::from_millis(5)));
        assert_eq!((all.out.as_deref(), all.only.as_str()), (Some("out.json"), "random"));
        for wrong in ["--turns", "--turns 0", "--millis x", "--what", "a b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
