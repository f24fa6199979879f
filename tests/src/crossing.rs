//! A call of two of the project's phones, each behind a NAT of its own, through the SBC: what the wire and the phones show of
//! its way to a direct path and back.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::capture::Capture;
use crate::hearing::is_rtp_to;
use crate::home::{Home, Player, two_homes};
use crate::network::SBC;
use crate::packet::{Packet, is_rtp};
use crate::phone::{Account, Event, Phone as _};
use crate::process::{eventually, run};
use crate::sbc::{self, Sbc};
use crate::softphone::{Softphone, Voice};
use crate::{Failure, Lab, Network, Result};

/// The two users; `a` calls `b`.
const USERS: [(&str, Network); 2] = [("a", Network::Access), ("b", Network::Access)];
/// How long a registration or an answer may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// See the module.
#[derive(Debug)]
pub struct Crossing {
    /// The networks.
    pub lab: Lab,
    /// The SBC, which runs a discovery service.
    pub sbc: Sbc,
    /// The two homes.
    pub homes: [Home; 2],
    /// Their phones.
    pub phones: [Softphone; 2],
    /// All that reaches or leaves each phone.
    pub taps: [Capture; 2],
    /// All that passes the SBC.
    pub relay: Capture,
    hosts: [String; 2],
    /// The SBC's, as the phones know it.
    address: IpAddr,
}

/// How a call is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan<'a> {
    /// What the phones play.
    pub voices: [Voice; 2],
    /// Options of both.
    pub options: &'a [&'a str],
    /// What may leave the relay, as the realm says it.
    pub release: &'a str,
    /// What IPv6 is there.
    pub ipv6: Ipv6,
}

/// IPv6 in the homes of a [`Plan`], which have IPv4 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ipv6 {
    /// None.
    None,
    /// From home to home; the SBC speaks IPv4 with them.
    Besides,
    /// The SBC speaks it with them, and there is no way from home to home.
    Signalling,
}

impl Default for Plan<'_> {
    fn default() -> Self {
        let voices = [430.0, 600.0].map(Voice::Tone);
        Self { voices, options: &[], release: "allow", ipv6: Ipv6::None }
    }
}

impl Crossing {
    /// Makes everything, and the call: answered; each phone plays a tone of its own. `options` are of the program `nat`.
    pub fn call(name: &str, players: [Player; 2], options: &[&str]) -> Result<Self> {
        Self::planned(name, players, options, &Plan::default())
    }

    /// The same by a plan.
    pub fn planned(name: &str, players: [Player; 2], options: &[&str], plan: &Plan<'_>) -> Result<Self> {
        let mut lab = Lab::new(name)?;
        let homes = two_homes(&mut lab, players, options)?;
        if plan.ipv6 != Ipv6::None {
            let [a, b] = &homes;
            a.add_ipv6(&lab, b)?;
            b.add_ipv6(&lab, a)?;
        }
        let mut places = [SBC, SBC + 1].map(|host| Network::Access.address(host)).to_vec();
        let release = format!("release = \"{}\"", plan.release);
        let domain = match plan.ipv6 {
            Ipv6::None | Ipv6::Besides => Network::Access.address(SBC),
            Ipv6::Signalling => {
                for home in &homes {
                    home.lead_ipv6_to_sbc(&lab)?;
                }
                let second = Network::Access.address6(SBC + 1);
                let device = Network::Access.name();
                let sbc = lab.namespace("sbc");
                run(&["ip", "-n", &sbc, "addr", "add", &format!("{second}/64"), "dev", device, "nodad"])?;
                places.extend([Network::Access.address6(SBC), second]);
                format!("[{}]", Network::Access.address6(SBC))
            }
        };
        let realm = match plan.ipv6 {
            Ipv6::Signalling => sbc::phone_realm("access", &domain, [5060, 5061], &release),
            Ipv6::None | Ipv6::Besides => sbc::phones_with(&release),
        };
        let realms = format!("[discovery]\naddresses = {places:?}\n\n") + &realm;
        let user = |(name, _)| format!("SELECT sbc_set_password('{domain}', '{name}', 'secret');");
        let sbc = Sbc::start(&lab, &realms, &USERS.map(user).concat())?;
        let relay = lab.capture(Network::Access)?;
        let hosts = ["a-1", "b-1"].map(str::to_owned);
        let tap = |host: &String| lab.capture_at(host, "eth0");
        let taps = [tap(&hosts[0])?, tap(&hosts[1])?];
        let phone = |side: usize, more: &[&str]| {
            let account = Account::of(USERS[side].0, Network::Access, "udp");
            let account = Account { domain: domain.clone(), proxy: domain.clone(), ..account };
            let options = [plan.options, more].concat();
            Softphone::start_with(&lab, &hosts[side], &account, plan.voices[side], &options)
        };
        let mut phones = [phone(0, &[])?, phone(1, &["--answer"])?];
        phones.iter_mut().try_for_each(|phone| phone.registered(SOON))?;
        let [a, b] = &mut phones;
        a.dial(&format!("sip:b@{domain}"))?;
        a.wait(Event::Established, SOON)?;
        b.wait(Event::Established, SOON)?;
        let address = domain.trim_matches(['[', ']']).parse();
        let address = address.map_err(|_| Failure(format!("no address: {domain}")))?;
        Ok(Self { lab, sbc, homes, phones, taps, relay, hosts, address })
    }

