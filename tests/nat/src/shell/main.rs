//! `nat`: the model between the two sides of a router, for hosts that know nothing of it.
#![expect(clippy::print_stdout, reason = "a command's answer goes to its user")]
#![expect(clippy::disallowed_methods, reason = "the shell round the core: it has the clock")]

mod control;
mod forwarder;
mod options;
mod packet;
mod router;
mod tun;

use std::io;
use std::process::ExitCode;
use std::thread;

use clap::Parser;
use nat_lab::Nat;

use forwarder::Forwarder;
use options::{Command, Options, Run};
use router::Router;

fn main() -> ExitCode {
    let Options { command, run } = Options::parse();
    let result = match (command, run) {
        (Some(Command::Tell { control, words }), _) => {
            control::tell(&control, &words).map(|answer| print!("{answer}"))
        }
        (None, Some(run)) => serve(&run),
        (None, None) => Err(io::Error::other("nothing to do: see --help")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("nat: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(run: &Run) -> io::Result<()> {
    let device = tun::open(&run.device)?;
    let router = Router {
        lan: run.lan.clone(),
        wan: run.wan.clone(),
        tun: run.device.clone(),
        inside: run.inside.clone(),
    };
    router.set_up()?;
    let nat = Nat::new(run.behaviour(), &run.external, run.seed);
    let forwarder = Forwarder::new(router, device, nat, forwarder::line(run.impairment(), run.seed));
    thread::scope(|scope| {
        scope.spawn(|| forwarder.deliver());
        if let Some(path) = &run.control {
            scope.spawn(|| {
                control::serve(path, &forwarder)
                    .map_err(|error| eprintln!("nat: {}: {error}", path.display()))
            });
        }
        println!("ready");
        let result = forwarder.read();
        // The other threads have no end of their own.
        if let Err(error) = result {
            eprintln!("nat: {error}");
        }
        std::process::exit(1)
    })
}
