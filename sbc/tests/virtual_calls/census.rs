//! What happened in a run, by the messages at the SBC: so that ten thousand calls can be shown to hold every case.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use seam::{Action, Renegotiated, Request};
use sip_wire::{Message, Method, Name, multipart};

use crate::phone::LABEL;
use crate::world::World;

/// What may happen to a call or in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scenario {
    /// An INVITE.
    SetUp,
    /// An INVITE with another body beside the offer.
    Multipart,
    /// An INVITE without an offer, and the target's offer in a reliable response.
    LateOffer,
    /// An INVITE that went to several contacts.
    Contacts,
    /// An INVITE that made several early dialogs of one branch.
    Fork,
    /// Such a fork with answers of different codecs.
    ForkedCodecs,
    /// An unreliable 183 with a description, and a 200 with another.
    DifferentAnswer,
    /// CANCEL and the target's 2xx on one INVITE.
    CancelRace,
    /// An INVITE that replaces a call (attended transfer).
    Replaces,
    /// REFER.
    Transfer,
    /// An offer in PRACK.
    PrackOffer,
    /// An offer in UPDATE before the call is answered.
    EarlyUpdate,
    /// An offer in UPDATE afterwards.
    Update,
    /// An offer in re-INVITE.
    Reinvite,
    /// A re-INVITE that asks for an offer.
    BareReinvite,
    /// An offer that changes an m-line to T.38.
    Fax,
    /// A re-INVITE that the media plane wished for, with its offer.
    Wish,
    /// One that asks for an offer.
    BareWish,
}

/// How it came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    /// 2xx.
    Done,
    /// A failure, be it of the other phone, the media plane or the rules of offer and answer.
    Refused,
    /// CANCEL came in time.
    Cancelled,
    /// CANCEL or BYE came while the media plane was thinking about it; or before its wish was answered.
    CutShort,
    /// A wish of the media plane for which it was not the moment.
    Superseded,
}

use Fate::{Cancelled, CutShort, Done, Refused, Superseded};

/// All rows, and which of their cases can be.
const ROWS: [(Scenario, &str, &[Fate]); 18] = [
    (Scenario::SetUp, "set-up", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::Multipart, "multipart", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::LateOffer, "late offer", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::Contacts, "several contacts", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::Fork, "fork", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::ForkedCodecs, "forked answers, different codecs", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::DifferentAnswer, "unreliable 183, different 200", &[Done, Refused, CutShort]),
    // Done: the 2xx was first. Refused: it came to a call that was over.
    (Scenario::CancelRace, "CANCEL races 2xx", &[Done, Refused, CutShort]),
    (Scenario::Replaces, "INVITE with Replaces", &[Done, Refused, Cancelled, CutShort]),
    // No offer: media has nothing to think about.
    (Scenario::Transfer, "REFER", &[Done, Refused]),
    (Scenario::PrackOffer, "offer in PRACK", &[Done, Refused, CutShort]),
    (Scenario::EarlyUpdate, "offer in early UPDATE", &[Done, Refused, CutShort]),
    (Scenario::Update, "offer in UPDATE", &[Done, Refused, CutShort]),
    (Scenario::Reinvite, "offer in re-INVITE", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::BareReinvite, "re-INVITE without offer", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::Fax, "T.38 m-line", &[Done, Refused, Cancelled, CutShort]),
    (Scenario::Wish, "media's wish", &[Done, Refused, CutShort, Superseded]),
    (Scenario::BareWish, "media's wish without offer", &[Done, Refused, CutShort, Superseded]),
];

/// What was described last in a dialog, and whether reliably.
type Said = Option<(Vec<u8>, bool)>;

/// One request of a phone, and what it led to.
#[derive(Debug, Default)]
struct Case {
    scenarios: BTreeSet<Scenario>,
    status: Option<u16>,
    is_cut_short: bool,
    is_cancelled: bool,
    /// A target has accepted it.
    is_accepted: bool,
    has_offer: bool,
    /// Targets' Call-IDs.
    legs: BTreeSet<Vec<u8>>,
    /// Early dialogs by Call-ID and To tag: the description said last, and whether reliably.
    forks: BTreeMap<(Vec<u8>, Vec<u8>), Said>,
}

