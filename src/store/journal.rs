//! Commands, plans, held setpoints, events and notices: each written at once, in a transaction of its own.

use super::delivered::kept_json;
use super::handle::{Admitted, NewCommand, Notice, NoticeBody, OpenCommand, OutboxItem, StoredPlan};
use super::sql::{next_number, number, read_id, set_meta, set_number, to_i64, to_u64};
use crate::model::{
    CommandResult, DeviceId, Event, EventState, Held, IntentKey, PlanId, ReplyTo, Severity, Timestamp, UplinkName,
};
use crate::wire::{demand_from_json, demand_json, result_from_json, result_json};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;
use std::time::Duration;

/// A command's id is remembered this long.
pub(crate) const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3600);
/// Events kept at most.
const EVENTS: u32 = 10_000;
/// Finished commands kept at most: one every three minutes for 90 days, and against a sender gone wild.
const COMMANDS: u32 = 50_000;
/// A notice that so many later ones have overtaken is given up.
const NOTICES: u64 = 20_000;

/// Write a command down, unless it is known; `also` goes with it.
pub(crate) fn admit(
    conn: &Connection,
    uplinks: &[UplinkName],
    command: &NewCommand,
    now: Timestamp,
    also: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<Admitted> {
    let tx = conn.unchecked_transaction()?;
    let device = command.device.as_ref().map_or("", DeviceId::as_str);
    let key = params![command.uplink.as_str(), device, command.id.as_str()];
    let known = tx
        .prepare_cached(&format!(
            "SELECT {COMMAND_COLUMNS} FROM commands WHERE uplink = ?1 AND device = ?2 AND id = ?3"
        ))?
        .query_row(key, read_command)
        .optional()?
        .flatten()
        // The clock may have been set back since: then it is as if just accepted.
        .filter(|known| !known.result_is_final() || known.command.accepted_at.plus(REMEMBERED) > now);
    if let Some(known) = known {
        let result = Box::new(known.command.result);
        return Ok(if known.command.body == command.body {
            Admitted::Duplicate(result)
        } else {
            Admitted::Conflict(result)
        });
    }
    let order = next_number(&tx, "last_order")?;
    let reply = &command.result.reply_to;
    tx.prepare_cached("INSERT OR REPLACE INTO commands VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)")?
        .execute(params![
            to_i64(order),
            command.uplink.as_str(),
            device,
            command.id.as_str(),
            command.body,
            reply.topic,
            reply.correlation,
            command.ends_at.ms(),
            command.accepted_at.ms(),
            command.result.state.is_final(),
            result_json(&command.result).to_string(),
        ])?;
    add_result(&tx, uplinks, &command.result)?;
    also(&tx)?;
    tx.commit()?;
    Ok(Admitted::New { order })
}

/// Queue a result and leave the one that is kept as it is.
pub(crate) fn tell_result(conn: &Connection, uplinks: &[UplinkName], result: &CommandResult) -> rusqlite::Result<()> {
    let tx = conn.unchecked_transaction()?;
    add_result(&tx, uplinks, result)?;
    tx.commit()
}

/// Keep a result with its command and queue it; `also` goes with it. A command's final result stays: another is only queued.
pub(crate) fn save_result(
    conn: &Connection,
    uplinks: &[UplinkName],
    result: &CommandResult,
    also: impl FnOnce(&Connection) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    let tx = conn.unchecked_transaction()?;
    if let Some(id) = &result.id {
        tx.prepare_cached(
            "UPDATE commands SET is_final = ?1, result = ?2
             WHERE uplink = ?3 AND device = ?4 AND id = ?5 AND is_final = 0",
        )?
        .execute(params![
            result.state.is_final(),
            kept_json(result),
            result.uplink.as_str(),
            result.device.as_ref().map_or("", DeviceId::as_str),
            id.as_str(),
        ])?;
    }
    add_result(&tx, uplinks, result)?;
    also(&tx)?;
    tx.commit()
}

/// Commands without a final result.
pub(crate) fn open_commands(conn: &Connection) -> rusqlite::Result<Vec<OpenCommand>> {
    let mut stmt = conn.prepare(&format!("SELECT {COMMAND_COLUMNS} FROM commands WHERE is_final = 0 ORDER BY ord"))?;
    let commands: rusqlite::Result<Vec<_>> = stmt.query_map([], read_command)?.collect();
    Ok(commands?.into_iter().flatten().collect())
}

/// The names of the commands that were admitted last, oldest first.
pub(crate) fn newest_commands(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<IntentKey>> {
    let mut stmt = conn.prepare("SELECT uplink, device, id FROM commands ORDER BY ord DESC LIMIT ?1")?;
    let names: rusqlite::Result<Vec<_>> = stmt
        .query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            let (Some(uplink), Some(id)) = (read_id(row, 0)?, read_id(row, 2)?) else { return Ok(None) };
            Ok(Some(IntentKey::Command { uplink, device: read_id(row, 1)?, id }))
        })?
        .collect();
    Ok(names?.into_iter().flatten().rev().collect())
}

