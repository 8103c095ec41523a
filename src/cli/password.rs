//! `derd password`

use super::{ConfigArg, Failure, out, run};
use crate::web;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct PasswordArgs {
    /// Make a new one; whoever is logged in must log in again
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    config: ConfigArg,
}

pub(super) fn password(args: &PasswordArgs) -> Result<(), Failure> {
    let profiles = run::catalogue()?;
    let settings = run::load(&args.config.config, &profiles)?;
    let file = settings.web.password_file.unwrap_or_else(|| settings.data_dir.join("web.password"));
    let password = if args.new { web::renew_password(&file) } else { web::ensure_password(&file) };
    let password = password.map_err(Failure::failed)?;
    out::say(&password);
    Ok(())
}