/// Call-ID, CSeq number and method of a request.
type Key = (Vec<u8>, u32, Vec<u8>);

/// Follows a run.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    cases: Vec<Case>,
    /// Requests from phones, to their cases.
    received: BTreeMap<Key, usize>,
    /// Requests of the SBC, to the cases that they serve.
    sent: BTreeMap<Key, usize>,
    /// Call-IDs of both sides, to the case of the INVITE.
    calls: BTreeMap<Vec<u8>, usize>,
    labels: BTreeMap<Vec<u8>, usize>,
    /// What the engine works at.
    current: Option<usize>,
    is_ending: bool,
    /// What media thinks about: session and number, to the case.
    pending: BTreeMap<(u64, u32), usize>,
}

fn key(message: &Message, method: Option<&[u8]>) -> Option<Key> {
    let cseq = message.cseq().ok()?;
    let method = method.unwrap_or(cseq.method.as_bytes()).to_vec();
    Some((message.call_id().ok()?.to_vec(), cseq.number, method))
}

fn tag(message: &Message) -> Option<Vec<u8>> {
    Some(message.to().ok()?.tag()?.to_vec())
}

/// What a description says, but for who says it and how often.
fn essence(message: &Message) -> Option<Vec<u8>> {
    let sdp = &message.body()[multipart::session_description(message)?];
    let lines = sdp.split(|byte| *byte == b'\n').filter(|line| !line.starts_with(b"o="));
    Some(lines.collect::<Vec<_>>().join(&b'\n'))
}

/// Its m-lines' formats.
fn formats(essence: &[u8]) -> Vec<Vec<u8>> {
    let lines = essence.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"m="));
    lines.map(|line| line.splitn(4, |byte| *byte == b' ').nth(3).unwrap_or_default().to_vec()).collect()
}

impl Follower {
    /// A message is about to be handed to the engine.
    pub(crate) fn received(&mut self, message: &Message) {
        self.is_ending = matches!(message.method(), Some(Method::BYE | Method::CANCEL));
        self.current = match message.method() {
            Some(Method::CANCEL) => {
                let case = key(message, Some(b"INVITE")).and_then(|key| self.received.get(&key).copied());
                if let Some(number) = case {
                    let is_pending = self.pending.values().any(|other| *other == number);
                    let case = &mut self.cases[number];
                    case.is_cancelled = true;
                    case.is_cut_short |= case.status.is_none() && is_pending;
                }
                case
            }
            Some(Method::ACK) => {
                key(message, Some(b"INVITE")).and_then(|key| self.received.get(&key).copied())
            }
            Some(_) => self.request(message),
            None => self.response(message),
        };
    }

    fn request(&mut self, message: &Message) -> Option<usize> {
        let key = key(message, None)?;
        if let Some(known) = self.received.get(&key) {
            return Some(*known);
        }
        let call = self.calls.get(&key.0).copied();
        let description = essence(message);
        let has_offer = description.is_some();
        let is_fax = description.is_some_and(|text| text.windows(8).any(|window| window == b"m=image "));
        let mut scenarios = BTreeSet::new();
        match (message.method()?, has_offer, tag(message).is_some()) {
            (Method::INVITE, _, false) => {
                scenarios.insert(Scenario::SetUp);
                if message.value(Name::ContentType).is_some_and(|value| value.starts_with(b"multipart/")) {
                    scenarios.insert(Scenario::Multipart);
                }
                if message.count(Name::Replaces) > 0 {
                    scenarios.insert(Scenario::Replaces);
                }
            }
            (Method::INVITE, true, true) => drop(scenarios.insert(Scenario::Reinvite)),
            (Method::INVITE, false, true) => drop(scenarios.insert(Scenario::BareReinvite)),
            (Method::UPDATE, true, _) => {
                let is_early = call.is_some_and(|call| self.cases[call].status.is_none());
                scenarios.insert(if is_early { Scenario::EarlyUpdate } else { Scenario::Update });
            }
            (Method::PRACK, true, _) if call.is_some_and(|call| self.cases[call].has_offer) => {
                scenarios.insert(Scenario::PrackOffer);
            }
            (Method::REFER, ..) => drop(scenarios.insert(Scenario::Transfer)),
            _ => {}
        }
        if is_fax && !scenarios.contains(&Scenario::SetUp) {
            scenarios.insert(Scenario::Fax);
        }
        let case = self.cases.len();
        if scenarios.contains(&Scenario::SetUp) {
            self.calls.insert(key.0.clone(), case);
            self.labels.insert(message.named(LABEL).unwrap_or_default().to_vec(), case);
        }
        self.received.insert(key, case);
        self.cases.push(Case { scenarios, has_offer, ..Case::default() });
        Some(case)
    }

