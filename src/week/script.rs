//! What happens in the week beside the weather: plans, commands, events, outages, a power cut.

use super::surroundings::{DAY, Dice};
use crate::model::{Rank, Timestamp};
use std::time::Duration;

/// Monday, 2027-03-22T00:00 in Berlin; the night to Sunday has 23 hours.
pub(super) const T0: i64 = 1_805_670_000_000;

/// Wall time of a second of the week.
pub(super) fn wall(second: usize) -> Timestamp {
    Timestamp::from_ms(T0).plus(Duration::from_secs(second as u64))
}

/// One thing that happens.
#[derive(Debug, Clone)]
pub(super) enum Item {
    Command {
        uplink: &'static str,
        rank: Rank,
        target: &'static str,
        body: String,
    },
    /// The way to the outside breaks, or works again.
    Network(bool),
    /// The grid meter answers, or does not.
    Meter(bool),
    /// The power of the gateway fails; it runs again 20 s later.
    Cut,
    Back,
}

/// Items by second, in order.
pub(super) struct Script {
    items: Vec<(usize, Item)>,
    /// Spans for the picture: from, to, what.
    pub(super) spans: Vec<(usize, usize, &'static str)>,
    next: usize,
    commands: usize,
}

impl Script {
    pub(super) fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed ^ 0xC0FFEE);
        let mut made = Self { items: Vec::new(), spans: Vec::new(), next: 0, commands: 0 };
        let mut some = |hours: f64, spread: f64| ((hours + dice.between(0.0, spread)) * 3600.0) as usize;
        // Three flex events.
        let (tuesday, thursday, saturday) = (DAY, 3 * DAY, 5 * DAY);
        let at = tuesday + some(18.0, 0.7);
        made.event(at, 3600, "battery", "discharge", r#"{"power_w":3500,"min_soc_pct":20}"#);
        // Within the event: 20 s without derd, while the battery's own timer runs.
        let cut = at + 1500;
        made.items.push((cut, Item::Cut));
        made.items.push((cut + 20, Item::Back));
        made.spans.push((cut, cut + 20, "reboot"));
        let at = thursday + some(18.5, 0.5);
        made.event(at, 2700, "car1", "stop", "{}");
        made.spans.push((at, at + 2700, "event"));
        let at = saturday + some(11.0, 1.0);
        made.event(at, 7200, "battery", "charge", r#"{"power_w":3000,"max_soc_pct":95}"#);
        // The cloud's commands.
        for day in 0..7 {
            let at = day * DAY + some(12.5, 2.0);
            made.send(at, 60, 1800, "acme", Rank::Command, "battery", "charge", r#"{"power_w":2500}"#);
            let at = day * DAY + some(20.0, 1.5);
            made.send(at, 60, 1200, "acme", Rank::Command, "battery", "discharge", r#"{"power_w":2000}"#);
            let at = day * DAY + some(19.0, 2.0);
            made.send(at, 60, 3600, "acme", Rank::Command, "car2", "set_max_current", r#"{"current_a":10}"#);
        }
        made.send(
            2 * DAY + some(13.0, 1.0),
            60,
            900,
            "acme",
            Rank::Command,
            "pv",
            "set_power_limit",
            r#"{"power_w":4000}"#,
        );
        // More than anybody may take: clipped.
        made.send(
            4 * DAY + some(2.0, 1.0),
            60,
            1800,
            "acme",
            Rank::Command,
            "battery",
            "charge",
            r#"{"power_w":9000}"#,
        );
        // The owner's.
        made.send(2 * DAY + some(21.0, 1.0), 60, 7200, "local", Rank::Owner, "car1", "stop", "{}");
        made.send(4 * DAY + some(19.5, 1.0), 60, 3600, "local", Rank::Owner, "car1", "start", "{}");
        made.send(6 * DAY + some(10.0, 1.0), 60, 3600, "local", Rank::Owner, "battery", "idle", "{}");
        // The grid operator's, for an hour: 6 kW in the evening, and no export at noon.
        let at = 3 * DAY + some(20.0, 0.5);
        made.send(at, 60, 3600, "operator", Rank::Grid, "site", "set_import_limit", r#"{"power_w":6000}"#);
        made.spans.push((at, at + 3600, "import limit"));
        let at = 6 * DAY + some(12.0, 0.5);
        made.send(at, 60, 3600, "operator", Rank::Grid, "site", "set_export_limit", r#"{"power_w":1000}"#);
        made.spans.push((at, at + 3600, "export limit"));
        // The grid meter is silent for a minute, while cars charge, and once at noon.
        for at in [DAY + some(19.4, 0.3), 4 * DAY + some(12.0, 0.5)] {
            made.items.push((at, Item::Meter(false)));
            made.items.push((at + 60, Item::Meter(true)));
            made.spans.push((at, at + 60, "meter silent"));
        }
        // Two outages: a short one, and one over a night; commands that are sent meanwhile come late.
        for (at, length) in [(2 * DAY + some(12.0, 0.5), 9000), (5 * DAY + some(17.0, 1.0), 14 * 3600)] {
            made.items.push((at, Item::Network(false)));
            made.items.push((at + length, Item::Network(true)));
            made.spans.push((at, at + length, "outage"));
            // Still good when it comes.
            let late = at + length - 600;
            made.send(late, 3600, 3000, "acme", Rank::Command, "battery", "charge", r#"{"power_w":1000}"#);
        }
        made.items.sort_by_key(|(at, _)| *at);
        made
    }

    fn event(&mut self, at: usize, length: usize, device: &'static str, action: &'static str, params: &'static str) {
        self.send(at, 300, length, "flex", Rank::Event, device, action, params);
        if device == "battery" {
            self.spans.push((at, at + length, "event"));
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one line per command in the script")]
    fn send(
        &mut self,
        at: usize,
        fresh: usize,
        length: usize,
        uplink: &'static str,
        rank: Rank,
        target: &'static str,
        action: &'static str,
        params: &'static str,
    ) {
        self.commands += 1;
        let (issued, last, end) = (wall(at), wall(at + fresh), wall(at + length));
        let body = format!(
            r#"{{"id":"c-{}","action":"{action}","params":{params},"issued_at":"{issued}","not_after":"{last}","ends_at":"{end}"}}"#,
            self.commands
        );
        self.items.push((at, Item::Command { uplink, rank, target, body }));
    }

    /// All commands that are ever sent.
    pub(super) const fn commands(&self) -> usize {
        self.commands
    }

    /// What happens up to this second and was not given out.
    pub(super) fn due(&mut self, second: usize) -> Vec<Item> {
        let from = self.next;
        while self.items.get(self.next).is_some_and(|(at, _)| *at <= second) {
            self.next += 1;
        }
        self.items[from..self.next].iter().map(|(_, item)| item.clone()).collect()
    }
}
