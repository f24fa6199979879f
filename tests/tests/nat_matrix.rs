//! The NAT matrix with real sockets: two of the project's phones, the SBC between them, in namespaces behind NATs of every kind. The
//! virtual counterpart is `crush/tests/nat_matrix.rs`; `make nat-matrix` runs both and sets them side by side.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a laboratory that fails ends its test"
)]

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crush_tests::capture::Capture;
use crush_tests::home::{self, Home, Player};
use crush_tests::kamailio;
use crush_tests::network::SBC;
use crush_tests::packet::{Packet, is_rtp};
use crush_tests::phone::{Account, Event, Phone};
use crush_tests::pjsua::Pjsua;
use crush_tests::process::{eventually, run};
use crush_tests::sbc::{self, Sbc};
use crush_tests::softphone::{Softphone, Voice};
use crush_tests::{Lab, Network, Result, skip_unless_possible};
use nat_lab::Kind;
use nat_lab::nft::Rules;
use serde_json::Value;

/// Where a phone may be, under the names of the virtual matrix.
const PLACES: [(&str, Option<Player>); 7] = [
    ("public", None),
    ("upnp", Some(Player::Upnp(Rules::SymmetricRandom))),
    ("full-cone", Some(Player::Tun(Kind::FullCone))),
    ("restricted-cone", Some(Player::Tun(Kind::RestrictedCone))),
    ("cone", Some(Player::Tun(Kind::Cone))),
    ("symmetric-sequential", Some(Player::Tun(Kind::SymmetricSequential))),
    ("symmetric-random", Some(Player::Tun(Kind::SymmetricRandom))),
];
/// Calls of a pair, and of one behind the flood limiter.
const RUNS: [usize; 2] = [3, 1];
/// The limiter: new flows per second of a host, and at once.
const LIMIT: (u32, u32) = (30, 30);
/// What tells caller and callee that the call is up.
const UP: [&[u8]; 2] = [b"SIP/2.0 200", b"ACK "];
const SOON: Duration = Duration::from_secs(20);

/// One pair under one set of conditions.
#[derive(Debug, Clone, Copy)]
struct Cell {
    names: [&'static str; 2],
    players: [Option<Player>; 2],
    /// Both in the home of the first.
    share: bool,
    limited: bool,
}

impl Cell {
    /// Same LAN, and every place with every other, one way round.
    fn all() -> Vec<Self> {
        let mut cells = Vec::new();
        for limited in [false, true] {
            let player = Some(Player::Tun(Kind::Cone));
            cells.push(Self { names: ["same-lan"; 2], players: [player; 2], share: true, limited });
            for (index, (a, one)) in PLACES.into_iter().enumerate() {
                cells.extend(PLACES.into_iter().skip(index).map(|(b, other)| Self {
                    names: [a, b],
                    players: [one, other],
                    share: false,
                    limited,
                }));
            }
        }
        cells
    }

    fn temper(&self) -> &'static str {
        if self.limited { "stealth" } else { "fast" }
    }

    /// The spray's own limit, and what discovery and the handoff take.
    fn within(&self) -> Duration {
        Duration::from_secs(if self.limited { 182 } else { 32 })
    }
}

/// A host with a phone on it.
struct Party<P> {
    phone: P,
    tap: Capture,
    address: IpAddr,
}

/// One call's outcome.
#[derive(Debug, Default)]
struct Call {
    /// s from the answer, until both directions of both were direct.
    direct: Option<f64>,
    gave_up: bool,
    /// ms at caller and callee: see [`first_audio`].
    first_audio: [Option<f64>; 2],
    probes: [u64; 2],
    flows: [u64; 2],
    sockets: [u64; 2],
}

/// A cell's laboratory.
struct Bench {
    lab: Lab,
    homes: Vec<Home>,
    parties: [Party<Softphone>; 2],
    _sbc: Sbc,
}

/// A host's name and address.
type Host = (String, String);