    /// The answer of a target, of whatever request.
    fn response(&mut self, message: &Message) -> Option<usize> {
        let key = key(message, None)?;
        let number = *self.sent.get(&key)?;
        let status = message.status()?;
        let case = &mut self.cases[number];
        let is_set_up = case.scenarios.contains(&Scenario::SetUp);
        if is_set_up && (200..300).contains(&status) {
            case.is_accepted = true;
        }
        let (Some(tag), true, 101..=299) = (tag(message), is_set_up, status) else { return Some(number) };
        let fork = (key.0.clone(), tag);
        let is_reliable = status >= 200 || message.count(Name::RSeq) > 0;
        let text = essence(message);
        let before = case.forks.entry(fork.clone()).or_default();
        if let Some(text) = text {
            if before
                .as_ref()
                .is_some_and(|(said, reliably)| !reliably && status >= 200 && *said != text && case.has_offer)
            {
                case.scenarios.insert(Scenario::DifferentAnswer);
            }
            if !case.has_offer && is_reliable {
                case.scenarios.insert(Scenario::LateOffer);
            }
            *before = Some((text, is_reliable));
        }
        let siblings: Vec<_> = case.forks.iter().filter(|(other, _)| other.0 == fork.0).collect();
        if siblings.len() > 1 {
            let codecs: BTreeSet<_> =
                siblings.iter().filter_map(|(_, said)| said.as_ref().map(|said| formats(&said.0))).collect();
            let is_mixed = codecs.len() > 1;
            case.scenarios.insert(Scenario::Fork);
            if is_mixed {
                case.scenarios.insert(Scenario::ForkedCodecs);
            }
        }
        Some(number)
    }

    /// The media plane's reply is about to be handed to the engine.
    pub(crate) fn replied(&mut self, session: u64, number: u32) {
        self.is_ending = false;
        self.current = self.pending.remove(&(session, number));
    }

    /// A timer fires.
    pub(crate) fn timed(&mut self) {
        self.is_ending = false;
        self.current = None;
    }

    /// The engine asks the media plane.
    pub(crate) fn asked(&mut self, request: &Request) {
        let session = request.session.0;
        match (&request.action, self.current) {
            (Action::Offer { .. } | Action::Answer { .. }, Some(case)) => {
                self.pending.insert((session, request.number), case);
            }
            (Action::Delete, _) if self.is_ending => {
                for (_, case) in self.pending.range((session, 0)..=(session, u32::MAX)) {
                    self.cases[*case].is_cut_short = true;
                }
            }
            _ => {}
        }
    }

