use jiff::Timestamp;

use super::*;
use crate::facts::{Caller, Group, Load, Party};

fn facts() -> Facts {
    Facts {
        realm: "access".into(),
        caller: Caller::Trunk("carrier".into()),
        groups: vec![Group { name: "vip".into(), calls: 7 }],
        from: Party { number: "+4930123".into(), host: "a.example".into() },
        to: Party { number: "112".into(), host: String::new().into() },
        emergency: true,
        codecs: vec!["opus".into(), "pcma".into()],
        user_agent: "Phone/1.0 é".into(),
        at: Timestamp::UNIX_EPOCH,
        load: Load { realm: 40, caller: 3 },
        headers: vec![("x-class".into(), "gold".into())],
    }
}

fn made(text: &str) -> Result<Expression, String> {
    Expression::new(&text.into(), &mut Names::default())
}

#[test]
fn an_expression_reads_every_fact_by_its_type() {
    for text in [
        "realm == 'access' && caller.kind == \"trunk\" && caller.name != 'other'",
        "caller.number.startsWith('+49') && caller.host.endsWith('example') && callee.host == ''",
        "callee.number.matches('^(110|112)$') && matches(callee.number, '^1')",
        "'vip' in groups && !('x' in groups) && 'opus' in codecs && size(codecs) == 2",
        "calls.realm >= 40 && calls.caller < calls.realm && group_calls('vip') == 7 && group_calls('x') == 0",
        "header('X-Class') == 'gold' && header('other') == ''",
        "emergency ? user_agent.contains('Phone') : false",
        "user_agent.size() == 11 && -1 < 0 && 'a' < 'b' && emergency == true && emergency != false",
    ] {
        assert!(made(text).unwrap().holds(&facts()), "{text}");
    }
}

#[test]
fn what_could_fail_or_take_long_is_refused_with_the_reason() {
    let long = format!("realm == '{}'", "x".repeat(129));
    let wide = vec!["emergency"; 40].join(" && ");
    let deep = format!("{}emergency{}", "(".repeat(30), ")".repeat(30));
    for (text, reason) in [
        ("codecs.exists(c, c == 'opus')", "macros"),
        ("codecs.map(c, c).size() == 1", "macros"),
        ("realm in ['a', 'b']", "builds a list"),
        ("realm in {'a': 1}", "builds a map"),
        ("caller.number.matches(callee.number)", "not literal"),
        ("caller.number.matches('(a|b)*a(a|b){14}')", "64 KiB"),
        (&long, "129 octets"),
        (&wide, "more than 64 parts"),
        (&deep, "deeper"),
        ("!!!!!!!!!!!!!!!!!!!!!!!!!!emergency", "deeper"),
        ("callee.number", "a bool is wanted"),
        ("callee.number > 3", "compares a string with an int"),
        ("calls.realm + 1 > 3", "arithmetic"),
        ("codecs[0] == 'opus'", "indices"),
        ("caller.colour == 'red'", "no fact of a call"),
        ("header(realm) == 'x'", "not literal"),
        ("header('no name') == 'x'", "no header's name"),
        ("has(caller.name)", "has()"),
        ("realm ==", "does not compile"),
        ("timestamp('2026-01-01T00:00:00Z') == 1", "does not exist"),
        ("realm == 1.5", "literal"),
        ("", "does not compile"),
    ] {
        let why = made(text).unwrap_err();
        assert!(why.contains(reason), "{text}: {why}");
    }
}

#[test]
fn the_interpreter_of_cel_says_the_same_of_the_same_facts() {
    let facts = facts();
    let mut context = cel::Context::default();
    context.add_variable_from_value("realm", &*facts.realm);
    context.add_variable_from_value("user_agent", &*facts.user_agent);
    context.add_variable_from_value("emergency", facts.emergency);
    context.add_variable_from_value("codecs", vec!["opus", "pcma"]);
    context.add_variable_from_value("groups", vec!["vip"]);
    let texts = ["realm", "user_agent", "'acc'", "'é'", "''", "'vip'", "'opus'"];
    let mut compared = 0;
    for one in texts {
        for other in texts {
            for text in [
                format!("{one} == {other}"),
                format!("{one} != {other} || emergency"),
                format!("{one} < {other}"),
                format!("{one} >= {other} && !emergency"),
                format!("{one}.startsWith({other})"),
                format!("{one}.endsWith({other})"),
                format!("{one}.contains({other}) ? {one} in groups : {other} in codecs"),
                format!("size({one}) > {other}.size()"),
                format!("({one} in codecs) == ({other} in groups)"),
            ] {
                let theirs = cel::Program::compile(&text).unwrap().execute(&context).unwrap();
                assert_eq!(cel::Value::from(made(&text).unwrap().holds(&facts)), theirs, "{text}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 441);
}
