//! `decide` against one that knows no index: it looks at all rows in order, and reads each column in the plainest way.
//!
//! `RULES_SEED=17 cargo test -p rules reference` plays one seed again.

use std::sync::Arc;

use jiff::tz::TimeZone;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rules::decision::{Admission, Decision, Thing};
use rules::explanation::StepOutcome;
use rules::facts::{Caller, Facts, Group, Load, Party};
use rules::row::{AdmissionRow, Block, Decides, LoadOf, LoadRow, RejectRow, RewriteRow, RouteRow, RuleRow};
use rules::set::RuleSet;
use seam::path::Constraint;

use super::world::{GROUPS, REALMS, TRUNKS, call, known, rule};

const SEEDS: u64 = 3000;
const CALLS: usize = 20;
const PREFIXES: [&str; 8] = ["+", "+49", "+4930", "+44", "+4420", "112", "*", "+4930123456"];
const NUMBERS: [&str; 8] =
    ["+4930123456", "+4930", "+4420555", "+1202", "112", "*21#", "anonymous", "+49301234567890123456"];
const AORS: [&str; 3] = ["alice@example.net", "bob@example.net", "carol@example.org"];
const ZONES: [&str; 3] = ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];

/// A text that is compiled, and the same in Rust.
type Plain = (&'static str, fn(&Facts) -> bool);

const EXPRESSIONS: [Plain; 5] = [
    ("callee.number.startsWith('+44') || emergency", |f| f.to.number.starts_with("+44") || f.emergency),
    ("'vip' in groups && calls.caller < 3", |f| {
        f.groups.iter().any(|one| &*one.name == "vip") && f.load.caller < 3
    }),
    ("caller.kind == 'trunk' ? realm == 'peering' : !('opus' in codecs)", |f| match f.caller {
        Caller::Trunk(_) => &*f.realm == "peering",
        _ => !f.codecs.iter().any(|one| &**one == "opus"),
    }),
    ("header('X-Class') == 'gold' || user_agent.size() > 8", |f| {
        f.headers.iter().any(|(name, value)| (&**name, &**value) == ("x-class", "gold"))
            || f.user_agent.chars().count() > 8
    }),
    ("callee.number.matches('^[+]49[0-9]{4,}$')", |f| {
        f.to.number
            .strip_prefix("+49")
            .is_some_and(|rest| rest.len() >= 4 && rest.bytes().all(|octet| octet.is_ascii_digit()))
    }),
];

const PATTERNS: [Plain; 2] =
    [("^[+]49", |f| f.to.number.starts_with("+49")), ("5{2}", |f| f.to.number.contains("55"))];

struct Dice(ChaCha8Rng);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        usize::try_from(self.0.next_u64() % sides as u64).unwrap()
    }

    fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    fn text(&mut self, of: &[&str]) -> Arc<str> {
        of[self.below(of.len())].into()
    }

    fn maybe(&mut self, sides: usize, of: &[&str]) -> Option<Arc<str>> {
        self.one_in(sides).then(|| self.text(of))
    }

    fn clock(&mut self) -> Arc<str> {
        format!("{:02}:{:02}", self.below(24), self.below(4) * 15).into()
    }

    fn row(&mut self, position: i32) -> RuleRow {
        let mut row = rule(position);
        row.enabled = !self.one_in(10);
        row.realm = self.maybe(4, &REALMS);
        match self.below(8) {
            0 => row.trunk = Some(self.text(&TRUNKS)),
            1 => row.subscriber = Some(self.text(&AORS)),
            2 => row.group = Some(self.text(&GROUPS)),
            _ => {}
        }
        row.caller_prefix = self.maybe(5, &PREFIXES);
        row.callee_prefix = self.maybe(3, &PREFIXES);
        row.callee_pattern = self.maybe(8, &PATTERNS.map(|one| one.0));
        row.codec = self.maybe(8, &["opus", "pcma"]);
        row.expression = self.maybe(4, &EXPRESSIONS.map(|one| one.0));
        if self.one_in(5) {
            row.zone = Some(self.text(&ZONES));
            row.days = (1..=7).filter(|_| self.one_in(2)).collect();
            (row.from, row.until) = (Some(self.clock()), Some(self.clock()));
            if row.from == row.until {
                row.until = Some("24:00".into());
            }
        }
        if self.one_in(6) {
            let of = [LoadOf::Realm, LoadOf::Caller, LoadOf::Group("vip".into())][self.below(3)].clone();
            row.load = Some(LoadRow { of, at_least: i64::try_from(self.below(5)).unwrap() });
        }
        row.goes_on = self.one_in(2);
        row.decides = self.decides(!row.goes_on);
        row
    }

    fn decides(&mut self, may_reject: bool) -> Decides {
        let rewrite = |strip: usize| RewriteRow { strip: strip as i32, prepend: "0".into(), replace: None };
        let mut decides = Decides {
            route: self
                .one_in(3)
                .then(|| RouteRow { group: self.text(&["g1", "g2"]), may_return: self.one_in(2) }),
            caller: self.one_in(4).then(|| rewrite(self.below(3))),
            callee: self.one_in(4).then(|| rewrite(self.below(3))),
            headers: self.maybe(4, &["h1", "h2"]),
            codecs: self.maybe(4, &["wide"]),
            media: self.one_in(3).then(|| Constraint::ALL[self.below(4)]),
            cover: self.one_in(4).then(|| self.below(101) as i32),
            record: Some(self.one_in(2)),
            limits: self.one_in(4).then(|| vec![self.text(&["l1", "l2"])]),
            admission: self.one_in(3).then_some(AdmissionRow::Admit),
        };
        if may_reject && self.one_in(4) {
            decides.route = None;
            decides.admission = Some(AdmissionRow::Reject(RejectRow {
                kind: Block::Policy,
                status: 400 + self.below(1) as i32,
                phrase: None,
                cause: Some(21),
                text: Some("policy".into()),
            }));
        }
        decides
    }

    fn call(&mut self) -> Facts {
        let mut groups = vec![];
        for name in GROUPS {
            if self.one_in(3) {
                groups.push(Group { name: name.into(), calls: self.below(6) as u32 });
            }
        }
        // A year, by the quarter of an hour at times, so that borders are met.
        let minutes = self.below(365 * 96) as i64 * 15 + i64::from(self.one_in(2));
        Facts {
            realm: self.text(&REALMS),
            caller: match self.below(3) {
                0 => Caller::Anonymous,
                1 => Caller::Trunk(self.text(&TRUNKS)),
                _ => Caller::Subscriber(self.text(&AORS)),
            },
            groups,
            from: Party { number: self.text(&NUMBERS), host: "a.example".into() },
            to: Party { number: self.text(&NUMBERS), host: "b.example".into() },
            emergency: self.one_in(10),
            codecs: self.maybe(2, &["opus", "pcma"]).into_iter().collect(),
            user_agent: self.text(&["", "Phone 1.0", "x"]),
            at: jiff::Timestamp::from_second(1_767_225_600 + minutes * 60).unwrap(),
            load: Load { realm: self.below(6) as u32, caller: self.below(6) as u32 },
            headers: self
                .maybe(3, &["gold", "tin"])
                .map(|value| ("x-class".into(), value))
                .into_iter()
                .collect(),
        }
    }
}

