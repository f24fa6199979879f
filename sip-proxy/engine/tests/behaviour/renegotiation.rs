//! The media plane wishes that a call's legs agree on something else; the call must never suffer from it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use seam::{Action, Endpoint, Party, Renegotiated, Told};
use sip_engine::config::SessionTimer;
use sip_engine::event::EndCause;
use sip_engine::io::{Input, ListenerId};
use sip_engine::ua::{Abilities, CallNumber, Ending, Event, Fork};
use sip_wire::{Message, Method};

use crate::line::{ACCESS, CORE, Line, SDP, TWO, Temper, config, policy, trunk};

const CALLER: Endpoint = Endpoint { party: 0, branch: 0 };
const CALLEE: Endpoint = Endpoint { party: 1, branch: 0 };
const SECOND: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(5);
const ELSEWHERE: Bytes =
    Bytes::from_static(b"v=0\r\no=- 1 2 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 11 RTP/AVP 0\r\n");

/// A call between two phones that is up.
struct Up {
    line: Line,
    phones: [SocketAddr; 2],
    calls: [CallNumber; 2],
    wishes: u32,
}

impl Up {
    fn new() -> Self {
        Self::with(Abilities::default())
    }

    fn with(abilities: Abilities) -> Self {
        let mut config = config();
        config.realms[0].session_timer =
            Some(SessionTimer { interval: Duration::from_secs(600), minimum: Duration::from_secs(90) });
        let (mut line, phones) = Line::joined_by(config, TWO, abilities);
        let call = line.call(phones[0], "bob", &[]);
        let calls = [call, line.accept(phones[1])];
        Self { line, phones, calls, wishes: 0 }
    }

    /// Media wishes; the number of the wish.
    fn wish(&mut self, legs: &[Endpoint]) -> u32 {
        self.wish_for(legs, Some(ELSEWHERE))
    }

    fn wish_for(&mut self, legs: &[Endpoint], offer: Option<Bytes>) -> u32 {
        self.wishes += 1;
        let session = self.line.media.first().unwrap().session;
        let legs = legs.iter().map(|leg| (*leg, offer.clone())).collect();
        let event = seam::Event::Renegotiate { wish: self.wishes, legs, deadline: DEADLINE };
        let now = self.line.time();
        self.line.engine.handle(Input::MediaEvent(Told { session, event }), now);
        self.line.settle();
        self.wishes
    }

    /// What media was told of a wish.
    fn told(&self, wish: u32) -> Vec<(Endpoint, Renegotiated)> {
        let told = self.line.media.iter().filter_map(|request| match &request.action {
            Action::Renegotiated { wish: name, endpoint, outcome } if *name == wish => {
                Some((*endpoint, outcome.clone()))
            }
            _ => None,
        });
        told.collect()
    }

    fn reinvite(&mut self, phone: usize) {
        self.line
            .by(self.phones[phone], |agent, now| agent.reinvite(self.calls[phone], Some(ELSEWHERE), now))
            .unwrap();
    }

    /// How a phone's own change of the session came out.
    fn outcomes(&self, phone: usize) -> Vec<Result<(), u16>> {
        let own = self.line.events.iter().filter(|(at, _)| *at == self.phones[phone]);
        let outcomes = own.filter_map(|(_, event)| match event {
            Event::Answered { .. } => Some(Ok(())),
            Event::Refused { status, .. } => Some(Err(*status)),
            _ => None,
        });
        // The first answer is that of the call itself.
        outcomes.skip(usize::from(phone == 0)).collect()
    }

    /// Both phones have the call, it is in no record's end, and it ends as any other.
    fn is_unharmed(&mut self) {
        for (phone, call) in self.phones.into_iter().zip(self.calls) {
            assert_eq!(self.line.ending(phone, call), None);
        }
        assert_eq!(self.line.cause(), None);
        self.line.hang_up(self.phones[1], self.calls[1]);
        assert_eq!(self.line.ending(self.phones[0], self.calls[0]), Some(Ending::Bye));
        self.line.pass(Duration::from_secs(64));
        assert!(self.line.engine.is_idle());
    }

    fn offers_to(&self, phone: usize) -> Vec<&Message> {
        let to = self.line.sent.iter().filter(|(to, _)| *to == self.phones[phone]);
        to.map(|(_, message)| message).filter(|message| message.method() == Some(Method::INVITE)).collect()
    }
}

