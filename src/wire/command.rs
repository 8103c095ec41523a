//! The body of a command: MQTT and the local API.

use crate::model::{CommandId, Rank, Timestamp};
use serde_json::{Map, Value};

/// Why a body is no command. `id` is what could still be read of it, so that the answer finds its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct WireError {
    /// The sender's id, when it was readable.
    pub id: Option<CommandId>,
    /// What is wrong, where, and what would be right.
    pub reason: String,
}

/// A well-formed command, its action not yet looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandBody {
    /// The sender's id.
    pub id: CommandId,
    /// Name of the action.
    pub action: String,
    /// Its parameters.
    pub params: Map<String, Value>,
    /// When it was issued.
    pub issued_at: Option<Timestamp>,
    /// After this it must not begin.
    pub not_after: Option<Timestamp>,
    /// When the setpoint ends.
    pub ends_at: Option<Timestamp>,
    /// A label for people.
    pub source: Option<String>,
    /// The rank it claims.
    pub rank: Option<Rank>,
}

/// Read a command's body. Unknown top-level keys are left alone: senders add their own.
///
/// # Errors
/// The first fault, with the id when that could be read.
pub fn parse_command(body: &[u8]) -> Result<CommandBody, WireError> {
    let fault = |id: Option<&CommandId>, reason: String| WireError { id: id.cloned(), reason };
    let value: Value = serde_json::from_slice(body).map_err(|e| fault(None, format!("the body is not JSON: {e}")))?;
    let Value::Object(map) = value else {
        return Err(fault(None, "the body is not a JSON object".to_owned()));
    };
    let id = match map.get("id") {
        Some(Value::String(text)) => text.parse::<CommandId>().map_err(|e| fault(None, format!("`id`: {e}")))?,
        Some(other) => return Err(fault(None, format!("`id` is {other}: it must be a text"))),
        None => return Err(fault(None, "`id` is missing: every command needs one".to_owned())),
    };
    let text = |key: &str| match map.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(other) => Err(fault(Some(&id), format!("`{key}` is {other}: it must be a text"))),
    };
    let time = |key: &str| {
        text(key)?.map(|t| t.parse::<Timestamp>().map_err(|e| fault(Some(&id), format!("`{key}`: {e}")))).transpose()
    };
    let action = text("action")?.ok_or_else(|| fault(Some(&id), "`action` is missing".to_owned()))?;
    let params = match map.get("params") {
        None | Some(Value::Null) => Map::new(),
        Some(Value::Object(params)) => params.clone(),
        Some(other) => return Err(fault(Some(&id), format!("`params` is {other}: it must be an object"))),
    };
    let rank = text("rank")?
        .map(|word| Rank::from_word(&word).ok_or_else(|| fault(Some(&id), format!("`rank` `{word}` is unknown"))))
        .transpose()?;
    let source = text("source")?.map(|s| s.chars().filter(|c| !c.is_control()).take(128).collect());
    Ok(CommandBody {
        action,
        params,
        issued_at: time("issued_at")?,
        not_after: time("not_after")?,
        ends_at: time("ends_at")?,
        source,
        rank,
        id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_interface_example() {
        let body = br#"{"id":"c-1","action":"charge","params":{"power_w":3000},"issued_at":"2026-11-20T12:00:00.000Z",
            "not_after":null,"ends_at":"2026-11-20T13:00:00Z","source":"acme","rank":"command"}"#;
        let c = parse_command(body).unwrap();
        assert_eq!((c.id.as_str(), c.action.as_str(), c.rank), ("c-1", "charge", Some(Rank::Command)));
        assert_eq!(c.ends_at.unwrap().to_string(), "2026-11-20T13:00:00.000Z");
    }

    #[test]
    fn faults_name_the_key_and_keep_the_id() {
        for (body, id, says) in [
            ("", None, "not JSON"),
            ("[1]", None, "not a JSON object"),
            ("{}", None, "`id` is missing"),
            (r#"{"id":5}"#, None, "must be a text"),
            (r#"{"id":"a"}"#, Some("a"), "`action` is missing"),
            (r#"{"id":"a","action":1}"#, Some("a"), "`action` is 1"),
            (r#"{"id":"a","action":"x","params":[]}"#, Some("a"), "`params` is []"),
            (r#"{"id":"a","action":"x","issued_at":"now"}"#, Some("a"), "`issued_at`"),
            (r#"{"id":"a","action":"x","rank":"king"}"#, Some("a"), "`rank` `king`"),
        ] {
            let e = parse_command(body.as_bytes()).unwrap_err();
            assert_eq!(e.id.as_ref().map(CommandId::as_str), id, "{body}");
            assert!(e.reason.contains(says), "{body}: {}", e.reason);
        }
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            drop(parse_command(&body));
        }
    }
}
