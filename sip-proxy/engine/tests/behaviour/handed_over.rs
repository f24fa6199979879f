//! Calls that another process goes on with, through text: whoever is in them hears nothing of it, and what cannot be taken is said.

use std::net::SocketAddr;
use std::time::Duration;

use play::Dice;
use play::handover::{Origin, written_call};
use seam::path::Constraint;
use sip_engine::Engine;
use sip_engine::config::SessionTimer;
use sip_engine::door::{CallAnswer, CallId, CallOrder};
use sip_engine::event::{CallEnded, CallEventKind, EndCause};
use sip_engine::io::{Command, ConnectionId, Input};
use sip_engine::registrar::BindingRecord;
use sip_engine::state::{CannotTakeIn, NotSteady, StoredCall};
use sip_engine::ua::{Abilities, CallNumber, Ending, Event, Invite};
use sip_wire::{Message, Method, Name};

use crate::line::{ACCESS, Line, SDP, THREE, TWO, address, config, policy, trunk};

const SECOND: Duration = Duration::from_secs(1);

impl Line {
    /// All calls and registrations go on in another engine, of another process: with another seed, and a clock that began at another
    /// moment. Connections end with the process. If a call does not rest, all stay where they are.
    pub(crate) fn hand_over(&mut self, dice: &mut Dice) -> Result<(), NotSteady> {
        let stored = self.take_out()?;
        let old = self.process.origin;
        self.process.origin = Origin::drawn(self.now, dice);
        assert_ne!(old.shows(self.now), self.process.origin.shows(self.now));
        self.connections.clear();
        self.engine = Engine::new(self.process.config.clone(), dice.seed());
        self.tell(Input::Command(Command::Policy(self.policy.clone())));
        let rows: Vec<&BindingRecord> = self.process.bindings.values().collect();
        let text = serde_json::to_string(&rows).unwrap();
        self.tell(Input::Command(Command::Load(serde_json::from_str(&text).unwrap())));
        self.take_in(&stored);
        self.settle();
        Ok(())
    }

    /// The calls as another process reads them; here they are gone.
    fn take_out(&mut self) -> Result<Vec<StoredCall>, NotSteady> {
        let now = self.engine_time();
        let calls: Vec<CallId> = self.engine.calls().collect();
        let mut stored = Vec::new();
        for call in calls {
            match self.engine.take_out(call, now) {
                Ok(one) => stored.push(one),
                Err(why) => {
                    self.take_in(&stored);
                    return Err(why);
                }
            }
        }
        assert_eq!(self.engine.sizes().0, 0);
        Ok(stored)
    }

    fn take_in(&mut self, stored: &[StoredCall]) {
        let now = self.engine_time();
        for call in stored {
            self.engine.take_in(written_call(call), now).unwrap();
        }
    }

    fn act<T>(
        &mut self,
        phone: SocketAddr,
        act: impl FnOnce(&mut sip_engine::ua::UserAgent, sip_engine::time::Now) -> T,
    ) -> T {
        let now = self.time();
        let done = act(self.agents.get_mut(&phone).unwrap(), now);
        self.settle();
        done
    }

    fn ended(&self) -> Option<CallEnded> {
        self.records.iter().find_map(|record| match &record.what {
            CallEventKind::Ended(ended) => Some((**ended).clone()),
            _ => None,
        })
    }

    /// Each call's record counts on without a gap.
    fn assert_records_count(&self) {
        let mut next = std::collections::BTreeMap::new();
        for record in &self.records {
            let next = next.entry(record.call).or_insert(0);
            assert_eq!(record.sequence, *next);
            *next += 1;
        }
    }
}

fn up() -> (Line, [SocketAddr; 2], [CallNumber; 2]) {
    up_with(config(), Abilities::default())
}

fn up_with(
    config: sip_engine::config::Config,
    abilities: Abilities,
) -> (Line, [SocketAddr; 2], [CallNumber; 2]) {
    let (mut line, phones) = Line::joined_by(config, TWO, abilities);
    let call = line.call(phones[0], "bob", &[]);
    let calls = [call, line.accept(phones[1])];
    (line, phones, calls)
}

fn with_timer() -> sip_engine::config::Config {
    let mut config = config();
    config.realms[0].session_timer =
        Some(SessionTimer { interval: Duration::from_secs(600), minimum: Duration::from_secs(90) });
    config
}

