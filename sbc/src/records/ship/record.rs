//! Events as rows of `call` and `call_event`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use seam::StreamStatistics;
use seam::path::PathWords;
use serde_json::{Value, json};
use sip_engine::door::CallId;
use sip_engine::event::{CallEnded, CallEvent, CallEventKind, CallLeg, CallStarted};
use sqlx::types::Uuid;
use sqlx::{PgPool, PgTransaction};

use crate::records::timeline::words_of;

/// Writes events in one transaction, a statement per kind of event and not per event: a database that is a network
/// away costs four round trips a batch. What is there already stays as it is, so that an end that was shipped is not
/// overwritten by the `crash` of a journal whose tail a power failure took.
pub(super) async fn write(pool: &PgPool, node: u8, events: &[CallEvent]) -> Result<(), sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let events = &*renamed(&mut transaction, node, events).await?;
    write_events(&mut transaction, events).await?;
    write_started(&mut transaction, node, events).await?;
    write_answered(&mut transaction, events).await?;
    write_ended(&mut transaction, events).await?;
    write_legs(&mut transaction, events).await?;
    transaction.commit().await
}

/// The events, by the ids that their calls' rows have: a journal of version 0.1.0 may hold the rest of calls whose rows were given new ones.
async fn renamed<'a>(
    transaction: &mut PgTransaction<'_>,
    node: u8,
    events: &'a [CallEvent],
) -> Result<Cow<'a, [CallEvent]>, sqlx::Error> {
    let former: Vec<Uuid> = events.iter().filter(|event| is_former(event, node)).map(id).collect();
    if former.is_empty() {
        return Ok(events.into());
    }
    let rows =
        sqlx::query!(r#"SELECT former_id AS "former!", id FROM call WHERE former_id = ANY($1)"#, &former)
            .fetch_all(&mut **transaction)
            .await?;
    let names: HashMap<u128, u128> =
        rows.into_iter().map(|row| (row.former.as_u128(), row.id.as_u128())).collect();
    let mut events = events.to_vec();
    for event in &mut events {
        event.call = names.get(&event.call).copied().unwrap_or(event.call);
    }
    Ok(events.into())
}

/// Whether an id of this node's does not begin with the time of the call, as those of version 0.1.0.
fn is_former(event: &CallEvent, node: u8) -> bool {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let id = CallId(event.call);
    let lasts = event.wall.saturating_sub(id.began());
    id.node() != node || id.began() > event.wall.saturating_add(DAY) || lasts > DAY.saturating_mul(400)
}

