//! What an earlier run left open. Pure.

use super::admit::{What, is_release, read_again};
use super::owner::{is_opted_out, pause_of};
use super::{LONGEST_LEASE, Tracked};
use crate::control::OPTED_OUT;
use crate::model::{
    ClockState, CommandResult, CommandState, DeviceSpec, Intent, IntentKey, OwnerWord, Pause, PlanId, Rank, SiteLimit,
    SiteSpec,
};
use crate::plan::PlanDoc;
use crate::runtime::Clock;
use crate::store::{OpenCommand, StoredPlan};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What goes on, and what is over.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Commands that go on: the same intents with the same keys, until the same ends. They never act twice.
    pub intents: Vec<Intent>,
    /// Those of them that end when the car is unplugged.
    pub sessions: BTreeSet<IntentKey>,
    /// Site limits that go on.
    pub site_limits: Vec<SiteLimit>,
    /// Plans in force, with order and source.
    pub plans: Vec<(Arc<PlanDoc>, u64, String)>,
    /// The commands that go on, to be tracked.
    pub tracked: BTreeMap<IntentKey, Tracked>,
    /// Final results of those that ended meanwhile, to be saved.
    pub settled: Vec<CommandResult>,
    /// Plans that this configuration does not take any more, and why; they stay in the store.
    pub refused_plans: Vec<(PlanId, Vec<String>)>,
    /// The highest order of acceptance seen.
    pub last_order: u64,
    /// The owner's pause of remote control that is still in force.
    pub pause: Option<Pause>,
}

/// Pick up what an earlier run left open: called before control starts, and by the command task, with the same arguments
/// at nearly the same time.
///
/// A command goes on when its end has not passed. While the clock is not trusted nobody knows how much of its time is
/// left, so it ends: that is the safe side, as an ended lease returns to the baseline or fallback.
#[must_use]
pub fn recover(
    open: &[OpenCommand],
    plans: &[StoredPlan],
    devices: &[DeviceSpec],
    site: &SiteSpec,
    owner: &OwnerWord,
    clock: &Clock,
) -> Recovered {
    let mut found = Recovered { pause: pause_of(owner, clock), ..Recovered::default() };
    for command in open {
        found.last_order = found.last_order.max(command.order);
        one_command(command, open, devices, owner, clock, &mut found);
    }
    for plan in plans {
        found.last_order = found.last_order.max(plan.order);
        let kind_of = |id: &_| devices.iter().find(|spec| spec.id == *id).map(|spec| spec.kind);
        match PlanDoc::parse(Some(&plan.id), plan.body.as_bytes(), kind_of, &site.timezone) {
            Ok(doc) => found.plans.push((Arc::new(doc), plan.order, plan.source.to_string())),
            Err(reasons) => found.refused_plans.push((plan.id.clone(), reasons)),
        }
    }
    found
}

fn one_command(
    open: &OpenCommand,
    all: &[OpenCommand],
    devices: &[DeviceSpec],
    owner: &OwnerWord,
    clock: &Clock,
    found: &mut Recovered,
) {
    let command = &open.command;
    let now = clock.now();
    let key =
        IntentKey::Command { uplink: command.uplink.clone(), device: command.device.clone(), id: command.id.clone() };
    let mut settle = |state, reason: &str| {
        let mut tracked = Tracked::new(command.result.clone(), false, clock.mono(), open.order);
        found.settled.extend(tracked.settle(state, now, Some(reason.to_owned())).results);
    };
    let spec = command.device.as_ref().map(|id| devices.iter().find(|spec| spec.id == *id));
    if spec.is_some_and(|spec| spec.is_none()) {
        return settle(CommandState::Ended, "its device is not configured any more");
    }
    let Some((what, until_unplugged)) = read_again(&command.uplink, spec.flatten(), &command.body) else {
        return settle(CommandState::Ended, "this version of derd cannot read it");
    };
    if what == What::Release {
        // What it releases is ended below.
        return settle(CommandState::Ended, "carried out at the start of derd");
    }
    if all.iter().any(|other| is_release_of(other, open)) {
        return settle(CommandState::Ended, "released");
    }
    if command.ends_at <= now {
        return settle(CommandState::Ended, "its time passed while derd was not running");
    }
    if clock.state() == ClockState::Untrusted {
        return settle(CommandState::Ended, "derd was started without a trusted clock: its remaining time is unknown");
    }
    let event = matches!(what, What::Intent { rank: Rank::Event, .. }).then_some(command.ends_at);
    if event.is_some() && command.device.as_ref().is_some_and(|on| is_opted_out(owner, &command.uplink, on, now)) {
        return settle(CommandState::Ended, OPTED_OUT);
    }
    // A clock that was set back must not prolong a lease beyond all bounds.
    let left = command.ends_at.since(now).min(LONGEST_LEASE);
    let deadline = clock.mono().plus(left);
    let tracked = Tracked::new(command.result.clone(), what.is_standing(), deadline, open.order);
    let tracked = if let Some(end) = event { tracked.event_until(end) } else { tracked };
    found.tracked.insert(key.clone(), tracked);
    if until_unplugged {
        found.sessions.insert(key.clone());
    }
    match (what, spec.flatten()) {
        (What::Intent { action, rank, source }, Some(spec)) => found.intents.push(Intent {
            key,
            device: spec.id.clone(),
            action,
            rank,
            source,
            accepted: open.order,
            since: command.accepted_at,
            ends_at: command.ends_at,
            deadline,
            why: None,
        }),
        (What::SiteLimit { side, power_w }, _) => {
            found.site_limits.push(SiteLimit { key, side, power_w, ends_at: command.ends_at, deadline });
        }
        _ => {}
    }
}

/// Is `other` a release, accepted later, that ends `open`, and that did not get as far as control.
fn is_release_of(other: &OpenCommand, open: &OpenCommand) -> bool {
    other.order > open.order
        && other.command.uplink == open.command.uplink
        && other.command.device == open.command.device
        && is_release(&other.command.body)
}