/// A call as its seed tells it: what each phone saw, and what was recorded. Handed over between any two steps, or never.
fn told(seed: u64, mut handed: Option<Dice>) -> Vec<String> {
    let mut dice = Dice::new(seed);
    let abilities = Abilities { update: dice.chance(50), ..Abilities::default() };
    let (mut line, phones, calls) = up_with(with_timer(), abilities);
    for _ in 0..4 + dice.below(8) {
        if let Some(handed) = &mut handed {
            line.hand_over(handed).unwrap();
        }
        let which = dice.index(2);
        let (phone, call) = (phones[which], calls[which]);
        match dice.below(6) {
            0 => line.act(phone, |phone, now| phone.reinvite(call, Some(SDP), now)).unwrap(),
            1 => line.act(phone, |phone, now| phone.reinvite(call, None, now)).unwrap(),
            2 => line.act(phone, |phone, now| phone.info(call, b"application/x", "k".into(), now)).unwrap(),
            3 => {
                let fork = line.events.iter().rev().find_map(|(at, event)| match event {
                    Event::Answered { fork, .. } if *at == phone => Some(*fork),
                    _ => None,
                });
                if let (Some(fork), true) = (fork, abilities.update) {
                    line.act(phone, |phone, now| phone.update(call, fork, Some(SDP), now)).unwrap();
                }
            }
            4 => line.pass(SECOND * dice.below(40) as u32),
            _ => line.pass(SECOND * dice.below(900) as u32),
        }
        line.pass(SECOND * 2);
    }
    if let Some(handed) = &mut handed {
        line.hand_over(handed).unwrap();
    }
    let which = dice.index(2);
    line.act(phones[which], |phone, now| phone.hang_up(calls[which], now)).unwrap();
    line.pass(SECOND * 40);
    assert!(line.engine.is_idle(), "seed {seed}");
    line.assert_records_count();
    let name =
        |event: &Event| format!("{event:?}").split([' ', '(', '{']).next().unwrap_or_default().to_owned();
    let mut told: Vec<String> =
        line.events.iter().map(|(at, event)| format!("{at} {}", name(event))).collect();
    told.push(format!("{:?}", line.ended()));
    told.extend(line.records.iter().map(|record| format!("{} {:?}", record.sequence, record.wall)));
    told
}

#[test]
fn a_call_goes_on_in_other_engines_as_if_nothing_had_happened() {
    for seed in 0..60 {
        let (handed, straight) = (told(seed, Some(Dice::of(seed, 1))), told(seed, None));
        assert_eq!(handed, straight, "seed {seed}");
    }
}

/// Who repeats a request whose answer was lost gets that very answer, and nobody else hears of it.
#[test]
fn a_request_whose_answer_was_lost_at_the_handover_is_answered_by_the_successor_and_served_once() {
    let (mut line, [alice, bob], [call, _]) = up();
    let info = |line: &Line| {
        let is_it = |sent: &&(SocketAddr, Message)| sent.0 == bob && sent.1.method() == Some(Method::INFO);
        line.sent.iter().filter(is_it).count()
    };
    line.deaf.push(alice);
    line.act(alice, |phone, now| phone.info(call, b"application/x", "k".into(), now)).unwrap();
    let answer = line.sent.last().unwrap().1.as_bytes().clone();
    assert_eq!(info(&line), 1);
    line.hand_over(&mut Dice::new(1)).unwrap();
    line.deaf.clear();
    line.pass(SECOND);
    assert_eq!((line.sent.last().unwrap().1.as_bytes(), info(&line)), (&answer, 1));
    assert_eq!(line.ending(alice, call), None);
    // After the time in which it could come, the answer is forgotten.
    line.pass(SECOND * 40);
    let (_, transactions, _) = line.engine.sizes();
    assert_eq!(transactions, 0);
}

/// What a phone has sent last, of those for which it holds.
fn last_heard(line: &Line, from: SocketAddr, is_it: impl Fn(&Message) -> bool) -> Message {
    line.heard.iter().rfind(|(at, heard)| *at == from && is_it(heard)).expect("it was heard").1.clone()
}

