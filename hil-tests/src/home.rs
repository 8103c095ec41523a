//! Configurations for simulated homes, written as an installer would.

use derd::sim::HomeHandle;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A configuration of the home's four devices, all controllable, with the page on a free port.
#[must_use]
pub fn config_for(home: &HomeHandle, data_dir: &Path, more: &str) -> String {
    let mut text = format!(
        "[gateway]\nid = \"gw-1\"\ndata_dir = {data_dir:?}\n[site]\nname = \"Test home\"\ntimezone = \"Europe/Berlin\"\nmain_fuse_a = 35\n\
         [web]\nlisten = \"127.0.0.1:0\"\n[store]\ncommit_every = \"2s\"\n"
    );
    for device in home.devices() {
        let (role, control) = match device.id.as_str() {
            "grid" => ("role = \"grid\"\n", ""),
            "pv" => ("", "[device.control]\nenabled = true\n"),
            "battery" => (
                "",
                "[device.limits]\nmax_charge_w = 5000\nmax_discharge_w = 5000\nmin_soc_pct = 5\n[device.control]\nenabled = true\naccept_no_failsafe = true\n",
            ),
            _ => {
                ("", "[device.limits]\nmax_current_a = 16\n[device.control]\nenabled = true\nfallback_current_a = 6\n")
            }
        };
        write!(
            text,
            "[[device]]\nid = {:?}\nkind = {:?}\nprofile = {:?}\nlink = {:?}\nunit = {}\n{role}{control}",
            device.id,
            device.kind.as_str(),
            device.profile,
            device.link,
            device.unit
        )
        .unwrap();
    }
    text + more
}

/// The time now, as a command writes it.
#[must_use]
pub fn now_rfc3339() -> String {
    rfc3339_in(Duration::ZERO)
}

/// The time some while from now.
#[must_use]
pub fn rfc3339_in(from_now: Duration) -> String {
    let ms = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + from_now).as_millis();
    derd::model::Timestamp::from_ms(i64::try_from(ms).unwrap()).to_string()
}
