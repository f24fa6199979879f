//! A thousand strangers who mean harm, one kind of it at a time.
//!
//! `attacker KIND RATE SECONDS TARGET [ADDRESSES]`: sends from ADDRESSES (1,024) addresses of 10.66.0.0/16, all of which must be this
//! host's (`ip route add local 10.66.0.0/16 dev lo`). What each kind is stands in docs/benchmarks.md. For kinds of connections that
//! are held, RATE is how many. In the end a line of JSON tells what was done.
#![allow(clippy::print_stdout, reason = "a program of the laboratory speaks to its log")]

mod account;
mod datagrams;
mod streams;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// What is done, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) target: SocketAddr,
    /// A second; of held connections, in all.
    pub(crate) rate: f64,
    pub(crate) time: Duration,
    pub(crate) addresses: u32,
}

impl Plan {
    /// The address of a stranger, in turn.
    pub(crate) fn source(&self, number: u64) -> IpAddr {
        let index = 1 + (number % u64::from(self.addresses.max(1))) as u32;
        IpAddr::V4(Ipv4Addr::from_bits(0x0a42_0000 + index))
    }
}

/// Lets so many things happen a second; what could not be done in time is not made up for.
pub(crate) struct Pace {
    rate: f64,
    begun: Instant,
    done: u64,
    end: Instant,
}

impl Pace {
    pub(crate) fn new(plan: &Plan) -> Self {
        let now = Instant::now();
        Self { rate: plan.rate, begun: now, done: 0, end: now + plan.time }
    }

    /// How many are due now, after a rest; `None` at the end.
    pub(crate) fn due(&mut self) -> Option<u64> {
        std::thread::sleep(Duration::from_millis(1));
        let now = Instant::now();
        let wanted = (now.duration_since(self.begun).as_secs_f64() * self.rate) as u64;
        let due = wanted.saturating_sub(self.done);
        self.done = wanted;
        // At most what 20 ms bring.
        (now < self.end).then(|| due.min(1 + (self.rate / 50.0) as u64))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (kind, plan) = match words.as_slice() {
        [kind, rate, seconds, target, rest @ ..] => {
            let plan = (|| {
                Some(Plan {
                    rate: rate.parse().ok()?,
                    time: Duration::from_secs_f64(seconds.parse().ok()?),
                    target: target.parse().ok()?,
                    addresses: rest.first().map_or(Some(1024), |count| count.parse().ok())?,
                })
            })();
            (*kind, plan)
        }
        _ => ("", None),
    };
    let Some(plan) = plan else {
        println!("usage: attacker KIND RATE SECONDS TARGET [ADDRESSES]");
        return ExitCode::FAILURE;
    };
    let result = match kind {
        "junk" | "invite" | "tagged" | "vias" | "stun" | "rtp" => datagrams::send(kind, &plan),
        "account" => account::call(&plan),
        "tls" => streams::shake_hands(&plan),
        "idle" => streams::hold(&plan, streams::Talk::Sip),
        "http" => streams::hold(&plan, streams::Talk::HalfHttp),
        other => Err(std::io::Error::other(format!("{other}: no such kind"))),
    };
    match result {
        Ok(done) => {
            println!("{}", serde_json::json!({"kind": kind, "done": done}));
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("attacker {kind}: {error}");
            ExitCode::FAILURE
        }
    }
}
