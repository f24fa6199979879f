//! One who has an account, and calls as fast as he can with as many streams as fit.

use std::io::Result;
use std::net::SocketAddr;

use crush_tests::agent::{Agent, Place};
use crush_tests::voice::Voice;
use sip_engine::io::Transport;
use sip_engine::ua::{Event, Invite};

use crate::{Pace, Plan};

const STREAMS: usize = 32;

pub(crate) fn call(plan: &Plan) -> Result<u64> {
    let mut agent = Agent::new(
        Place {
            user: "mallory".to_owned(),
            domain: plan.target.ip().to_string(),
            has_password: true,
            sbc: plan.target,
            transport: Transport::Udp,
            local: SocketAddr::new(plan.source(0), 0),
            listens: false,
        },
        99,
    )?;
    let voice = Voice::new(plan.source(0), 99)?;
    let (mut pace, mut made) = (Pace::new(plan), 0);
    while let Some(due) = pace.due() {
        for _ in 0..due {
            made += 1;
            // A number that is busy.
            let target = format!("sip:+19{made:06}@{}", plan.target.ip());
            let invite = Invite { offer: Some(voice.describe(STREAMS)), ..Invite::default() };
            let now = agent.now();
            agent.ua.call(target.as_bytes(), invite, now);
        }
        let now = agent.now();
        for event in agent.poll() {
            if let Event::Established { call, .. } = event {
                let _ = agent.ua.hang_up(call, now);
            }
        }
    }
    Ok(made)
}
