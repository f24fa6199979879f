//! `phone`: a softphone for the command line. An ordinary SIP telephone with G.711; through an SBC that speaks CRUSH, and with a peer
//! that does, its calls leave the relay while they go on (docs/crush.md).
//!
//! ```text
//!  standard input ──► app ◄──► signalling ── UDP, TCP or TLS to the registrar
//!                      │ ▲      (sip_engine::ua decides, signalling carries)
//!                      ▼ │
//!                     call ◄──► sockets ──── RTP, RTCP, STUN
//!                      │        (crush::agent decides, sockets carry)
//!                  sound, video ─ WAV file, tone, silence, nothing; WAV file
//! ```

mod app;
mod call;
mod codec;
mod command;
mod description;
mod encryption;
mod instance;
mod mapping;
mod network;
mod options;
mod random;
mod report;
mod rtcp;
mod rtp;
mod signalling;
mod sockets;
mod sound;
mod trust;
mod video;

use std::io;
use std::process::ExitCode;

use clap::Parser;
use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Runtime};

/// How far talks with routers stand behind sound.
const NICENESS: i32 = 15;

fn main() -> ExitCode {
    let options = options::Options::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtimes = Builder::new_current_thread().enable_all().build();
    let (runtime, routers) = match runtimes.and_then(|own| Ok((own, apart()?))) {
        Ok(runtimes) => runtimes,
        Err(error) => {
            eprintln!("phone: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(app::run(options, routers.handle().clone()));
    // Standard input is read by a thread that only its next line would end; a router may never answer.
    runtime.shutdown_background();
    routers.shutdown_background();
    match ended {
        Ok(code) => code,
        Err(error) => {
            eprintln!("phone: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A thread for what may take its time, behind all that carries sound: a call begins with both, and may have one processor.
fn apart() -> io::Result<Runtime> {
    let stands_back = || {
        let priority = getpriority_process(None).unwrap_or_default();
        // Where that is not allowed, it takes its turn like the others.
        let _ = setpriority_process(None, priority.saturating_add(NICENESS));
    };
    Builder::new_multi_thread().worker_threads(1).on_thread_start(stands_back).enable_all().build()
}
