//! `derd history`

use super::{Failure, SocketArg, client, out, runtime};
use clap::{Args, ValueEnum};

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    Csv,
    Jsonl,
}

#[derive(Debug, Args)]
pub(super) struct HistoryArgs {
    /// Which device
    device: String,
    /// Only this point; may be given several times
    #[arg(long)]
    point: Vec<String>,
    /// From when: RFC 3339, or back from now such as -24h
    #[arg(long, default_value = "-24h", allow_hyphen_values = true)]
    from: String,
    /// Until when
    #[arg(long, allow_hyphen_values = true)]
    to: Option<String>,
    /// Means over steps of this length, such as 5m
    #[arg(long)]
    step: Option<String>,
    /// How it is written
    #[arg(long, value_enum, default_value = "csv")]
    format: Format,
    #[command(flatten)]
    at: SocketArg,
}

pub(super) fn history(args: &HistoryArgs) -> Result<(), Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    for point in &args.point {
        query.append_pair("point", point);
    }
    query.append_pair("from", &args.from);
    for (key, value) in [("to", &args.to), ("step", &args.step)] {
        if let Some(value) = value {
            query.append_pair(key, value);
        }
    }
    query.append_pair("format", if matches!(args.format, Format::Csv) { "csv" } else { "jsonl" });
    let device: String = url::form_urlencoded::byte_serialize(args.device.as_bytes()).collect();
    let path = format!("/api/v1/devices/{device}/history?{}", query.finish());
    let text = runtime()?.block_on(client::get(&args.at, &path))?;
    out::say(text.trim_end_matches('\n'));
    Ok(())
}