    /// Waits until both phones have told an event so often.
    pub fn both(&self, event: &str, times: usize, within: Duration) -> Result<()> {
        let count = |phone: &Softphone| told(&phone.timeline(), event).len();
        let have = eventually(within, || self.phones.iter().all(|phone| count(phone) >= times));
        let story = || self.phones.iter().map(story).collect::<Vec<_>>().join("\n\n");
        if have { Ok(()) } else { Err(Failure(format!("no {event} of both within {within:?}\n{}", story()))) }
    }

    /// Lets nothing pass any more from one home to the other, or either way.
    pub fn cut(&self, is_both_ways: bool) -> Result<()> {
        let away = self.homes[1].external().to_string();
        let words = ["cut", &away, "out"];
        let count = if is_both_ways { 2 } else { 3 };
        self.homes[0].tell(&words[..count]).map(drop)
    }

    /// Lets it pass again.
    pub fn mend(&self) -> Result<()> {
        self.homes[0].tell(&["restore", &self.homes[1].external().to_string()]).map(drop)
    }

    /// The phone of one side goes to another network: the same router, another address.
    pub fn switch(&self, side: usize) -> Result<()> {
        let namespace = self.lab.namespace(&self.hosts[side]);
        let number = 20 + side;
        let inside = ["ip", "-n", &namespace];
        let run = |words: &[&str]| crate::process::run(&[&inside[..], words].concat());
        run(&["-4", "addr", "flush", "dev", "eth0"])?;
        run(&["addr", "add", &format!("192.168.{number}.77/24"), "dev", "eth0"])?;
        run(&["route", "add", "default", "via", &format!("192.168.{number}.1")]).map(drop)
    }

    /// RTP that reached a phone: when, and whether the relay sent it.
    pub fn arrivals(&mut self, side: usize) -> Result<Vec<(Duration, bool)>> {
        self.reached(side, |packet, _| is_rtp(&packet.payload))
    }

    /// The same of one kind of media.
    pub fn arrivals_of(&mut self, side: usize, is_video: bool) -> Result<Vec<(Duration, bool)>> {
        // RFC 3551 §3: the phone's video has a dynamic payload type, its audio a static one.
        self.reached(side, |packet, _| {
            is_rtp(&packet.payload) && (packet.payload[1] & 0x7f >= 96) == is_video
        })
    }

    /// All by which a phone knows that the path carries: RTP, and in silence what else only its peer can have sent (checks and
    /// HANDOFF messages; through the relay HANDOFF messages alone). When, and whether the relay sent it.
    pub fn signs(&mut self, side: usize) -> Result<Vec<(Duration, bool)>> {
        self.reached(side, |packet, by_relay| {
            let handoff = is_handoff(&packet.payload);
            is_rtp(&packet.payload) || handoff || (!by_relay && is_stun(&packet.payload))
        })
    }

    /// UDP from the relay's address or from elsewhere (directly) to a phone.
    fn reached(
        &mut self,
        side: usize,
        wanted: impl Fn(&Packet, bool) -> bool,
    ) -> Result<Vec<(Duration, bool)>> {
        let home = 20 + side as u8;
        let relay = self.address;
        let is_here = |packet: &Packet| match packet.destination.ip() {
            _ if packet.protocol != 17 => false,
            IpAddr::V4(to) => to.octets()[..3] == [192, 168, home],
            IpAddr::V6(to) => to.segments()[2..4] == [0xb, home.into()],
        };
        let here = self.taps[side].packets()?.iter().filter(|packet| is_here(packet));
        let arrivals = here.map(|packet| (packet, packet.source.ip() == relay));
        let wanted = arrivals.filter(|(packet, by_relay)| wanted(packet, *by_relay));
        Ok(wanted.map(|(packet, by_relay)| (packet.at, by_relay)).collect())
    }