#[test]
fn a_2xx_that_comes_again_gets_its_ack_again_and_an_invite_that_does_begins_no_call() {
    let (mut line, [alice, bob], [call, _]) = up();
    let accepted = last_heard(&line, bob, |heard| heard.status() == Some(200));
    let invite = last_heard(&line, alice, |heard| heard.method() == Some(Method::INVITE));
    for number in 0..3 {
        line.hand_over(&mut Dice::new(number)).unwrap();
        let before = line.sent.len();
        line.hear(bob, accepted.as_bytes().clone());
        line.hear(alice, invite.as_bytes().clone());
        let sent: Vec<_> =
            line.sent[before..].iter().map(|(to, sent)| (*to, sent.method().is_some())).collect();
        assert_eq!(sent, [(bob, true)], "an ACK, and nothing to who has its answer");
        assert_eq!(line.sent[before].1.method(), Some(Method::ACK));
        line.pass(SECOND);
    }
    // When the transactions are over, by the time that they had left, both are still of this call.
    line.pass(SECOND * 40);
    line.hand_over(&mut Dice::new(9)).unwrap();
    let before = line.sent.len();
    line.hear(bob, accepted.as_bytes().clone());
    assert_eq!(line.sent[before].1.method(), Some(Method::ACK));
    line.hear(alice, invite.as_bytes().clone());
    assert_eq!(line.sent.last().unwrap().1.status(), Some(482));
    assert_eq!((line.engine.sizes().0, line.ending(alice, call)), (1, None));
}

#[test]
fn a_reinvite_that_failed_is_refused_again_until_its_ack_has_come() {
    let (mut line, [alice, bob], [call, _]) = up();
    line.temper.insert(bob, crate::line::Temper::Refuses(488));
    line.deaf.push(alice);
    line.act(alice, |phone, now| phone.reinvite(call, Some(SDP), now)).unwrap();
    line.hand_over(&mut Dice::new(1)).unwrap();
    line.deaf.clear();
    let before = line.sent.len();
    line.pass(SECOND);
    assert_eq!(line.sent[before].1.status(), Some(488));
    let refused =
        line.events.iter().filter(|(at, event)| *at == alice && matches!(event, Event::Refused { .. }));
    assert_eq!(refused.count(), 1);
    let before = line.sent.len();
    line.pass(SECOND * 10);
    assert!(line.sent[before..].iter().all(|(_, sent)| sent.status() != Some(488)), "it has its ACK");
}

fn refreshes(line: &Line) -> usize {
    let is_ours = |sent: &Message| {
        sent.count(Name::SessionExpires) > 0
            && matches!(sent.method(), Some(method) if method == Method::UPDATE || method == Method::INVITE)
    };
    line.sent.iter().filter(|(_, sent)| is_ours(sent)).count()
}

#[test]
fn a_session_is_refreshed_when_it_would_have_been_and_ends_when_nobody_does() {
    let (mut line, [alice, bob], [call, _]) = up_with(with_timer(), Abilities::default());
    let began = line.now;
    let mut dice = Dice::new(1);
    let before = refreshes(&line);
    line.pass(SECOND * 250);
    line.hand_over(&mut dice).unwrap();
    // Half of the interval of ten minutes.
    line.pass(began + SECOND * 299 - line.now);
    assert_eq!(refreshes(&line), before);
    line.pass(SECOND * 2);
    assert!(refreshes(&line) > before);
    line.hand_over(&mut dice).unwrap();
    line.cut.push(bob);
    line.pass(SECOND * 3600);
    assert_eq!(line.ending(alice, call), Some(Ending::Bye));
    assert!(matches!(line.cause(), Some(EndCause::SessionExpired | EndCause::Failed)), "{:?}", line.cause());
}

#[test]
fn time_between_the_two_processes_counts_and_a_call_lasts_no_longer_than_one_may() {
    let mut limited = config();
    limited.limits.longest_call = SECOND * 3600;
    let (mut line, [alice, _], [call, _]) = up_with(limited, Abilities::default());
    line.pass(SECOND * 1000);
    let stored = line.take_out().unwrap();
    line.now += SECOND * 500;
    line.take_in(&stored);
    line.hand_over(&mut Dice::new(3)).unwrap();
    line.pass(SECOND * 2099);
    assert_eq!(line.ending(alice, call), None);
    line.pass(SECOND * 2);
    assert_eq!(line.ending(alice, call), Some(Ending::Bye));
    let ended = line.ended().unwrap();
    assert_eq!((ended.cause, ended.talked.as_secs()), (EndCause::TooLong, 3600));
}

