//! What compilation refuses, and how it says so.

use rules::finding::Finding;
use rules::known::Member;
use rules::row::{AdmissionRow, Block, LoadOf, LoadRow, RejectRow, RewriteRow, RouteRow, RuleRow};
use rules::set::RuleSet;
use seam::path::Constraint;

use super::world::{known, rule};

fn findings(rows: &[RuleRow]) -> Vec<String> {
    let found = RuleSet::compile(rows, &known()).err().unwrap_or_default();
    found.iter().map(Finding::to_string).collect()
}

fn reject(kind: Block, status: i32) -> RejectRow {
    RejectRow { kind, status, phrase: None, cause: None, text: None }
}

#[test]
fn each_thing_that_cannot_be_is_told_with_row_and_reason() {
    type Spoil = fn(&mut RuleRow);
    let cases: [(Spoil, &str); 31] = [
        (|r| r.realm = Some("x".into()), "names the realm \"x\", which does not exist"),
        (|r| r.trunk = Some("x".into()), "names the trunk \"x\""),
        (|r| r.group = Some("x".into()), "names the group \"x\""),
        (|r| r.subscriber = Some("alice".into()), "write user@domain"),
        (|r| (r.trunk, r.subscriber) = (Some("t1".into()), Some("a@b".into())), "no call comes from both"),
        (|r| r.callee_prefix = Some("+49 30".into()), "callee prefix \"+49 30\""),
        (|r| r.caller_prefix = Some("".into()), "caller prefix \"\""),
        (|r| r.callee_pattern = Some("(a|b)*a(a|b){14}".into()), "more than 64 KiB"),
        (|r| r.user_agent = Some("(".into()), "User-Agent pattern that cannot be read"),
        (|r| r.codec = Some("PCMA".into()), "lower case"),
        (|r| r.days = vec![1], "no zone"),
        (|r| r.zone = Some("Europe/Berlin".into()), "neither days nor times"),
        (
            |r| (r.zone, r.days) = (Some("Europe/Bonn".into()), vec![1]),
            "zone \"Europe/Bonn\", which nobody knows",
        ),
        (|r| (r.zone, r.days) = (Some("UTC".into()), vec![0, 8]), "names day 0"),
        (|r| (r.zone, r.from) = (Some("UTC".into()), Some("8:00".into())), "time \"8:00\": write HH:MM"),
        (
            |r| (r.zone, r.from, r.until) = (Some("UTC".into()), Some("08:00".into()), Some("08:00".into())),
            "empty",
        ),
        (|r| r.load = Some(LoadRow { of: LoadOf::Realm, at_least: -1 }), "has the load -1"),
        (|r| r.expression = Some("realm ==".into()), "expression that does not compile"),
        (|r| r.expression = Some("codecs.all(c, c == 'x')".into()), "may cost too much"),
        (|r| r.expression = Some("'x' in groups".into()), "names the group \"x\""),
        (|r| r.decides.route = Some(RouteRow { group: "x".into(), may_return: false }), "trunk group \"x\""),
        (|r| r.decides.headers = Some("x".into()), "set of header rules \"x\""),
        (|r| r.decides.codecs = Some("x".into()), "list of codecs \"x\""),
        (|r| r.decides.limits = Some(vec!["x".into()]), "limit \"x\""),
        (|r| r.decides.cover = Some(-3), "-3 per cent"),
        (|r| r.decides.callee = Some(RewriteRow { strip: -1, ..RewriteRow::default() }), "strips -1"),
        (
            |r| r.decides.admission = Some(AdmissionRow::Reject(reject(Block::Policy, 200))),
            "rejects with status 200: take 400 to 699",
        ),
        (
            |r| r.decides.admission = Some(AdmissionRow::Reject(reject(Block::Analytics, 403))),
            "analytics block with status 403",
        ),
        (
            |r| {
                let phrase = Some("network blocked".into());
                let row = RejectRow { phrase, ..reject(Block::Policy, 603) };
                r.decides.admission = Some(AdmissionRow::Reject(row));
            },
            "analytics blocks alone",
        ),
        (
            |r| {
                let row =
                    RejectRow { cause: Some(128), text: Some("a\r\nb".into()), ..reject(Block::Policy, 403) };
                r.decides.admission = Some(AdmissionRow::Reject(row));
            },
            "cannot be sent",
        ),
        (|r| (r.goes_on, r.decides.record) = (true, None), "decides nothing and goes on"),
    ];
    for (spoil, reason) in cases {
        let mut row = rule(10);
        spoil(&mut row);
        let found = findings(&[row]);
        assert!(
            found.iter().any(|one| one.starts_with("rule 10 \"rule 10\": ") && one.contains(reason)),
            "{reason}: {found:?}"
        );
    }
}

#[test]
fn all_that_is_wrong_with_all_rows_is_told_in_order_of_position() {
    let (mut one, mut other) = (rule(20), rule(10));
    one.realm = Some("x".into());
    one.decides.cover = Some(101);
    other.enabled = false;
    other.trunk = Some("y".into());
    let found = findings(&[one, other, rule(20)]);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found[0].starts_with("rule 10") && found[0].contains("trunk \"y\""));
    assert!(
        found[3].contains("stands where \"rule 20\" stands") && found[4].contains("has the name of rule 20")
    );
}

#[test]
fn groups_that_stand_in_themselves_or_name_what_is_not_are_told() {
    let mut names = known();
    names.groups.insert("sales".into(), vec!["all".into(), "nobody".into()]);
    let trunk = Member { trunk: "gone".into(), priority: 1, weight: -1 };
    names.trunk_groups.insert("g3".into(), vec![trunk]);
    names.trunk_groups.insert("g4".into(), vec![]);
    let found: Vec<String> =
        RuleSet::compile(&[], &names).unwrap_err().iter().map(Finding::to_string).collect();
    assert!(found[0].starts_with("group \"all\": stands in itself"), "{found:?}");
    assert!(
        found[1].contains("\"nobody\", which does not exist")
            && found[2].starts_with("group \"sales\": stands")
    );
    assert!(
        found[3].contains("trunk \"gone\"")
            && found[4].contains("weight -1")
            && found[5].contains("no trunk")
    );
}

#[test]
fn a_caller_is_in_the_groups_that_its_groups_stand_in() {
    assert_eq!(known().all_groups(&["vip".into()]), ["all", "vip"].map(std::sync::Arc::from));
    assert!(known().all_groups(&[]).is_empty());
}

#[test]
fn a_rule_that_decides_no_media_and_ends_leaves_the_path_open() {
    let mut rows = [rule(10), rule(20)];
    rows[1].decides.media = Some(Constraint::MustAnchor);
    let facts = super::world::call();
    let says = |rows: &[RuleRow]| RuleSet::compile(rows, &known()).unwrap().constraint(&facts);
    assert_eq!(says(&rows), None);
    rows[0].goes_on = true;
    assert_eq!(says(&rows), Some(Constraint::MustAnchor));
}
