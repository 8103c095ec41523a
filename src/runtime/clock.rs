//! Wall time, monotonic time and trust. The only reader of the system's clocks.

use crate::model::{ClockState, Mono, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

/// No honest clock is before this day: the floor before one was stored (2026-01-01T00:00:00Z).
const OLDEST_PLAUSIBLE_MS: i64 = 1_767_225_600_000;
/// The wall clock drifts against the monotonic one by far less between two looks: more means that somebody set it.
const SET_BY_HAND_MS: i64 = 60_000;
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
    trust: Trust,
}

/// What is known of how far the wall clock may be trusted. Atomics: any task may look.
#[derive(Debug)]
struct Trust {
    /// Monotonic ms of the last time the kernel was seen synchronised (or the time was set by hand), plus one; 0: never.
    last_synced: AtomicU64,
    /// The newest wall time that an earlier run is known to have seen.
    floor_ms: AtomicI64,
    /// Wall minus monotonic time at the last look, ms; `i64::MIN`: none yet.
    offset_ms: AtomicI64,
}

impl Trust {
    const fn new() -> Self {
        Self {
            last_synced: AtomicU64::new(0),
            floor_ms: AtomicI64::new(OLDEST_PLAUSIBLE_MS),
            offset_ms: AtomicI64::new(i64::MIN),
        }
    }

    /// Look at the clocks: `wall_ms` as the system shows it, `is_synced` as the kernel says.
    fn look(&self, wall_ms: i64, mono_ms: u64, is_synced: bool, has_rtc: bool) -> ClockState {
        let offset = wall_ms.saturating_sub(i64::try_from(mono_ms).unwrap_or(i64::MAX));
        let before = self.offset_ms.swap(offset, Ordering::SeqCst);
        let last = self.last_synced.load(Ordering::SeqCst);
        let is_past_floor = wall_ms >= self.floor_ms.load(Ordering::SeqCst);
        if is_synced {
            self.last_synced.store(mono_ms.saturating_add(1), Ordering::SeqCst);
            return ClockState::Synced;
        }
        // Nobody but an administrator (or a time service) can do that: a home without internet is told the time so.
        let is_set = before != i64::MIN && offset.abs_diff(before) > SET_BY_HAND_MS.unsigned_abs();
        if is_set && is_past_floor {
            self.last_synced.store(mono_ms.saturating_add(1), Ordering::SeqCst);
            return ClockState::Holdover;
        }
        let is_coasting = last > 0 && Duration::from_millis(mono_ms.saturating_sub(last - 1)) < HOLDOVER;
        if is_coasting || has_rtc && is_past_floor { ClockState::Holdover } else { ClockState::Untrusted }
    }

    /// The wall time to go by: before the clock could ever be trusted in this run it stands behind the floor at most for as
    /// long as the process runs, so that time does not run backwards over a restart.
    fn wall_ms(&self, wall_ms: i64, mono_ms: u64) -> i64 {
        let floor = self.floor_ms.load(Ordering::SeqCst);
        if wall_ms >= floor || self.last_synced.load(Ordering::SeqCst) > 0 {
            return wall_ms;
        }
        floor.saturating_add(i64::try_from(mono_ms).unwrap_or(i64::MAX))
    }
}