#[test]
fn a_call_that_is_taken_out_twice_is_not_there_and_leaves_an_empty_engine() {
    let (mut line, _, _) = up();
    line.pass(SECOND * 40);
    let call = line.engine.calls().next().unwrap();
    let now = line.engine_time();
    let stored = line.engine.take_out(call, now).unwrap();
    assert_eq!(stored.id(), call);
    assert_eq!(line.engine.take_out(call, now).err(), Some(NotSteady::Unknown));
    assert!(line.engine.is_idle());
}

/// A phone does what the REFER asks that it got last.
fn obey(line: &mut Line, phone: SocketAddr) {
    let asked = line.events.iter().rev().find_map(|(at, event)| match event {
        Event::TransferRequested { call, .. } if *at == phone => Some(*call),
        _ => None,
    });
    let invite = Invite { offer: Some(SDP), ..Invite::default() };
    line.act(phone, |phone, now| phone.accept_transfer(asked.unwrap(), invite, now)).unwrap();
}

#[test]
fn a_transfer_goes_on_whenever_its_calls_are_handed_over() {
    let mut dice = Dice::new(5);
    for attended in [false, true] {
        let (mut line, [alice, bob, carol]) = Line::joined(config(), THREE);
        let first = line.call(alice, "bob", &[]);
        line.accept(bob);
        let second = attended.then(|| {
            let second = line.call(alice, "carol", &[]);
            line.accept(carol);
            second
        });
        line.hand_over(&mut dice).unwrap();
        match second {
            Some(second) => line.act(alice, |phone, now| phone.refer_to_call(first, second, now)).unwrap(),
            None => {
                line.act(alice, |phone, now| phone.refer(first, b"sip:carol@example.net", now)).unwrap();
            }
        }
        // Bob knows whom to call, by a name that the process gave, and his INVITE is lost at first.
        line.loses = Some(Method::INVITE);
        obey(&mut line, bob);
        line.hand_over(&mut dice).unwrap();
        line.hand_over(&mut dice).unwrap();
        line.loses = None;
        line.pass(SECOND);
        assert_eq!(line.hand_over(&mut dice), Err(NotSteady::Unanswered));
        line.accept(carol);
        line.pass(SECOND * 40);
        line.hand_over(&mut dice).unwrap();
        assert_eq!(line.ending(alice, first), Some(Ending::HungUp));
        assert_eq!([alice, bob, carol].map(|phone| line.agents[&phone].calls().count()), [0, 1, 1]);
        line.assert_records_count();
    }
}

#[test]
fn what_is_under_way_is_not_taken_and_goes_on() {
    let (mut line, [alice, bob]) = Line::joined(config(), TWO);
    let mut dice = Dice::new(2);
    let call = line.call(alice, "bob", &[]);
    assert_eq!(line.hand_over(&mut dice), Err(NotSteady::Unanswered));
    // Bob's 200 is answered, and alice has not heard of it.
    line.deaf.push(alice);
    line.accept(bob);
    assert_eq!(line.hand_over(&mut dice), Err(NotSteady::Acknowledgement));
    line.deaf.clear();
    line.pass(SECOND);
    line.deaf.push(bob);
    line.act(alice, |phone, now| phone.reinvite(call, Some(SDP), now)).unwrap();
    assert_eq!(line.hand_over(&mut dice), Err(NotSteady::Request));
    line.deaf.clear();
    line.pass(SECOND);
    line.is_media_silent = true;
    let id = line.engine.calls().next().unwrap();
    let query = Command::Call { id, number: 1, order: CallOrder::Query };
    line.tell(Input::Command(query));
    line.settle();
    assert_eq!(line.hand_over(&mut dice), Err(NotSteady::Media));
    line.pass(SECOND * 10);
    line.hand_over(&mut dice).unwrap();
    line.act(alice, |phone, now| phone.hang_up(call, now)).unwrap();
    assert_eq!(line.hand_over(&mut dice), Err(NotSteady::Over));
    line.pass(SECOND * 60);
    assert!(line.engine.is_idle());
}