    /// When a phone first told an event, as captures count: its clock is set by the 200 or ACK that established its call.
    pub fn told_at(&mut self, side: usize, event: &str) -> Result<Duration> {
        let start = if side == 0 { self.answered()? } else { self.acknowledged()? };
        let timeline = self.phones[side].timeline();
        let time = |event: &str| told(&timeline, event).first().and_then(|one| one["time"].as_f64());
        let after = time(event).zip(time("established")).map(|(at, zero)| at - zero);
        let after = after.filter(|after| *after >= 0.0);
        after
            .map(|after| start + Duration::from_secs_f64(after))
            .ok_or_else(|| Failure(format!("no {event}:\n{}", story(&self.phones[side]))))
    }

    /// When the callee received the ACK.
    fn acknowledged(&mut self) -> Result<Duration> {
        let is_ack = |packet: &&Packet| packet.payload.starts_with(b"ACK ");
        let found = self.taps[1].packets()?.iter().find(is_ack).map(|packet| packet.at);
        found.ok_or_else(|| Failure("no ACK was captured".into()))
    }

    /// When the caller received the 200 to its INVITE.
    pub fn answered(&mut self) -> Result<Duration> {
        let is_answer = |packet: &&Packet| {
            packet.payload.starts_with(b"SIP/2.0 200")
                && memchr::memmem::find(&packet.payload, b" INVITE\r\n").is_some()
        };
        let found = self.taps[0].packets()?.iter().find(is_answer).map(|packet| packet.at);
        found.ok_or_else(|| Failure("no 200 to the INVITE was captured".into()))
    }

    /// RTP packets that reached the relay, by second since a moment.
    pub fn load(&mut self, since: Duration) -> Result<Vec<usize>> {
        let relay = self.address;
        let mut seconds = Vec::new();
        for packet in self.relay.packets()?.iter().filter(|packet| is_rtp_to(packet, relay)) {
            let second = packet.at.saturating_sub(since).as_secs() as usize;
            seconds.resize(seconds.len().max(second + 1), 0);
            seconds[second] += 1;
        }
        Ok(seconds)
    }

    /// The caller hangs up; waits for the end at the other side, and for the record.
    pub fn end(&mut self) -> Result<()> {
        self.end_by(0)
    }

    /// One side hangs up.
    pub fn end_by(&mut self, side: usize) -> Result<()> {
        self.phones[side].hang_up()?;
        self.phones[1 - side].wait(Event::Ended, SOON)?;
        self.sbc.eventually_sql("SELECT count(*) FROM call WHERE ended_at IS NOT NULL", "1", SOON)
    }
}

/// STUN (RFC 8489 §5).
fn is_stun(payload: &[u8]) -> bool {
    matches!(payload, [0..4, _, _, _, 0x21, 0x12, 0xA4, 0x42, ..])
}

/// STUN of the method HANDOFF, 0x0C5, of any class (docs/crush.md §7).
fn is_handoff(payload: &[u8]) -> bool {
    is_stun(payload) && payload[0] & !0x01 == 0x02 && payload[1] & !0x10 == 0x85
}

/// As captures count.
pub fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// The longest pause in arrivals, and when it began.
pub fn gap(arrivals: &[(Duration, bool)]) -> (Duration, Duration) {
    let pauses = arrivals.windows(2).map(|pair| (pair[1].0.saturating_sub(pair[0].0), pair[0].0));
    pauses.max().unwrap_or_default()
}

/// Events of this name in a phone's timeline.
pub fn told<'a>(timeline: &'a [Value], event: &str) -> Vec<&'a Value> {
    timeline.iter().filter(|one| one["event"] == event).collect()
}

/// A phone's timeline, a line each, in seconds since the answer.
pub fn story(phone: &Softphone) -> String {
    let timeline = phone.timeline();
    let zero = told(&timeline, "established").first().and_then(|one| one["time"].as_f64()).unwrap_or(0.0);
    let line = |one: &Value| {
        let time = one["time"].as_f64().unwrap_or(0.0) - zero;
        let details = one.as_object().into_iter().flatten();
        let details: Vec<String> = details
            .filter(|(name, _)| !["time", "event", "call"].contains(&name.as_str()))
            .map(|(name, value)| {
                format!("{name}={}", value.as_str().map_or(value.to_string(), str::to_owned))
            })
            .collect();
        format!("{time:9.3} s  {:14} {}", one["event"].as_str().unwrap_or_default(), details.join(" "))
    };
    timeline.iter().map(line).collect::<Vec<_>>().join("\n")
}