impl Clock {
    /// The system's clocks.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the owner of the clocks")]
    pub fn system() -> Self {
        // Every PC has a battery-backed clock; boards such as a Raspberry Pi only where an RTC device is present.
        let has_rtc =
            cfg!(any(target_arch = "x86_64", target_arch = "x86")) || Path::new("/sys/class/rtc/rtc0").exists();
        Self(Arc::new(Inner::System(System { start: tokio::time::Instant::now(), has_rtc, trust: Trust::new() })))
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

    /// Wall time, UTC. While it cannot be trusted it is at least the newest time that an earlier run has seen.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match &*self.0 {
            Inner::System(s) => {
                let wall = system_ms();
                let mono = self.mono().ms();
                let ms = s.trust.wall_ms(wall, mono);
                if ms != wall && kernel_synced() {
                    // The floor was wrong: an earlier run has believed a clock that was ahead.
                    s.trust.look(wall, mono, true, s.has_rtc);
                    return Timestamp::from_ms(wall);
                }
                Timestamp::from_ms(ms)
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
            s.trust.floor_ms.fetch_max(seen.ms(), Ordering::SeqCst);
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
            Inner::System(s) => s.trust.look(system_ms(), self.mono().ms(), kernel_synced(), s.has_rtc),
        }
    }
}

/// The system's wall clock, ms since 1970.
#[expect(clippy::disallowed_methods, reason = "this is the owner of the clocks")]
fn system_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
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

    const DAY: i64 = 24 * 3600 * 1000;
    const NOW: i64 = OLDEST_PLAUSIBLE_MS + 300 * DAY;
    use ClockState::{Holdover, Synced, Untrusted};

    /// Looks in order: (wall, mono, does the kernel say synchronised) -> state and the time to go by.
    fn check(has_rtc: bool, floor: i64, looks: &[(i64, u64, bool, ClockState, i64)]) {
        let trust = Trust::new();
        trust.floor_ms.fetch_max(floor, Ordering::SeqCst);
        for (n, &(wall, mono, is_synced, state, shown)) in looks.iter().enumerate() {
            assert_eq!(trust.look(wall, mono, is_synced, has_rtc), state, "look {n}");
            assert_eq!(trust.wall_ms(wall, mono), shown, "look {n}");
        }
    }

    #[test]
    fn a_board_without_a_battery_backed_clock() {
        // It starts in 1970, shows the floor and what passed since, and jumps when the network comes.
        let day = DAY.unsigned_abs();
        check(
            false,
            NOW,
            &[
                (5_000, 0, false, Untrusted, NOW),
                (65_000, 60_000, false, Untrusted, NOW + 60_000),
                (NOW + DAY, 61_000, true, Synced, NOW + DAY),
                // The network is gone again: 30 days on the monotonic clock.
                (NOW + 30 * DAY, 29 * day + 61_000, false, Holdover, NOW + 30 * DAY),
                (NOW + 33 * DAY, 32 * day + 61_000, false, Untrusted, NOW + 33 * DAY),
            ],
        );
        // Past the floor, and still nobody vouches for it.
        check(false, NOW, &[(NOW + 1, 0, false, Untrusted, NOW + 1)]);
    }

    #[test]
    fn a_time_set_by_hand_is_holdover() {
        check(
            false,
            NOW,
            &[
                (5_000, 0, false, Untrusted, NOW),
                // To the year 2000: that is no help.
                (30 * 365 * DAY, 10_000, false, Untrusted, NOW + 10_000),
                (NOW + DAY, 20_000, false, Holdover, NOW + DAY),
                (NOW + DAY + 1_000, 21_000, false, Holdover, NOW + DAY + 1_000),
            ],
        );
        // Half a minute is no setting.
        check(
            false,
            NOW,
            &[(NOW + 1, 0, false, Untrusted, NOW + 1), (NOW + 30_000, 1, false, Untrusted, NOW + 30_000)],
        );
    }

    #[test]
    fn a_battery_backed_clock_is_holdover_when_plausible() {
        check(true, NOW, &[(NOW - DAY, 0, false, Untrusted, NOW), (NOW - DAY, 5, false, Untrusted, NOW + 5)]);
        check(true, NOW, &[(NOW + 1, 0, false, Holdover, NOW + 1)]);
        // An earlier run has believed a clock in the future: the kernel knows better.
        check(true, NOW + 900 * DAY, &[(NOW, 0, false, Untrusted, NOW + 900 * DAY), (NOW, 1, true, Synced, NOW)]);
    }
}
