//! Topic names.

use crate::model::{DeviceId, GatewayId};

/// All topics under `derd/<gateway>/`.
#[derive(Debug, Clone)]
pub(super) struct Topics {
    root: String,
}

/// What an incoming topic asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Inbound<'a> {
    DeviceCommand(&'a str),
    SiteCommand,
    PlanSet(&'a str),
}

impl Topics {
    pub(super) fn new(gateway: &GatewayId) -> Self {
        Self { root: format!("derd/{gateway}") }
    }

    pub(super) fn status(&self) -> String {
        format!("{}/status", self.root)
    }

    pub(super) fn event(&self) -> String {
        format!("{}/event", self.root)
    }

    pub(super) fn device(&self, device: &DeviceId, leaf: &str) -> String {
        format!("{}/device/{device}/{leaf}", self.root)
    }

    /// Length of the longest topic that [`Self::device`] makes for telemetry or backfill.
    pub(super) fn longest(&self) -> usize {
        self.root.len() + "/device/".len() + 64 + "/telemetry".len()
    }

    /// The result topic of a device, or of the site.
    pub(super) fn result(&self, device: Option<&DeviceId>) -> String {
        device.map_or_else(
            || format!("{}/site/command/result", self.root),
            |device| format!("{}/device/{device}/command/result", self.root),
        )
    }

    /// The result topic of a plan; `None` when its id cannot be part of a topic.
    pub(super) fn plan_result(&self, plan: &str) -> Option<String> {
        let is_level = !plan.is_empty() && plan.len() <= 256 && !plan.contains(['/', '+', '#', '\0']);
        is_level.then(|| format!("{}/plan/{plan}/result", self.root))
    }

    /// What is subscribed to.
    pub(super) fn filters(&self) -> [String; 3] {
        [
            format!("{}/device/+/command", self.root),
            format!("{}/site/command", self.root),
            format!("{}/plan/+/set", self.root),
        ]
    }

    /// What a topic asks for; `None`: nothing that was subscribed to.
    pub(super) fn parse<'a>(&self, topic: &'a [u8]) -> Option<Inbound<'a>> {
        let rest = std::str::from_utf8(topic).ok()?.strip_prefix(self.root.as_str())?.strip_prefix('/')?;
        let mut levels = rest.split('/');
        let four = (levels.next()?, levels.next()?, levels.next(), levels.next());
        match four {
            ("site", "command", None, _) => Some(Inbound::SiteCommand),
            ("device", device, Some("command"), None) => Some(Inbound::DeviceCommand(device)),
            ("plan", plan, Some("set"), None) => Some(Inbound::PlanSet(plan)),
            _ => None,
        }
    }

    /// Is it one of our own, and not a sender's response topic.
    pub(super) fn is_ours(&self, topic: &str) -> bool {
        topic.strip_prefix(&self.root).is_some_and(|rest| rest.starts_with('/'))
            || topic.starts_with(super::announce::DISCOVERY)
    }

    /// May an answer go to this topic: no wildcard, not empty, not one that we listen to ourselves or that says who we are.
    pub(super) fn may_reply_to(&self, topic: &str) -> bool {
        !topic.is_empty()
            && topic.len() <= 1024
            && !topic.contains(['+', '#', '\0'])
            && !topic.starts_with('$')
            && self.parse(topic.as_bytes()).is_none()
            && topic != self.status()
            && !topic.starts_with(super::announce::DISCOVERY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topics() -> Topics {
        Topics::new(&"gw-1".parse().unwrap())
    }

    #[test]
    fn inbound() {
        let t = topics();
        for (topic, want) in [
            ("derd/gw-1/device/battery/command", Some(Inbound::DeviceCommand("battery"))),
            ("derd/gw-1/device/Not an id/command", Some(Inbound::DeviceCommand("Not an id"))),
            ("derd/gw-1/device//command", Some(Inbound::DeviceCommand(""))),
            ("derd/gw-1/site/command", Some(Inbound::SiteCommand)),
            ("derd/gw-1/plan/p1/set", Some(Inbound::PlanSet("p1"))),
            ("derd/gw-1/device/battery/command/result", None),
            ("derd/gw-1/site/command/result", None),
            ("derd/gw-1/plan/p1/result", None),
            ("derd/gw-1/status", None),
            ("derd/gw-12/site/command", None),
            ("derd/gw-1site/command", None),
            ("", None),
        ] {
            assert_eq!(t.parse(topic.as_bytes()), want, "{topic}");
        }
        assert_eq!(t.parse(b"derd/gw-1/device/\xff/command"), None);
    }

    #[test]
    fn reply_topics() {
        let t = topics();
        for good in ["acme/replies", "derd/gw-1/device/battery/command/result", "a"] {
            assert!(t.may_reply_to(good), "{good}");
        }
        for bad in [
            "",
            "a/+",
            "a/#",
            "$SYS/x",
            "derd/gw-1/device/battery/command",
            "derd/gw-1/site/command",
            "derd/gw-1/plan/p/set",
            "derd/gw-1/status",
        ] {
            assert!(!t.may_reply_to(bad), "{bad}");
        }
        assert_eq!(t.plan_result("a/b"), None);
        for (topic, ours) in
            [("derd/gw-1/status", true), ("derd/gw-12/x", false), ("homeassistant/x", true), ("a", false)]
        {
            assert_eq!(t.is_ours(topic), ours, "{topic}");
        }
        assert_eq!(t.plan_result("p1").as_deref(), Some("derd/gw-1/plan/p1/result"));
    }

    proptest! {
        #[test]
        fn never_panics(topic in proptest::collection::vec(any::<u8>(), 0..80)) {
            let t = topics();
            let mut own = b"derd/gw-1/".to_vec();
            own.extend_from_slice(&topic);
            for bytes in [&topic, &own] {
                if let Ok(text) = std::str::from_utf8(bytes) {
                    prop_assert!(!t.may_reply_to(text) || t.parse(bytes).is_none());
                }
            }
        }
    }
}
