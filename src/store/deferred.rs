//! Writes nobody waits for, kept while the disk does not take them.

use super::handle::Ask;
use crate::model::DeviceId;
use std::collections::VecDeque;

/// Kept at most.
const MOST: usize = 1024;

/// The queue, in the order of coming.
#[derive(Debug, Default)]
pub(crate) struct Deferred(VecDeque<Ask>);

impl Deferred {
    /// Is there none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keep this one too. Was an old one dropped for it: the oldest that does not say what a device holds.
    pub(crate) fn push(&mut self, ask: Ask) -> bool {
        // Of what a device holds, only the last word counts.
        if let Some(device) = held_device(&ask) {
            self.0.retain(|old| held_device(old) != Some(device));
        }
        self.0.push_back(ask);
        if self.0.len() <= MOST {
            return false;
        }
        let at = self.0.iter().position(|old| held_device(old).is_none()).unwrap_or_default();
        self.0.remove(at).is_some()
    }

    /// The oldest.
    pub(crate) fn pop(&mut self) -> Option<Ask> {
        self.0.pop_front()
    }

    /// The oldest is still not written.
    pub(crate) fn put_back(&mut self, ask: Ask) {
        self.0.push_front(ask);
    }
}

fn held_device(ask: &Ask) -> Option<&DeviceId> {
    match ask {
        Ask::Held(held) => Some(&held.device),
        Ask::NotHeld(device) => Some(device),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_holds_is_never_dropped() {
        let device = |n: usize| format!("d{n}").parse().unwrap();
        let mut queue = Deferred::default();
        assert!(!queue.push(Ask::NotHeld(device(0))));
        for n in 1..MOST {
            assert!(!queue.push(Ask::Baseline(device(n), String::new())));
        }
        assert!(!queue.push(Ask::NotHeld(device(0))), "the newer word takes the older one's place");
        assert!(queue.push(Ask::NotHeld(device(1))));
        let left: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(left.len(), MOST);
        assert!(matches!(&left[0], Ask::Baseline(d, _) if *d == device(2)));
        assert_eq!(left.iter().filter(|ask| matches!(ask, Ask::NotHeld(_))).count(), 2);
    }
}