/// The networks of a cell: its homes, and a host in each.
fn places(cell: &Cell) -> Result<(Lab, Vec<Home>, [Host; 2])> {
    let mut lab = Lab::new("matrix")?;
    let second = Network::Access.address(SBC + 1);
    let device = Network::Access.name();
    run(&["ip", "-n", &lab.namespace("sbc"), "addr", "add", &format!("{second}/23"), "dev", device])?;
    let (flows, burst) = (LIMIT.0.to_string(), LIMIT.1.to_string());
    let mut homes = Vec::new();
    let mut hosts = Vec::new();
    for (index, player) in cell.players.into_iter().enumerate() {
        let name = ["a", "b"][index];
        let number = 20 + index as u8;
        let Some(player) = player else {
            hosts.push((name.to_owned(), lab.host(name, Network::Access, number)?));
            continue;
        };
        if !(cell.share && index == 1) {
            let mut options = vec!["--delay", "20ms"];
            if cell.limited {
                options.extend(["--flows", &flows, "--burst", &burst, "--block", "2s"]);
            }
            let is_program = matches!(player, Player::Tun(_));
            let home = Home::new(&mut lab, name, player, number, if is_program { &options } else { &[] })?;
            if cell.limited && !is_program {
                home.limit(&lab, LIMIT.0, LIMIT.1)?;
            }
            homes.push(home);
        }
        let last = homes.len() - 1;
        hosts.push(homes[last].host(&mut lab)?);
    }
    let [one, other] = <[_; 2]>::try_from(hosts).unwrap_or_else(|_| unreachable!());
    Ok((lab, homes, [one, other]))
}

impl Bench {
    fn new(cell: &Cell) -> Result<Self> {
        let (lab, homes, hosts) = places(cell)?;
        let first = Network::Access.address(SBC);
        let realms = sbc::phones_with("release = \"allow\"")
            + &format!(
                "\n[discovery]\naddresses = [\"{first}\", \"{}\"]\n",
                Network::Access.address(SBC + 1)
            );
        let users = [("a", Network::Access), ("b", Network::Access)];
        let sbc = Sbc::start(&lab, &realms, &sbc::subscribers(&users))?;
        let mut parties = Vec::new();
        for (index, (host, address)) in hosts.iter().enumerate() {
            let tap = lab.capture_at(host, "eth0")?;
            let account = Account::of(["a", "b"][index], Network::Access, "udp");
            let answers: &[&str] = if index == 1 { &["--answer"] } else { &[] };
            let options = [&["--temper", cell.temper()][..], answers].concat();
            let voice = Voice::Tone(500.0 + 200.0 * index as f64);
            let phone = Softphone::start_with(&lab, host, &account, voice, &options)?;
            parties.push(Party { phone, tap, address: address.parse().unwrap() });
        }
        for party in &mut parties {
            party.phone.registered(SOON)?;
        }
        let [one, other] = <[_; 2]>::try_from(parties).unwrap_or_else(|_| unreachable!());
        Ok(Self { lab, homes, parties: [one, other], _sbc: sbc })
    }

    fn call(&mut self, cell: &Cell) -> Result<Call> {
        let since = self.parties.each_ref().map(|party| party.phone.timeline().len());
        let marks = self.parties.each_mut().map(|party| party.tap.mark().unwrap());
        let [caller, callee] = &mut self.parties;
        caller.phone.dial(&format!("sip:b@{}", Network::Access.address(SBC)))?;
        caller.phone.wait(Event::Established, SOON)?;
        callee.phone.wait(Event::Established, SOON)?;
        let stories = |parties: &[Party<Softphone>; 2]| {
            [0, 1].map(|side| parties[side].phone.timeline().split_off(since[side]))
        };
        let parties = &self.parties;
        eventually(cell.within(), || {
            let stories = stories(parties);
            let over = |name| stories.iter().all(|story| time_of(story, name).is_some());
            over("direct") || over("gave-up")
        });
        let stories = stories(parties);
        let mut call = Call::default();
        let times =
            stories.each_ref().map(|story| Some(time_of(story, "direct")? - time_of(story, "established")?));
        call.direct = times[0].zip(times[1]).map(|(one, other)| one.max(other));
        call.gave_up = stories.iter().all(|story| time_of(story, "gave-up").is_some());
        for (side, story) in stories.iter().enumerate() {
            let count = |name: &str| {
                let told = story.iter().rev().find_map(|event| event.get(name).and_then(Value::as_u64));
                told.unwrap_or(0)
            };
            (call.probes[side], call.flows[side], call.sockets[side]) =
                (count("probes"), count("new_flows"), count("sockets"));
        }
        for (side, party) in self.parties.iter_mut().enumerate() {
            call.first_audio[side] = first_audio(party, marks[side], UP[side])?;
        }
        let [caller, callee] = &mut self.parties;
        caller.phone.hang_up()?;
        callee.phone.wait(Event::Ended, SOON)?;
        caller.phone.wait(Event::Ended, SOON)?;
        Ok(call)
    }