const COMMAND_COLUMNS: &str =
    "ord, uplink, device, id, body, reply_topic, reply_correlation, ends_at, accepted_at, result";

impl OpenCommand {
    const fn result_is_final(&self) -> bool {
        self.command.result.state.is_final()
    }
}

/// `None` for a row that makes no sense.
fn read_command(row: &Row<'_>) -> rusqlite::Result<Option<OpenCommand>> {
    let (Some(uplink), Some(id)) = (read_id::<UplinkName>(row, 1)?, read_id(row, 3)?) else { return Ok(None) };
    let reply_to = ReplyTo { topic: row.get(5)?, correlation: row.get(6)? };
    let Some(result) = read_result(&row.get::<_, String>(9)?, uplink.clone(), reply_to) else { return Ok(None) };
    Ok(Some(OpenCommand {
        command: NewCommand {
            uplink,
            device: read_id(row, 2)?,
            id,
            body: row.get(4)?,
            result,
            ends_at: Timestamp::from_ms(row.get(7)?),
            accepted_at: Timestamp::from_ms(row.get(8)?),
        },
        order: to_u64(row.get(0)?),
    }))
}

fn read_result(text: &str, uplink: UplinkName, reply_to: ReplyTo) -> Option<CommandResult> {
    result_from_json(uplink, reply_to, &serde_json::from_str(text).ok()?).ok()
}

/// Write a plan down in place of one with its id.
pub(crate) fn save_plan(
    conn: &Connection,
    id: &PlanId,
    body: &str,
    source: &UplinkName,
    at: Timestamp,
) -> rusqlite::Result<u64> {
    let tx = conn.unchecked_transaction()?;
    let order = next_number(&tx, "last_order")?;
    tx.prepare_cached("INSERT OR REPLACE INTO plans VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(params![
        id.as_str(),
        body,
        source.as_str(),
        to_i64(order),
        at.ms()
    ])?;
    tx.commit()?;
    Ok(order)
}

/// Remove a plan: was there one.
pub(crate) fn delete_plan(conn: &Connection, id: &PlanId) -> rusqlite::Result<bool> {
    Ok(conn.execute("DELETE FROM plans WHERE id = ?1", [id.as_str()])? > 0)
}

/// All plans, in their order.
pub(crate) fn plans(conn: &Connection) -> rusqlite::Result<Vec<StoredPlan>> {
    let mut stmt = conn.prepare("SELECT id, body, source, ord, accepted_at FROM plans ORDER BY ord")?;
    let plans: rusqlite::Result<Vec<_>> = stmt
        .query_map([], |row| {
            let (Some(id), Some(source)) = (read_id(row, 0)?, read_id(row, 2)?) else { return Ok(None) };
            let accepted_at = Timestamp::from_ms(row.get(4)?);
            Ok(Some(StoredPlan { id, body: row.get(1)?, source, order: to_u64(row.get(3)?), accepted_at }))
        })?
        .collect();
    Ok(plans?.into_iter().flatten().collect())
}

/// A device is about to hold something. The time alone is no reason to write again.
pub(crate) fn set_held(conn: &Connection, held: &Held) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO held VALUES (?1, ?2, ?3, ?4) ON CONFLICT (device) DO
         UPDATE SET demand = ?2, on_end = ?3, since = ?4 WHERE demand <> ?2 OR on_end <> ?3",
    )?
    .execute(params![
        held.device.as_str(),
        demand_json(&held.demand).to_string(),
        demand_json(&held.on_end).to_string(),
        held.since.ms(),
    ])?;
    Ok(())
}

