//! Schedules and plans: documents that say what a device shall do when.
//!
//! Pure: no clock, no I/O. A [`PlanDoc`] is checked once when it comes in; after that it answers [`PlanDoc::at`] and
//! [`PlanDoc::next_change`] exactly, also around changes of daylight saving time.
//!
//! A `weekly` document speaks local wall time. A rule is active whenever the wall clock of its zone shows a time
//! inside it: a start in the hour that is skipped in spring fires at the first instant after it, an hour that is
//! repeated in autumn is active both times, and a rule that lies wholly inside a skipped hour does not fire on that
//! day. A rule may be bound to instants too (`from`, `to`); then both must hold. A rule whose action is `none` keeps its
//! time free of the rules after it and of the default. A `slots` document speaks instants.
//!
//! Where rules overlap the first listed wins; where slots overlap the one that starts later.
//!
//! A `tariff` document holds prices over time and is for no device. `solar` and `price` documents look at the house (and
//! at a tariff) before they want something: each is a [`Strategy`], asked by control in every cycle.

mod cheapest;
mod nearest;
mod parse;
mod price;
#[cfg(test)]
mod price_tests;
mod slots;
mod solar;
#[cfg(test)]
mod solar_tests;
mod spread;
mod strategy;
mod tariff;
#[cfg(test)]
mod tariff_tests;
#[cfg(test)]
mod tests;
mod weekly;

pub use strategy::{Batteries, Forecast, Moment, Outlook, OwnState, Strategy, Tariffs, Wish};
pub use tariff::{Price, Span, Tariff};

use crate::model::{Action, DeviceId, DeviceKind, PlanId, Rank, Timestamp};
use serde_json::Value;
use std::sync::Arc;

/// Largest document, bytes: what the MQTT uplink takes and the local API allows.
pub const MAX_BODY: usize = 256 * 1024;
/// Most rules in a `weekly` document.
pub const MAX_RULES: usize = 1_000;
/// Most slots in a `slots` document.
pub const MAX_SLOTS: usize = 10_000;

/// A checked schedule, plan or tariff document.
#[derive(Debug, Clone)]
pub struct PlanDoc {
    id: PlanId,
    device: Option<DeviceId>,
    timeline: Timeline,
    /// A rank lower than the kind's own, where the document asked for one.
    lowered: Option<Rank>,
    /// The document in its normal form.
    json: Value,
}

#[derive(Debug, Clone)]
enum Timeline {
    Weekly(weekly::Weekly),
    Slots(slots::Slots),
    Tariff(Arc<Tariff>),
    Smart(Smart),
}

/// A document that looks at the house.
#[derive(Debug, Clone)]
enum Smart {
    Solar(solar::SolarCharge),
    Charge(price::PriceCharge),
    Trade(spread::PriceTrade),
}

/// What a document wants at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// What.
    pub action: Action,
    /// Since when it has wanted just this, without a break; 1970 when it always has.
    pub since: Timestamp,
    /// Until when it wants just this; the end of year 9999 when nothing ends it.
    pub until: Timestamp,
}

impl PlanDoc {
    /// Read a document. `id` is its name where it was named outside (topic or path); one in the body must agree.
    /// `kind_of` tells which devices there are; `site_zone` is the time zone of a `weekly` document that names none.
    ///
    /// # Errors
    /// Every fault at once, each with its place in the document (`rules[2].start`) and what would be right.
    pub fn parse(
        id: Option<&PlanId>,
        body: &[u8],
        kind_of: impl Fn(&DeviceId) -> Option<DeviceKind>,
        site_zone: &str,
    ) -> Result<Self, Vec<String>> {
        parse::parse(id, body, &kind_of, site_zone)
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> &PlanId {
        &self.id
    }

    /// The device it is for; `None`: a tariff.
    #[must_use]
    pub const fn device(&self) -> Option<&DeviceId> {
        self.device.as_ref()
    }

    /// The tariff, where it is one.
    #[must_use]
    pub const fn tariff(&self) -> Option<&Arc<Tariff>> {
        match &self.timeline {
            Timeline::Tariff(tariff) => Some(tariff),
            _ => None,
        }
    }

    /// A document that looks at the house, at its begin; `None` for one that goes by the clock alone.
    #[must_use]
    pub fn strategy(&self) -> Option<Box<dyn Strategy>> {
        match &self.timeline {
            Timeline::Smart(Smart::Solar(spec)) => Some(Box::new(solar::Solar::new(spec.clone()))),
            Timeline::Smart(Smart::Charge(spec)) => Some(Box::new(price::PriceCharger::new(spec.clone()))),
            Timeline::Smart(Smart::Trade(spec)) => Some(Box::new(spread::PriceBattery::new(spec.clone()))),
            _ => None,
        }
    }

    /// `weekly`, `slots`, `tariff`, `solar` or `price`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self.timeline {
            Timeline::Weekly(_) => "weekly",
            Timeline::Slots(_) => "slots",
            Timeline::Tariff(_) => "tariff",
            Timeline::Smart(Smart::Solar(_)) => "solar",
            Timeline::Smart(_) => "price",
        }
    }

    /// How strong it is: a `weekly` document ranks [`Rank::Schedule`], the others rank [`Rank::Plan`], unless it asks for
    /// less.
    #[must_use]
    pub const fn rank(&self) -> Rank {
        if let Some(rank) = self.lowered {
            return rank;
        }
        match self.timeline {
            Timeline::Weekly(_) => Rank::Schedule,
            _ => Rank::Plan,
        }
    }

    /// What it wants at `t`; `None`: nothing, or it depends on more than the clock.
    #[must_use]
    pub fn at(&self, t: Timestamp) -> Option<Wanted> {
        match &self.timeline {
            Timeline::Weekly(weekly) => weekly.at(t),
            Timeline::Slots(slots) => slots.at(t),
            Timeline::Tariff(_) | Timeline::Smart(_) => None,
        }
    }

    /// The first instant after `t` at which it wants something else than at `t`, or says another price; `None`: never
    /// again, or it depends on more than the clock.
    #[must_use]
    pub fn next_change(&self, t: Timestamp) -> Option<Timestamp> {
        match &self.timeline {
            Timeline::Weekly(weekly) => weekly.next_change(t),
            Timeline::Slots(slots) => slots.next_change(t),
            Timeline::Tariff(tariff) => tariff.next_change(t),
            Timeline::Smart(_) => None,
        }
    }

    /// The document in its normal form: every field filled in, times in UTC. Parsing it gives the same document.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.json.clone()
    }
}

/// Is this the name of a time zone that documents may use, such as `Europe/Berlin`. Only names of the database: no fixed
/// offsets, no rules spelt out.
#[must_use]
pub fn is_zone(name: &str) -> bool {
    parse::zone(name).is_ok()
}

/// The last instant there is.
const fn forever() -> Timestamp {
    Timestamp::from_ms(i64::MAX)
}
