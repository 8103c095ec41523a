//! Wall time, monotonic time and trust. The only reader of the system's clocks.

use crate::model::{ClockState, Mono, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// No honest clock is before this day: the floor before one was stored (2026-01-01T00:00:00Z).
const OLDEST_PLAUSIBLE_MS: i64 = 1_767_225_600_000;
/// How long a clock that was synchronised once may coast on the monotonic clock.
const HOLDOVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// The process's clock: cheap to clone, and replaceable by a hand-driven one in tests.
#[derive(Debug, Clone)]
pub struct Clock(Arc<Inner>);

#[derive(Debug)]
enum Inner {
    System(System),
    Manual { wall_ms: AtomicI64, mono_ms: AtomicU64, synced: AtomicBool },
}

#[derive(Debug)]
struct System {
    start: tokio::time::Instant,
    has_rtc: bool,
    /// Monotonic ms of the last time the kernel was seen synchronised, plus one; 0: never.
    last_synced: AtomicU64,
    /// Wall time never runs behind this: the newest time that an earlier run is known to have seen.
    floor_ms: AtomicI64,
}

impl Clock {
    /// The system's clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the owner of the clocks")]
    pub fn system() -> Self {
        // Every PC has a battery-backed clock; boards such as a Raspberry Pi only where an RTC device is present.
        let has_rtc =
            cfg!(any(target_arch = "x86_64", target_arch = "x86")) || Path::new("/sys/class/rtc/rtc0").exists();
        Self(Arc::new(Inner::System(System {
            start: tokio::time::Instant::now(),
            has_rtc,
            last_synced: AtomicU64::new(0),
            floor_ms: AtomicI64::new(OLDEST_PLAUSIBLE_MS),
        })))
    }

    /// A clock that moves only when it is told to; it is `synced` from the start.
    #[must_use]
    pub fn manual(wall: Timestamp) -> Self {
        Self(Arc::new(Inner::Manual {
            wall_ms: AtomicI64::new(wall.ms()),
            mono_ms: AtomicU64::new(0),
            synced: AtomicBool::new(true),
        }))
    }

    /// Move a manual clock forward on both scales; nothing on the system's clock.
    pub fn advance(&self, by: Duration) {
        if let Inner::Manual { wall_ms, mono_ms, .. } = &*self.0 {
            wall_ms.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
            mono_ms.fetch_add(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
        }
    }

    /// Set a manual clock's wall time and trust, as a step of the system's clock would; nothing on the system's clock.
    pub fn step(&self, wall: Timestamp, is_synced: bool) {
        if let Inner::Manual { wall_ms, synced, .. } = &*self.0 {
            wall_ms.store(wall.ms(), Ordering::SeqCst);
            synced.store(is_synced, Ordering::SeqCst);
        }
    }

    /// Wall time, UTC.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the owner of the clocks")]
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Inner::System(_) => {
                let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Inner::Manual { wall_ms, .. } => Timestamp::from_ms(wall_ms.load(Ordering::SeqCst)),
        }
    }

    /// Monotonic time of this process.
    #[must_use]
    pub fn mono(&self) -> Mono {
        match &*self.0 {
            Inner::System(s) => Mono::from_ms(u64::try_from(s.start.elapsed().as_millis()).unwrap_or(u64::MAX)),
            Inner::Manual { mono_ms, .. } => Mono::from_ms(mono_ms.load(Ordering::SeqCst)),
        }
    }

    /// Tell the clock the newest wall time an earlier run has seen: a wall clock behind it is not to be trusted.
    pub fn set_floor(&self, seen: Timestamp) {
        if let Inner::System(s) = &*self.0 {
            s.floor_ms.fetch_max(seen.ms(), Ordering::SeqCst);
        }
    }

    /// How far [`Clock::now`] may be trusted at this moment.
    #[must_use]
    pub fn state(&self) -> ClockState {
        match &*self.0 {
            Inner::Manual { synced, .. } => {
                if synced.load(Ordering::SeqCst) {
                    ClockState::Synced
                } else {
                    ClockState::Untrusted
                }
            }
            Inner::System(s) => {
                let mono = self.mono().ms();
                if kernel_synced() {
                    s.last_synced.store(mono.saturating_add(1), Ordering::SeqCst);
                    return ClockState::Synced;
                }
                let last = s.last_synced.load(Ordering::SeqCst);
                let coasting = last > 0 && Duration::from_millis(mono.saturating_sub(last - 1)) < HOLDOVER;
                let plausible = s.has_rtc && self.now().ms() >= s.floor_ms.load(Ordering::SeqCst);
                if coasting || plausible { ClockState::Holdover } else { ClockState::Untrusted }
            }
        }
    }
}

/// `adjtimex(2)`: read-only, needs no privilege.
fn kernel_synced() -> bool {
    const STA_UNSYNC: i32 = 0x40;
    let mut query = rtime_clock::adjtime::Timex::new();
    match rtime_clock::adjtime::adjtimex(&mut query) {
        Ok(_) => query.0.status & STA_UNSYNC == 0,
        Err(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn manual_clock_moves_only_when_told() {
        let t0 = Timestamp::from_ms(1_800_000_000_000);
        let clock = Clock::manual(t0);
        assert_eq!((clock.now(), clock.mono(), clock.state()), (t0, Mono::from_ms(0), ClockState::Synced));
        clock.advance(Duration::from_secs(2));
        assert_eq!((clock.now().since(t0), clock.mono()), (Duration::from_secs(2), Mono::from_ms(2000)));
        clock.step(Timestamp::from_ms(5), false);
        assert_eq!((clock.now().ms(), clock.mono().ms(), clock.state()), (5, 2000, ClockState::Untrusted));
    }
}
