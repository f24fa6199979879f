//! Calls that must not be lost, whatever else happens to the SBC: phones that connect anew for each call over UDP, TCP and TLS
//! and call trunks, and trunks over UDP and TCP that call phones which are registered. All speak both ways.
//!
//! `callers ACCESS CORE SECONDS RATE` runs with network namespaces of these names: phones in the first, at 198.51.100.11 to .30,
//! trunks in the second, at 203.0.113.12 (UDP) and .13 (TCP); the SBC is at .1 of both. RATE calls a second begin on each side.
//! The port of one call that lasts as long as all others, `{"target":...}`, and in the end what became of all of them, are told
//! in lines of JSON.
#![allow(clippy::print_stdout, reason = "a program of the laboratory speaks to its log")]

mod party;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crush_tests::agent::Place;
use sip_engine::io::Transport;

use party::{Party, Role};

/// How long a call's ends speak.
pub(crate) const HOLD: Duration = Duration::from_secs(4);
/// Accounts of phones, `p0` and so on, used in turn.
const ACCOUNTS: u64 = 1000;
const SBC_ACCESS: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1));
const SBC_CORE: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1));
const TRANSPORTS: [Transport; 3] = [Transport::Udp, Transport::Tcp, Transport::Tls];

/// What became of all calls.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) calls: u32,
    /// By why.
    pub(crate) lost: BTreeMap<String, u32>,
    /// From INVITE to ringing.
    pub(crate) delays: Vec<Duration>,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

pub(crate) type Shared = Arc<Mutex<Tally>>;

pub(crate) fn tally(shared: &Shared) -> MutexGuard<'_, Tally> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The namespaces of both sides.
struct Sides {
    access: String,
    core: String,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [access, core, seconds, rate] = arguments.as_slice() else {
        println!("usage: callers ACCESS CORE SECONDS RATE");
        return ExitCode::FAILURE;
    };
    let (Ok(seconds), Ok(rate)) = (seconds.parse::<u64>(), rate.parse::<f64>()) else {
        println!("SECONDS and RATE are numbers");
        return ExitCode::FAILURE;
    };
    let sides = Sides { access: access.clone(), core: core.clone() };
    let (shared, stop) = (Shared::default(), Arc::new(AtomicBool::new(false)));
    let standing = stand(&sides, rate / 2.0, &shared, &stop);
    // Those who are called register first.
    std::thread::sleep(Duration::from_secs(1));
    let time = Duration::from_secs(seconds);
    let mut phones = vec![phone(&sides, 0, time, &shared)];
    let (begun, mut number) = (Instant::now(), 1_u64);
    while begun.elapsed() < time {
        phones.push(phone(&sides, number, HOLD, &shared));
        number += 1;
        let due = Duration::from_secs_f64(number as f64 / rate);
        std::thread::sleep(due.saturating_sub(begun.elapsed()));
        phones.retain(|phone| !phone.is_finished());
    }
    for phone in phones {
        let _ = phone.join();
    }
    // Trunks make no more calls; those that they have made end.
    stop.store(true, Ordering::Relaxed);
    for thread in standing {
        let _ = thread.join();
    }
    report(&tally(&shared));
    ExitCode::SUCCESS
}

/// Phones that are called, and trunks that are called and call.
fn stand(
    sides: &Sides,
    rate: f64,
    shared: &Shared,
    stop: &Arc<AtomicBool>,
) -> Vec<std::thread::JoinHandle<()>> {
    let bells = TRANSPORTS.into_iter().zip(11_u8..).map(|(transport, host)| {
        let user = format!("bell{host}");
        (sides.access.clone(), phone_place(user, transport, host), Role::Bell, 0.0)
    });
    let trunks = [(Transport::Udp, 12), (Transport::Tcp, 13)].map(|(transport, host)| {
        let place = Place {
            user: format!("+49{host}"),
            domain: SBC_CORE.to_string(),
            has_password: false,
            sbc: SocketAddr::new(SBC_CORE, 5060),
            transport,
            local: SocketAddr::from(([203, 0, 113, host], 5060)),
            listens: transport == Transport::Tcp,
        };
        (sides.core.clone(), place, Role::Trunk, rate)
    });
    let all = bells.chain(trunks).zip(1_000_000_u64..);
    all.map(|((side, place, role, rate), seed)| {
        let (shared, stop) = (shared.clone(), stop.clone());
        std::thread::spawn(move || {
            enter(&side);
            match Party::new(place, role, seed, HOLD, shared) {
                Ok(mut party) => party.stand(rate, &stop),
                Err(error) => println!("a standing party: {error}"),
            }
        })
    })
    .collect()
}

/// One phone and its call, of `hold` seconds, from connecting to the end.
fn phone(sides: &Sides, number: u64, hold: Duration, shared: &Shared) -> std::thread::JoinHandle<()> {
    let transport = TRANSPORTS.into_iter().cycle().nth((number % 3) as usize).unwrap_or(Transport::Udp);
    let place = phone_place(format!("p{}", number % ACCOUNTS), transport, 11 + (number % 20) as u8);
    let (side, shared) = (sides.access.clone(), shared.clone());
    std::thread::spawn(move || {
        enter(&side);
        tally(&shared).calls += 1;
        // Each trunk in turn; how long the callee is to speak is in the number.
        let target = format!("+{}{:04}{number:06}", 1 + number / 3 % 2, hold.as_secs());
        let outcome = Party::new(place, Role::Phone, number, hold, shared.clone())
            .map_err(|error| format!("no connection: {error}"))
            .and_then(|mut party| party.one_call(&target, number == 0));
        if let Err(why) = outcome {
            *tally(&shared).lost.entry(why).or_default() += 1;
        }
    })
}

fn phone_place(user: String, transport: Transport, host: u8) -> Place {
    Place {
        user,
        domain: SBC_ACCESS.to_string(),
        has_password: true,
        sbc: SocketAddr::new(SBC_ACCESS, if transport == Transport::Tls { 5061 } else { 5060 }),
        transport,
        local: SocketAddr::from(([198, 51, 100, host], 0)),
        listens: false,
    }
}

/// Moves this thread into a namespace: what it opens from now on is there.
fn enter(namespace: &str) {
    let network = Some(rustix::thread::LinkNameSpaceType::Network);
    let moved = File::open(format!("/run/netns/{namespace}"))
        .and_then(|file| Ok(rustix::thread::move_into_link_name_space(file.as_fd(), network)?));
    if let Err(error) = moved {
        println!("namespace {namespace}: {error}");
    }
}

fn report(tally: &Tally) {
    let mut delays = tally.delays.clone();
    delays.sort_unstable();
    let at = |share: f64| {
        let index = ((delays.len() as f64 * share) as usize).min(delays.len().saturating_sub(1));
        delays.get(index).map_or(0.0, |delay| delay.as_secs_f64() * 1000.0)
    };
    let line = serde_json::json!({
        "calls": tally.calls,
        "calls_lost": tally.lost.values().sum::<u32>(),
        "why": tally.lost,
        "pdd_p50_ms": at(0.5),
        "pdd_p99_ms": at(0.99),
        "pdd_max_ms": at(1.0),
        "rtp_sent": tally.sent,
        "rtp_received": tally.received,
    });
    println!("{line}");
}