    /// How often a limiter has struck: blocked a host, or dropped a packet of a flow.
    fn blocked(&self) -> Result<u64> {
        self.homes.iter().map(|home| home.limited(&self.lab)).sum()
    }
}

/// One call of two standard ICE phones (PJSIP) on the same networks, a TURN server in the place of the relay: what [`first_audio`]
/// is there, ms at caller and callee.
fn standard(cell: &Cell) -> Result<[Option<f64>; 2]> {
    let (mut lab, _homes, hosts) = places(cell)?;
    let proxy = lab.host("proxy", Network::Access, 40)?;
    let relay = lab.host("turn", Network::Access, 30)?;
    let _registrar = kamailio::start(&lab, "proxy", &proxy)?;
    let _turn = home::turn(&lab, "turn", &[&relay])?;
    let mut parties = Vec::new();
    for (user, (host, address)) in ["a", "b"].into_iter().zip(&hosts) {
        let tap = lab.capture_at(host, "eth0")?;
        let account = Account {
            domain: proxy.clone(),
            proxy: proxy.clone(),
            ice: true,
            turn: Some(relay.clone()),
            ..Account::of(user, Network::Access, "udp")
        };
        let phone = Pjsua::start(&lab, host, address, &account, 500.0)?;
        parties.push(Party { phone, tap, address: address.parse().unwrap() });
    }
    for party in &mut parties {
        party.phone.registered(SOON)?;
    }
    let mut parties = <[_; 2]>::try_from(parties).unwrap_or_else(|_| unreachable!());
    let marks = parties.each_mut().map(|party| party.tap.mark().unwrap());
    let [caller, callee] = &mut parties;
    caller.phone.dial(&format!("sip:b@{proxy}"))?;
    callee.phone.wait(Event::Incoming, SOON)?;
    callee.phone.answer()?;
    for party in &mut parties {
        party.phone.wait(Event::Established, SOON)?;
    }
    let mut heard = [None; 2];
    eventually(SOON, || {
        for (side, party) in parties.iter_mut().enumerate() {
            heard[side] = first_audio(party, marks[side], UP[side]).unwrap();
        }
        heard.iter().all(Option::is_some)
    });
    Ok(heard)
}

/// Whether a datagram to a host brings RTP, by itself or by a TURN server (RFC 8656 §11.6 and §12.4).
fn brings_rtp(packet: &Packet, host: IpAddr) -> bool {
    let is_wrapped = match &packet.payload[..] {
        [0x40..=0x4f, _, _, _, data @ ..] => is_rtp(data),
        [0x00, 0x17, rest @ ..] => {
            rest.windows(16).any(|bytes| bytes.starts_with(&[0x00, 0x13]) && is_rtp(&bytes[4..]))
        }
        data => is_rtp(data),
    };
    packet.protocol == 17 && packet.destination.ip() == host && is_wrapped
}

/// When something first happened, s since the phone's start.
fn time_of(story: &[Value], event: &str) -> Option<f64> {
    story.iter().find(|told| told["event"] == event)?["time"].as_f64()
}

/// From the receipt of the message that says the call is up (the 200, the ACK) to the next RTP, ms.
fn first_audio<P>(party: &mut Party<P>, mark: usize, message: &[u8]) -> Result<Option<f64>> {
    let address = party.address;
    let packets = party.tap.since(mark)?;
    let up = packets.iter().find(|packet| {
        let is_invite = packet.payload.windows(7).any(|window| window == b" INVITE");
        packet.destination.ip() == address
            && packet.payload.starts_with(message)
            && (is_invite || message.starts_with(b"ACK"))
    });
    let Some(up) = up.map(|packet| packet.at) else { return Ok(None) };
    let rtp = packets.iter().find(|packet| packet.at >= up && brings_rtp(packet, address));
    Ok(rtp.map(|rtp| (rtp.at - up).as_secs_f64() * 1000.0))
}

/// The middle, and what 95 % stay below.
fn quantiles(mut values: Vec<f64>) -> [Option<f64>; 2] {
    values.sort_by(f64::total_cmp);
    let at =
        |share: f64| values.get(((values.len() as f64 * share).ceil() as usize).saturating_sub(1)).copied();
    [at(0.5), at(0.95)]
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "null".to_owned(), |value| format!("{:.3}", value))
}

