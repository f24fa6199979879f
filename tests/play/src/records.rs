//! What happens to a call, as its records tell.

use seam::SessionId;
use sip_engine::event::{CallEventKind, CallStarted};

/// Somebody in the access realm calls, with this From.
pub fn started(from: &str) -> CallEventKind {
    CallEventKind::Started(Box::new(CallStarted {
        session: SessionId(1),
        realm: "access".into(),
        source: "192.0.2.1:5060".parse().unwrap(),
        transport: "UDP".into(),
        caller: "alice@example.net".into(),
        from: from.into(),
        request_uri: "sip:bob@example.net".into(),
        call_id: "one".into(),
        user_agent: "".into(),
    }))
}

/// Somebody in the core has answered.
pub fn answered() -> CallEventKind {
    CallEventKind::Answered {
        realm: "core".into(),
        trunk: None,
        destination: "192.0.2.2:5060".parse().unwrap(),
        reached: "sip:bob@example.net".into(),
        uri: "sip:bob@192.0.2.9:5062".into(),
    }
}
