//! What the measurements have in common: two workers that take turns, and rows of ratios.
//!
//! A claim of speed is a ratio of two things measured in turns in one run, the median of several
//! turns: what else the machine does hits both.

pub mod row;
pub mod worker;