/// It holds nothing any more.
pub(crate) fn clear_held(conn: &Connection, device: &DeviceId) -> rusqlite::Result<()> {
    conn.prepare_cached("DELETE FROM held WHERE device = ?1")?.execute([device.as_str()])?;
    Ok(())
}

/// What devices may still hold.
pub(crate) fn held_all(conn: &Connection) -> rusqlite::Result<Vec<Held>> {
    let mut stmt = conn.prepare("SELECT device, demand, on_end, since FROM held ORDER BY device")?;
    let held: rusqlite::Result<Vec<_>> = stmt
        .query_map([], |row| {
            let demand = |at| -> rusqlite::Result<_> {
                let text: String = row.get(at)?;
                Ok(serde_json::from_str(&text).ok().as_ref().and_then(demand_from_json))
            };
            let (Some(device), Some(demand), Some(on_end)) = (read_id(row, 0)?, demand(1)?, demand(2)?) else {
                return Ok(None);
            };
            Ok(Some(Held { device, demand, on_end, since: Timestamp::from_ms(row.get(3)?) }))
        })?
        .collect();
    Ok(held?.into_iter().flatten().collect())
}

/// Keep a device's baseline.
pub(crate) fn set_baseline(conn: &Connection, device: &DeviceId, json: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(
        "INSERT INTO baselines VALUES (?1, ?2) ON CONFLICT (device) DO UPDATE SET json = ?2 WHERE json <> ?2",
    )?
    .execute(params![device.as_str(), json])?;
    Ok(())
}

/// All baselines.
pub(crate) fn baselines(conn: &Connection) -> rusqlite::Result<Vec<(DeviceId, String)>> {
    let mut stmt = conn.prepare("SELECT device, json FROM baselines ORDER BY device")?;
    let all: rusqlite::Result<Vec<_>> =
        stmt.query_map([], |row| Ok(read_id(row, 0)?.zip(Some(row.get(1)?))))?.collect();
    Ok(all?.into_iter().flatten().collect())
}

/// The place of a ledger of writes in `meta`.
const WEAR: &str = "wear.";

/// Keep ledgers of writes, within a transaction.
pub(crate) fn set_wear(tx: &Connection, ledgers: &BTreeMap<DeviceId, String>) -> rusqlite::Result<()> {
    ledgers.iter().try_for_each(|(device, json)| set_meta(tx, &format!("{WEAR}{device}"), json))
}

/// All ledgers of writes.
pub(crate) fn wears(conn: &Connection) -> rusqlite::Result<Vec<(DeviceId, String)>> {
    let mut stmt = conn.prepare("SELECT substr(key, 6), value FROM meta WHERE key GLOB 'wear.*' ORDER BY key")?;
    let all: rusqlite::Result<Vec<_>> =
        stmt.query_map([], |row| Ok(read_id(row, 0)?.zip(Some(row.get(1)?))))?.collect();
    Ok(all?.into_iter().flatten().collect())
}

/// Write an event down and queue it for every uplink.
pub(crate) fn add_event(conn: &Connection, uplinks: &[UplinkName], event: &Event) -> rusqlite::Result<()> {
    let tx = conn.unchecked_transaction()?;
    let id = next_number(&tx, "last_notice")?;
    tx.prepare_cached("INSERT OR REPLACE INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?.execute(params![
        to_i64(id),
        event.ts.ms(),
        event.severity.as_str(),
        event.device.as_ref().map(DeviceId::as_str),
        event.code,
        event.text,
        event.state.as_str(),
    ])?;
    let notice = NoticeRow { id, ts: event.ts, kind: "event", ..NoticeRow::default() };
    notice.add(&tx, uplinks)?;
    tx.commit()
}

/// The newest events, newest first.
pub(crate) fn events(conn: &Connection, limit: usize) -> rusqlite::Result<Vec<(u64, Event)>> {
    let mut stmt = conn
        .prepare_cached("SELECT id, ts, severity, device, code, text, state FROM events ORDER BY id DESC LIMIT ?1")?;
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let all: rusqlite::Result<Vec<_>> =
        stmt.query_map([limit], |row| Ok(Some(to_u64(row.get(0)?)).zip(read_event(row, 1)?)))?.collect();
    Ok(all?.into_iter().flatten().collect())
}

