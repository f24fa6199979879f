//! A real phone in a call with an endpoint that says too much (docs/crush.md §12): thousands of candidates, generation after generation, numbers
//! that nothing fits. Nobody hears it, the phone's processor does not feel it, and a BYE is answered at once.
//! `HOSTILE_SECONDS=60 cargo test -p crush-tests --test hostile_peer` plays it in full length, `make test` a shorter one.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a laboratory that fails ends its test")]

use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crush_tests::agent::{Agent, Place};
use crush_tests::ears::{arrivals, longest_gap};
use crush_tests::network::SBC;
use crush_tests::packet::is_rtp;
use crush_tests::phone::{Account, Phone};
use crush_tests::process::{eventually, run};
use crush_tests::sbc::{self, Sbc};
use crush_tests::softphone::{Softphone, Voice as Says};
use crush_tests::voice::Voice;
use crush_tests::{Lab, Network, skip_unless_possible};
use sip_engine::io::Transport;
use sip_engine::ua::{CallNumber, Event, Info, Invite, REGISTRATION};

const SOON: Duration = Duration::from_secs(20);
const STEP: Duration = Duration::from_millis(2);
const CRUSH: &str = "a=crush:1 ufrag=hostile1 pwd=0123456789012345678901\r\n";

/// What the hostile endpoint says in its n-th INFO of a kind.
fn fragment(kind: usize, number: u32) -> String {
    // New candidates in one generation; the same in ever new ones; numbers that nothing fits, in one.
    let (ufrag, first) =
        [("evilevil".to_owned(), number * 25), (format!("evil{number:05}"), 0), ("evileviL".to_owned(), 0)]
            [kind]
            .clone();
    let mut text = format!("a=ice-ufrag:{ufrag}\r\na=ice-pwd:0123456789012345678901\r\n");
    if kind == 2 {
        text += &format!(
            "a=crush-nat:1 family=4 mapping=apd filtering=apd ports=sequential step=-99999 last=999999999 round={number}99999\r\n"
        );
    }
    text += "m=audio 9 RTP/AVP 0\r\na=mid:0\r\n";
    for host in first..first + 25 {
        let [_, _, high, low] = host.to_be_bytes();
        let (port, priority) = if kind == 2 {
            (u64::from(host) << 40, 1u128 << 100)
        } else {
            (1024 + u64::from(host % 60_000), 2_130_706_431)
        };
        text += &format!("a=candidate:{host} 1 UDP {priority} 10.77.{high}.{low} {port} typ host\r\n");
    }
    text
}

/// The hostile endpoint, on its host: its agent, its voice, its call.
struct Hostile {
    agent: Agent,
    voice: Voice,
    call: Option<CallNumber>,
    is_registered: bool,
    is_up: bool,
}

impl Hostile {
    fn new(lab: &Lab, host: &str, address: &str) -> Self {
        let namespace = File::open(format!("/run/netns/{}", lab.namespace(host))).unwrap();
        let local: SocketAddr = format!("{address}:0").parse().unwrap();
        let place = Place {
            user: "b".into(),
            domain: Network::Access.address(SBC),
            has_password: true,
            sbc: format!("{}:5060", Network::Access.address(SBC)).parse().unwrap(),
            transport: Transport::Udp,
            local,
            listens: false,
        };
        // A thread of its own, since its namespace is the thread's.
        let opened = std::thread::spawn(move || {
            rustix::thread::move_into_link_name_space(
                namespace.as_fd(),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .unwrap();
            (Agent::new(place, 7).unwrap(), Voice::new(local.ip(), 7).unwrap())
        });
        let (agent, voice) = opened.join().unwrap();
        Self { agent, voice, call: None, is_registered: false, is_up: false }
    }

    fn poll(&mut self) {
        for event in self.agent.poll() {
            match event {
                Event::Registered { .. } => self.is_registered = true,
                Event::Answered { sdp, .. } => {
                    self.voice.aim(&sdp);
                    self.voice.speak(Duration::from_secs(3600));
                }
                Event::Established { .. } => self.is_up = true,
                Event::Offered { call, fork, .. } => {
                    let (sdp, now) = (self.describe(), self.agent.now());
                    let _ = self.agent.ua.answer(call, fork, sdp, now);
                }
                _ => {}
            }
        }
        self.voice.poll();
        std::thread::sleep(STEP);
    }

    fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + SOON;
        while !is_so(self) {
            assert!(Instant::now() < end, "the hostile endpoint has no call");
            self.poll();
        }
    }

    fn describe(&self) -> Bytes {
        let sdp = String::from_utf8(self.voice.describe(1).to_vec()).unwrap();
        sdp.replacen("m=audio", &format!("{CRUSH}m=audio"), 1).into()
    }

    fn call(&mut self) {
        let now = self.agent.now();
        self.agent.ua.register(REGISTRATION, now);
        self.until(|this| this.is_registered);
        let (invite, now) = (Invite { offer: Some(self.describe()), ..Invite::default() }, self.agent.now());
        let uri = format!("sip:a@{}", Network::Access.address(SBC));
        self.call = Some(self.agent.ua.call(uri.as_bytes(), invite, now));
        self.until(|this| this.is_up);
    }

