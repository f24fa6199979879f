//! `sbc records`: the latest calls as a person reads them.

use std::fmt::Write;

use serde_json::Value;
use sqlx::postgres::{PgPool, PgRow};
use sqlx::types::Uuid;
use sqlx::{Error, Row};

/// The latest calls, the last one at the end, some lines each.
pub async fn latest(pool: &PgPool, count: u32) -> Result<String, Error> {
    let rows = sqlx::query(
        "SELECT id, to_char(started_at, 'YYYY-MM-DD HH24:MI:SS') AS at, from_uri, request_uri, realm, trunk, reached, reached_uri,
            answered_realm, destination, cause, ended_by, status, setup_ms, duration_ms, direct_ms, media
         FROM call ORDER BY started_at DESC LIMIT $1",
    )
    .bind(i64::from(count))
    .fetch_all(pool)
    .await?;
    if rows.is_empty() {
        return Ok("There is no call yet: register two phones and dial from one to the other.\n".to_owned());
    }
    let mut out = String::new();
    for row in rows.iter().rev() {
        describe(row, &mut out)?;
        out.push('\n');
    }
    if rows.len() == usize::try_from(count).unwrap_or(usize::MAX) {
        let _ = writeln!(out, "The latest {count}, the last one at the end; `-n` and a number show more.");
    }
    out.push_str("With its id behind the command it shows what happened in one; tables `call` and `call_event` hold all of it.\n");
    Ok(out)
}

/// One call and its events; `None` if the database has no such call.
pub async fn one(pool: &PgPool, id: Uuid) -> Result<Option<String>, Error> {
    let row = sqlx::query(
        "SELECT id, to_char(started_at, 'YYYY-MM-DD HH24:MI:SS') AS at, from_uri, request_uri, realm, trunk, reached, reached_uri,
            answered_realm, destination, cause, ended_by, status, setup_ms, duration_ms, direct_ms, media
         FROM call WHERE id = $1 OR former_id = $1",
    )
    .bind(id)
    .fetch_optional(pool)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let mut out = String::new();
    describe(&row, &mut out)?;
    let events = sqlx::query(
        "SELECT to_char(at, 'HH24:MI:SS.MS') AS at, kind, detail FROM call_event WHERE call = $1 ORDER BY sequence",
    )
    .bind(row.try_get::<Uuid, _>("id")?)
    .fetch_all(pool)
    .await?;
    let has_path = |event: &PgRow| event.try_get::<String, _>("kind").is_ok_and(|kind| kind == "path");
    let is_kept = row.try_get::<Option<i64>, _>("setup_ms")?.is_some() && !events.iter().any(has_path);
    for event in events {
        let (at, kind): (String, String) = (event.try_get("at")?, event.try_get("kind")?);
        let detail: Value = event.try_get("detail")?;
        let _ = writeln!(out, "  {at}  {kind:<9} {}", shown(&detail.to_string()));
    }
    legs(pool, &row, &mut out).await?;
    if is_kept {
        out.push_str(
            "  Its media stayed on the relay: `release` of its realms, or of their pair, keeps it there.\n",
        );
    }
    Ok(Some(out))
}

/// Whom it went to.
async fn legs(pool: &PgPool, call: &PgRow, out: &mut String) -> Result<(), Error> {
    let legs = sqlx::query(
        "SELECT party, realm, trunk, destination, reached, sent_by, asked_ms, rang_ms, status FROM call_leg WHERE call = $1 ORDER BY party",
    )
    .bind(call.try_get::<Uuid, _>("id")?)
    .fetch_all(pool)
    .await?;
    for leg in legs {
        let text = |column: &str| -> Result<Option<String>, Error> {
            Ok(leg.try_get::<Option<String>, _>(column)?.map(|text| shown(&text)))
        };
        let after = |column: &str, what: &str| -> Result<String, Error> {
            let time = leg.try_get::<Option<i64>, _>(column)?;
            Ok(time.map(|time| format!(", {what} after {:.1} s", time as f64 / 1000.0)).unwrap_or_default())
        };
        let _ = write!(
            out,
            "  leg {}: {} in {}",
            leg.try_get::<i16, _>("party")?,
            text("reached")?.unwrap_or_default(),
            text("realm")?.unwrap_or_default()
        );
        for (column, before) in
            [("trunk", ", trunk "), ("destination", " at "), ("sent_by", ", sent there by ")]
        {
            if let Some(text) = text(column)? {
                let _ = write!(out, "{before}{text}");
            }
        }
        let status = leg.try_get::<Option<i16>, _>("status")?;
        let status = status.map_or_else(|| "no final response".to_owned(), |status| status.to_string());
        let _ = writeln!(out, "{}{}, {status}", after("asked_ms", "asked")?, after("rang_ms", "rang")?);
    }
    Ok(())
}