/// Whether a row's span is open: minute by minute back to where it would have begun, by the clock on the wall.
fn is_open(row: &RuleRow, facts: &Facts) -> bool {
    let Some(zone) = &row.zone else { return true };
    let local = TimeZone::get(zone).unwrap().to_datetime(facts.at);
    let minutes = |text: &Option<Arc<str>>| {
        let (hour, minute) = text.as_ref().unwrap().split_once(':').unwrap();
        hour.parse::<i64>().unwrap() * 60 + minute.parse::<i64>().unwrap()
    };
    let (from, until) = (minutes(&row.from), minutes(&row.until));
    let now = i64::from(local.hour()) * 60 + i64::from(local.minute());
    let length = (until - from).rem_euclid(1440);
    let length = if length == 0 { 1440 } else { length };
    let since = (now - from).rem_euclid(1440);
    let day = i64::from(local.weekday().to_monday_zero_offset());
    let began = if now >= from { day } else { (day - 1).rem_euclid(7) };
    let is_day = row.days.is_empty() || row.days.iter().any(|one| i64::from(*one) - 1 == began);
    since < length && is_day
}

fn plain(of: &[Plain], text: &Option<Arc<str>>, facts: &Facts) -> bool {
    let Some(text) = text else { return true };
    of.iter().find(|one| one.0 == &**text).unwrap().1(facts)
}

