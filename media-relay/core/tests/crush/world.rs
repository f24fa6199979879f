//! Two ends in a call over media ports, and what they send.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use media_core::handoff::HandoffSettings;
use media_core::policy::{Mode, RealmRelease};
use media_core::worker::{Settings, SocketId};
use media_wire::handoff::{PATH, Reason, Report, SEQUENCE, Sending};
use media_wire::sdp::crush::{Fragment, Support, Temper};
use media_wire::stun::{Class, Key, Method, Outgoing};
use play::Dice;
use play::anchor::Anchor;
pub(crate) use play::anchor::{at, rtp};
use play::ports::Counted;
use play::settings::media::{ENDS, party, release};
use seam::path::{Entry, PathEntry, PathState};
use seam::{Action, Event, Party, RealmId, Reply};

/// Where the two are seen, and where they say that they are.
pub(crate) const SEEN: [&str; 2] = ["198.51.100.20:4000", "198.51.100.21:5000"];
pub(crate) const LOCAL: [(&str, u16); 2] = [("192.168.20.10", 4000), ("192.168.21.10", 5000)];
pub(crate) const UFRAGS: [&str; 2] = ["aliceUfr", "bobbyUfr"];
pub(crate) const PWD: &str = "endpointPasswordEndpoint";
pub(crate) const MS: fn(u64) -> Duration = Duration::from_millis;

pub(crate) struct World {
    anchor: Anchor,
    /// Their calls have video, too.
    pub(crate) has_video: bool,
    /// What each was told of CRUSH.
    pub(crate) told: [Option<Support>; 2],
    pub(crate) sequence: [u16; 2],
}

impl World {
    fn settings(mode: Mode, secret: u8) -> Settings {
        let realm = RealmRelease { mode, ..RealmRelease::default() };
        let handoff = HandoffSettings {
            secret: [secret; 32],
            discovery: vec![at("203.0.113.5:3478")],
            tempers: vec![None, Some(Temper::Fast)],
        };
        Settings {
            release: Some(release(vec![realm; 2])),
            handoff: Some(Arc::new(handoff)),
            inactivity: Some(Duration::from_secs(20)),
            ..Settings::default()
        }
    }

    pub(crate) fn new(mode: Mode) -> Self {
        let parties = [0, 1].map(|side: usize| Party {
            contact: Some(SocketAddr::new(LOCAL[side].0.parse().unwrap(), 5060)),
            ..party(0, SocketAddr::new(at(SEEN[side]).ip(), 5060))
        });
        Self {
            anchor: Anchor::new(Self::settings(mode, 7), Counted::at([[203, 0, 113, 5]]), parties.into()),
            has_video: false,
            told: [None, None],
            sequence: [0; 2],
        }
    }

    /// Another process, which has another secret, goes on with it, as another session.
    pub(crate) fn go_on_elsewhere(&mut self, dice: &mut Dice) {
        let settings = Self::settings(Mode::Allow, 8);
        self.hand_over(settings, dice).expect("it rests");
    }

    /// The relay's socket that faces one side.
    pub(crate) fn socket(&self, side: usize) -> SocketId {
        let port = 10_000 + 2 * side as u16;
        self.ports.socket(SocketAddr::new([203, 0, 113, 5].into(), port)).expect("it is open")
    }

    /// They are in these realms.
    pub(crate) fn set_realms(&mut self, realms: [u16; 2]) {
        self.parties.iter_mut().zip(realms).for_each(|(party, realm)| party.realm = RealmId(realm));
    }

    /// Two CRUSH endpoints in a call, heard at the relay: A at sockets 0 and 1, B at 2 and 3.
    pub(crate) fn call() -> Self {
        let mut world = Self::new(Mode::Allow);
        world.connect([true, true]);
        world.talk(0);
        world.talk(1);
        world
    }

    pub(crate) fn sdp(side: usize, is_crush: bool) -> String {
        let (address, port) = LOCAL[side];
        let line =
            if is_crush { format!("a=crush:1 ufrag={} pwd={PWD}\r\n", UFRAGS[side]) } else { String::new() };
        format!(
            "v=0\r\no=- 1 1 IN IP4 {address}\r\ns=-\r\nc=IN IP4 {address}\r\nt=0 0\r\n{line}m=audio {port} RTP/AVP 0\r\na=ptime:20\r\n"
        )
    }

