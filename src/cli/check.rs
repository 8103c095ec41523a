//! `derd check`

use super::{ConfigArg, Failure, out, run};
use crate::config::{Layers, check as check_layers};

pub(super) fn check(args: &ConfigArg) -> Result<(), Failure> {
    let profiles = run::catalogue()?;
    match check_layers(Layers::load(&args.config, std::env::vars()), &profiles) {
        Ok(settings) => {
            out::say(&format!(
                "{}: good: {} devices, {} uplinks",
                args.config.display(),
                settings.devices.len(),
                settings.mqtt.len()
            ));
            Ok(())
        }
        Err(faults) => {
            for fault in &faults {
                out::say(&fault.to_string());
            }
            let s = if faults.len() == 1 { "" } else { "s" };
            Err(Failure::Failed(format!("{} fault{s} in the configuration", faults.len())))
        }
    }
}