fn describe(row: &PgRow, out: &mut String) -> Result<(), Error> {
    let text = |column: &str| -> Result<Option<String>, Error> {
        Ok(row.try_get::<Option<String>, _>(column)?.map(|text| shown(&text)))
    };
    let seconds = |column: &str| -> Result<Option<f64>, Error> {
        Ok(row.try_get::<Option<i64>, _>(column)?.map(|milliseconds| milliseconds as f64 / 1000.0))
    };
    let (at, from, to) = (text("at")?, text("from_uri")?, text("request_uri")?);
    let [at, from, to] = [at, from, to].map(Option::unwrap_or_default);
    let _ = writeln!(out, "{at}  {from} -> {to}");
    let setup = seconds("setup_ms")?;
    let end = match (text("cause")?, text("ended_by")?, row.try_get::<Option<i16>, _>("status")?) {
        (Some(cause), by, status) => {
            format!("{cause}, ended by {}, status {}", by.unwrap_or_default(), status.unwrap_or_default())
        }
        (None, ..) if text("destination")?.is_some() => "running".to_owned(),
        (None, ..) => "not answered yet".to_owned(),
    };
    let _ = write!(out, "  {end}");
    if let Some(setup) = setup {
        let (talked, direct) = (seconds("duration_ms")?.unwrap_or(0.0), seconds("direct_ms")?.unwrap_or(0.0));
        let _ = write!(
            out,
            "; answered after {setup:.1} s, talked {talked:.1} s, {direct:.1} s of it off the relay"
        );
    }
    out.push('\n');
    if let Some(reached) = text("reached")? {
        let (uri, realm) =
            (text("reached_uri")?.unwrap_or_default(), text("answered_realm")?.unwrap_or_default());
        let trunk = text("trunk")?.map(|trunk| format!(", trunk {trunk}")).unwrap_or_default();
        let _ = writeln!(out, "  reached {reached} as {uri}, realm {realm}{trunk}");
    }
    if let Some(streams) = row.try_get::<Option<Value>, _>("media")? {
        for stream in streams.as_array().into_iter().flatten() {
            let _ = writeln!(out, "  {}", heard(stream));
        }
    }
    let _ = writeln!(out, "  call {}", row.try_get::<Uuid, _>("id")?);
    Ok(())
}

/// What came from a party in one stream.
fn heard(stream: &Value) -> String {
    let text = |name: &str| shown(stream.get(name).and_then(Value::as_str).unwrap_or_default());
    let number = |name: &str| stream.get(name).and_then(Value::as_f64);
    let party = match number("party") {
        Some(0.0) => "the caller",
        _ => "the callee",
    };
    let [packets, lost] = ["packets", "lost"].map(|name| number(name).unwrap_or(0.0));
    let mos = number("mos").map(|mos| format!(", MOS {mos:.1}")).unwrap_or_default();
    let jitter = number("jitter_ms").unwrap_or(0.0);
    let (kind, codec) = (text("kind"), text("codec"));
    let part = |name: &str, field: &str| stream.get(name).and_then(|part| part.get(field));
    let whole = match [part("whole", "packets"), part("whole", "lost")].map(|value| value?.as_u64()) {
        [Some(packets), Some(lost)] => format!(", on the whole way {lost} lost of {packets}"),
        _ => String::new(),
    };
    let direct = match [part("direct", "packets"), part("direct", "lost")] {
        [Some(packets), Some(lost)] => match (packets.as_u64(), lost.as_u64()) {
            (Some(packets), Some(lost)) => format!("; off the relay {lost} lost of {packets}, DTMF not seen"),
            _ => "; off the relay loss unknown, DTMF not seen".to_owned(),
        },
        _ => String::new(),
    };
    // Where nothing else came, this is why nobody was heard.
    let strangers = match number("strangers") {
        Some(strangers) if strangers > 0.0 => {
            format!("; {strangers:.0} more came from addresses that the call does not know, and were dropped")
        }
        _ => String::new(),
    };
    let what = if kind.is_empty() { "media".to_owned() } else { format!("{kind} {codec}") };
    format!(
        "{what} from {party}: {packets} packets, {lost} lost, jitter {jitter:.1} ms{whole}{mos}{direct}{strangers}"
    )
}

/// What strangers wrote must not move the cursor of who reads it.
fn shown(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_stream_reads_as_a_sentence_and_a_strangers_text_moves_no_cursor() {
        let stream = json!({"party": 1, "kind": "audio", "codec": "PC\u{1b}[2JMU", "packets": 250, "lost": 1, "jitter_ms": 0.25, "mos": 4.37});
        assert_eq!(
            heard(&stream),
            "audio PC\u{fffd}[2JMU from the callee: 250 packets, 1 lost, jitter 0.2 ms, MOS 4.4"
        );
        let direct = json!({
            "party": 0, "kind": "audio", "codec": "PCMU", "packets": 250, "lost": 0, "jitter_ms": 0.0, "mos": 4.2,
            "whole": {"packets": 900, "lost": 9, "by": "reports"},
            "direct": {"packets": 650, "lost": 9, "jitter_ms": 1.0, "dtmf": "not seen"},
        });
        assert_eq!(
            heard(&direct),
            "audio PCMU from the caller: 250 packets, 0 lost, jitter 0.0 ms, on the whole way 9 lost of 900, MOS 4.2; \
             off the relay 9 lost of 650, DTMF not seen"
        );
        let dropped = json!({"party": 0, "packets": 0, "lost": 0, "jitter_ms": 0.0, "strangers": 310});
        assert_eq!(
            heard(&dropped),
            "media from the caller: 0 packets, 0 lost, jitter 0.0 ms; 310 more came from addresses that the call does not \
             know, and were dropped"
        );
        let unknown = json!({
            "party": 0, "kind": "audio", "codec": "PCMU", "packets": 250, "lost": 0, "jitter_ms": 0.0, "mos": null, "whole": null,
            "direct": {"packets": null, "lost": null, "jitter_ms": null, "dtmf": "not seen"},
        });
        assert_eq!(
            heard(&unknown),
            "audio PCMU from the caller: 250 packets, 0 lost, jitter 0.0 ms; off the relay loss unknown, DTMF not seen"
        );
    }
}