/// An event from its columns behind `at`; `None` for a row that makes no sense.
fn read_event(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Event>> {
    let word = |at| row.get::<_, Option<String>>(at).map(Option::unwrap_or_default);
    let (Some(severity), Some(state)) = (Severity::from_word(&word(at + 1)?), EventState::from_word(&word(at + 5)?))
    else {
        return Ok(None);
    };
    let ts = Timestamp::from_ms(row.get(at)?);
    Ok(Some(Event { ts, severity, device: read_id(row, at + 2)?, code: word(at + 3)?, text: word(at + 4)?, state }))
}

/// Queue what became of a plan document.
pub(crate) fn add_plan_answer(
    conn: &Connection,
    uplinks: &[UplinkName],
    uplink: &UplinkName,
    plan: &str,
    answer: &serde_json::Value,
    now: Timestamp,
) -> rusqlite::Result<()> {
    let Some(uplink) = uplinks.iter().find(|u| *u == uplink) else { return Ok(()) };
    let tx = conn.unchecked_transaction()?;
    let id = next_number(&tx, "last_notice")?;
    let body = answer.to_string();
    let notice = NoticeRow {
        id,
        ts: now,
        kind: "plan",
        uplink: Some(uplink.as_str()),
        plan: Some(plan),
        body: &body,
        ..NoticeRow::default()
    };
    notice.add(&tx, std::slice::from_ref(uplink))?;
    tx.commit()
}

/// Queue a result, when its channel is one that fetches results here.
fn add_result(tx: &Connection, uplinks: &[UplinkName], result: &CommandResult) -> rusqlite::Result<()> {
    let Some(uplink) = uplinks.iter().find(|u| **u == result.uplink) else { return Ok(()) };
    let id = next_number(tx, "last_notice")?;
    let body = result_json(result).to_string();
    let notice = NoticeRow {
        id,
        ts: result.ts,
        kind: "result",
        uplink: Some(uplink.as_str()),
        reply: Some(&result.reply_to),
        body: &body,
        ..NoticeRow::default()
    };
    notice.add(tx, std::slice::from_ref(uplink))
}

/// A notice as it is written.
#[derive(Default)]
struct NoticeRow<'a> {
    id: u64,
    ts: Timestamp,
    kind: &'static str,
    uplink: Option<&'a str>,
    plan: Option<&'a str>,
    reply: Option<&'a ReplyTo>,
    body: &'a str,
}

impl NoticeRow<'_> {
    fn add(&self, tx: &Connection, addressees: &[UplinkName]) -> rusqlite::Result<()> {
        if addressees.is_empty() {
            return Ok(());
        }
        tx.prepare_cached("INSERT OR REPLACE INTO notices VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)")?.execute(
            params![
                to_i64(self.id),
                self.ts.ms(),
                self.kind,
                self.uplink,
                self.plan,
                self.reply.and_then(|r| r.topic.as_deref()),
                self.reply.and_then(|r| r.correlation.as_deref()),
                self.body,
            ],
        )?;
        let mut stmt = tx.prepare_cached("INSERT OR REPLACE INTO outbox VALUES (?1, ?2)")?;
        for uplink in addressees {
            stmt.execute(params![uplink.as_str(), to_i64(self.id)])?;
        }
        Ok(())
    }
}

/// The oldest notices that an uplink has not confirmed.
pub(crate) fn outbox(conn: &Connection, uplink: &UplinkName, limit: usize) -> rusqlite::Result<Vec<OutboxItem>> {
    let mut stmt = conn.prepare_cached(
        "SELECT n.id, n.ts, n.kind, n.uplink, n.plan, n.reply_topic, n.reply_correlation, n.body,
                e.ts, e.severity, e.device, e.code, e.text, e.state
         FROM outbox o JOIN notices n ON n.id = o.notice LEFT JOIN events e ON e.id = n.id AND n.kind = 'event'
         WHERE o.uplink = ?1 ORDER BY o.notice LIMIT ?2",
    )?;
    let mut items = Vec::new();
    let mut senseless = Vec::new();
    let mut rows = stmt.query(params![uplink.as_str(), i64::try_from(limit).unwrap_or(i64::MAX)])?;
    while let Some(row) = rows.next()? {
        let id = to_u64(row.get(0)?);
        match read_notice(row)? {
            Some(body) => {
                items.push(OutboxItem { notice: Notice { id, body }, ts: Timestamp::from_ms(row.get(1)?) });
            }
            None => senseless.push(id),
        }
    }
    drop(rows);
    drop(stmt);
    if !senseless.is_empty() {
        outbox_done(conn, uplink, &senseless)?;
    }
    Ok(items)
}