/// Whether all columns but the expression fit.
fn fits(row: &RuleRow, f: &Facts) -> bool {
    let is = |column: &Option<Arc<str>>, what: &str| column.as_deref().is_none_or(|one| one == what);
    let begins =
        |column: &Option<Arc<str>>, what: &str| column.as_deref().is_none_or(|one| what.starts_with(one));
    let (trunk, aor) = match &f.caller {
        Caller::Trunk(name) => (&**name, ""),
        Caller::Subscriber(aor) => ("", &**aor),
        Caller::Anonymous => ("", ""),
    };
    let calls = |load: &LoadRow| match &load.of {
        LoadOf::Realm => f.load.realm,
        LoadOf::Caller => f.load.caller,
        LoadOf::Group(group) => f.groups.iter().filter(|one| one.name == *group).map(|one| one.calls).sum(),
    };
    row.enabled
        && is(&row.realm, &f.realm)
        && is(&row.trunk, trunk)
        && is(&row.subscriber, aor)
        && row.group.as_ref().is_none_or(|group| f.groups.iter().any(|one| one.name == *group))
        && begins(&row.caller_prefix, &f.from.number)
        && begins(&row.callee_prefix, &f.to.number)
        && plain(&PATTERNS, &row.callee_pattern, f)
        && row.codec.as_ref().is_none_or(|codec| f.codecs.contains(codec))
        && row.load.as_ref().is_none_or(|load| i64::from(calls(load)) >= load.at_least)
        && is_open(row, f)
}

/// What the reference says: the rows that had a say, what they decided in rows' terms, and how many expressions were reached.
fn reference(rows: &[RuleRow], facts: &Facts) -> (Vec<i32>, Decides, u32) {
    let (mut by, mut all, mut reached) = (Vec::new(), Decides::default(), 0);
    for row in rows.iter().filter(|row| fits(row, facts)) {
        reached += u32::from(row.expression.is_some());
        if !plain(&EXPRESSIONS, &row.expression, facts) {
            continue;
        }
        by.push(row.position);
        let one = row.decides.clone();
        all = Decides {
            admission: all.admission.or(one.admission),
            route: all.route.or(one.route),
            caller: all.caller.or(one.caller),
            callee: all.callee.or(one.callee),
            headers: all.headers.or(one.headers),
            codecs: all.codecs.or(one.codecs),
            media: all.media.or(one.media),
            cover: all.cover.or(one.cover),
            record: all.record.or(one.record),
            limits: all.limits.or(one.limits),
        };
        if !row.goes_on {
            break;
        }
    }
    (by, all, reached)
}

/// A decision in rows' terms; what a route leaves out is looked at apart.
fn as_rows(decision: &Decision, route: Option<&RouteRow>) -> Decides {
    let rewrite = |of: &Option<Arc<rules::decision::Rewrite>>| {
        of.as_ref().map(|one| RewriteRow {
            strip: one.strip as i32,
            prepend: one.prepend.clone(),
            replace: one.replace.clone(),
        })
    };
    Decides {
        admission: decision.admission.as_ref().map(|admission| match admission {
            Admission::Admit => AdmissionRow::Admit,
            Admission::Reject(one) => AdmissionRow::Reject(RejectRow {
                kind: one.kind,
                status: one.status.into(),
                phrase: None,
                cause: one.cause.map(Into::into),
                text: one.text.clone(),
            }),
        }),
        route: decision.route.as_ref().map(|one| RouteRow {
            group: one.group.clone(),
            may_return: route.is_some_and(|row| row.may_return),
        }),
        caller: rewrite(&decision.caller),
        callee: rewrite(&decision.callee),
        headers: decision.headers.clone(),
        codecs: decision.codecs.as_ref().map(|codecs| codecs.name.clone()),
        media: decision.media,
        cover: decision.cover.map(Into::into),
        record: decision.record,
        limits: decision.limits.as_ref().map(|limits| limits.to_vec()),
    }
}

