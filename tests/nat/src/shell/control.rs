//! Commands to a running NAT: one line each over a Unix socket, answered with text.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nat_lab::Direction;

use crate::forwarder::{Forwarder, State};
use crate::options::{duration, share};

const HELP: &str = "\
show                          mappings and counters
rebind                        forget all mappings; later ones get other ports
flush                         forget all mappings, as a restart does
cut ADDRESS [out|in]          let nothing pass to and from a remote address
restore ADDRESS [out|in]      take that back
udp on|off                    let UDP pass or not
forward PORT ADDRESS:PORT     forward an external port
unforward ADDRESS:PORT        take that back
line [up|down] NAME=VALUE...  change delay=, jitter=, loss=, reorder=, duplicate=, rate= (0: unlimited)
";

/// Serves commands for ever.
pub(crate) fn serve(path: &Path, forwarder: &Forwarder) -> io::Result<()> {
    // A socket of an earlier run, or nothing.
    let _ = fs::remove_file(path);
    for stream in UnixListener::bind(path)?.incoming() {
        // One that went away without its answer does not concern the others.
        let _ = stream.and_then(|stream| answer(stream, forwarder));
    }
    Ok(())
}

/// Gives one command and returns the answer; an error is an answer too.
pub(crate) fn tell(path: &Path, words: &[String]) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "{}", words.join(" "))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    match text.strip_prefix("error: ") {
        None => Ok(text),
        Some(what) => Err(io::Error::other(what.trim().to_owned())),
    }
}

fn answer(mut stream: UnixStream, forwarder: &Forwarder) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).take(4096).read_line(&mut line)?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let text = command(&words, forwarder).unwrap_or_else(|wrong| format!("error: {wrong}\n"));
    stream.write_all(text.as_bytes())
}

fn command(words: &[&str], forwarder: &Forwarder) -> Result<String, String> {
    let now = forwarder.now();
    let mut state = forwarder.state();
    match words {
        ["show"] => return Ok(shown(&state, forwarder)),
        ["rebind"] => state.nat.rebind(),
        ["flush"] => state.nat.reboot(),
        ["cut", address, ways @ ..] => {
            let address = parsed(address)?;
            directions(ways)?.into_iter().for_each(|way| state.nat.cut(address, way));
        }
        ["restore", address, ways @ ..] => {
            let address = parsed(address)?;
            directions(ways)?.into_iter().for_each(|way| state.nat.restore(address, way));
        }
        ["udp", "on"] => state.nat.block_udp(false),
        ["udp", "off"] => state.nat.block_udp(true),
        ["forward", port, internal] => {
            let port = port.parse().map_err(|_| format!("{port:?} is no port"))?;
            let internal: SocketAddr = endpoint(internal)?;
            return match state.nat.forward(port, internal, now) {
                Some(external) => Ok(format!("{external}\n")),
                None => Err(format!("port {port} is taken")),
            };
        }
        ["unforward", internal] => state.nat.unforward(endpoint(internal)?),
        ["line", "up", settings @ ..] => line(&mut state, settings, [true, false])?,
        ["line", "down", settings @ ..] => line(&mut state, settings, [false, true])?,
        ["line", settings @ ..] => line(&mut state, settings, [true, true])?,
        _ => return Ok(HELP.to_owned()),
    }
    Ok(String::new())
}

fn shown(state: &State, forwarder: &Forwarder) -> String {
    let now = forwarder.now();
    let mut mappings: Vec<_> = state.nat.mappings(now).collect();
    mappings.sort_by_key(|mapping| (mapping.internal, mapping.external, mapping.remote));
    let mut text = String::new();
    for mapping in mappings {
        let remote = mapping.remote.map_or("anybody".into(), |remote| remote.to_string());
        let left =
            mapping.expires.map_or("for good".into(), |at| format!("{:.1} s", (at - now).as_secs_f64()));
        let _ = writeln!(text, "{} = {} for {remote}, {left}", mapping.internal, mapping.external);
    }
    let lost = (state.up.lost(), state.down.lost());
    let _ = writeln!(text, "{:?}", state.nat.counters());
    let _ =
        writeln!(text, "lost on the line: {} up, {} down; unreadable: {}", lost.0, lost.1, state.unreadable);
    text
}

fn line(state: &mut State, settings: &[&str], [up, down]: [bool; 2]) -> Result<(), String> {
    let lines = [(up, &mut state.up), (down, &mut state.down)];
    for (_, pipe) in lines.into_iter().filter(|(is_meant, _)| *is_meant) {
        let mut impairment = pipe.impairment();
        for setting in settings {
            match setting.split_once('=').ok_or_else(|| format!("{setting:?} is not NAME=VALUE"))? {
                ("delay", value) => impairment.delay = duration(value)?,
                ("jitter", value) => impairment.jitter = duration(value)?,
                ("loss", value) => impairment.loss = share(value)?,
                ("reorder", value) => impairment.reorder = share(value)?,
                ("duplicate", value) => impairment.duplicate = share(value)?,
                ("rate", value) => {
                    let rate: u64 =
                        value.parse().map_err(|_| format!("{value:?} is no number of bits per second"))?;
                    impairment.rate = (rate > 0).then_some(rate);
                }
                (name, _) => return Err(format!("a line has no {name:?}")),
            }
        }
        pipe.set(impairment);
    }
    Ok(())
}

fn directions(ways: &[&str]) -> Result<Vec<Direction>, String> {
    match ways {
        [] => Ok(vec![Direction::Outbound, Direction::Inbound]),
        ["out"] => Ok(vec![Direction::Outbound]),
        ["in"] => Ok(vec![Direction::Inbound]),
        other => Err(format!("{other:?} is neither `out` nor `in`")),
    }
}

fn parsed(address: &str) -> Result<IpAddr, String> {
    address.parse().map_err(|_| format!("{address:?} is no address"))
}

fn endpoint(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is no address with port"))
}