#[test]
fn both_phones_are_offered_what_media_wishes_and_media_has_their_answers() {
    let mut up = Up::new();
    let wish = up.wish(&[CALLER, CALLEE]);
    let mut told = up.told(wish);
    told.sort_by_key(|told| told.0);
    assert_eq!(told, [(CALLER, Renegotiated::Accepted(SDP)), (CALLEE, Renegotiated::Accepted(SDP))]);
    assert!(up.offers_to(0).last().unwrap().body() == ELSEWHERE && up.offers_to(1).len() == 2);
    up.is_unharmed();
}

#[test]
fn a_phone_that_refuses_keeps_its_call() {
    for status in [408, 480, 488, 491, 500, 501, 503] {
        for leg in [0, 1] {
            let mut up = Up::new();
            up.line.temper.insert(up.phones[leg], Temper::Refuses(status));
            let endpoint = [CALLER, CALLEE][leg];
            let wish = up.wish(&[endpoint]);
            assert_eq!(up.told(wish), [(endpoint, Renegotiated::Refused(status))]);
            up.is_unharmed();
        }
    }
}

#[test]
fn a_phone_that_never_answers_keeps_its_call_and_media_is_told_so_when_it_is_sure() {
    let mut up = Up::new();
    up.line.deaf.push(up.phones[1]);
    let wish = up.wish(&[CALLEE]);
    up.line.pass(31 * SECOND);
    assert_eq!(up.told(wish), []);
    up.line.pass(2 * SECOND);
    assert_eq!(up.told(wish), [(CALLEE, Renegotiated::Refused(408))]);
    up.line.deaf.clear();
    up.is_unharmed();
}

#[test]
fn what_media_asks_over_udp_is_repeated_sooner_than_what_anybody_else_asks() {
    let repeats = |up: &mut Up, before: usize| {
        [90, 20, 100, 200, 100, 1_000, 2_000].map(|milliseconds| {
            up.line.pass(Duration::from_millis(milliseconds));
            up.offers_to(1).len() - before
        })
    };
    let mut up = Up::new();
    let before = up.offers_to(1).len();
    up.line.deaf.push(up.phones[1]);
    up.wish(&[CALLEE]);
    assert_eq!(repeats(&mut up, before), [1, 2, 3, 4, 5, 6, 7], "after 100, 200, 400, 500, 1500 and 3500 ms");
    let mut up = Up::new();
    let before = up.offers_to(1).len();
    up.line.deaf.push(up.phones[1]);
    up.reinvite(0);
    assert_eq!(repeats(&mut up, before), [1, 1, 1, 1, 2, 3, 4]);
}

#[test]
fn a_phone_that_dawdles_is_asked_no_longer_after_the_deadline() {
    let mut up = Up::new();
    up.line.temper.insert(up.phones[1], Temper::Dawdles);
    let wish = up.wish(&[CALLEE]);
    up.line.pass(DEADLINE - SECOND);
    assert_eq!(up.told(wish), []);
    up.line.pass(2 * SECOND);
    assert_eq!(up.told(wish), [(CALLEE, Renegotiated::Refused(408))]);
    up.is_unharmed();
}

#[test]
fn a_phone_that_knows_no_such_call_ends_it_for_the_other() {
    let mut up = Up::new();
    up.line.temper.insert(up.phones[1], Temper::Refuses(481));
    let wish = up.wish(&[CALLEE]);
    assert_eq!(up.told(wish), [(CALLEE, Renegotiated::Refused(481))]);
    assert_eq!(up.line.ending(up.phones[0], up.calls[0]), Some(Ending::Bye));
    assert_eq!(up.line.cause(), Some(EndCause::Failed));
}

#[test]
fn an_offer_that_crosses_ours_in_its_own_leg_goes_first_if_the_phone_says_so() {
    let mut up = Up::new();
    up.line.deaf.push(up.phones[1]);
    let wish = up.wish(&[CALLEE]);
    up.reinvite(1);
    assert_eq!(up.outcomes(1), []);
    // Ours comes again; the phone waits for the answer to its own.
    up.line.deaf.clear();
    up.line.pass(SECOND);
    assert_eq!(up.told(wish), [(CALLEE, Renegotiated::Refused(491))]);
    assert_eq!(up.outcomes(1), [Ok(())]);
    // Media hears first what became of its wish, then of the offer.
    let last = up.line.media.iter().rev().find_map(|request| match &request.action {
        Action::Offer { from, .. } => Some(*from),
        Action::Renegotiated { .. } => panic!("the offer came first"),
        _ => None,
    });
    assert_eq!(last, Some(CALLEE));
    up.is_unharmed();
}

