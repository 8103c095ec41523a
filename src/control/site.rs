//! The limits of the site that came from outside, and what their senders are told. Pure.

use super::limits::{Bounds, EXPORT, IMPORT};
use crate::model::{Applied, GridSide, IntentKey, IntentUpdate, Params, Progress, SiteLimit, SiteSpec, Timestamp};
use std::collections::BTreeMap;

/// Those in force.
#[derive(Debug, Default)]
pub(crate) struct SiteLimits {
    limits: Vec<SiteLimit>,
    /// What each was told last.
    told: BTreeMap<IntentKey, Applied>,
}

impl SiteLimits {
    /// All of them.
    pub(crate) fn all(&self) -> &[SiteLimit] {
        &self.limits
    }

    /// One more. The same key again changes nothing.
    pub(crate) fn add(&mut self, limit: SiteLimit) {
        if self.limits.iter().all(|l| l.key != limit.key) {
            self.limits.push(limit);
        }
    }

    /// End those that `ends` names.
    pub(crate) fn end(&mut self, at: Timestamp, updates: &mut Vec<IntentUpdate>, ends: impl Fn(&SiteLimit) -> bool) {
        self.limits.retain(|l| {
            let is_over = ends(l);
            if is_over {
                self.told.remove(&l.key);
                let progress = Progress::Ended { delivered_wh: None };
                updates.push(IntentUpdate { key: l.key.clone(), at, progress });
            }
            !is_over
        });
    }

    /// What holds on each one's side now, where that is news to its sender: the tightest of all, and what made it tighter
    /// than asked: the installer, or another limit from outside.
    pub(crate) fn tell(&mut self, site: &SiteSpec, at: Timestamp, updates: &mut Vec<IntentUpdate>) {
        if self.limits.is_empty() {
            return;
        }
        let (installer, all) = (Bounds::new(site, &[]), Bounds::new(site, &self.limits));
        for limit in &self.limits {
            let (own, tightest, other) = match limit.side {
                GridSide::Import => (installer.import_w, all.import_w, IMPORT),
                GridSide::Export => (installer.export_w, all.export_w, EXPORT),
            };
            let watts = tightest.unwrap_or(limit.power_w);
            let by = if own.is_some_and(|own| own <= watts) { "installer" } else { other };
            let applied = Applied {
                params: Params::from([("power_w".to_owned(), watts)]),
                limited_by: (watts < limit.power_w).then(|| by.to_owned()),
            };
            if self.told.get(&limit.key) != Some(&applied) {
                self.told.insert(limit.key.clone(), applied.clone());
                updates.push(IntentUpdate { key: limit.key.clone(), at, progress: Progress::Active(applied) });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Mono;

    #[test]
    fn of_several_the_tightest_holds_and_each_sender_knows() {
        let site = SiteSpec {
            name: String::new(),
            timezone: "UTC".to_owned(),
            phases: 3,
            main_fuse_a: None,
            export_limit_w: Some(7000.0),
        };
        let key =
            |id: &str| IntentKey::Command { uplink: "mqtt".parse().unwrap(), device: None, id: id.parse().unwrap() };
        let at = Timestamp::from_ms(0);
        let mut limits = SiteLimits::default();
        let turn = |limits: &mut SiteLimits| {
            let mut updates = Vec::new();
            limits.tell(&site, at, &mut updates);
            let said = |u: IntentUpdate| match (u.key, u.progress) {
                (IntentKey::Command { id, .. }, Progress::Active(a)) => {
                    format!("{id} {} {}", a.params["power_w"], a.limited_by.unwrap_or_default())
                }
                other => panic!("{other:?}"),
            };
            updates.into_iter().map(said).collect::<Vec<_>>()
        };
        let add = |limits: &mut SiteLimits, id: &str, side, power_w| {
            limits.add(SiteLimit { key: key(id), side, power_w, ends_at: at, deadline: Mono::from_ms(0) });
        };
        add(&mut limits, "wide", GridSide::Export, 9000.0);
        add(&mut limits, "in", GridSide::Import, 4000.0);
        assert_eq!(turn(&mut limits), ["wide 7000 installer", "in 4000 "]);
        add(&mut limits, "tight", GridSide::Export, 500.0);
        assert_eq!(turn(&mut limits), ["wide 500 export_limit", "tight 500 "]);
        assert!(turn(&mut limits).is_empty(), "nothing is new");
        limits.end(at, &mut Vec::new(), |l| l.key == key("tight"));
        assert_eq!(turn(&mut limits), ["wide 7000 installer"]);
    }
}
