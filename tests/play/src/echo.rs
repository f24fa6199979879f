//! What takes everything as it is: media that find every description fine, and what an answerer repeats of a request.

use std::time::Duration;

use bytes::Bytes;
use seam::{Action, Described, Replied, Reply, Request, Summary};
use sip_engine::Engine;
use sip_engine::io::Input;
use sip_engine::time::Now;

/// The reply of media that find every description fine as it is; `None` to what they have nothing to say to.
pub fn media(request: Request) -> Option<Replied> {
    let reply = match request.action {
        Action::Offer { sdp, .. } | Action::Answer { sdp, .. } => {
            Reply::Description(Ok(Described { sdp, summary: Summary::default() }))
        }
        Action::Delete => Reply::Deleted { streams: Vec::new(), direct: Duration::ZERO },
        _ => return None,
    };
    Some(Replied { session: request.session, number: request.number, reply })
}

/// Tells an engine what such media reply.
pub fn reply(engine: &mut Engine, request: Request, now: Now) {
    if let Some(reply) = media(request) {
        engine.handle(Input::Media(reply), now);
    }
}

/// The header lines of these names, as a response repeats them (RFC 3261 §8.2.6.2).
pub fn copied(message: &str, names: &[&str]) -> String {
    let is_one = |line: &&str| line.split_once(':').is_some_and(|(name, _)| names.contains(&name));
    message.lines().filter(is_one).flat_map(|line| [line, "\r\n"]).collect()
}

/// The first message that starts so.
pub fn find<'a>(sent: impl IntoIterator<Item = &'a Bytes>, start: &str) -> String {
    let found = sent.into_iter().find(|message| message.starts_with(start.as_bytes()));
    String::from_utf8_lossy(found.unwrap_or_else(|| panic!("no {start}"))).into_owned()
}
