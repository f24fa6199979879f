//! What tests name, and a call to begin with.

use std::sync::Arc;

use jiff::Timestamp;
use rules::facts::{Caller, Facts, Load, Party};
use rules::known::{Known, Member};
use rules::row::{Decides, RuleRow};

pub(crate) const REALMS: [&str; 3] = ["access", "core", "peering"];
pub(crate) const TRUNKS: [&str; 3] = ["t1", "t2", "t3"];
pub(crate) const GROUPS: [&str; 3] = ["all", "sales", "vip"];

fn names<'a, T: FromIterator<Arc<str>>>(names: impl IntoIterator<Item = &'a str>) -> T {
    names.into_iter().map(Arc::from).collect()
}

fn member(trunk: &str, priority: i32) -> Member {
    Member { trunk: trunk.into(), priority, weight: 1 }
}

pub(crate) fn known() -> Known {
    Known {
        realms: names(REALMS),
        trunks: names(TRUNKS),
        groups: [("all", names(["sales", "vip"])), ("sales", vec![]), ("vip", vec![])]
            .map(|(name, within)| (name.into(), within))
            .into(),
        trunk_groups: [("g1", vec![member("t1", 1), member("t2", 2)]), ("g2", vec![member("t3", 1)])]
            .map(|(name, members)| (name.into(), members))
            .into(),
        header_sets: names(["h1", "h2"]),
        codec_lists: [("wide".into(), names(["opus", "g722"]))].into(),
        limits: names(["l1", "l2"]),
    }
}

pub(crate) fn call() -> Facts {
    Facts {
        realm: "access".into(),
        caller: Caller::Subscriber("alice@example.net".into()),
        groups: Vec::new(),
        from: Party { number: "+4930123456".into(), host: "example.net".into() },
        to: Party { number: "+4420555".into(), host: "example.net".into() },
        emergency: false,
        codecs: vec!["opus".into()],
        user_agent: "Phone 1.0".into(),
        at: at("2026-07-01T12:00:00Z"),
        load: Load::default(),
        headers: Vec::new(),
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A rule that is enabled and marks for recording.
pub(crate) fn rule(position: i32) -> RuleRow {
    RuleRow {
        position,
        name: format!("rule {position}").into(),
        enabled: true,
        decides: Decides { record: Some(true), ..Decides::default() },
        ..RuleRow::default()
    }
}
