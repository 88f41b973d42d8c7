//! Ends a program in which nothing happens any more, and says where it stands.

use std::fmt::Write;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// Where a program stands.
#[derive(Debug, Default)]
pub struct Progress {
    /// The next operation of each lane.
    pub lanes: Vec<AtomicUsize>,
    /// Moves with everything that happens outside of the lanes.
    steps: AtomicUsize,
    step: Mutex<&'static str>,
    ended: AtomicBool,
}

impl Progress {
    /// Nothing has been done yet.
    pub fn new(lanes: usize) -> Arc<Progress> {
        let lanes = (0..lanes).map(|_| AtomicUsize::new(0)).collect();
        Arc::new(Progress { lanes, ..Progress::default() })
    }

    /// What is done now.
    pub fn step(&self, name: &'static str) {
        *self.step.lock().unwrap() = name;
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// The operation that each lane is at.
    pub fn positions(&self) -> Vec<usize> {
        self.lanes.iter().map(|lane| lane.load(Ordering::Relaxed)).collect()
    }

    /// Nothing more is watched.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    fn sum(&self) -> usize {
        self.positions().iter().sum::<usize>() + self.steps.load(Ordering::Relaxed)
    }
}

/// Watches from a thread of its own. Calls `alive` about once a second while something happens,
/// and `hung` with a description once nothing has happened for `patience`.
pub fn watch(
    progress: Arc<Progress>,
    patience: Duration,
    alive: impl Fn() + Send + 'static,
    hung: impl Fn(String) + Send + 'static,
) {
    thread::spawn(move || {
        let (mut seen, mut since) = (progress.sum(), Instant::now());
        while !progress.ended.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_secs(1));
            let now = progress.sum();
            if now != seen {
                (seen, since) = (now, Instant::now());
                alive();
            } else if since.elapsed() > patience && !progress.ended.load(Ordering::Relaxed) {
                hung(describe(&progress));
                return;
            }
        }
    });
}

/// What every thread is doing, as far as the kernel tells.
fn describe(progress: &Progress) -> String {
    let step = progress.step.lock().unwrap();
    let mut text = format!("at {:?} while {step}", progress.positions());
    for task in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let stack: Vec<_> = read("stack").lines().map(str::to_owned).collect();
        let _ = write!(
            text,
            "; thread {}: wchan {} syscall {} stack {}",
            read("comm").trim(),
            read("wchan").trim(),
            read("syscall").trim(),
            stack.join(" ")
        );
    }
    text
}
