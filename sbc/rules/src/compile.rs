//! From a row to a rule, with everything that is wrong with it.

use std::sync::Arc;

use crate::condition::Condition;
use crate::decision::{Admission, Codecs, Rejection, Rewrite, Route};
use crate::expression::{Expression, Names};
use crate::known::{Known, Member};
use crate::pattern::Pattern;
use crate::prefixes::is_prefix;
use crate::row::{AdmissionRow, Block, Decides, LoadOf, RejectRow, RewriteRow, RouteRow, RuleRow};
use crate::set::{Outcome, Routing, Rule};
use crate::when::When;

/// Characters that a rewriting may take off a number.
const STRIP: i32 = 32;

/// Octets of a phrase, a Reason text, or what is put before a number.
const TEXT: usize = 128;

/// One row's compilation.
pub(crate) struct Compiling<'a> {
    pub(crate) known: &'a Known,
    pub(crate) names: &'a mut Names,
    /// Reasons of this row.
    pub(crate) reasons: Vec<String>,
}

impl Compiling<'_> {
    fn find(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }

    /// A rule of a row; only whole if no reason was found.
    pub(crate) fn rule(&mut self, row: &RuleRow) -> Rule {
        if row.name.trim().is_empty() {
            self.find("has no name: records and explanations need one");
        }
        if row.trunk.is_some() && row.subscriber.is_some() {
            self.find("names a trunk and a subscriber: no call comes from both");
        }
        if row.goes_on && row.decides == Decides::default() {
            self.find(
                "decides nothing and goes on, so it does nothing: let it decide something, or disable it",
            );
        }
        let rejects = matches!(row.decides.admission, Some(AdmissionRow::Reject(_)));
        if row.goes_on && rejects {
            self.find("rejects and goes on: a refused call has no more to be decided, take goes_on away");
        }
        if rejects && row.decides.route.is_some() {
            self.find("rejects and routes: take one of the two away");
        }
        Rule {
            position: row.position,
            name: row.name.clone(),
            enabled: row.enabled,
            goes_on: row.goes_on,
            conditions: self.conditions(row).into(),
            outcome: self.outcome(&row.decides),
        }
    }

    fn conditions(&mut self, row: &RuleRow) -> Vec<Condition> {
        let mut made = Vec::new();
        if let Some(realm) = &row.realm {
            self.expect(self.known.realms.contains(realm), "realm", realm);
            made.push(Condition::Realm(realm.clone()));
        }
        if let Some(trunk) = &row.trunk {
            self.expect(self.known.trunks.contains(trunk), "trunk", trunk);
            made.push(Condition::Trunk(trunk.clone()));
        }
        if let Some(aor) = &row.subscriber {
            if !aor.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()) {
                self.find(format!("names the subscriber \"{aor}\": write user@domain"));
            }
            made.push(Condition::Subscriber(aor.clone()));
        }
        for (side, prefix) in [("caller", &row.caller_prefix), ("callee", &row.callee_prefix)] {
            let Some(prefix) = prefix else { continue };
            if !is_prefix(prefix) {
                self.find(format!(
                    "has the {side} prefix \"{prefix}\": take 1 to 16 of digits, +, * and #, or a pattern"
                ));
            }
            made.push(if side == "caller" {
                Condition::CallerPrefix(prefix.clone())
            } else {
                Condition::CalleePrefix(prefix.clone())
            });
        }
        if let Some(load) = &row.load {
            if let LoadOf::Group(group) = &load.of {
                self.expect(self.known.groups.contains_key(group), "group", group);
            }
            let least = u32::try_from(load.at_least).unwrap_or_else(|_| {
                self.find(format!("has the load {}: take 0 to {}", load.at_least, u32::MAX));
                0
            });
            made.push(Condition::Load(load.of.clone(), least));
        }
        if let Some(group) = &row.group {
            self.expect(self.known.groups.contains_key(group), "group", group);
            made.push(Condition::Group(group.clone()));
        }
        if let Some(codec) = &row.codec {
            if codec.is_empty() || codec.chars().any(|char| char.is_uppercase() || char.is_whitespace()) {
                self.find(format!("names the codec \"{codec}\": write it in lower case, as opus"));
            }
            made.push(Condition::Codec(codec.clone()));
        }
        made.extend(
            self.pattern("caller pattern", row.caller_pattern.as_deref()).map(Condition::CallerPattern),
        );
        made.extend(
            self.pattern("callee pattern", row.callee_pattern.as_deref()).map(Condition::CalleePattern),
        );
        made.extend(self.pattern("User-Agent pattern", row.user_agent.as_deref()).map(Condition::UserAgent));
        let when = When::of(row, &mut |reason| self.find(reason));
        made.extend(when.map(|when| Condition::When(Arc::new(when))));
        if let Some(text) = &row.expression {
            let mut names = Names::default();
            match Expression::new(text, &mut names) {
                Ok(expression) => made.push(Condition::Expression(expression)),
                Err(why) => self.find(format!("has an expression that {why}")),
            }
            for group in names.groups {
                self.expect(self.known.groups.contains_key(&group), "group", &group);
            }
            self.names.headers.extend(names.headers);
        }
        made
    }

    fn pattern(&mut self, what: &str, text: Option<&str>) -> Option<Pattern> {
        let made = Pattern::new(text?);
        made.map_err(|why| self.find(format!("has a {what} that {why}"))).ok()
    }

    fn expect(&mut self, is_known: bool, what: &str, name: &str) {
        if !is_known {
            self.find(format!("names the {what} \"{name}\", which does not exist"));
        }
    }

    fn outcome(&mut self, decides: &Decides) -> Outcome {
        let admission = match &decides.admission {
            None => None,
            Some(AdmissionRow::Admit) => Some(Admission::Admit),
            Some(AdmissionRow::Reject(row)) => Some(Admission::Reject(Arc::new(self.rejection(row)))),
        };
        if let Some(set) = &decides.headers {
            self.expect(self.known.header_sets.contains(set), "set of header rules", set);
        }
        for limit in decides.limits.iter().flatten() {
            self.expect(self.known.limits.contains(limit), "limit", limit);
        }
        let cover = decides.cover.map(|share| {
            if !(0..=100).contains(&share) {
                self.find(format!("has a share of cover of {share} per cent: take 0 to 100"));
            }
            u8::try_from(share).unwrap_or(0)
        });
        Outcome {
            admission,
            route: decides.route.as_ref().and_then(|row| self.route(row)),
            caller: decides.caller.as_ref().map(|row| self.rewrite("caller", row)),
            callee: decides.callee.as_ref().map(|row| self.rewrite("callee", row)),
            headers: decides.headers.clone(),
            codecs: decides.codecs.as_ref().and_then(|name| self.codecs(name)),
            media: decides.media,
            cover,
            record: decides.record,
            limits: decides.limits.as_ref().map(|limits| limits.as_slice().into()),
        }
    }

    fn rejection(&mut self, row: &RejectRow) -> Rejection {
        let status = u16::try_from(row.status).ok().filter(|status| (400..=699).contains(status));
        match (status, row.kind) {
            (None, _) => self.find(format!("rejects with status {}: take 400 to 699", row.status)),
            (Some(status @ (401 | 407 | 421 | 422 | 423 | 494)), _) => {
                self.find(format!("rejects with status {status}, which needs headers a rule cannot give"));
            }
            (Some(status), Block::Analytics) if status != 603 => {
                self.find(format!("is an analytics block with status {status}: it is 603 (ATIS-1000099)"));
            }
            _ => {}
        }
        let own = match row.kind {
            Block::Analytics => "Network Blocked",
            Block::DoNotOriginate => "Number Never Calls",
            Block::Anonymous => "Anonymity Disallowed",
            Block::Policy => "Refused by Policy",
        };
        let phrase = row.phrase.clone().unwrap_or_else(|| own.into());
        if row.kind != Block::Analytics && phrase.trim().eq_ignore_ascii_case("Network Blocked") {
            self.find("says \"Network Blocked\", which analytics blocks alone say (ATIS-1000099)");
        }
        if row.kind == Block::Analytics && &*phrase != own {
            self.find(
                "is an analytics block: its phrase is \"Network Blocked\" (ATIS-1000099), leave it empty",
            );
        }
        for (what, text) in [("phrase", Some(&phrase)), ("Reason text", row.text.as_ref())] {
            let Some(text) = text else { continue };
            let fits = !text.trim().is_empty() && text.len() <= TEXT && !text.chars().any(char::is_control);
            if !fits || (what == "Reason text" && text.contains(['"', '\\'])) {
                self.find(format!(
                    "has a {what} that cannot be sent: take 1 to {TEXT} octets, no control characters, in a \
                     Reason text neither \" nor \\"
                ));
            }
        }
        let cause = row.cause.map(|cause| {
            if !(1..=127).contains(&cause) {
                self.find(format!("has the Q.850 cause {cause}: take 1 to 127"));
            }
            u8::try_from(cause).unwrap_or(0)
        });
        if row.text.is_some() && cause.is_none() {
            self.find("has a Reason text, but no Q.850 cause that it goes with");
        }
        Rejection { kind: row.kind, status: status.unwrap_or(403), phrase, cause, text: row.text.clone() }
    }

    fn route(&mut self, row: &RouteRow) -> Option<Routing> {
        let Some(members) = self.known.trunk_groups.get(&row.group) else {
            self.expect(false, "trunk group", &row.group);
            return None;
        };
        let mut members: Vec<Member> = members.clone();
        members.sort_by(|one, other| (one.priority, &one.trunk).cmp(&(other.priority, &other.trunk)));
        let route = Route { group: row.group.clone(), members: members.into(), without: None };
        Some(Routing { route, may_return: row.may_return })
    }

    fn rewrite(&mut self, side: &str, row: &RewriteRow) -> Arc<Rewrite> {
        if !(0..=STRIP).contains(&row.strip) {
            self.find(format!("strips {} characters off the {side}: take 0 to {STRIP}", row.strip));
        }
        if row.replace.is_some() && row.strip != 0 {
            self.find(format!("strips and replaces the {side}: take one of the two away"));
        }
        if row.strip == 0 && row.prepend.is_empty() && row.replace.is_none() {
            self.find(format!("rewrites the {side} to what it is: leave the columns empty"));
        }
        if row.replace.as_ref().is_some_and(|instead| instead.is_empty() && row.prepend.is_empty()) {
            self.find(format!("replaces the {side} by nothing: write a number"));
        }
        let usable = |char: char| char.is_ascii_alphanumeric() || "+*#-_.!~".contains(char);
        for text in [Some(&row.prepend), row.replace.as_ref()].into_iter().flatten() {
            if text.len() > TEXT || !text.chars().all(usable) {
                self.find(format!(
                    "writes \"{text}\" into the {side}: take letters, digits and + * # - _ . ! ~"
                ));
            }
        }
        let strip = usize::try_from(row.strip).unwrap_or(0);
        Arc::new(Rewrite { strip, prepend: row.prepend.clone(), replace: row.replace.clone() })
    }

    fn codecs(&mut self, name: &Arc<str>) -> Option<Arc<Codecs>> {
        let Some(list) = self.known.codec_lists.get(name) else {
            self.expect(false, "list of codecs", name);
            return None;
        };
        if list.is_empty() {
            self.find(format!(
                "names the list of codecs \"{name}\", which is empty: no call could have media"
            ));
        }
        Some(Arc::new(Codecs { name: name.clone(), codecs: list.as_slice().into() }))
    }
}
