//! Waiting for conditions.

use std::net::TcpListener;
use std::time::{Duration, Instant};

/// Ask again and again until there is an answer; panics with `what` after `deadline`.
pub fn wait_for<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = ask() {
            return found;
        }
        assert!(start.elapsed() < deadline, "waited {deadline:?} in vain for: {what}");
        std::thread::park_timeout(Duration::from_millis(50));
    }
}

/// Wait until something holds.
pub fn eventually(what: &str, deadline: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, deadline, || holds().then_some(()));
}

/// Something holds for this long without a break.
pub fn stays(what: &str, time: Duration, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    wait_for(what, time * 2, || {
        assert!(holds(), "not any more after {:?}: {what}", start.elapsed());
        (start.elapsed() >= time).then_some(())
    });
}

/// Real time that has to pass, where no condition can be waited for: the moment of a kill, a time that is asked about later.
pub fn pass(time: Duration) {
    let start = Instant::now();
    while let Some(left) = time.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// A port that was free a moment ago.
#[must_use]
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}
