//! One call in laboratory networks of its own: two phones behind two NATs, and an SBC with two addresses.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nat_lab::{Kind as Nat, Random};

use super::homecoming::Severed;
use super::listening::{Ear, Silence, direct_time};
use super::row::{Cut, Outcome, Row};
use super::voices::{between, rests, speech_in, turns};
use crate::capture::Capture;
use crate::ears::arrivals;
use crate::home::{Player, apply};
use crate::network::SBC;
use crate::packet::is_rtcp;
use crate::phone::{Account, Event, Kind, Phone};
use crate::place::{Ground, Place};
use crate::sbc::{self, Sbc};
use crate::tone::{Turn, speech};
use crate::{Failure, Lab, Network, Result};

const USERS: [(&str, Network); 2] = [("a1", Network::Access), ("a2", Network::Access)];
/// Apart by more than a tone detector's width.
const HERTZ: [f64; 2] = [600.0, 770.0];
/// How long a step of setting up may take on a line that loses packets.
const SOON: Duration = Duration::from_secs(40);
/// What a phone has to say lasts longer than its call by so much, seconds: it begins to play when its media does.
const LONGER: f64 = 60.0;
/// A path is to be cut at least so long before the end of the call, seconds: somebody may be silent for 20, and each telling report that is
/// lost may cost 6.2 s.
const WATCHED: f64 = 45.0;
/// One that is not direct at that moment is cut when it is again, but no later than so long before the end.
const AWAITED: Duration = Duration::from_secs(25);
/// A voice that has sent less than this share of the packets of its speech was not heard because of itself.
const VOICE: f64 = 0.5;
/// What a pause in sending is at least, where a phone falls silent.
const REST: Duration = Duration::from_millis(800);
/// How often a path that is to be cut is looked at, and whether to go on.
const LOOK: Duration = Duration::from_millis(500);
/// What of the SBC's traffic is captured: signalling, and reports by their packet types (RFC 3550 §12.1).
const TALK_AND_REPORTS: &str = "udp and (port 5060 or (udp[9] >= 200 and udp[9] <= 207))";

/// See the module.
#[derive(Debug)]
pub struct Field {
    row: Row,
    random: Random,
    turns: [Vec<Turn>; 2],
    phones: [Box<dyn Phone>; 2],
    taps: [Capture; 2],
    relay: Capture,
    sbc: Sbc,
    ground: Ground,
    lab: Lab,
}

/// A call that is over.
#[derive(Debug, Clone)]
pub struct Call {
    /// From the moment that both phones said so to when the caller hung up, as captures count.
    span: [Duration; 2],
    cut: Option<Duration>,
    busy: f64,
}

/// As captures and call records count.
fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn sleep_until(moment: Duration) {
    std::thread::sleep(moment.saturating_sub(now()));
}

/// What happens in a call, besides its talk.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Mute(usize),
    Unmute(usize),
    LoseReports(usize),
}

/// The SBC's addresses for media: where a NAT was learnt, a call goes on at the second.
fn relay() -> [IpAddr; 2] {
    [SBC, SBC + 1].map(|host| IpAddr::from([198, 51, 100, host]))
}

/// The configuration: release is allowed; who speaks CRUSH finds a discovery service.
fn configuration() -> String {
    let address = Network::Access.address(SBC);
    let second = Network::Access.address(SBC + 1);
    let realm = sbc::phone_realm("access", &address, [5060, 5061], "release = \"allow\"");
    let realm =
        realm.replace(&format!("media = [\"{address}\"]"), &format!("media = [\"{address}\", \"{second}\"]"));
    format!("[discovery]\naddresses = [\"{address}\", \"{second}\"]\n\n{realm}")
}

