//! One link per address, whatever the number of devices behind it; and settings from configuration to rooms.

use super::cursor_names;
use crate::config::Settings;
use crate::link::{self, Address, LinkHandle, LinkTask};
use crate::profile::{Catalogue, Pace};
use crate::runtime::Clock;
use crate::store::StoreSettings;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The links made so far.
pub(super) struct Links<'a> {
    settings: &'a Settings,
    profiles: &'a Catalogue,
    clock: &'a Clock,
    made: BTreeMap<String, LinkHandle>,
}

impl<'a> Links<'a> {
    pub(super) const fn new(settings: &'a Settings, profiles: &'a Catalogue, clock: &'a Clock) -> Self {
        Self { settings, profiles, clock, made: BTreeMap::new() }
    }

    /// The link of an address; a new one is handed to `spawn` first.
    pub(super) fn get(&mut self, url: &str, spawn: impl FnOnce(&str, LinkTask)) -> Result<LinkHandle, String> {
        let address = canonical(url);
        if let Some(link) = self.made.get(&address) {
            return Ok(link.clone());
        }
        let (handle, task) = link::create(url, self.pace(&address), self.clock.clone()).map_err(|e| e.to_string())?;
        spawn(&address, task);
        self.made.insert(address, handle.clone());
        Ok(handle)
    }

    /// The slowest pace of all profiles behind an address, unless the installer set another.
    fn pace(&self, address: &str) -> Pace {
        let here = self.settings.devices.iter().filter(|d| canonical(&d.link) == address);
        let paces = here.filter_map(|d| self.profiles.get(&d.profile));
        let mut pace = paces.map(|p| p.pace()).reduce(link::slowest).unwrap_or_default();
        if let Some(own) = self.settings.links.iter().find(|l| canonical(&l.url) == address) {
            pace.timeout = own.timeout.unwrap_or(pace.timeout);
            pace.min_gap = own.min_gap.unwrap_or(pace.min_gap);
        }
        pace
    }
}

/// One spelling of an address: `tcp://h` is `tcp://h:502`.
fn canonical(url: &str) -> String {
    Address::parse(url).map_or_else(|_| url.to_owned(), |a| a.to_string())
}

pub(super) fn store_settings(settings: &Settings, path: PathBuf) -> StoreSettings {
    StoreSettings {
        path,
        commit_every: settings.store.commit_every,
        retention: settings.store.retention,
        max_bytes: settings.store.max_bytes,
        uplinks: cursor_names(settings),
    }
}
