//! Records against captures: what the record of a call says of its time, loss, quality and gaps must be what its phones' interfaces have
//! seen. `make release-records` plays 200 calls, eight at a time, and adds a row for each to `bench/release-records.json`;
//! virtual ones are in `sbc/tests/released_calls/records.rs`.

use std::collections::HashSet;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use crush_tests::packet::{Packet, is_rtp};
use crush_tests::phone::{Account, Event, Kind};
use crush_tests::place::Place;
use crush_tests::tone::{Turn, speech};
use crush_tests::{Failure, Result, skip_unless_possible};
use play::truth::{Got, Log, Sent, direct_time, gap_like, loss, score};
use serde_json::{Value, json};

use crate::scene::{GUEST, Scene, now, relay};
use crate::{BARESIP, LINPHONE, PJSIP, apart};

const SOFTPHONE: Kind = Kind::Softphone;
/// What a record may be wrong by.
const TIME: f64 = 0.1;
const SHARE: f64 = 0.01;
const SCORE: f64 = 0.2;
const GAP: f64 = 20.0;
/// After what happens to a call, and before.
const BEFORE: Duration = Duration::from_secs(14);
const AFTER: Duration = Duration::from_secs(14);
/// Who is silent now and then speaks and rests for so many seconds.
const SPEAKS: Turn = Turn { speaks: 4.0, rests: 3.0 };

/// What happens to a call, once it had time to leave the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Nothing,
    /// Held for so many seconds, and resumed.
    Hold(u64),
    CalledBack,
    Cut,
    /// Its path was never there.
    Blocked,
    /// The caller sends the called on to a third.
    Transferred,
    /// Digits as telephone events, before and after it has left.
    Digits,
}

const ACTS: [Act; 8] = [
    Act::Nothing,
    Act::Hold(4),
    Act::Cut,
    Act::Transferred,
    Act::CalledBack,
    Act::Digits,
    Act::Nothing,
    Act::Blocked,
];

/// How a call is made.
#[derive(Debug, Clone, Copy)]
struct Plan {
    number: usize,
    kinds: [Kind; 2],
    place: Place,
    is_lossy: bool,
    /// Both are silent now and then, and send nothing meanwhile where they can (PJSIP and linphone).
    has_rests: bool,
    act: Act,
    /// At least.
    length: Duration,
}

impl Plan {
    fn new(number: usize, kinds: [Kind; 2]) -> Self {
        let act = match ACTS[number % ACTS.len()] {
            Act::Digits if kinds.contains(&SOFTPHONE) => Act::Hold(2),
            act => act,
        };
        Self {
            number,
            kinds: if (number / ACTS.len()).is_multiple_of(2) { kinds } else { [kinds[1], kinds[0]] },
            place: if number.is_multiple_of(3) { Place::Open } else { apart("cone", "cone") },
            is_lossy: number % 3 == 2,
            has_rests: number % 5 == 3,
            act,
            length: Duration::from_secs(30 + (number as u64 * 17) % 61),
        }
    }

    fn account(&self, account: Account) -> Account {
        if self.kinds.contains(&SOFTPHONE) {
            return account;
        }
        let turns = if self.has_rests { vec![SPEAKS; 20] } else { vec![Turn { speaks: 150.0, rests: 0.0 }] };
        Account { vad: self.has_rests, says: Some(speech(8000, 600.0, &turns)), ..account }
    }
}

/// What one phone's interface has seen.
fn log(packets: &[Packet], phone: IpAddr) -> Log {
    let mut log = Log::default();
    for packet in packets.iter().filter(|packet| packet.protocol == 17 && is_rtp(&packet.payload)) {
        let word = |at: usize| packet.payload.get(at..).and_then(|rest| rest.first_chunk::<4>());
        let (Some(first), Some(ssrc)) = (word(0), word(8)) else { continue };
        let name = (u32::from_be_bytes(*ssrc), u16::from_be_bytes([first[2], first[3]]));
        let at = packet.at;
        if packet.source.ip() == phone {
            log.sent.push(Sent { at, name, is_direct: !relay().contains(&packet.destination.ip()) });
        } else if packet.destination.ip() == phone {
            log.got.push(Got { at, name });
        }
    }
    log
}

/// What a phone has sent until a moment in streams that began before it, or the rest: it begins a new stream with each call.
fn begun(log: &Log, moment: Duration, is_before: bool) -> Log {
    let old: HashSet<u32> = log.sent.iter().filter(|sent| sent.at < moment).map(|sent| sent.name.0).collect();
    let is_its = |sent: &&Sent| old.contains(&sent.name.0) == is_before;
    Log { sent: log.sent.iter().filter(is_its).copied().collect(), got: log.got.clone() }
}