impl Field {
    /// Makes everything up to two registered phones.
    pub fn new(row: &Row) -> Result<Self> {
        let mut random = Random::new(row.seed());
        let mut lab = Lab::new("long")?;
        let loss = format!("{}%", row.loss);
        let mut options = vec!["--loss", &loss];
        if row.is_crush() {
            options.extend(["--delay", "20ms"]);
        }
        let ground = Ground::with(&mut lab, Place::Apart([Player::Tun(Nat::Cone); 2]), &options)?;
        let sbc = Sbc::start(&lab, &configuration(), &sbc::subscribers(&USERS))?;
        let relay = Capture::of_all(&lab, "sbc", Network::Access.name(), TALK_AND_REPORTS)?;
        let seconds = f64::from(row.seconds) + LONGER;
        let mut side = |index: usize| -> Result<(Vec<Turn>, Box<dyn Phone>, Capture)> {
            let (host, address) = &ground.hosts[index];
            let tap = Capture::of_all(&lab, host, "eth0", "")?;
            let has_rests = row.vad.is_of(index);
            let all = [Turn { speaks: seconds, rests: 0.0 }].to_vec();
            let turns = if has_rests { turns(&mut random, seconds) } else { all.clone() };
            // linphone is silenced by command.
            let played = if row.kinds[index] == Kind::Linphone { &all } else { &turns };
            let account = Account {
                vad: has_rests,
                says: Some(speech(8000, HERTZ[index], played)),
                ..Account::of(USERS[index].0, Network::Access, "udp")
            };
            let phone = row.kinds[index].start(&lab, host, address, &account, HERTZ[index])?;
            Ok((turns, phone, tap))
        };
        let (one, other) = (side(0)?, side(1)?);
        let mut phones = [one.1, other.1];
        phones.iter_mut().try_for_each(|phone| phone.registered(SOON))?;
        let (turns, taps) = ([one.0, other.0], [one.2, other.2]);
        Ok(Self { row: *row, random, turns, phones, taps, relay, sbc, ground, lab })
    }

    /// The call, from dialling to its end.
    pub fn call(&mut self) -> Result<Call> {
        let [one, other] = &mut self.phones;
        one.dial(&format!("sip:{}@{}", USERS[1].0, Network::Access.address(SBC)))?;
        other.wait(Event::Incoming, SOON)?;
        other.answer()?;
        one.wait(Event::Established, SOON)?;
        other.wait(Event::Established, SOON)?;
        let start = now();
        let work = work();
        let acts = self.acts();
        let end = start + Duration::from_secs(self.row.seconds.into());
        let mut cut = None;
        let mut cut_at = None;
        let mut acts = acts.into_iter().peekable();
        while now() < end {
            if super::is_stopped() {
                return Err(Failure("stopped".into()));
            }
            if self.row.cut != Cut::None && cut_at.is_none() {
                cut_at = self.cut_at(start);
            }
            if cut.is_none() && cut_at.is_some_and(|at| at <= now()) {
                // What is on the relay at this moment is not cut off by it, nor who has not yet been spoken to since the move.
                if now() + AWAITED <= end && self.is_direct() && self.hear_directly()? {
                    cut = self.cut()?;
                } else {
                    cut_at = Some(now() + LOOK);
                }
            }
            while let Some((_, act)) = acts.next_if(|(after, _)| start + *after <= now()) {
                match act {
                    Act::Mute(side) => self.phones[side].mute()?,
                    Act::Unmute(side) => self.phones[side].unmute()?,
                    Act::LoseReports(side) => self.lose_reports(side)?,
                }
            }
            let next = acts
                .peek()
                .map(|(after, _)| start + *after)
                .into_iter()
                .chain(cut_at.filter(|_| cut.is_none()));
            let look = now() + LOOK;
            sleep_until(next.chain([look, end]).min().unwrap_or(end));
        }
        let busy = work.zip(self::work()).map_or(0.0, |(before, after)| after.since(before));
        let until = now();
        let [one, other] = &mut self.phones;
        one.hang_up()?;
        other.wait(Event::Ended, SOON)?;
        Ok(Call { span: [start, until], cut, busy })
    }

