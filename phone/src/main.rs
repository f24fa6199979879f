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

use std::process::ExitCode;

use clap::Parser;
use tokio::runtime::Builder;

fn main() -> ExitCode {
    let options = options::Options::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtimes = Builder::new_current_thread()
        .enable_all()
        .build()
        .and_then(|own| Ok((own, Builder::new_multi_thread().worker_threads(1).enable_all().build()?)));
    let (runtime, routers) = match runtimes {
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