#[test]
fn an_offer_of_the_other_end_waits_for_ours() {
    for by_update in [false, true] {
        let mut up = Up::new();
        up.line.temper.insert(up.phones[1], Temper::Dawdles);
        let wish = up.wish(&[CALLEE]);
        if by_update {
            up.line
                .by(up.phones[0], |agent, now| agent.update(up.calls[0], Fork(0), Some(ELSEWHERE), now))
                .unwrap();
        } else {
            up.reinvite(0);
        }
        up.line.pass(SECOND);
        assert_eq!(up.outcomes(0), []);
        up.line.temper.clear();
        up.line.by(up.phones[1], |agent, now| agent.answer(up.calls[1], Fork(0), SDP, now)).unwrap();
        assert_eq!(up.told(wish), [(CALLEE, Renegotiated::Accepted(SDP))]);
        assert_eq!(up.outcomes(0), [Ok(())]);
        up.is_unharmed();
    }
}

#[test]
fn an_offer_that_crosses_ours_waits_no_longer_than_two_seconds() {
    let mut up = Up::new();
    up.line.temper.insert(up.phones[1], Temper::Dawdles);
    up.wish(&[CALLEE]);
    up.reinvite(0);
    let statuses = |up: &Up| -> Vec<_> {
        let to_caller = up.line.sent.iter().filter(|(to, _)| *to == up.phones[0]);
        to_caller.filter_map(|(_, message)| message.status()).filter(|status| *status == 491).collect()
    };
    up.line.pass(2 * SECOND - Duration::from_millis(1));
    assert_eq!(statuses(&up), [0_u16; 0]);
    up.line.pass(Duration::from_millis(1));
    assert_eq!(statuses(&up), [491]);
    up.is_unharmed();
}

#[test]
fn a_trunk_whose_offer_crosses_ours_has_491_at_once() {
    let mut line = Line::new(config(), policy(vec![trunk("carrier", "198.51.100.9", None)]));
    let phones = [("alice", "10.0.0.5:5060", ACCESS), ("gateway", "198.51.100.9:5060", CORE)]
        .map(|(user, at, side): (_, _, ListenerId)| line.add(user, at, side, Abilities::default()));
    line.register(phones[0]);
    let call = line.call(phones[0], "4930", &[]);
    let calls = [call, line.accept(phones[1])];
    let mut up = Up { line, phones, calls, wishes: 0 };
    up.line.deaf.push(up.phones[1]);
    up.wish(&[CALLEE]);
    up.reinvite(1);
    let statuses: Vec<_> = up.line.sent.iter().filter(|sent| sent.0 == up.phones[1]).collect();
    assert_eq!(statuses.last().unwrap().1.status(), Some(491));
}

#[test]
fn a_wish_is_superseded_while_an_offer_of_an_end_is_open() {
    let mut up = Up::new();
    up.line.temper.insert(up.phones[1], Temper::Dawdles);
    up.reinvite(0);
    for legs in [&[CALLER][..], &[CALLEE]] {
        let wish = up.wish(legs);
        assert_eq!(up.told(wish), [(legs[0], Renegotiated::Superseded)]);
    }
    assert_eq!(up.offers_to(0).len(), 0);
}

#[test]
fn a_wish_for_two_legs_of_which_one_is_not_free_asks_neither() {
    let mut up = Up::new();
    up.line.temper.insert(up.phones[1], Temper::Dawdles);
    let first = up.wish(&[CALLEE]);
    let second = up.wish(&[CALLER, CALLEE]);
    assert_eq!(up.told(second), [(CALLER, Renegotiated::Superseded), (CALLEE, Renegotiated::Superseded)]);
    assert_eq!(up.offers_to(0).len(), 0);
    // One leg's own offer leaves the other free.
    let third = up.wish(&[CALLER]);
    assert_eq!(up.told(third), [(CALLER, Renegotiated::Accepted(SDP))]);
    assert_eq!(up.told(first), []);
}

