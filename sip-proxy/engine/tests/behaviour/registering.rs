//! A telephone that registers with somebody else's registrar, which may answer anything.

use std::time::Duration;

use play::settings::signalling::{account, listener};
use sip_engine::io::{Flow, Input, ListenerId, Output, Transport};
use sip_engine::question::TrunkCredentials;
use sip_engine::time::Now;
use sip_engine::ua::{Account, Event, UserAgent};
use sip_wire::{Message, Method, Name};

use crate::line::address;

const OWN: &str = "10.0.0.5:5060";
const PROXY: Flow = Flow {
    listener: ListenerId(0),
    transport: Transport::Udp,
    remote: std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 5060),
    connection: None,
};
const OURS: &str = "<sip:alice@10.0.0.5:5060>;+sip.instance=\"<urn:x:own>\";reg-id=1";

struct Phone {
    agent: UserAgent,
    now: Duration,
    /// When each REGISTER was sent, and for how many seconds it asked.
    asked: Vec<(Duration, u32)>,
    heard: Vec<Event>,
    /// Requests get no answer.
    is_alone: bool,
}

impl Phone {
    fn new() -> Self {
        let account = Account {
            credentials: Some(TrunkCredentials { username: "alice".into(), password: "secret".into() }),
            instance: Some("urn:x:own".into()),
            ..account("alice", address(OWN), PROXY.remote)
        };
        let agent = UserAgent::new(account, [3; 32]);
        Self { agent, now: Duration::from_secs(1), asked: Vec::new(), heard: Vec::new(), is_alone: false }
    }

    fn time(&self) -> Now {
        Now { monotonic: self.now, wall: self.now }
    }

    fn register(&mut self, seconds: u64) {
        let now = self.time();
        self.agent.register(Duration::from_secs(seconds), now);
    }

    /// Lives for so long with a registrar that answers the n-th REGISTER, from 1, with this status line and header fields.
    fn live(&mut self, time: Duration, mut answer: impl FnMut(usize) -> String) {
        let end = self.now + time;
        loop {
            while let Some(output) = self.agent.poll_output() {
                let Output::Send { message, .. } = output else { continue };
                let request = Message::parse(message).unwrap();
                assert_eq!(request.method(), Some(Method::REGISTER));
                self.asked.push((self.now, request.number(Name::Expires).unwrap().unwrap()));
                if self.is_alone {
                    continue;
                }
                let field = |name: Name| {
                    format!(
                        "{}: {}\r\n",
                        name.as_str(),
                        String::from_utf8_lossy(request.value(name).unwrap())
                    )
                };
                let same = [Name::Via, Name::From, Name::To, Name::CallId, Name::CSeq].map(field).concat();
                let (status, headers) = {
                    let answer = answer(self.asked.len());
                    let (status, headers) = answer.split_once('\n').unwrap_or((&answer, ""));
                    (status.to_owned(), headers.replace('\n', "\r\n"))
                };
                let response = format!("SIP/2.0 {status}\r\n{same}{headers}\r\nContent-Length: 0\r\n\r\n");
                let message = Message::parse(response.into()).unwrap();
                self.now += Duration::from_millis(1);
                let now = self.time();
                self.agent.handle(Input::Received { flow: PROXY, message }, now);
            }
            while let Some(event) = self.agent.poll_event() {
                self.heard.push(event);
            }
            match self.agent.poll_timeout().filter(|next| *next <= end) {
                Some(next) => self.now = self.now.max(next),
                None => break,
            }
            let now = self.time();
            self.agent.handle_timeout(now);
        }
        self.now = end;
    }

