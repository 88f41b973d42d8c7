//! What is asked for: traces that are the same in every run.

use regcache_benches::course::Random;

/// A trace and its name.
pub struct Trace {
    pub name: &'static str,
    pub keys: Vec<u64>,
}

/// How many requests a trace has.
const REQUESTS: usize = 1 << 19;

/// The traces for a cache of `capacity` regions.
pub fn all(capacity: usize) -> Vec<Trace> {
    // Sixteen times as many buffers as fit.
    let buffers = 16 * capacity;
    vec![
        Trace { name: "skewed (Zipf, 0.9)", keys: zipf(buffers, 0.9, 1) },
        Trace { name: "very skewed (Zipf, 1.2)", keys: zipf(buffers, 1.2, 2) },
        Trace { name: "skewed, and scans of buffers used once", keys: scans(capacity) },
        Trace { name: "a loop that just does not fit", keys: looping(capacity + capacity / 10) },
        Trace { name: "a loop of twice the cache", keys: looping(2 * capacity) },
        Trace { name: "skewed, and loops that do not fit", keys: mixed(capacity) },
        Trace { name: "one set of buffers after another", keys: phases(capacity) },
    ]
}

/// Independent requests of which the n-th most popular buffer gets a share in 1 / n^`skew`.
fn zipf(buffers: usize, skew: f64, seed: u64) -> Vec<u64> {
    let mut draw = Zipf::new(buffers, skew, seed);
    (0..REQUESTS).map(|_| draw.next()).collect()
}

struct Zipf {
    /// The share of the n + 1 most popular.
    cumulated: Vec<f64>,
    random: Random,
}

impl Zipf {
    fn new(buffers: usize, skew: f64, seed: u64) -> Zipf {
        let mut sum = 0.0;
        let shares = (1..=buffers).map(|rank| (rank as f64).powf(-skew));
        let mut cumulated: Vec<f64> = shares
            .map(|share| {
                sum += share;
                sum
            })
            .collect();
        cumulated.iter_mut().for_each(|value| *value /= sum);
        Zipf { cumulated, random: Random::new(seed) }
    }

    fn next(&mut self) -> u64 {
        let at = self.random.fraction();
        self.cumulated.partition_point(|share| *share < at) as u64
    }
}

/// Where buffers begin that are not of the skewed set.
const OTHERS: u64 = 1 << 24;

/// Skewed requests; between them, scans as long as the cache whose buffers never come again. Half of
/// all requests belong to scans.
fn scans(capacity: usize) -> Vec<u64> {
    let mut draw = Zipf::new(4 * capacity, 0.9, 3);
    let mut fresh = OTHERS..;
    let rounds = (0..).flat_map(|_| {
        let mut round: Vec<u64> = (0..capacity).map(|_| draw.next()).collect();
        round.extend(fresh.by_ref().take(capacity));
        round
    });
    rounds.take(REQUESTS).collect()
}

/// Round and round.
fn looping(buffers: usize) -> Vec<u64> {
    (0..REQUESTS as u64).map(|step| step % buffers as u64).collect()
}

/// Skewed requests; between each two, one of a loop of twice the cache.
fn mixed(capacity: usize) -> Vec<u64> {
    let mut draw = Zipf::new(4 * capacity, 0.9, 4);
    let round = (0..2 * capacity as u64).map(|step| OTHERS + step).cycle();
    round.flat_map(|step| [draw.next(), step]).take(REQUESTS).collect()
}

/// Skewed requests whose buffers are replaced by others from time to time, as when a program goes on
/// to its next phase.
fn phases(capacity: usize) -> Vec<u64> {
    let mut draw = Zipf::new(4 * capacity, 0.9, 5);
    let length = REQUESTS / 16;
    (0..REQUESTS).map(|step| (step / length) as u64 * OTHERS + draw.next()).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn traces_are_what_their_names_say() {
        let capacity = 64;
        for trace in all(capacity) {
            assert_eq!(trace.keys.len(), REQUESTS, "{}", trace.name);
            let buffers: HashSet<_> = trace.keys.iter().collect();
            assert!(buffers.len() > capacity, "{} does not fit", trace.name);
        }
        assert_eq!(looping(3)[..7], [0, 1, 2, 0, 1, 2, 0]);
        let once = scans(capacity).into_iter().filter(|key| *key >= OTHERS);
        let once: Vec<_> = once.collect();
        assert_eq!(once.len(), once.iter().collect::<HashSet<_>>().len());
    }

    #[test]
    fn the_second_most_popular_is_half_as_popular() {
        let keys = zipf(16, 1.0, 1);
        let count = |key| keys.iter().filter(|other| **other == key).count() as f64;
        let ratio = count(0) / count(1);
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
    }
}
