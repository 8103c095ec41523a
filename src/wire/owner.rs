//! What the owner has said about everybody else's control.

use crate::model::{OptOut, OwnerWord, RemoteControl, Timestamp};
use serde_json::{Value, json};

/// `{"state":"active|paused","until":null or time}`
#[must_use]
pub fn remote_json(remote: &RemoteControl) -> Value {
    json!({"state": remote.as_str(), "until": remote.until.map(|t| t.to_string())})
}

/// `{"device","source","until"}`
#[must_use]
pub fn opt_out_json(out: &OptOut) -> Value {
    json!({"device": out.device.as_str(), "source": out.uplink.as_str(), "until": out.until.to_string()})
}

/// As it is kept over a restart: `{"remote_control":{..},"opted_out":[..]}`
#[must_use]
pub fn owner_json(word: &OwnerWord) -> Value {
    json!({
        "remote_control": remote_json(&word.remote),
        "opted_out": word.opted_out.iter().map(opt_out_json).collect::<Vec<_>>(),
    })
}

/// Back from [`owner_json`]; `None`: it cannot be read.
#[must_use]
pub fn owner_from_json(value: &Value) -> Option<OwnerWord> {
    let time = |value: &Value| value.as_str()?.parse::<Timestamp>().ok();
    let remote = value.get("remote_control")?;
    let until = remote.get("until")?;
    let paused = match remote.get("state")?.as_str()? {
        "active" => false,
        "paused" => true,
        _ => return None,
    };
    let out = |v: &Value| {
        Some(OptOut {
            uplink: v.get("source")?.as_str()?.parse().ok()?,
            device: v.get("device")?.as_str()?.parse().ok()?,
            until: time(v.get("until")?)?,
        })
    };
    Some(OwnerWord {
        remote: RemoteControl { paused, until: if until.is_null() { None } else { Some(time(until)?) } },
        opted_out: value.get("opted_out")?.as_array()?.iter().map(out).collect::<Option<_>>()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_contracts_and_come_back() {
        let until = Timestamp::from_ms(1_800_000_000_000);
        let word = OwnerWord {
            remote: RemoteControl { paused: true, until: Some(until) },
            opted_out: vec![OptOut { uplink: "acme".parse().unwrap(), device: "battery".parse().unwrap(), until }],
        };
        let json = owner_json(&word);
        assert_eq!(json["remote_control"], json!({"state": "paused", "until": "2027-01-15T08:00:00.000Z"}));
        assert_eq!(owner_from_json(&json), Some(word));
        assert_eq!(owner_from_json(&owner_json(&OwnerWord::default())), Some(OwnerWord::default()));
        for wrong in [
            json!({}),
            json!({"remote_control": {"state": "perhaps", "until": null}, "opted_out": []}),
            json!({"remote_control": {"state": "paused", "until": "soon"}, "opted_out": []}),
            json!({"remote_control": {"state": "paused", "until": null}, "opted_out": [{"device": "battery"}]}),
        ] {
            assert_eq!(owner_from_json(&wrong), None, "{wrong}");
        }
    }
}