    /// What happens, and when after the answer; in order.
    fn acts(&mut self) -> Vec<(Duration, Act)> {
        let mut acts = Vec::new();
        for side in 0..2 {
            acts.push((
                Duration::from_secs_f64(between(
                    &mut self.random,
                    [0.0, f64::from(self.row.seconds.min(120)) / 2.0],
                )),
                Act::LoseReports(side),
            ));
            if self.row.kinds[side] == Kind::Linphone {
                // What it plays from the start is mixed with silence when it ends; what it is told to play is not.
                acts.push((Duration::ZERO, Act::Unmute(side)));
            }
            if self.row.kinds[side] == Kind::Linphone && self.row.vad.is_of(side) {
                let silent = rests(&self.turns[side]).into_iter();
                acts.extend(silent.flat_map(|[from, to]| [(from, Act::Mute(side)), (to, Act::Unmute(side))]));
            }
        }
        acts.sort_by_key(|act| act.0);
        acts
    }

    /// Whether the path is proven by now.
    fn is_direct(&self) -> bool {
        let states = STATES.map(|state| format!("'{state}'")).join(", ");
        let latest =
            format!("SELECT what FROM call_path WHERE what IN ({states}) ORDER BY sequence DESC LIMIT 1");
        self.sbc.sql(&latest).is_ok_and(|state| state == "direct")
    }

