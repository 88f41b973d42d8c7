//! What a policy of eviction is to this program.

/// A cache of keys of one size.
pub trait Policy {
    /// Looks `key` up and lets it in if it is not there, at the cost of another where the cache is
    /// full. Returns whether it was there.
    fn request(&mut self, key: u64) -> bool;
}

/// The share of requests that hit.
pub fn hit_ratio(policy: &mut dyn Policy, trace: &[u64]) -> f64 {
    let hits = trace.iter().filter(|key| policy.request(**key)).count();
    hits as f64 / trace.len() as f64
}

#[cfg(test)]
pub mod tests {
    use super::Policy;

    /// Which requests hit, as `x` and `.`; the keys are letters.
    pub fn hits(mut policy: impl Policy, keys: &str) -> String {
        let mark = |key: char| if policy.request(key as u64) { 'x' } else { '.' };
        keys.chars().map(mark).collect()
    }
}