#[test]
fn a_leg_that_is_not_confirmed_is_not_asked() {
    let mut up = Up::new();
    // A second call, whose 200 does not reach the caller.
    up.line.media.clear();
    let call = up.line.call(up.phones[0], "bob", &[]);
    up.line.deaf.push(up.phones[0]);
    up.line.accept(up.phones[1]);
    let wish = up.wish(&[CALLER]);
    assert_eq!(up.told(wish), [(CALLER, Renegotiated::Superseded)]);
    up.line.deaf.clear();
    up.line.pass(SECOND);
    assert_eq!(up.line.ending(up.phones[0], call), None);
    let wish = up.wish(&[CALLER]);
    assert_eq!(up.told(wish), [(CALLER, Renegotiated::Accepted(SDP))]);
    let wish = up.wish(&[Endpoint { party: 7, branch: 0 }]);
    assert_eq!(up.told(wish), [(Endpoint { party: 7, branch: 0 }, Renegotiated::Superseded)]);
}

#[test]
fn a_leg_is_not_asked_for_ever() {
    let mut up = Up::new();
    let asked = (0..20).filter(|_| {
        let wish = up.wish(&[CALLEE]);
        up.told(wish) == [(CALLEE, Renegotiated::Accepted(SDP))]
    });
    assert_eq!(asked.count(), 8);
    up.line.pass(5 * SECOND);
    let wish = up.wish(&[CALLEE]);
    assert_eq!(up.told(wish), [(CALLEE, Renegotiated::Accepted(SDP))]);
    up.is_unharmed();
}

#[test]
fn a_call_that_ends_in_the_middle_leaves_nothing() {
    for ender in [0, 1] {
        let mut up = Up::new();
        up.line.temper.insert(up.phones[1], Temper::Dawdles);
        up.wish(&[CALLEE]);
        up.line.hang_up(up.phones[ender], up.calls[ender]);
        assert_eq!(up.line.media.last().map(|request| &request.action), Some(&Action::Delete));
        assert_eq!(up.line.cause(), Some(EndCause::Bye));
        up.line.pass(Duration::from_secs(64));
        assert!(up.line.engine.is_idle());
        assert!(up.line.agents.values().all(|agent| agent.calls().count() == 0));
    }
}

#[test]
fn an_offer_that_a_phone_was_asked_for_is_answered_by_media() {
    for answer in [Some(ELSEWHERE), None] {
        let mut up = Up::new();
        up.line.answer = answer.clone();
        let wish = up.wish_for(&[CALLEE], None);
        assert!(matches!(&up.told(wish)[..], [(CALLEE, Renegotiated::Offered { sdp, .. })] if *sdp == SDP));
        up.line.pass(20 * SECOND);
        let acks: Vec<_> = up
            .line
            .sent
            .iter()
            .filter(|(to, message)| *to == up.phones[1] && message.method() == Some(Method::ACK))
            .collect();
        // Without an answer of media the phone hears what it heard last.
        assert_eq!(acks.last().unwrap().1.body(), answer.unwrap_or(SDP));
        up.is_unharmed();
    }
}

#[test]
fn what_a_phone_has_refused_is_not_repeated_when_its_session_is_refreshed() {
    for (temper, repeated) in [(Some(Temper::Refuses(488)), SDP), (None, ELSEWHERE)] {
        let mut up = Up::with(Abilities { update: false, ..Abilities::default() });
        if let Some(temper) = temper {
            up.line.temper.insert(up.phones[1], temper);
        }
        up.wish(&[CALLEE]);
        up.line.temper.clear();
        let before = up.offers_to(1).len();
        up.line.pass(Duration::from_secs(700));
        let offers = up.offers_to(1);
        assert!(offers.len() > before);
        assert!(offers[before..].iter().all(|offer| offer.body() == repeated));
        up.is_unharmed();
    }
}

#[test]
fn media_hears_who_a_party_is_and_whether_it_wants_to_be_seen() {
    let mut up = Up::new();
    let info = |up: &Up, number: usize| -> Party {
        let infos = up.line.media.iter().filter_map(|request| match &request.action {
            Action::Offer { from_party, .. } | Action::Answer { from_party, .. } => Some(from_party.clone()),
            _ => None,
        });
        infos.collect::<Vec<_>>().remove(number)
    };
    for number in [0, 1] {
        assert_eq!(info(&up, number).contact, Some(up.phones[number]));
        assert!(!info(&up, number).is_private);
    }
    up.line.media.clear();
    up.line.call(up.phones[0], "bob", &[("Privacy", "id"), ("User-Agent", "baresip v1.0.0 (x86_64/linux)")]);
    assert!(info(&up, 0).is_private);
    assert_eq!(&*info(&up, 0).product, "baresip v1.0.0 (x86_64/linux)");
}