/// What of all that a phone has got the other one has sent.
fn from(sender: &Log, receiver: &Log) -> Log {
    let sources: HashSet<u32> = sender.sent.iter().map(|sent| sent.name.0).collect();
    let got = receiver.got.iter().filter(|got| sources.contains(&got.name.0));
    Log { got: got.copied().collect(), ..receiver.clone() }
}

/// Waits, while linphones are silenced and speak again in turns.
fn talk(scene: &mut Scene, plan: &Plan, span: Duration) -> Result<()> {
    let end = now() + span;
    while now() < end {
        let turn = |seconds: f64| Duration::from_secs_f64(seconds).min(end.saturating_sub(now()));
        std::thread::sleep(turn(SPEAKS.speaks));
        if !plan.has_rests || now() >= end {
            continue;
        }
        scene.phones.iter_mut().try_for_each(|phone| phone.phone.mute())?;
        std::thread::sleep(turn(SPEAKS.rests));
        scene.phones.iter_mut().try_for_each(|phone| phone.phone.unmute())?;
    }
    Ok(())
}

/// Plays a call, and holds its records against what was captured: a row of each, with what is `wrong` of it.
fn play(plan: &Plan) -> Result<Vec<Value>> {
    let options: &[&str] = if plan.is_lossy { &["--loss", "2%"] } else { &[] };
    let mut scene = Scene::routed(plan.kinds, plan.place, options, |account| plan.account(account))?;
    if plan.act == Act::Blocked {
        scene.ground.cut(&scene.stage.lab)?;
    }
    let mut guest = if plan.act == Act::Transferred {
        let account = plan.account(Account::of(GUEST.0, GUEST.1, "udp"));
        let mut guest = scene.stage.phone(plan.kinds[0], GUEST.1, &account)?;
        guest.registered()?;
        Some(guest)
    } else {
        None
    };
    let begun_at = scene.call()?.at;
    if !plan.kinds.contains(&SOFTPHONE) {
        // What linphone plays from the start is mixed with silence.
        scene.phones.iter_mut().try_for_each(|phone| phone.phone.unmute())?;
    }
    talk(&mut scene, plan, BEFORE)?;
    match plan.act {
        Act::Nothing | Act::Blocked => {}
        Act::Hold(seconds) => {
            scene.phones[0].phone.hold()?;
            std::thread::sleep(Duration::from_secs(seconds));
            scene.phones[0].phone.resume()?;
            if !plan.kinds.contains(&SOFTPHONE) {
                // A linphone whose streams have begun anew has forgotten what it plays.
                std::thread::sleep(Duration::from_secs(1));
                scene.phones.iter_mut().try_for_each(|phone| phone.phone.unmute())?;
            }
        }
        Act::CalledBack => {
            scene.stage.sbc.sql("SELECT sbc_call_release(id, 'anchor') FROM call")?;
        }
        Act::Cut => scene.ground.cut(&scene.stage.lab)?,
        Act::Digits => {
            for digit in ['5', '7', '1'] {
                scene.phones[0].phone.press(digit)?;
                talk(&mut scene, plan, Duration::from_secs(2))?;
            }
            scene.stage.sbc.sql("SELECT sbc_call_release(id, 'anchor') FROM call")?;
            talk(&mut scene, plan, Duration::from_secs(4))?;
            scene.phones[0].phone.press('9')?;
        }
        Act::Transferred => {
            let Some(guest) = &mut guest else { return Err(Failure("nobody to send it to".into())) };
            let uri = format!("sip:{}@{}", GUEST.0, scene.phones[0].domain);
            scene.phones[0].phone.transfer(&uri)?;
            guest.wait(Event::Incoming)?;
            guest.phone.answer()?;
            guest.wait(Event::Established)?;
            scene.phones[0].wait(Event::Ended)?;
            if !plan.kinds.contains(&SOFTPHONE) {
                std::thread::sleep(Duration::from_secs(1));
                scene.phones[1].phone.unmute()?;
                guest.phone.unmute()?;
            }
        }
    }
    let rest = (begun_at + plan.length).saturating_sub(now());
    talk(&mut scene, plan, rest.max(AFTER))?;
    match &mut guest {
        None => scene.hang_up()?,
        Some(guest) => guest.phone.hang_up()?,
    }
    let wanted = if guest.is_some() { "2|t" } else { "1|t" };
    let closed = "SELECT count(*), bool_and(ended_at IS NOT NULL) FROM call";
    scene.stage.sbc.eventually_sql(closed, wanted, Duration::from_secs(10))?;
    let mut logs = Vec::new();
    for phone in scene.phones.iter_mut().chain(&mut guest) {
        let address = phone.address;
        logs.push(log(phone.tap().packets()?, address));
    }
    let records = scene.stage.sbc.sql(
        "SELECT json_agg(json_build_object('answered', extract(epoch FROM answered_at), 'duration_ms', duration_ms, \
         'direct_ms', direct_ms, 'media', media, 'path', (SELECT coalesce(json_agg(call_path ORDER BY sequence), '[]') \
         FROM call_path WHERE call_path.call = call.id)) ORDER BY answered_at) FROM call",
    )?;
    let records: Vec<Value> =
        serde_json::from_str(&records).map_err(|error| Failure(format!("{error}: {records}")))?;
    let rows = if let ([first, second], [one, middle, third]) = (records.as_slice(), logs.as_slice()) {
        let moment = Duration::from_secs_f64(number(&second["answered"]));
        let [before, after] = [true, false].map(|is_before| begun(middle, moment, is_before));
        vec![judge(plan, first, [one, &before]), judge(plan, second, [&after, third])]
    } else if let ([record], [one, other]) = (records.as_slice(), logs.as_slice()) {
        vec![judge(plan, record, [one, other])]
    } else {
        return Err(Failure(format!("{} records of {} phones", records.len(), logs.len())));
    };
    for row in rows.iter().filter(|row| row["wrong"] != json!([])) {
        println!("{}", scene.failure(&row.to_string()).0);
        // Its captures tell why.
        scene.stage.lab.keep();
    }
    Ok(rows)
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn judge(plan: &Plan, record: &Value, logs: [&Log; 2]) -> Value {
    let mut wrong: Vec<String> = Vec::new();
    let (mut off_loss, mut off_score, mut off_gap) = (0.0_f64, 0.0_f64, 0.0_f64);
    let answered = Duration::from_secs_f64(number(&record["answered"]));
    let talked = number(&record["duration_ms"]) / 1000.0;
    let direct = number(&record["direct_ms"]) / 1000.0;
    let ended = answered + Duration::from_secs_f64(talked);
    let (least, most) = direct_time(&logs, answered, ended);
    let (least, most) = (least.as_secs_f64(), most.as_secs_f64());
    let off_time = (least - direct).max(direct - most).max(0.0);
    if off_time > TIME {
        wrong.push(format!("{direct} s direct by the record, {least} to {most} by the phones"));
    }
    let mut streams = Vec::new();
    for stream in record["media"].as_array().into_iter().flatten() {
        let sender = usize::from(stream["party"] != 0);
        let (sent, lost) = loss(logs[sender], logs[1 - sender], Duration::ZERO, ended);
        let truth = lost as f64 / sent.max(1) as f64;
        let whole = &stream["whole"];
        if !whole.is_null() {
            let said = number(&whole["lost"]) / number(&whole["packets"]).max(1.0);
            let unknown = number(&whole["unknown"]) / number(&whole["packets"]).max(1.0);
            let off = ((said - truth).abs() - unknown).max(0.0);
            off_loss = off_loss.max(off);
            if off > SHARE {
                wrong.push(format!("of {sender} {whole} by the record, {lost} of {sent} lost by the phones"));
            }
            if let Some(mos) = stream["mos"].as_f64() {
                let truth = score(truth, said, mos);
                off_score = off_score.max((truth - mos).abs());
                if (truth - mos).abs() > SCORE {
                    wrong.push(format!("MOS {mos} of {sender} by the record, {truth} by the phones"));
                }
            }
        }
        streams.push(json!({
            "party": sender, "sent": sent, "lost": lost, "record": whole, "mos": stream["mos"], "dtmf": stream["dtmf"],
            "direct": stream["direct"],
        }));
    }
    let mut gaps = Vec::new();
    for entry in record["path"].as_array().into_iter().flatten() {
        if entry["what"] == "lie" {
            wrong.push(format!("a lie of an honest phone: {entry}"));
        }
        if entry["what"] != "gap" {
            continue;
        }
        let told = answered + Duration::from_millis(entry["after_ms"].as_u64().unwrap_or(0));
        let sender = usize::from(entry["party"] != 0);
        let receiver = from(logs[sender], logs[1 - sender]);
        let said = entry["evidence"].as_str().and_then(|text| text.split(' ').next()?.parse().ok());
        let said: u64 = said.unwrap_or(0);
        let since = told.saturating_sub(Duration::from_secs(8));
        let heard = gap_like(Duration::from_millis(said), &receiver, since, told).as_secs_f64() * 1000.0;
        if entry["why"] == "measured" {
            let off = (heard - said as f64).abs();
            off_gap = off_gap.max(off);
            if off > GAP {
                wrong.push(format!("{entry}, and {heard:.0} ms heard"));
            }
        }
        gaps.push(json!({"record": entry["evidence"], "how": entry["why"], "capture_ms": heard.round()}));
    }
    json!({
        "kind": "real", "number": plan.number, "phones": plan.kinds.map(Kind::product), "place": plan.place.names(),
        "act": format!("{:?}", plan.act), "rests": plan.has_rests, "line_loss": if plan.is_lossy { 0.02 } else { 0.0 },
        "seconds": talked, "direct_s": {"record": direct, "capture": [least, most]}, "relayed_s": talked - direct,
        "off": {"time_ms": off_time * 1000.0, "loss": off_loss, "mos": off_score, "gap_ms": off_gap},
        "streams": streams, "gaps": gaps, "wrong": wrong,
    })
}

fn rows_of(path: &str) -> Vec<Value> {
    fs::read(path).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// As many calls of these as RECORD_CALLS says; of each one row, or two of one that was transferred, in the file RECORD_OUT/NAME.json after
/// each call. Those whose rows are there, or in RECORD_TABLE, are not played again; RECORD_ONLY=5,7 plays these numbers alone.
fn play_all(name: &str, kinds: [Kind; 2]) {
    skip_unless_possible!(kinds[0].program(), kinds[1].program(), "conntrack", "curl", "openssl");
    let set = |name: &str| std::env::var(name).ok();
    let calls: usize = set("RECORD_CALLS").and_then(|calls| calls.parse().ok()).unwrap_or(25);
    let out = set("RECORD_OUT").map(|folder| format!("{folder}/{name}.json"));
    let mut rows = out.as_deref().map(rows_of).unwrap_or_default();
    let table = set("RECORD_TABLE").as_deref().map(rows_of).unwrap_or_default();
    let is_there: HashSet<u64> = rows
        .iter()
        .chain(table.iter().filter(|row| row["pair"] == name))
        .filter_map(|row| row["number"].as_u64())
        .collect();
    let mut failures = Vec::new();
    let only: Option<Vec<usize>> =
        set("RECORD_ONLY").map(|only| only.split(',').filter_map(|number| number.parse().ok()).collect());
    for number in (0..calls)
        .filter(|number| only.as_ref().is_none_or(|only| only.contains(number)))
        .filter(|number| !is_there.contains(&(*number as u64)))
    {
        let plan = Plan::new(number, kinds);
        match play(&plan) {
            Ok(played) => {
                for mut row in played {
                    row["pair"] = name.into();
                    failures.extend((row["wrong"] != json!([])).then(|| row["wrong"].to_string()));
                    rows.push(row);
                }
            }
            // It has no row, and is played by the next run.
            Err(failure) => {
                println!("{plan:?} was not played: {}", failure.0);
                failures.push(failure.0);
            }
        }
        if let Some(out) = &out {
            fs::write(out, serde_json::to_string_pretty(&rows).unwrap()).unwrap();
        }
    }
    assert!(failures.is_empty(), "{} of {calls}: {failures:#?}", failures.len());
}

macro_rules! pairs {
    ($($name:ident: $one:expr, $other:expr;)*) => {
        $(
            #[test]
            #[ignore = "make release-records"]
            fn $name() {
                play_all(stringify!($name), [$one, $other]);
            }
        )*
    };
}

pairs! {
    records_of_two_baresips: BARESIP, BARESIP;
    records_of_two_linphones: LINPHONE, LINPHONE;
    records_of_two_pjsips: PJSIP, PJSIP;
    records_of_baresip_and_linphone: BARESIP, LINPHONE;
    records_of_baresip_and_pjsip: BARESIP, PJSIP;
    records_of_linphone_and_pjsip: LINPHONE, PJSIP;
    records_of_two_softphones: SOFTPHONE, SOFTPHONE;
    records_of_softphone_and_linphone: SOFTPHONE, LINPHONE;
}