#[test]
fn a_target_that_has_not_said_that_it_is_cancelled_is_waited_for() {
    let (mut line, [alice, bob]) = Line::joined(config(), TWO);
    let other = line.join("bob", "10.0.0.8:5060");
    line.call(alice, "bob", &[]);
    line.deaf.push(other);
    line.accept(bob);
    assert_eq!(line.hand_over(&mut Dice::new(2)), Err(NotSteady::Transaction));
    line.deaf.clear();
    line.pass(SECOND * 2);
    line.hand_over(&mut Dice::new(2)).unwrap();
}

#[test]
fn what_policy_has_ordered_and_is_asked_of_a_call_finds_it_in_the_next_process() {
    let (mut line, [alice, _], [call, _]) = up();
    let id = line.engine.calls().next().unwrap();
    let mut dice = Dice::new(8);
    let mut order = |line: &mut Line, order: CallOrder| {
        line.hand_over(&mut dice).unwrap();
        line.tell(Input::Command(Command::Call { id, number: 1, order }));
        line.settle();
        line.answers.pop().unwrap().result.unwrap()
    };
    line.pass(SECOND * 100);
    order(&mut line, CallOrder::Constrain(Constraint::MustAnchor));
    let last = line.media.last().unwrap();
    assert!(line.media.iter().rev().skip(1).all(|before| before.number < last.number), "{last:?}");
    let CallAnswer::State(state) = order(&mut line, CallOrder::Query) else { panic!("no state") };
    assert_eq!(state.talks.unwrap().as_secs(), 100);
    order(&mut line, CallOrder::HangUp);
    assert_eq!((line.ending(alice, call), line.cause()), (Some(Ending::Bye), Some(EndCause::Operator)));
}

#[test]
fn a_phone_whose_connection_ended_with_the_process_is_found_when_it_registers_again() {
    for comes_back_first in [false, true] {
        let mut line = Line::new(config(), policy(Vec::new()));
        let [alice, bob] = TWO.map(|(user, at)| line.add(user, at, ACCESS, Abilities::default()));
        let (before, after) = ("203.0.113.9:41000", "203.0.113.9:42000");
        line.behind_nat(bob, before);
        line.connections.insert(address(before), ConnectionId(1));
        [alice, bob].into_iter().for_each(|phone| line.register(phone));
        let call = line.call(alice, "bob", &[]);
        let incoming = line.accept(bob);
        line.hand_over(&mut Dice::new(4)).unwrap();
        // Somebody else has the connection of this number now.
        line.connections.insert(address("203.0.113.77:7"), ConnectionId(1));
        let come_back = |line: &mut Line| {
            line.behind_nat(bob, after);
            line.connections.insert(address(after), ConnectionId(2));
            line.register(bob);
        };
        if comes_back_first {
            come_back(&mut line);
            line.act(alice, |phone, now| phone.info(call, b"application/x", "k".into(), now)).unwrap();
            assert_eq!(line.ways.last().unwrap().connection, None, "the answer to alice");
            assert!(line.ways.iter().any(|way| way.connection == Some(ConnectionId(2))));
        }
        line.act(alice, |phone, now| phone.hang_up(call, now)).unwrap();
        line.pass(SECOND * 40);
        if !comes_back_first {
            assert_eq!(line.ending(bob, incoming), None);
            come_back(&mut line);
        }
        assert_eq!(line.ending(bob, incoming), Some(Ending::Bye));
        let strangers = line.ways.iter().filter(|way| way.remote == address("203.0.113.77:7"));
        assert_eq!(strangers.count(), 0);
    }
}

#[test]
fn a_call_through_a_trunk_keeps_its_name_and_holds_no_password() {
    let gateway = address("198.51.100.9:5060");
    let (mut line, [alice]) = {
        let mut line = Line::new(config(), policy(vec![trunk("carrier", "198.51.100.9", None)]));
        let alice = line.join("alice", TWO[0].1);
        (line, [alice])
    };
    let call = line.call(alice, "4930", &[]);
    let head = format!("Contact: <sip:{gateway}>\r\nContent-Type: application/sdp\r\n");
    line.answer_by_hand_with(gateway, 200, &head, &SDP);
    let text = serde_json::to_string(&line.take_out().unwrap()[0]).unwrap();
    assert!(text.contains("\"carrier\"") && !text.contains("open sesame"), "{text}");
    let stored: StoredCall = serde_json::from_str(&text).unwrap();
    line.take_in(&[stored]);
    line.hand_over(&mut Dice::new(4)).unwrap();
    line.act(alice, |phone, now| phone.hang_up(call, now)).unwrap();
    let (to, bye) = line.sent.iter().rfind(|(_, sent)| sent.method() == Some(Method::BYE)).unwrap();
    assert_eq!(*to, gateway);
    assert_eq!(bye.cseq().unwrap().number, 2);
}