    /// The engine sends a message.
    pub(crate) fn sent(&mut self, message: &Message) {
        let Some(key) = key(message, None) else { return };
        match (message.method(), message.status()) {
            (Some(Method::INVITE), _) if tag(message).is_none() => {
                // A branch may go out long after the INVITE: the label tells which it is of.
                let label = message.named(LABEL).unwrap_or_default();
                let Some(case) = self.labels.get(label).copied() else { return };
                self.calls.insert(key.0.clone(), case);
                self.cases[case].legs.insert(key.0.clone());
                if self.cases[case].legs.len() > 1 {
                    self.cases[case].scenarios.insert(Scenario::Contacts);
                }
                self.sent.insert(key, case);
            }
            (Some(Method::ACK | Method::CANCEL), _) => {}
            (Some(_), _) => {
                if let Some(case) = self.current {
                    self.sent.entry(key).or_insert(case);
                }
            }
            (None, Some(status @ 200..)) => {
                if let Some(case) = self.received.get(&key) {
                    self.cases[*case].status.get_or_insert(status);
                }
            }
            _ => {}
        }
    }

    /// What happened, once for each.
    pub(crate) fn cases(&self) -> BTreeSet<(Scenario, Fate)> {
        let mut all = BTreeSet::new();
        for case in &self.cases {
            let race = (case.is_cancelled && case.is_accepted).then_some(&Scenario::CancelRace);
            for scenario in case.scenarios.iter().chain(race) {
                let fate = match case.status {
                    Some(200..=299) => Some(Done),
                    Some(487) if *scenario != Scenario::CancelRace => Some(Cancelled),
                    Some(300..) => Some(Refused),
                    _ => None,
                };
                all.extend(fate.map(|fate| (*scenario, fate)));
                if case.is_cut_short {
                    all.insert((*scenario, CutShort));
                }
            }
        }
        all
    }
}

impl World {
    /// What happened, once for each.
    pub(crate) fn cases(&self) -> BTreeSet<(Scenario, Fate)> {
        let mut all = self.follower.cases();
        for made in self.wishes.made.values() {
            let scenario = if made.is_bare { Scenario::BareWish } else { Scenario::Wish };
            let fates = made.outcomes.iter().map(|outcome| match outcome {
                Renegotiated::Accepted(_) | Renegotiated::Offered { .. } => Done,
                Renegotiated::Refused(_) => Refused,
                Renegotiated::Superseded => Superseded,
            });
            all.extend(fates.chain(made.is_cut_short.then_some(CutShort)).map(|fate| (scenario, fate)));
        }
        all
    }
}

/// How many runs held what.
#[derive(Debug, Default)]
pub(crate) struct Census(BTreeMap<(Scenario, Fate), u32>);

impl Census {
    pub(crate) fn add(&mut self, cases: impl IntoIterator<Item = (Scenario, Fate)>) {
        cases.into_iter().for_each(|case| *self.0.entry(case).or_default() += 1);
    }

    pub(crate) fn merge(&mut self, other: Self) {
        other.0.into_iter().for_each(|(case, count)| *self.0.entry(case).or_default() += count);
    }

    fn count(&self, scenario: Scenario, fate: Fate) -> u32 {
        self.0.get(&(scenario, fate)).copied().unwrap_or_default()
    }

    /// Cases that happened in fewer runs than `least`.
    pub(crate) fn rare(&self, least: u32) -> Vec<String> {
        let cases = ROWS.iter().flat_map(|(scenario, name, fates)| {
            fates.iter().map(move |fate| (self.count(*scenario, *fate), format!("{name}, {fate:?}")))
        });
        cases.filter(|(count, _)| *count < least).map(|(count, case)| format!("{case}: {count}")).collect()
    }

    /// For people.
    pub(crate) fn table(&self) -> String {
        let mut table = format!(
            "{:<34}{:>8}{:>8}{:>10}{:>10}{:>11}\n",
            "runs with", "done", "refused", "cancelled", "cut short", "superseded"
        );
        for (scenario, name, fates) in ROWS {
            let cell = |fate| match self.count(scenario, fate) {
                0 if !fates.contains(&fate) => "-".to_owned(),
                count => count.to_string(),
            };
            let [done, refused, cancelled, cut, superseded] =
                [Done, Refused, Cancelled, CutShort, Superseded].map(cell);
            let _ =
                writeln!(table, "{name:<34}{done:>8}{refused:>8}{cancelled:>10}{cut:>10}{superseded:>11}");
        }
        table
    }
}