fn read_notice(row: &Row<'_>) -> rusqlite::Result<Option<NoticeBody>> {
    let (kind, body): (String, String) = (row.get(2)?, row.get(7)?);
    let uplink: Option<UplinkName> = read_id(row, 3)?;
    Ok(match (kind.as_str(), uplink) {
        ("result", Some(uplink)) => {
            let reply_to = ReplyTo { topic: row.get(5)?, correlation: row.get(6)? };
            read_result(&body, uplink, reply_to).map(NoticeBody::Result)
        }
        ("plan", Some(uplink)) => serde_json::from_str(&body)
            .ok()
            .zip(row.get::<_, Option<String>>(4)?)
            .map(|(answer, plan)| NoticeBody::Plan { uplink, plan, answer }),
        ("event", _) if row.get_ref(8)? != rusqlite::types::ValueRef::Null => {
            read_event(row, 8)?.map(NoticeBody::Event)
        }
        _ => None,
    })
}

/// The other side has confirmed these notices.
pub(crate) fn outbox_done(conn: &Connection, uplink: &UplinkName, ids: &[u64]) -> rusqlite::Result<()> {
    let tx = conn.unchecked_transaction()?;
    {
        let mut done = tx.prepare_cached("DELETE FROM outbox WHERE uplink = ?1 AND notice = ?2")?;
        let mut gone = tx.prepare_cached(
            "DELETE FROM notices WHERE id = ?1 AND NOT EXISTS (SELECT 1 FROM outbox WHERE notice = ?1)",
        )?;
        for id in ids {
            done.execute(params![uplink.as_str(), to_i64(*id)])?;
            gone.execute([to_i64(*id)])?;
        }
    }
    tx.commit()
}

/// At start: notices of uplinks that are no longer there go.
pub(crate) fn drop_foreign_notices(conn: &Connection, uplinks: &[UplinkName]) -> rusqlite::Result<()> {
    let known = serde_json::Value::from(uplinks.iter().map(UplinkName::as_str).collect::<Vec<_>>()).to_string();
    let tx = conn.unchecked_transaction()?;
    let gone = tx.execute("DELETE FROM outbox WHERE uplink NOT IN (SELECT value FROM json_each(?1))", [known])?;
    if gone > 0 {
        tx.execute("DELETE FROM notices WHERE id NOT IN (SELECT notice FROM outbox)", [])?;
    }
    tx.commit()
}

/// Take away what is too old or too much. `now`: only when the clock is to be trusted. Returns how many notices were given up.
pub(crate) fn prune(conn: &Connection, now: Option<Timestamp>) -> rusqlite::Result<u64> {
    let tx = conn.unchecked_transaction()?;
    let oldest = now.map_or(0, |now| now.minus(REMEMBERED).ms());
    tx.execute("DELETE FROM commands WHERE is_final = 1 AND accepted_at < ?1", [oldest])?;
    tx.execute(
        "DELETE FROM commands WHERE is_final = 1
         AND ord <= (SELECT ord FROM commands ORDER BY ord DESC LIMIT 1 OFFSET ?1)",
        [COMMANDS],
    )?;
    tx.execute(
        "DELETE FROM events WHERE ts < ?1 OR id <= (SELECT id FROM events ORDER BY id DESC LIMIT 1 OFFSET ?2)",
        [oldest, i64::from(EVENTS)],
    )?;
    let last = to_i64(number(&tx, "last_notice")?.saturating_sub(NOTICES));
    let lost = tx.execute(
        "DELETE FROM notices WHERE id <= ?1 OR (kind = 'event' AND id NOT IN (SELECT id FROM events))",
        [last],
    )?;
    if lost > 0 {
        tx.execute("DELETE FROM outbox WHERE notice NOT IN (SELECT id FROM notices)", [])?;
        set_number(&tx, "lost_notices", number(&tx, "lost_notices")? + u64::try_from(lost).unwrap_or_default())?;
    }
    tx.commit()?;
    Ok(u64::try_from(lost).unwrap_or_default())
}