async fn write_events(transaction: &mut PgTransaction<'_>, events: &[CallEvent]) -> Result<(), sqlx::Error> {
    let calls: Vec<Uuid> = events.iter().map(id).collect();
    let sequences: Vec<i32> =
        events.iter().map(|event| i32::try_from(event.sequence).unwrap_or(i32::MAX)).collect();
    let times: Vec<f64> = events.iter().map(at).collect();
    let (kinds, details): (Vec<String>, Vec<Value>) =
        events.iter().map(|event| describe(&event.what)).unzip();
    sqlx::query!(
        "INSERT INTO call_event (call, sequence, at, kind, detail)
         SELECT call, sequence, to_timestamp(at), kind, detail
         FROM unnest($1::uuid[], $2::integer[], $3::float8[], $4::text[], $5::jsonb[]) AS event (call, sequence, at, kind, detail)
         ON CONFLICT DO NOTHING",
        &calls,
        &sequences,
        &times,
        &kinds,
        &details
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn write_started(
    transaction: &mut PgTransaction<'_>,
    node: u8,
    events: &[CallEvent],
) -> Result<(), sqlx::Error> {
    let started: Vec<(&CallEvent, &CallStarted)> = events
        .iter()
        .filter_map(|event| match &event.what {
            CallEventKind::Started(started) => Some((event, &**started)),
            _ => None,
        })
        .collect();
    if started.is_empty() {
        return Ok(());
    }
    let calls: Vec<Uuid> = started.iter().map(|(event, _)| id(event)).collect();
    let times: Vec<f64> = started.iter().map(|(event, _)| at(event)).collect();
    let column = |pick: fn(&CallStarted) -> &str| -> Vec<String> {
        started.iter().map(|(_, started)| printable(pick(started))).collect()
    };
    let sources: Vec<String> = started.iter().map(|(_, started)| started.source.to_string()).collect();
    sqlx::query!(
        "INSERT INTO call (node, id, started_at, realm, source, transport, caller, from_uri, request_uri, call_id, user_agent)
         SELECT $1, id, to_timestamp(at), realm, source, transport, caller, from_uri, request_uri, call_id, user_agent
         FROM unnest($2::uuid[], $3::float8[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[])
            AS started (id, at, realm, source, transport, caller, from_uri, request_uri, call_id, user_agent)
         ON CONFLICT DO NOTHING",
        i16::from(node),
        &calls,
        &times,
        &column(|started| &started.realm),
        &sources,
        &column(|started| &started.transport),
        &column(|started| &started.caller),
        &column(|started| &started.from),
        &column(|started| &started.request_uri),
        &column(|started| &started.call_id),
        &column(|started| &started.user_agent)
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// The ids stand twice in what is updated: so only the months that they are of are looked into.
async fn write_answered(
    transaction: &mut PgTransaction<'_>,
    events: &[CallEvent],
) -> Result<(), sqlx::Error> {
    let (mut calls, mut times, mut realms) = (Vec::new(), Vec::new(), Vec::new());
    let (mut trunks, mut destinations) = (Vec::new(), Vec::new());
    let (mut who, mut uris) = (Vec::new(), Vec::new());
    for event in events {
        if let CallEventKind::Answered { realm, trunk, destination, reached, uri } = &event.what {
            calls.push(id(event));
            times.push(at(event));
            realms.push(realm.to_string());
            trunks.push(trunk.as_deref());
            destinations.push(destination.to_string());
            who.push(printable(reached));
            uris.push(printable(uri));
        }
    }
    if calls.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE call SET answered_at = to_timestamp(at), answered_realm = answered.realm, trunk = answered.trunk,
            destination = answered.destination, reached = answered.reached, reached_uri = answered.uri
         FROM unnest($1::uuid[], $2::float8[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[])
            AS answered (id, at, realm, trunk, destination, reached, uri)
         WHERE call.id = answered.id AND call.id = ANY($1) AND answered_at IS NULL",
        &calls,
        &times,
        &realms,
        &trunks as &[Option<&str>],
        &destinations,
        &who,
        &uris
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

async fn write_ended(transaction: &mut PgTransaction<'_>, events: &[CallEvent]) -> Result<(), sqlx::Error> {
    let ended: Vec<(Uuid, &CallEnded)> = events
        .iter()
        .filter_map(|event| match &event.what {
            CallEventKind::Ended(ended) => Some((id(event), &**ended)),
            _ => None,
        })
        .collect();
    if ended.is_empty() {
        return Ok(());
    }
    let calls: Vec<Uuid> = ended.iter().map(|(id, _)| *id).collect();
    let totals: Vec<i64> = ended.iter().map(|(_, ended)| milliseconds(ended.total)).collect();
    let causes: Vec<String> = ended.iter().map(|(_, ended)| ended.cause.word().to_owned()).collect();
    let sides: Vec<String> = ended.iter().map(|(_, ended)| ended.side.word().to_owned()).collect();
    let statuses: Vec<i16> =
        ended.iter().map(|(_, ended)| i16::try_from(ended.status).unwrap_or(0)).collect();
    let setups: Vec<Option<i64>> =
        ended.iter().map(|(_, ended)| ended.answered_after.map(milliseconds)).collect();
    let durations: Vec<i64> = ended.iter().map(|(_, ended)| milliseconds(ended.talked)).collect();
    let media: Vec<Value> = ended.iter().map(|(_, ended)| media(&ended.media)).collect();
    // Of the same clock as the duration, and together just that.
    let direct: Vec<i64> = ended.iter().map(|(_, ended)| milliseconds(ended.direct)).collect();
    let octets: Vec<i64> = ended
        .iter()
        .map(|(_, ended)| ended.media.iter().map(|stream| stream.octets).sum::<u64>())
        .map(|octets| i64::try_from(octets).unwrap_or(i64::MAX))
        .collect();
    // The end is the start plus what the monotonic clock says: a wall clock that was stepped meanwhile bends nothing.
    let written = sqlx::query!(
        "UPDATE call SET ended_at = started_at + ended.total * interval '1 millisecond', cause = ended.cause, ended_by = ended.side,
            status = ended.status, setup_ms = ended.setup, duration_ms = ended.duration, media = ended.media,
            direct_ms = ended.direct, relayed_ms = ended.duration - ended.direct, relayed_octets = ended.octets
         FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::text[], $5::smallint[], $6::bigint[], $7::bigint[], $8::jsonb[], $9::bigint[], $10::bigint[])
            AS ended (id, total, cause, side, status, setup, duration, media, direct, octets)
         WHERE call.id = ended.id AND call.id = ANY($1) AND ended_at IS NULL",
        &calls,
        &totals,
        &causes,
        &sides,
        &statuses,
        &setups as &[Option<i64>],
        &durations,
        &media,
        &direct,
        &octets
    )
    .execute(&mut **transaction)
    .await?
    .rows_affected();
    if written < calls.len() as u64 {
        complain_of_ends_without_a_start(transaction, &calls).await?;
    }
    Ok(())
}

async fn write_legs(transaction: &mut PgTransaction<'_>, events: &[CallEvent]) -> Result<(), sqlx::Error> {
    let legs: Vec<(Uuid, &CallLeg)> = events
        .iter()
        .filter_map(|event| match &event.what {
            CallEventKind::Ended(ended) => Some(ended.legs.iter().map(|leg| (id(event), leg))),
            _ => None,
        })
        .flatten()
        .collect();
    if legs.is_empty() {
        return Ok(());
    }
    let calls: Vec<Uuid> = legs.iter().map(|(call, _)| *call).collect();
    let parties: Vec<i16> =
        legs.iter().map(|(_, leg)| i16::try_from(leg.party).unwrap_or(i16::MAX)).collect();
    let text = |pick: fn(&CallLeg) -> &str| -> Vec<String> {
        legs.iter().map(|(_, leg)| printable(pick(leg))).collect()
    };
    let maybe = |pick: fn(&CallLeg) -> Option<&str>| -> Vec<Option<String>> {
        legs.iter().map(|(_, leg)| pick(leg).map(printable)).collect()
    };
    let time = |pick: fn(&CallLeg) -> Option<Duration>| -> Vec<Option<i64>> {
        legs.iter().map(|(_, leg)| pick(leg).map(milliseconds)).collect()
    };
    let destinations: Vec<Option<String>> =
        legs.iter().map(|(_, leg)| leg.destination.map(|destination| destination.to_string())).collect();
    let statuses: Vec<Option<i16>> =
        legs.iter().map(|(_, leg)| leg.status.and_then(|status| i16::try_from(status).ok())).collect();
    sqlx::query!(
        "INSERT INTO call_leg (call, party, realm, trunk, destination, reached, reached_uri, sent_by, asked_ms, rang_ms, status)
         SELECT * FROM unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::bigint[],
            $10::bigint[], $11::smallint[])
         ON CONFLICT DO NOTHING",
        &calls,
        &parties,
        &text(|leg| &leg.realm),
        &maybe(|leg| leg.trunk.as_deref()) as &[Option<String>],
        &destinations as &[Option<String>],
        &text(|leg| &leg.reached),
        &text(|leg| &leg.uri),
        &maybe(|leg| leg.sent_by.as_deref()) as &[Option<String>],
        &time(|leg| leg.asked) as &[Option<i64>],
        &time(|leg| leg.rang) as &[Option<i64>],
        &statuses as &[Option<i16>]
    )
    .execute(&mut **transaction)
    .await?;
    Ok(())
}

/// Ends that were written before are no news; ends of calls that the database does not know are.
async fn complain_of_ends_without_a_start(
    transaction: &mut PgTransaction<'_>,
    calls: &[Uuid],
) -> Result<(), sqlx::Error> {
    let unknown = sqlx::query_scalar!(
        r#"SELECT id AS "id!" FROM unnest($1::uuid[]) AS ended (id) WHERE NOT EXISTS (SELECT FROM call WHERE call.id = ended.id)"#,
        calls
    )
    .fetch_all(&mut **transaction)
    .await?;
    for call in unknown {
        tracing::error!(%call, "a call has an end but no start in the journal; only its row in call_event tells of it");
    }
    Ok(())
}

fn id(event: &CallEvent) -> Uuid {
    Uuid::from_u128(event.call)
}

/// Seconds since the Unix epoch.
fn at(event: &CallEvent) -> f64 {
    event.wall.as_secs_f64()
}

/// PostgreSQL's text holds no NUL, and strangers write it.
fn printable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn describe(what: &CallEventKind) -> (String, Value) {
    let (kind, detail) = match what {
        CallEventKind::Started(_) => ("started", json!({})),
        CallEventKind::Answered { realm, trunk, destination, reached, uri } => (
            "answered",
            json!({
                "realm": realm, "trunk": trunk, "destination": destination,
                "reached": printable(reached), "uri": printable(uri),
            }),
        ),
        CallEventKind::Changed(change) => ("changed", json!(change)),
        CallEventKind::Path(record) => ("path", path(&words_of(record))),
        // The journal keeps it to itself.
        CallEventKind::Metered { direct, .. } => ("metered", json!({"direct_ms": milliseconds(*direct)})),
        CallEventKind::Ended(ended) => {
            ("ended", json!({"cause": ended.cause.word(), "by": ended.side.word(), "status": ended.status}))
        }
    };
    (kind.to_owned(), detail)
}

/// As `call_path` shows it.
fn path(entry: &PathWords) -> Value {
    json!({
        "after_ms": milliseconds(entry.after), "what": &*entry.what, "why": &*entry.why,
        "party": entry.party, "evidence": &*entry.evidence,
    })
}

fn media(streams: &[StreamStatistics]) -> Value {
    streams
        .iter()
        .map(|stream| {
            json!({
                "party": stream.endpoint.party, "stream": stream.stream, "kind": printable(&stream.kind),
                "codec": printable(&stream.codec), "packets": stream.packets, "octets": stream.octets,
                "lost": stream.lost, "strangers": stream.strangers, "jitter_ms": stream.jitter_ms,
                "rtt_ms": stream.rtt_ms, "mos": stream.mos, "dtmf": stream.dtmf,
                "whole": stream.whole.map(|whole| json!({
                    "packets": whole.packets, "lost": whole.lost, "unknown": whole.unknown,
                    "by": if whole.is_reported { "reports" } else { "relay" },
                })),
                // Telephone events of direct time pass nobody who could count them.
                "direct": stream.direct.map(|direct| json!({
                    "packets": direct.packets, "lost": direct.lost, "jitter_ms": direct.jitter_ms,
                    "dtmf": "not seen",
                })),
            })
        })
        .collect()
}
