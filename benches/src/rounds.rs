//! Contestants that take turns, and what came of it.

use crate::row::median;
use crate::worker::{Turn, Worker};

/// Contestants, each in a process of its own.
#[derive(Default)]
pub struct Rounds {
    contestants: Vec<(String, Worker)>,
}

impl Rounds {
    /// One more; `prepare` runs in its process. The caller has one thread.
    pub fn add(&mut self, name: &str, prepare: impl FnOnce() -> Turn) -> nix::Result<()> {
        self.contestants.push((name.to_owned(), Worker::new(prepare)?));
        Ok(())
    }

    /// Lets each take `turns` turns, one after the other, after one that does not count.
    pub fn run(mut self, turns: usize) -> Samples {
        let mut samples: Vec<_> =
            self.contestants.iter().map(|(name, _)| (name.clone(), Vec::new())).collect();
        for turn in 0..=turns {
            for ((_, worker), (_, values)) in self.contestants.iter_mut().zip(&mut samples) {
                let value = worker.turn();
                if turn > 0 {
                    values.push(value);
                }
            }
        }
        Samples(samples)
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        // A worker waits for its orders to end, and those that were forked later hold them open too.
        while self.contestants.pop().is_some() {}
    }
}

/// The results of all turns.
#[derive(Debug, Clone)]
pub struct Samples(Vec<(String, Vec<f64>)>);

/// One contestant against another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Outcome {
    /// The median of the one.
    pub value: f64,
    /// The median of the other.
    pub peer: f64,
    /// The median of the ratios of turns that followed each other.
    pub ratio: f64,
    /// How far apart the middle half of the ratios is, as a share of their median.
    pub spread: f64,
}

impl Samples {
    /// One against the other, if both took part.
    pub fn outcome(&self, name: &str, peer: &str) -> Option<Outcome> {
        let (values, peers) = (self.of(name)?, self.of(peer)?);
        let ratios: Vec<_> = values.iter().zip(peers).map(|(value, peer)| value / peer).collect();
        Some(Outcome {
            value: median(values.to_vec()),
            peer: median(peers.to_vec()),
            ratio: median(ratios.clone()),
            spread: spread(ratios),
        })
    }

    /// One alone: its median and its spread.
    pub fn alone(&self, name: &str) -> Option<(f64, f64)> {
        let values = self.of(name)?;
        Some((median(values.to_vec()), spread(values.to_vec())))
    }

    fn of(&self, name: &str) -> Option<&[f64]> {
        let found = self.0.iter().find(|(other, _)| other == name);
        found.map(|(_, values)| values.as_slice())
    }
}

/// How far apart the quartiles are, as a share of the median.
fn spread(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let quartile = |quarters: usize| values.get((values.len() - 1) * quarters / 4).copied();
    match (values.is_empty(), median(values.clone())) {
        (true, _) | (_, 0.0) => 0.0,
        (false, middle) => {
            (quartile(3).unwrap_or_default() - quartile(1).unwrap_or_default()) / middle
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_of_turns_that_followed_each_other() {
        let samples = Samples(vec![
            ("ours".into(), vec![1.0, 10.0, 2.0]),
            ("peer".into(), vec![2.0, 20.0, 8.0]),
        ]);
        let outcome = samples.outcome("ours", "peer").unwrap();
        assert_eq!((outcome.value, outcome.peer, outcome.ratio), (2.0, 8.0, 0.5));
        assert_eq!(samples.outcome("ours", "absent"), None);
    }

    #[test]
    fn the_spread_is_of_the_middle_half() {
        assert_eq!(spread(vec![]), 0.0);
        assert_eq!(spread(vec![3.0]), 0.0);
        assert_eq!(spread(vec![900.0, 4.0, 3.0, 5.0, 0.0]), 0.5);
    }

    #[test]
    fn workers_take_turns_and_end() {
        let mut rounds = Rounds::default();
        for step in [1.0, 2.0] {
            rounds
                .add(&format!("by {step}"), || {
                    let mut at = 0.0;
                    Box::new(move || {
                        at += step;
                        at
                    })
                })
                .unwrap();
        }
        let outcome = rounds.run(3).outcome("by 2", "by 1").unwrap();
        assert_eq!((outcome.value, outcome.peer, outcome.ratio), (6.0, 3.0, 2.0));
    }
}