fn play(seed: u64) {
    let mut dice = Dice(ChaCha8Rng::seed_from_u64(seed));
    let count = dice.below(40);
    let rows: Vec<RuleRow> = (0..count).map(|position| dice.row(position as i32 * 10)).collect();
    let set = RuleSet::compile(&rows, &known())
        .unwrap_or_else(|found| panic!("seed {seed}: {found:?}"))
        .numbered(seed);
    for _ in 0..CALLS {
        let facts = dice.call();
        let told = || format!("seed {seed}, {facts:?}\n{}", set.explain(&facts));
        let decision = set.decide(&facts);
        let (by, all, reached) = reference(&rows, &facts);
        let said: Vec<i32> = decision.by.iter().map(|one| one.position).collect();
        assert_eq!(said, by, "{}", told());
        assert_eq!(as_rows(&decision, all.route.as_ref()), all, "{}", told());
        assert_eq!((decision.expressions, decision.version), (reached, seed), "{}", told());
        if let (Some(route), Some(row)) = (&decision.route, &all.route) {
            let back = route.members().any(|one| facts.caller == Caller::Trunk(one.trunk.clone()));
            assert!(!back || row.may_return, "{}", told());
        }
        let things = |thing| decision.by.iter().filter(|one| one.things.has(thing)).count();
        assert_eq!(things(Thing::Media), usize::from(all.media.is_some()), "{}", told());
        assert_eq!(set.constraint(&facts), all.media, "{}", told());
        agrees(&set, &facts, &rows, seed);
    }
}

/// What is explained is what was decided, and each rule before the last has a reason or had its say.
fn agrees(set: &RuleSet, facts: &Facts, rows: &[RuleRow], seed: u64) {
    let explanation = set.explain(facts);
    assert_eq!(explanation.decision, set.decide(facts), "seed {seed}, {facts:?}");
    for (step, row) in explanation.steps.iter().zip(rows) {
        assert_eq!(step.position, row.position, "seed {seed}");
        match &step.outcome {
            StepOutcome::Disabled => assert!(!row.enabled),
            StepOutcome::Missed(by) => assert!(!by.is_empty(), "seed {seed}: {step}"),
            StepOutcome::Matched { goes_on, .. } => assert_eq!(*goes_on, row.goes_on),
        }
    }
    let matched: Vec<i32> = explanation
        .steps
        .iter()
        .filter(|step| matches!(step.outcome, StepOutcome::Matched { .. }))
        .map(|step| step.position)
        .collect();
    let by: Vec<i32> = explanation.decision.by.iter().map(|one| one.position).collect();
    assert_eq!(matched, by, "seed {seed}");
}

#[test]
fn thousands_of_rule_sets_decide_and_explain_as_one_that_looks_at_all_rules() {
    match std::env::var("RULES_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => play(seed),
        None => (0..SEEDS).for_each(play),
    }
}

#[test]
fn an_explanation_says_what_each_rule_was_missed_by() {
    let mut rows = vec![rule(10), rule(20), rule(30), rule(40), rule(50)];
    rows[0].callee_prefix = Some("+4930".into());
    rows[1].zone = Some("Europe/Berlin".into());
    (rows[1].from, rows[1].until) = (Some("08:00".into()), Some("17:00".into()));
    rows[2].enabled = false;
    rows[3].group = Some("vip".into());
    rows[3].expression = Some("calls.realm > 3".into());
    let set = RuleSet::compile(&rows, &known()).unwrap();
    let facts = Facts { at: "2026-07-01T16:05:00Z".parse().unwrap(), ..call() };
    assert_eq!(
        set.explain(&facts).to_string(),
        "10 \"rule 10\": callee +4420555 does not begin with +4930\n\
         20 \"rule 20\": it is Wednesday 18:05 in Europe/Berlin, not between 08:00 and 17:00\n\
         30 \"rule 30\": disabled\n\
         40 \"rule 40\": subscriber alice@example.net is not in group vip; the expression is false: calls.realm > 3\n\
         50 \"rule 50\": matches, decides recording\n"
    );
}