#[test]
fn another_version_node_realm_or_listener_and_a_call_that_is_known_are_said_and_leave_nothing() {
    let (mut line, _, _) = up();
    line.pass(SECOND * 40);
    let text = serde_json::to_string(&line.take_out().unwrap()[0]).unwrap();
    let read = |text: &str| serde_json::from_str::<StoredCall>(text);
    let newer = read(&text.replacen("\"version\":1", "\"version\":2", 1)).unwrap_err().to_string();
    assert!(newer.contains("version 2"), "{newer}");
    let now = line.engine_time();
    let change = |change: &dyn Fn(&mut sip_engine::config::Config)| {
        let mut config = config();
        change(&mut config);
        Engine::new(config.into(), [3; 32]).take_in(read(&text).unwrap(), now)
    };
    assert_eq!(change(&|config| config.node = 7), Err(CannotTakeIn::Elsewhere(1)));
    assert_eq!(
        change(&|config| config.realms[0].name = "lobby".into()),
        Err(CannotTakeIn::Realm(sip_engine::io::RealmId(0)))
    );
    let moved = address("192.0.2.9:5060");
    assert_eq!(
        change(&|config| config.listeners[0].advertised = moved),
        Err(CannotTakeIn::Listener(address("192.0.2.1:5060")))
    );
    assert!(change(&|config| config.listeners.clear()).is_err());
    // What was broken on its way is not believed.
    let broken = text.replacen("\"branch\":0", "\"branch\":7", 1);
    assert_ne!(broken, text);
    assert_eq!(line.engine.take_in(read(&broken).unwrap(), now), Err(CannotTakeIn::Contradictory));
    let broken = text.replacen("\"listeners\":[[0,", "\"listeners\":[[5,", 1);
    assert_eq!(line.engine.take_in(read(&broken).unwrap(), now), Err(CannotTakeIn::Contradictory));
    assert!(read(&text.replacen("INVITE sip:bob", "sip:bob", 1)).is_err());
    assert!(line.engine.is_idle());
    assert_eq!(line.engine.take_in(read(&text).unwrap(), now), Ok(()));
    assert_eq!(line.engine.take_in(read(&text).unwrap(), now), Err(CannotTakeIn::Known));
    assert_eq!(line.engine.sizes().0, 1);
}

/// As it was written when version 1 was made. If this fails, what is written is of another version now: give it another number, and say
/// what becomes of the data of the one before.
#[test]
fn a_call_that_was_written_long_ago_is_read_and_goes_on() {
    let stored: StoredCall = serde_json::from_str(include_str!("stored_call_1.json")).unwrap();
    let mut line = Line::new(with_timer(), policy(Vec::new()));
    let [alice, bob] = TWO.map(|(_, at)| address(at));
    line.take_in(&[stored]);
    let again = line.take_out().unwrap();
    let fields = |text: &str| {
        let mut names: Vec<&str> = text.split('"').skip(1).step_by(2).collect();
        names.retain(|name| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'));
        names.sort_unstable();
        names.dedup();
        names.join(" ")
    };
    let text = serde_json::to_string(&again[0]).unwrap();
    assert_eq!(fields(&text), fields(include_str!("stored_call_1.json")));
    line.take_in(&again);
    line.pass(SECOND * 2);
    let id = line.engine.calls().next().unwrap();
    line.tell(Input::Command(Command::Call { id, number: 1, order: CallOrder::HangUp }));
    line.settle();
    let byes: Vec<_> = line
        .sent
        .iter()
        .filter(|(_, sent)| sent.method() == Some(Method::BYE))
        .map(|(to, sent)| (*to, sent.cseq().unwrap().number))
        .collect();
    assert_eq!(byes, [(alice, 1), (bob, 2)]);
    assert_eq!(line.cause(), Some(EndCause::Operator));
}
