//! `make demo`: a call of two phones behind two different NATs that leaves the relay while they talk, loses its direct path, and
//! goes on over the relay. Everything printed was seen on the wire, told by the phones, or stands in the call's record; the file that
//! DEMO_PICTURE names is drawn from the same.
#![allow(clippy::print_stdout, reason = "what it shows is its purpose")]

use std::process::ExitCode;
use std::time::Duration;

use crush_tests::crossing::{Crossing, gap, now, story};
use crush_tests::home::Player;
use crush_tests::picture::{Ear, Picture};
use crush_tests::{Failure, Lab, Result};
use nat_lab::Kind;

/// A port-restricted NAT, and one that gives each destination another port, counting up; 20 ms one way through each.
const NATS: [Kind; 2] = [Kind::Cone, Kind::SymmetricSequential];
const OPTIONS: [&str; 2] = ["--delay", "20ms"];
/// A path is found, or not, within so long.
const FOUND: Duration = Duration::from_secs(30);
/// How long the call is watched on the direct path, and after its end.
const WATCHED: Duration = Duration::from_secs(4);

fn main() -> ExitCode {
    match demo() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::FAILURE
        }
    }
}

fn demo() -> Result<()> {
    if let Some(reason) = Lab::impossible(&["openssl", "curl"]) {
        return Err(Failure(reason));
    }
    println!("Two phones, {} and {}, 20 ms one way each; the SBC between them.\n", NATS[0], NATS[1]);
    let mut call = Crossing::call("demo", NATS.map(Player::Tun), &OPTIONS)?;
    call.both("direct", 1, FOUND)?;
    std::thread::sleep(WATCHED);
    let cut_at = now();
    call.cut(true)?;
    call.both("returned", 1, Duration::from_secs(3))?;
    std::thread::sleep(WATCHED / 2);
    call.end()?;
    let answered = call.answered()?;
    for (side, name) in ["a, who calls", "b, who is called"].into_iter().enumerate() {
        println!("Phone {name}, in seconds since its answer:\n{}\n", story(&call.phones[side]));
    }
    println!("On the wire, in seconds since the 200 to the INVITE reached a:");
    let mut ears = Vec::new();
    for (side, name) in ["a", "b"].into_iter().enumerate() {
        let arrivals = call.arrivals(side)?;
        let first = arrivals.iter().find(|arrival| arrival.0 >= answered);
        let (first, by_relay) = first.copied().ok_or_else(|| Failure(format!("{name} heard nothing")))?;
        let way = if by_relay { "through the relay" } else { "directly" };
        println!("{:9.3} s  {name} hears the first packet, {way}", seconds(first, answered));
        let direct = arrivals.iter().find(|arrival| !arrival.1).map(|arrival| arrival.0);
        if let Some(direct) = direct {
            println!("{:9.3} s  {name} hears the first packet of the direct path", seconds(direct, answered));
        }
        let last_relayed = arrivals.iter().filter(|one| one.1 && one.0 < cut_at).map(|one| one.0).max();
        if let Some(last) = last_relayed {
            println!("{:9.3} s  {name} hears the last packet of the relay", seconds(last, answered));
        }
        let split = arrivals.partition_point(|arrival| arrival.0 < cut_at);
        let pauses =
            [&arrivals[..split], &arrivals[split.saturating_sub(1)..]].map(|part| gap(part).0.as_millis());
        let [before, by_it] = pauses;
        println!(
            "             longest pause of what {name} hears: {before} ms until the cut, {by_it} ms by it"
        );
        let arrivals = arrivals.iter().map(|(at, by_relay)| (seconds(*at, answered), *by_relay)).collect();
        ears.push(Ear { name: name.into(), arrivals, pauses });
    }
    println!("{:9.3} s  the direct path is cut", seconds(cut_at, answered));
    println!("\nRTP packets that reach the relay, by second since the answer:");
    let load = call.load(answered)?;
    println!("  {}\n", load.iter().map(usize::to_string).collect::<Vec<_>>().join(" "));
    println!("The call's record:");
    let record = "SELECT 'answered ' || duration_ms || ' ms = relayed ' || relayed_ms || ' + direct ' || direct_ms FROM call";
    println!("  {}", call.sbc.sql(record)?);
    let path = "SELECT to_char(after_ms / 1000.0, '990.000') || ' s  ' || rpad(what, 14) || ' ' || why FROM call_path ORDER BY after_ms";
    println!("{}", call.sbc.sql(path)?);
    if let (Some(file), Ok(ears)) = (std::env::var_os("DEMO_PICTURE"), <[Ear; 2]>::try_from(ears)) {
        let later = |call: &mut Crossing, event: &str| -> Result<f64> {
            let [one, other] = [call.told_at(0, event)?, call.told_at(1, event)?];
            Ok(seconds(one.max(other), answered))
        };
        let searches = seconds(call.told_at(0, "probing")?, answered);
        let marks = [
            (0.0, "answered: both talk by the relay, at once"),
            (searches, "both look for a direct path while they talk"),
            (later(&mut call, "direct")?, "direct both ways, handed over without a gap"),
            (seconds(cut_at, answered), "the direct path is cut"),
            (later(&mut call, "returned")?, "back on the relay"),
        ];
        let title = format!("A call between two NATs, {} and {}, 20 ms one way each", NATS[0], NATS[1]);
        let end = load.len() as f64;
        let marks = marks.map(|(at, what)| (at, what.to_owned())).to_vec();
        std::fs::write(&file, Picture { title, ears, marks, load, end }.svg())?;
        println!("\nThe same as a picture: {}", file.display());
    }
    Ok(())
}

fn seconds(at: Duration, zero: Duration) -> f64 {
    at.as_secs_f64() - zero.as_secs_f64()
}