    /// Whether those who are to be cut off have heard the other directly last, as far as captures have it written.
    fn hear_directly(&mut self) -> Result<bool> {
        let relay = relay();
        for &side in self.row.cut.deaf() {
            let own = self.ground.address(side)?;
            let heard = arrivals(self.taps[side].packets()?, own);
            if heard.last().is_none_or(|last| relay.contains(&last.source)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A random moment to come, once the path is proven.
    fn cut_at(&mut self, start: Duration) -> Option<Duration> {
        if !self.is_direct() {
            return None;
        }
        let latest = f64::from(self.row.seconds) - WATCHED - (now() - start).as_secs_f64();
        let after = between(&mut self.random, [0.5, latest.max(1.0)]);
        Some(now() + Duration::from_secs_f64(after))
    }

    /// One report a minute of a phone is lost on its way to the SBC, by a rule in its router.
    fn lose_reports(&self, side: usize) -> Result<()> {
        let [first, second] = relay();
        let router = self.ground.homes().get(side).map(|home| self.lab.namespace(home.name()));
        let router = router.ok_or_else(|| Failure("a home is missing".into()))?;
        // Sender and receiver reports (RFC 3550 §12.1), by the second octet of their payload.
        apply(
            &router,
            &format!(
                "table ip reports {{\n  chain lose {{\n    type filter hook prerouting priority -400;\n    iifname lan ip daddr {{ {first}, {second} }} \
                 meta l4proto udp @th,72,8 {{ 200, 201 }} limit rate 1/minute burst 1 packets counter drop\n  }}\n}}\n"
            ),
        )
    }

    /// Cuts the direct path, if the call has one; when.
    fn cut(&self) -> Result<Option<Duration>> {
        let [Some(a), Some(b)] = [self.ground.homes().first(), self.ground.homes().get(1)] else {
            return Err(Failure("a home is missing".into()));
        };
        let far = b.external().to_string();
        // What a sends to b is outbound at a's router.
        let way: &[&str] = match self.row.cut {
            Cut::None => return Ok(None),
            Cut::Both => &[],
            Cut::Out => &["out"],
            Cut::In => &["in"],
        };
        a.tell(&[&["cut", far.as_str()], way].concat())?;
        Ok(Some(now()))
    }

    /// What the captures and the record tell of the call. All of it is kept if it is not as it should be.
    pub fn look(self, call: &Call) -> Result<Outcome> {
        let Self { row, turns, phones, taps, relay: at_relay, sbc, ground, mut lab, .. } = self;
        let timeline = "SELECT extract(epoch FROM at), after_ms, what, why, party, evidence FROM call_path ORDER BY sequence";
        let closed = "SELECT count(*) FROM call WHERE ended_at IS NOT NULL";
        sbc.eventually_sql(closed, "1", Duration::from_secs(15))?;
        let path = sbc.sql(timeline)?;
        let ended = sbc.sql("SELECT cause, duration_ms FROM call")?;
        drop(phones);
        let [one, other] = taps;
        let [one, other] = [(one, 0), (other, 1)].map(|(tap, side)| -> Result<Ear> {
            Ok(Ear::new(&tap.finish()?, ground.address(side)?, call.span))
        });
        let ears = [one?, other?];
        let mut arrived: HashMap<Vec<u8>, u32> = HashMap::new();
        for packet in at_relay.finish()?.into_iter().filter(|packet| is_rtcp(&packet.payload)) {
            *arrived.entry(packet.payload).or_default() += 1;
        }
        let lost = ears.each_ref().map(|ear| lost(ear, &mut arrived));
        let [start, until] = call.span;
        let until = call.cut.unwrap_or(until);
        let entries: Vec<Entry> = path.lines().filter_map(Entry::read).collect();
        let proven = entries.iter().find(|entry| entry.what == "direct").map(|entry| entry.at);
        let proven = proven.filter(|at| *at < until);
        let silences = [0, 1].map(|side| ears[side].silences(&ears[1 - side].sent, call.span[1]));
        let before = silences.each_ref().map(|all| {
            all.iter()
                .filter(|silence| silence.start < until)
                .map(|silence| Silence { end: silence.end.min(until), ..*silence })
                .collect::<Vec<_>>()
        });
        let mut moves: Vec<_> = [0, 1]
            .into_iter()
            .flat_map(|side| ears[side].moves(&before[side]))
            .filter(|one| one.at < until)
            .collect();
        moves.sort_by_key(|one| one.at);
        let after_proof =
            entries.iter().filter(|entry| proven.is_some_and(|proven| entry.at > proven) && entry.at < until);
        let reasons = after_proof.filter(|entry| ["returning", "stays"].contains(&entry.what.as_str()));
        let relay = relay();
        let severed = call.cut.map(|cut| Severed {
            ears: &ears,
            lost: &lost,
            deaf: row.cut.deaf(),
            relay: &relay,
            cut,
            end: call.span[1],
        });
        let cut = severed.map(|severed| severed.homecoming(start));
        let mut faults: Vec<String> = ended_early(&ended, call.span).into_iter().collect();
        faults.extend((0..2).flat_map(|side| {
            said(&row, side, &turns[side], &ears[side], call.span)
                .map(|what| format!("{}: {what}", USERS[side].0))
        }));
        if row.cut != Cut::None && !cut.is_some_and(|cut| cut.was_direct) {
            faults.push("was not direct when it was to be cut".to_owned());
        }
        let mut outcome = Outcome {
            proven: proven.map(|at| at.saturating_sub(start)),
            direct_share: proven.map_or(0.0, |proven| {
                let spans = direct_spans(&entries, [proven, until]);
                let direct: Duration =
                    spans.map(|span| direct_time([&ears[0], &ears[1]], ground.far, span)).sum();
                direct.as_secs_f64() / until.saturating_sub(proven).as_secs_f64().max(0.001)
            }),
            longest_silence: before.iter().flatten().map(Silence::length).max().unwrap_or_default(),
            moves,
            reasons: reasons
                .map(|entry| {
                    format!(
                        "{} {} at {:.1} s",
                        entry.what,
                        entry.why,
                        entry.at.saturating_sub(start).as_secs_f64()
                    )
                })
                .collect(),
            reports: [ears.iter().map(|ear| ear.reports.len()).sum(), lost.iter().map(Vec::len).sum()],
            cut,
            faults,
            busy: call.busy,
            kept: None,
        };
        let missed = outcome.missed(&row);
        if !missed.is_empty() || std::env::var_os("LONG_KEEP").is_some() {
            lab.keep();
            outcome.kept = Some(lab.folder().display().to_string());
            let story = format!(
                "{row}\n{}\nanswered {:.6} cut {:?}\n{outcome:#?}\n\n{path}\n",
                missed.join("\n"),
                start.as_secs_f64(),
                call.cut
            );
            fs::write(lab.folder().join("story.txt"), story)?;
        }
        Ok(outcome)
    }
}

/// When a phone sent reports that did not reach the SBC.
fn lost(ear: &Ear, arrived: &mut HashMap<Vec<u8>, u32>) -> Vec<Duration> {
    let mut lost = Vec::new();
    for (at, report) in &ear.reports {
        match arrived.get_mut(report).filter(|count| **count > 0) {
            Some(count) => *count -= 1,
            None => lost.push(*at),
        }
    }
    lost
}

/// A call ends when its caller hangs up, and not before: who has ended sends nothing that could be missed.
fn ended_early(record: &str, [start, until]: [Duration; 2]) -> Option<String> {
    let (cause, length) = record.split_once('|').unwrap_or((record, ""));
    let length = Duration::from_millis(length.parse().unwrap_or_default());
    let is_whole = cause == "bye" && length + Duration::from_secs(1) >= until.saturating_sub(start);
    (!is_whole).then(|| format!("the call ended by {cause} after {length:?}"))
}

/// What is wrong with the voice of a phone: one that did not speak would miss nothing of the other's limits, and one that never fell silent
/// would show nothing of silence.
fn said(row: &Row, side: usize, turns: &[Turn], ear: &Ear, [start, until]: [Duration; 2]) -> Option<String> {
    let length = until.saturating_sub(start).as_secs_f64();
    let wanted = 50.0 * speech_in(turns, length);
    if (ear.sent.len() as f64) < VOICE * wanted {
        return Some(format!("sent {} packets where it spoke for {wanted:.0}", ear.sent.len()));
    }
    // baresip sends silence, too.
    let has_rests = row.vad.is_of(side) && [Kind::Linphone, Kind::Pjsua].contains(&row.kinds[side]);
    let rests = ear.sent.windows(2).filter(|pair| pair[1].saturating_sub(pair[0]) >= REST).count();
    (has_rests && length > 60.0 && rests == 0).then(|| "never fell silent".to_owned())
}

/// The states of a path, among what else its timeline tells.
const STATES: [&str; 5] = ["anchored", "probing", "synchronising", "direct", "returning"];

/// When the record says that the call was direct: who says nothing after it was called home leaves no packet that could tell.
fn direct_spans(
    entries: &[Entry],
    [from, until]: [Duration; 2],
) -> impl Iterator<Item = [Duration; 2]> + use<> {
    let states: Vec<_> = entries.iter().filter(|entry| STATES.contains(&entry.what.as_str())).collect();
    let ends = states.iter().skip(1).map(|entry| entry.at).chain([until]);
    let spans = states.iter().zip(ends).filter(|(entry, _)| entry.what == "direct");
    let spans: Vec<_> = spans.map(|(entry, end)| [entry.at.max(from), end.min(until)]).collect();
    spans.into_iter().filter(|[from, until]| from < until)
}

/// A line of the call's timeline.
struct Entry {
    at: Duration,
    what: String,
    why: String,
}

impl Entry {
    fn read(line: &str) -> Option<Self> {
        let mut columns = line.split('|');
        let at = columns.next()?.parse().ok().map(Duration::from_secs_f64)?;
        Some(Self { at, what: columns.nth(1)?.to_owned(), why: columns.next()?.to_owned() })
    }
}

/// What all processors have done since the start of the machine, in its ticks.
#[derive(Debug, Clone, Copy)]
struct Work {
    busy: u64,
    all: u64,
}

impl Work {
    fn since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.busy.saturating_sub(before.busy) as f64 / all as f64
    }
}

fn work() -> Option<Work> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let ticks: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|word| word.parse().ok()).collect();
    let all = ticks.iter().take(8).sum();
    // Idle, and waiting for a disk.
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Some(Work { busy: all - idle, all })
}