    /// Offer and answer with or without CRUSH; the descriptions that went to B and to A.
    pub(crate) fn connect(&mut self, crush: [bool; 2]) -> [String; 2] {
        let video = |side: usize| {
            let line = format!("m=video {} RTP/AVP 96\r\na=rtpmap:96 VP8/90000\r\n", LOCAL[side].1 + 2);
            if self.has_video { line } else { String::new() }
        };
        let sdps = [0, 1].map(|side| Self::sdp(side, crush[side]) + &video(side));
        let [offered, answered] = self.agree(1, ENDS, sdps);
        self.told = [&answered, &offered].map(|sdp| Support::find(sdp));
        [offered, answered]
    }

    /// A packet of one side's speech from where it was seen first; where it went.
    pub(crate) fn talk(&mut self, side: usize) -> Option<SocketAddr> {
        self.talk_from(side, SEEN[side])
    }

    pub(crate) fn talk_from(&mut self, side: usize, source: &str) -> Option<SocketAddr> {
        self.sequence[side] += 1;
        let packet = rtp(self.sequence[side], side as u32 + 1);
        let socket = self.socket(side);
        self.send(socket, source, &packet).first().map(|sent| sent.1)
    }

    /// A sender report of one side: so many packets in all.
    pub(crate) fn count(&mut self, side: usize, packets: u32) {
        let mut packet = vec![0x80, 200, 0, 6];
        for word in [side as u32 + 1, 0, 0, 0, packets, 160 * packets] {
            packet.extend(word.to_be_bytes());
        }
        let source = at(SEEN[side]);
        let source = SocketAddr::new(source.ip(), source.port() + 1).to_string();
        let socket = self.socket(side) + 1;
        self.send(socket, &source, &packet);
    }

    /// A Binding request of one side to the relay.
    pub(crate) fn binding(&self, side: usize, sequence: u32, sending: Sending) -> Vec<u8> {
        let support = self.told[side].as_ref().unwrap();
        let report = Report { sending, reason: Reason::Synchronised };
        Outgoing::new(Method::Binding, Class::Request, 1000 + u128::from(sequence))
            .username(&support.ufrag, UFRAGS[side])
            .with(SEQUENCE, &sequence.to_be_bytes())
            .with(PATH, &report.write())
            .sealed(&Key::new(&support.pwd))
    }

    /// Both tell where their packets go from now on.
    pub(crate) fn both_send(&mut self, sequence: u32, sending: Sending) {
        for (side, source) in SEEN.into_iter().enumerate() {
            let request = self.binding(side, sequence, sending);
            let socket = self.socket(side);
            let answer = self.send(socket, source, &request);
            assert_eq!(answer.len(), 1, "answered");
        }
    }

    pub(crate) fn direct(&mut self) -> Duration {
        let Some(Reply::Deleted { direct, .. }) = self.act(Action::Delete) else { panic!() };
        direct
    }

    pub(crate) fn trickle(&mut self, side: usize, candidates: &[&str]) -> Option<Fragment> {
        let lines: String = candidates.iter().map(|line| format!("a=candidate:{line}\r\n")).collect();
        let text = format!(
            "a=ice-ufrag:8hhYabcd\r\na=ice-pwd:asd88fgpdd777uzjYhagZg\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n{lines}a=end-of-candidates\r\n"
        );
        let (from, to) = (ENDS[side], ENDS[1 - side]);
        match self.act(Action::Trickle { from, to, fragment: Bytes::from(text) }) {
            Some(Reply::Fragment(fragment)) => {
                let text = String::from_utf8(fragment?.to_vec()).unwrap();
                Some(Fragment::read(&text).expect(&text))
            }
            other => panic!("{other:?}"),
        }
    }
}

impl Deref for World {
    type Target = Anchor;

    fn deref(&self) -> &Anchor {
        &self.anchor
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Anchor {
        &mut self.anchor
    }
}

pub(crate) fn states(events: &[Event]) -> Vec<PathState> {
    let state = |event: &Event| match event {
        Event::Path(PathEntry { entry: Entry::State { to, .. } | Entry::Handoff { to, .. }, .. }) => {
            Some(*to)
        }
        _ => None,
    };
    events.iter().filter_map(state).collect()
}

pub(crate) fn addresses(fragment: &Fragment) -> Vec<String> {
    fragment.candidates.iter().map(|candidate| candidate.address.to_string()).collect()
}