/// Plays a cell, and writes its line of the result.
fn play(cell: &Cell) -> Result<String> {
    let mut bench = Bench::new(cell)?;
    let runs = RUNS[usize::from(cell.limited)];
    let calls = (0..runs).map(|_| bench.call(cell)).collect::<Result<Vec<Call>>>()?;
    let share = calls.iter().filter(|call| call.direct.is_some()).count() as f64 / runs as f64;
    let gave_up = calls.iter().filter(|call| call.gave_up).count() as f64 / runs as f64;
    let [median, p95] = quantiles(calls.iter().filter_map(|call| call.direct).collect());
    let audio = |side: usize| quantiles(calls.iter().filter_map(|call| call.first_audio[side]).collect())[0];
    let mean = |of: fn(&Call) -> [u64; 2]| {
        let sum = |side: usize| calls.iter().map(|call| of(call)[side]).sum::<u64>() as f64 / runs as f64;
        format!("[{:.1}, {:.1}]", sum(0), sum(1))
    };
    let mut line = String::new();
    let [a, b] = cell.names;
    let _ = write!(
        line,
        "{{\"a\": \"{a}\", \"b\": \"{b}\", \"network\": \"namespaces\", \"temper\": \"{}\", ",
        cell.temper()
    );
    let _ = write!(
        line,
        "\"limiter\": {}, \"loss\": 0, \"runs\": {runs}, \"direct_share\": {share:.3}, ",
        cell.limited
    );
    let _ =
        write!(line, "\"time_to_direct_s\": {{\"median\": {}, \"p95\": {}}}, ", number(median), number(p95));
    let _ = write!(line, "\"gave_up_share\": {gave_up:.3}, ");
    let worst = audio(0).zip(audio(1)).map(|(one, other)| one.max(other));
    let _ = write!(line, "\"first_audio_ms\": {}, ", number(worst));
    let _ = write!(line, "\"first_audio_at_caller_ms\": {}, ", number(audio(0)));
    let _ = write!(line, "\"first_audio_at_callee_ms\": {}, ", number(audio(1)));
    if !cell.limited {
        let ice = standard(cell)?;
        let _ = write!(line, "\"ice_first_audio_at_caller_ms\": {}, ", number(ice[0]));
        let _ = write!(line, "\"ice_first_audio_at_callee_ms\": {}, ", number(ice[1]));
        let sum = |[one, other]: [Option<f64>; 2]| Some(one? + other?);
        let ratio = sum([audio(0), audio(1)]).zip(sum(ice)).map(|(ours, theirs)| ours / theirs);
        let _ = write!(line, "\"first_audio_vs_ice\": {}, ", number(ratio));
    }
    let _ = write!(
        line,
        "\"probes\": {}, \"new_flows\": {}, ",
        mean(|call| call.probes),
        mean(|call| call.flows)
    );
    let _ = write!(line, "\"sockets\": {}, \"blocked\": {}}}", mean(|call| call.sockets), bench.blocked()?);
    Ok(line)
}

/// Plays cells, several at once; the lines in the order of the cells.
fn play_all(cells: &[Cell], at_once: usize) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let lines = Mutex::new(vec![String::new(); cells.len()]);
    std::thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(|| {
                while let Some((index, cell)) = Some(next.fetch_add(1, Ordering::Relaxed))
                    .and_then(|index| Some((index, cells.get(index)?)))
                {
                    let line = play(cell).unwrap_or_else(|failure| panic!("{:?}: {failure}", cell.names));
                    println!("{line}");
                    lines.lock().unwrap()[index] = line;
                }
            });
        }
    });
    lines.into_inner().unwrap()
}

#[test]
#[ignore = "make nat-matrix"]
fn matrix_in_namespaces() {
    skip_unless_possible!("miniupnpd", "pjsua2", "kamailio", "turnserver", "conntrack", "curl", "openssl");
    let chosen = std::env::var("NAT_MATRIX_PAIR").ok();
    let cells: Vec<Cell> = Cell::all()
        .into_iter()
        .filter(|cell| chosen.as_ref().is_none_or(|pair| *pair == cell.names.join(",")))
        .collect();
    let at_once = std::env::var("NAT_MATRIX_AT_ONCE").ok().and_then(|text| text.parse().ok()).unwrap_or(4);
    let lines = play_all(&cells, at_once);
    if let Some(path) = std::env::var_os("NAT_MATRIX_OUT") {
        std::fs::write(path, format!("[\n{}\n]\n", lines.join(",\n"))).unwrap();
    }
}
