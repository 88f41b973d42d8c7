//! What is measured: something that is looked up and let go again.

use crate::course::Course;
use crate::team::Stop;

/// One thread's use of a cache. Implementations mark `look_up` as never inlined, so that each pays
/// for one call, as a caller in another library would.
pub trait Subject {
    /// Gets the registration of the page at `addr`, and lets it go.
    fn look_up(&mut self, addr: usize);
}

/// Walks along the course until told to stop; nanoseconds of one step.
pub fn walk(subject: &mut impl Subject, course: &Course, stop: &Stop) -> f64 {
    let mut pieces = course.pieces().cycle();
    let mut steps = 0;
    let clock = stop.clock();
    let start = clock.nanos();
    while !stop.is_set() {
        let piece = pieces.next().expect("a course has steps");
        for addr in piece {
            subject.look_up(*addr);
        }
        steps += piece.len();
    }
    (clock.nanos() - start) as f64 / steps.max(1) as f64
}

/// Walks the whole course once, not measured: afterwards all of it is registered.
pub fn walk_once(subject: &mut impl Subject, course: &Course) {
    for addr in course.pieces().flatten() {
        subject.look_up(*addr);
    }
}
