//! `derd profile`

use super::{Failure, out, run};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct ProfileArgs {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All device profiles, a line each
    List,
    /// One profile as its file says it
    Show {
        /// Its name, such as go-e/charger
        name: String,
    },
}

pub(super) fn profile(args: &ProfileArgs) -> Result<(), Failure> {
    let profiles = run::catalogue()?;
    match &args.what {
        What::List => {
            for name in profiles.names() {
                if let Some(profile) = profiles.get(name) {
                    let kinds: Vec<_> = profile.kinds().iter().map(|k| k.as_str()).collect();
                    out::say(&format!("{name:22} {:30} {}", kinds.join(" "), profile.title()));
                }
            }
            Ok(())
        }
        What::Show { name } => {
            let text = profiles
                .source(name)
                .ok_or_else(|| Failure::Failed(format!("no profile `{name}`; `derd profile list` names them all")))?;
            out::say(text.trim_end());
            Ok(())
        }
    }
}