    fn granted(&self) -> Vec<u32> {
        let granted = |event: &Event| match event {
            Event::Registered { seconds } => Some(*seconds),
            _ => None,
        };
        self.heard.iter().filter_map(granted).collect()
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_binding_of_the_time_before_a_restart_that_runs_out_beside_ours_is_not_ours() {
    let mut phone = Phone::new();
    phone.register(600);
    phone.live(10 * MINUTE, |_| {
        format!(
            "200 OK\nContact: <sip:alice@10.0.0.5:5060>;expires=1;+sip.instance=\"<urn:x:before>\";reg-id=1\nContact: {OURS};expires=600"
        )
    });
    assert_eq!(phone.granted(), [600, 600]);
}

#[test]
fn no_grant_makes_a_phone_ask_in_a_storm() {
    let answers = [
        "Expires: 0",
        "Expires: 1",
        "",
        "Contact: <sip:alice@10.0.0.5:5060>;expires=0",
        "Contact: <sip:alice@10.0.0.5:5060>;expires=1",
        "Contact: <sip:alice@10.0.0.5:5060>;expires=2",
        "Contact: <sip:alice@10.0.0.5:5060>;expires=99999999999999",
        "Contact: <sip:alice@10.0.0.5:5060>;expires=-1",
        "Contact: <sip:alice@10.0.0.5:5060>;expires=4294967295",
        "Contact: nonsense",
        "Contact: *",
    ];
    for answer in answers {
        let mut phone = Phone::new();
        phone.register(600);
        phone.live(MINUTE, |_| format!("200 OK\n{answer}"));
        assert!(phone.asked.len() <= 6, "{answer}: {:?}", phone.asked);
        let pauses = phone.asked.windows(2).map(|two| two[1].0 - two[0].0);
        assert!(
            pauses.min().is_none_or(|least| least >= Duration::from_secs(2)),
            "{answer}: {:?}",
            phone.asked
        );
        // And it has not fallen asleep either.
        phone.live(10 * MINUTE, |_| format!("200 OK\n{answer}"));
        assert!(phone.asked.len() >= 2, "{answer}: {:?}", phone.asked);
    }
}

#[test]
fn no_refusal_makes_a_phone_ask_in_a_storm() {
    let challenge = "401 Unauthorized\nWWW-Authenticate: Digest realm=\"a\", nonce=\"b\", algorithm=MD5, qop=\"auth\", stale=true";
    for (answer, most) in [(challenge, 4), ("503 Unavailable", 2), ("500 Error", 2)] {
        let mut phone = Phone::new();
        phone.register(600);
        phone.live(MINUTE, |_| answer.to_owned());
        assert!((1..=most).contains(&phone.asked.len()), "{answer}: {:?}", phone.asked);
    }
    // Each interval is too brief for it.
    let mut phone = Phone::new();
    phone.register(600);
    phone.live(MINUTE, |count| format!("423 Too Brief\nMin-Expires: {}", 1_000 * count));
    assert!(phone.asked.len() <= 8, "{:?}", phone.asked);
}

/// One that has asked, and hears nothing yet.
fn unanswered() -> Phone {
    let mut phone = Phone::new();
    phone.is_alone = true;
    phone.register(600);
    phone.live(Duration::from_millis(100), |_| String::new());
    phone
}

#[test]
fn a_phone_that_is_undone_while_it_registers_is_undone_when_that_is_answered() {
    let mut phone = unanswered();
    phone.register(0);
    phone.is_alone = false;
    phone.live(MINUTE, |count| match count {
        1..=2 => format!("200 OK\nContact: {OURS};expires=600"),
        _ => "200 OK".to_owned(),
    });
    assert_eq!(phone.asked.last().unwrap().1, 0, "{:?}", phone.asked);
    assert_eq!(phone.granted(), [600, 0]);
    assert!(phone.agent.is_idle());
}

#[test]
fn a_phone_in_another_network_asks_from_there_whether_or_not_it_was_answered_before() {
    let mut phone = unanswered();
    let now = phone.time();
    phone.agent.moved(vec![listener(0, Transport::Udp, address("10.9.0.5:5060"))], PROXY, now);
    phone.is_alone = false;
    let before = phone.asked.len();
    phone.register(600);
    phone.live(Duration::from_secs(1), |_| {
        "200 OK\nContact: <sip:alice@10.9.0.5:5060>;expires=60;+sip.instance=\"<urn:x:own>\";reg-id=1"
            .to_owned()
    });
    assert!(phone.asked.len() > before);
    assert_eq!(phone.granted(), [60]);
}