    /// So many fragments of a kind, so many a second, and no more after `end`.
    fn says(&mut self, kind: usize, (count, rate): (u32, f64), end: Instant) {
        let begun = Instant::now();
        let mut said = 0;
        while said < count && Instant::now() < end {
            if begun.elapsed().as_secs_f64() * rate >= f64::from(said) {
                let (body, now) = (Bytes::from(fragment(kind, said)), self.agent.now());
                let content_type = b"application/trickle-ice-sdpfrag";
                let info = Info { package: "trickle-ice", content_type, body };
                let _ = self.agent.ua.info_of(self.call.unwrap(), info, now);
                said += 1;
            }
            self.poll();
        }
    }
}

/// Processor time of a process so far, s.
fn used(id: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    [11, 12].iter().map(|index| fields[*index].parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

#[test]
fn an_endpoint_that_says_too_much_costs_its_peer_no_audio_no_processor_and_no_bye() {
    skip_unless_possible!("tcpdump");
    let seconds: f64 =
        std::env::var("HOSTILE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12.0);
    let mut lab = Lab::new("hostile").unwrap();
    let [to_a, to_b] =
        [("a", 21), ("b", 22)].map(|(host, number)| lab.host(host, Network::Access, number).unwrap());
    let second = format!("{}/23", Network::Access.address(SBC + 1));
    run(&["ip", "-n", &lab.namespace("sbc"), "addr", "add", &second, "dev", Network::Access.name()]).unwrap();
    let addresses = [SBC, SBC + 1].map(|host| format!("\"{}\"", Network::Access.address(host))).join(", ");
    let realms =
        sbc::phones_with("release = \"allow\"") + &format!("\n[discovery]\naddresses = [{addresses}]\n");
    let _sbc =
        Sbc::start(&lab, &realms, &sbc::subscribers(&[("a", Network::Access), ("b", Network::Access)]))
            .unwrap();
    let account = Account::of("a", Network::Access, "udp");
    let mut phone = Softphone::start_with(&lab, "a", &account, Says::Tone(500.0), &["--answer"]).unwrap();
    phone.registered(SOON).unwrap();
    let mut tap = lab.capture_at("a", "eth0").unwrap();
    let mut hostile = Hostile::new(&lab, "b", &to_b);
    hostile.call();
    let settled = Instant::now() + Duration::from_secs(1);
    while Instant::now() < settled {
        hostile.poll();
    }
    let mark = tap.mark().unwrap();
    let (begun, before) = (Instant::now(), used(phone.id()));
    // A quarter of the time candidates (300 in a minute's quarter), half of it generations, a quarter numbers.
    let at = |share: f64| begun + Duration::from_secs_f64(seconds * share);
    hostile.says(0, (300, 20.0), at(0.25));
    hostile.says(1, (u32::MAX, 30.0), at(0.75));
    hostile.says(2, (u32::MAX, 20.0), at(1.0));
    let (took, spent) = (begun.elapsed().as_secs_f64(), used(phone.id()) - before);
    let packets = tap.since(mark).unwrap().to_vec();
    let now = hostile.agent.now();
    hostile.agent.ua.hang_up(hostile.call.unwrap(), now).unwrap();
    let hung_up = Instant::now();
    hostile.poll();
    assert!(eventually(SOON, || phone.timeline().iter().any(|told| told["event"] == "ended")));
    let ended = hung_up.elapsed();

    let [a, b]: [std::net::IpAddr; 2] = [to_a, to_b].map(|address| address.parse().unwrap());
    let heard = longest_gap(&arrivals(&packets, a), None);
    let own: Vec<Duration> = packets
        .iter()
        .filter(|packet| packet.source.ip() == a && is_rtp(&packet.payload))
        .map(|packet| packet.at)
        .collect();
    let said = own.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap();
    let infos = packets
        .iter()
        .filter(|packet| packet.source.ip() != a && packet.payload.starts_with(b"INFO "))
        .count();
    let mut checks = std::collections::HashMap::<SocketAddr, u32>::new();
    let stranger = |address: std::net::IpAddr| address.to_string().starts_with("10.77.");
    for packet in packets.iter().filter(|packet| packet.source.ip() == a && stranger(packet.destination.ip()))
    {
        *checks.entry(packet.destination).or_default() += 1;
    }
    let most = checks.values().max().copied().unwrap_or(0);
    println!(
        "{took:.0} s: {infos} INFOs came to the phone, which used {:.1} % of a core; between packets to it at most {:?} more than 20 ms, from it {said:?}; {} addresses checked, {most} times at most; BYE to its end {ended:?}",
        100.0 * spent / took,
        heard,
        checks.len()
    );
    assert!(
        infos > 20 && !own.is_empty() && !checks.is_empty(),
        "{infos} INFOs, checks to {b}: {}",
        checks.len()
    );
    assert!(said <= Duration::from_millis(60) && heard <= Duration::from_millis(60), "{said:?} {heard:?}");
    assert!(spent / took < 0.1, "{:.1} % of a core", 100.0 * spent / took);
    assert!(ended < Duration::from_millis(300), "{ended:?}");
    assert!(most <= 8 && checks.len() <= 256, "{most} {}", checks.len());
}
