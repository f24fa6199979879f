//! Two real phones in a place, in a call that may leave the relay, and what is measured of it at their interfaces.

use std::collections::HashSet;
use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crush_tests::ears::{Arrival, arrivals, latest_sources, longest_gap};
use crush_tests::network::SBC;
use crush_tests::packet::{Packet, is_rtcp, is_rtp};
use crush_tests::phone::{Account, Event, Kind};
use crush_tests::place::{Ground, Place};
use crush_tests::process::{eventually, run};
use crush_tests::stage::{Extension, Stage};
use crush_tests::{Failure, Lab, Network, Process, Result, kamailio, sbc};

pub(crate) const USERS: [(&str, Network); 2] = [("a1", Network::Access), ("a2", Network::Access)];
/// To whom one of them may be transferred.
pub(crate) const GUEST: (&str, Network) = ("a3", Network::Access);
/// From a phone's report to a row in the database, and a look at it.
const LOOK: Duration = Duration::from_millis(1_500);
/// After this the sources of what is heard are settled.
const SETTLED: Duration = Duration::from_millis(600);

/// A scenario.
pub(crate) struct Scene {
    pub(crate) phones: [Extension; 2],
    pub(crate) ground: Ground,
    pub(crate) stage: Stage,
    pub(crate) kinds: [Kind; 2],
    /// When the one called was told to answer.
    pub(crate) answered: Duration,
    /// A registrar in the core, through which they call each other.
    _registrar: Option<Process>,
}

/// Where each phone's capture and recording stand.
pub(crate) struct Mark {
    packets: [usize; 2],
    recorded: [f64; 2],
    pub(crate) at: Duration,
}

/// The longest gap that each phone has heard: in what came to its interface and, of PJSIP, in its recording, which has a
/// clock of its own and shows what the phone has thrown away.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gap {
    wire: [Duration; 2],
    recorded: [Option<Duration>; 2],
}

impl Gap {
    pub(crate) fn longest(&self) -> Duration {
        self.wire.into_iter().chain(self.recorded.into_iter().flatten()).max().unwrap_or_default()
    }
}

/// Since the Unix epoch, as captures and call records have it.
pub(crate) fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// The realm of the phones, with two addresses for media, and release allowed.
pub(crate) fn realm() -> String {
    let address = Network::Access.address(SBC);
    let realm = sbc::phone_realm("access", &address, [5060, 5061], "release = \"allow\"\nlan_release = true");
    let second = Network::Access.address(SBC + 1);
    realm.replace(&format!("media = [\"{address}\"]"), &format!("media = [\"{address}\", \"{second}\"]"))
}

/// The SBC's addresses for media: where a NAT was learnt, a call goes on at the second.
pub(crate) fn relay() -> [IpAddr; 2] {
    [SBC, SBC + 1].map(|host| IpAddr::from([198, 51, 100, host]))
}

/// A gap that may be heard where these phones are moved: PJSIP throws the first packets of a new source away.
pub(crate) fn gap_limit(kinds: [Kind; 2]) -> Duration {
    Duration::from_millis(if kinds.contains(&Kind::Pjsua) { 200 } else { 60 })
}

/// The realm of phones that register at a proxy in the core, and the core's; both let their calls leave.
fn realms_before(registrar: &str) -> String {
    let address = Network::Access.address(SBC);
    let second = Network::Access.address(SBC + 1);
    let settings = "release = \"allow\"\nlan_release = true\nmax_expires_seconds = 600";
    let access = sbc::forwarding_realm("access", 5060, &format!("{registrar}:5060/udp"), settings);
    let media = format!("media = [\"{address}\"");
    access.replace(&media, &format!("{media}, \"{second}\"")) + &sbc::open_core() + "release = \"allow\"\n"
}

impl Scene {
    /// Both phones, registered.
    pub(crate) fn new(kinds: [Kind; 2], place: Place) -> Result<Self> {
        Self::of(kinds, place, |account| account)
    }

    /// The same with accounts of their own.
    pub(crate) fn of(kinds: [Kind; 2], place: Place, account: impl Fn(Account) -> Account) -> Result<Self> {
        let mut lab = Lab::new("release")?;
        let ground = Ground::new(&mut lab, place)?;
        let stage = Stage::with(lab, &realm(), &sbc::subscribers(&USERS))?;
        Self::with(kinds, ground, stage, account)
    }

    /// The same with options for the program `nat` of homes that have it, and a third subscriber.
    pub(crate) fn routed(
        kinds: [Kind; 2],
        place: Place,
        options: &[&str],
        account: impl Fn(Account) -> Account,
    ) -> Result<Self> {
        let mut lab = Lab::new("release")?;
        let ground = Ground::with(&mut lab, place, options)?;
        let stage = Stage::with(lab, &realm(), &sbc::subscribers(&[USERS[0], USERS[1], GUEST]))?;
        Self::with(kinds, ground, stage, account)
    }

    /// Both phones, registered at a Kamailio in the core, which leads their call back to the SBC.
    pub(crate) fn through_the_core(kinds: [Kind; 2], place: Place) -> Result<Self> {
        let mut lab = Lab::new("halves")?;
        let ground = Ground::new(&mut lab, place)?;
        let registrar = lab.host("registrar", Network::Core, 5)?;
        let kamailio = kamailio::start(&lab, "registrar", &registrar)?;
        let mut stage = Stage::with(lab, &realms_before(&registrar), "")?;
        stage.knows(Network::Core, &registrar)?;
        let domain = sbc::FORWARDED_DOMAIN;
        let scene = Self::with(kinds, ground, stage, |account| Account { domain: domain.into(), ..account })?;
        Ok(Self { _registrar: Some(kamailio), ..scene })
    }

    fn with(
        kinds: [Kind; 2],
        ground: Ground,
        mut stage: Stage,
        account: impl Fn(Account) -> Account,
    ) -> Result<Self> {
        let mut phone = |index: usize| {
            // What is behind one NAT is known to be one LAN by local addresses alone.
            let keeps_contact = matches!(ground.place(), Place::Lan(_));
            let own = Account { keeps_contact, ..Account::of(USERS[index].0, Network::Access, "udp") };
            let (host, address) = &ground.hosts[index];
            stage.on_host(kinds[index], Network::Access, &account(own), host, address)
        };
        let mut phones = [phone(0)?, phone(1)?];
        for phone in &mut phones {
            phone.registered()?;
        }
        Ok(Self { stage, ground, phones, kinds, answered: Duration::ZERO, _registrar: None })
    }

    /// A phone of the access network, and one at a private address behind the SBC's other side.
    pub(crate) fn across_realms(kinds: [Kind; 2]) -> Result<Self> {
        let (inside, host) = ("10.9.0.1", "10.9.0.41");
        let mut lab = Lab::new("across")?;
        let ground = Ground::new(&mut lab, Place::Open)?;
        lab.host("inside", Network::Core, 41)?;
        let (sbc, own) = (lab.namespace("sbc"), lab.namespace("inside"));
        run(&["ip", "-n", &sbc, "addr", "add", "10.9.0.1/24", "dev", Network::Core.name()])?;
        run(&["ip", "-n", &own, "-4", "addr", "flush", "dev", "eth0"])?;
        run(&["ip", "-n", &own, "addr", "add", "10.9.0.41/24", "dev", "eth0"])?;
        run(&["ip", "-n", &own, "route", "add", "default", "via", inside])?;
        let realms =
            realm() + "\n" + &sbc::phone_realm("inside", inside, [5060, 5061], "release = \"allow\"");
        let seed =
            sbc::subscribers(&USERS[..1]) + &format!("SELECT sbc_set_password('{inside}', 'a2', 'secret');");
        let mut stage = Stage::with(lab, &realms, &seed)?;
        let of = |user: &str| Account::of(user, Network::Access, "udp");
        let (outer, address) = &ground.hosts[0];
        let mut one = stage.on_host(kinds[0], Network::Access, &of("a1"), outer, address)?;
        let account = Account { domain: inside.into(), proxy: inside.into(), ..of("a2") };
        let mut other = stage.on_host(kinds[1], Network::Core, &account, "inside", host)?;
        one.registered()?;
        other.registered()?;
        let phones = [one, other];
        Ok(Self { stage, ground, phones, kinds, answered: Duration::ZERO, _registrar: None })
    }

    /// The first calls the second, who answers; marks what is heard from the first packet on.
    pub(crate) fn call(&mut self) -> Result<Mark> {
        let [one, other] = &mut self.phones;
        one.dial(USERS[1].0)?;
        other.wait(Event::Incoming)?;
        let mark = self.mark()?;
        let [one, other] = &mut self.phones;
        other.phone.answer()?;
        one.wait(Event::Established)?;
        other.wait(Event::Established)?;
        self.answered = mark.at;
        Ok(mark)
    }

    /// The first ends the call; what is billed is the answered time, parted into relayed and direct.
    pub(crate) fn hang_up(&mut self) -> Result<()> {
        let [one, other] = &mut self.phones;
        one.phone.hang_up()?;
        other.wait(Event::Ended)?;
        let billed =
            "SELECT count(*) > 0 FROM call WHERE cause = 'bye' AND relayed_ms + direct_ms = duration_ms";
        self.stage.sbc.eventually_sql(billed, "t", Duration::from_secs(10))
    }

    /// From here on.
    pub(crate) fn mark(&mut self) -> Result<Mark> {
        let mut packets = [0; 2];
        for (packets, phone) in packets.iter_mut().zip(&mut self.phones) {
            *packets = phone.mark()?;
        }
        let recorded =
            self.phones.each_ref().map(|phone| phone.phone.heard().map_or(0.0, |heard| heard.seconds()));
        Ok(Mark { packets, recorded, at: now() })
    }

    /// The RTP that has reached each phone since.
    pub(crate) fn arrivals(&mut self, mark: &Mark) -> Result<[Vec<Arrival>; 2]> {
        let mut heard = [Vec::new(), Vec::new()];
        for ((heard, phone), mark) in heard.iter_mut().zip(&mut self.phones).zip(mark.packets) {
            let address = phone.address;
            *heard = arrivals(phone.tap().since(mark)?, address);
        }
        Ok(heard)
    }

    /// The longest gap that each phone has heard since.
    pub(crate) fn gap(&mut self, mark: &Mark) -> Result<Gap> {
        let heard = self.arrivals(mark)?;
        let wire = heard.map(|heard| longest_gap(&heard, None));
        let mut recorded = [None; 2];
        for (index, recorded) in recorded.iter_mut().enumerate() {
            if self.kinds[index] == Kind::Pjsua {
                let recording = self.phones[index].phone.heard()?.after(mark.recorded[index]);
                let hole = recording.longest_hole(self.phones[1 - index].hertz);
                *recorded = Some(Duration::from_secs_f64(hole));
            }
        }
        Ok(Gap { wire, recorded })
    }

    /// Waits until the path's timeline has such an entry after a moment, and says when it happened.
    pub(crate) fn path(&self, what: &str, why: &str, since: Duration, within: Duration) -> Result<Duration> {
        let query = format!(
            "SELECT extract(epoch FROM at) FROM call_path WHERE what = '{what}' AND why ~ '^({why})$' \
             AND at >= to_timestamp({:.6}) ORDER BY at LIMIT 1",
            since.as_secs_f64()
        );
        let end = now() + within + LOOK;
        loop {
            let found = self.stage.sbc.sql(&query)?;
            if let Ok(at) = found.parse() {
                return Ok(Duration::from_secs_f64(at));
            }
            if now() > end {
                return Err(self.failure(&format!("not {what} ({why}) within {within:?}")));
            }
            // Each look is a process: they should not be what keeps the machine busy.
            std::thread::sleep(Duration::from_millis(150));
        }
    }

    /// How many such entries the timeline has after a moment.
    pub(crate) fn count(&self, what: &str, since: Duration) -> Result<u32> {
        let query = format!(
            "SELECT count(*) FROM call_path WHERE what = '{what}' AND at >= to_timestamp({:.6})",
            since.as_secs_f64()
        );
        let count = self.stage.sbc.sql(&query)?;
        count.parse().map_err(|_| self.failure(&format!("no number: {count}")))
    }

    /// Whether it has any.
    pub(crate) fn has(&self, what: &str, since: Duration) -> Result<bool> {
        Ok(self.count(what, since)? > 0)
    }

    /// Waits until both hear only whom they should, and each other's tone.
    fn hear_only(&mut self, whom: [&[IpAddr]; 2]) -> Result<()> {
        let mut seen = Vec::new();
        let is_so = eventually(Duration::from_secs(2), || {
            let Ok(heard) = self.recently() else { return false };
            seen = heard;
            seen.iter()
                .zip(whom)
                .all(|(sources, whom)| matches!(sources.as_slice(), [one] if whom.contains(one)))
        });
        if !is_so {
            return Err(self.failure(&format!("they hear {seen:?}, not {whom:?}")));
        }
        self.is_heard()
    }

    /// Both hear each other, by whatever way.
    pub(crate) fn is_heard(&mut self) -> Result<()> {
        let [one, other] = &mut self.phones;
        one.hears(other).and_then(|()| other.hears(one)).map_err(|failure| self.failure(&failure.0))
    }

    /// Nothing goes from phone to phone any more.
    pub(crate) fn is_quiet_between_them(&mut self) -> Result<()> {
        let far = self.ground.far;
        let is_so = eventually(Duration::from_secs(3), || {
            self.recently()
                .is_ok_and(|seen| seen.iter().zip(far).all(|(sources, far)| !sources.contains(&far)))
        });
        if is_so { Ok(()) } else { Err(self.failure("media goes from phone to phone on hold")) }
    }

    fn recently(&mut self) -> Result<Vec<Vec<IpAddr>>> {
        let end = now();
        let mut all = Vec::new();
        for phone in &mut self.phones {
            let address = phone.address;
            let packets = phone.tap().packets()?;
            let latest = packets.get(packets.len().saturating_sub(400)..).unwrap_or_default();
            all.push(latest_sources(&arrivals(latest, address), end));
        }
        Ok(all)
    }

    /// Both hear each other from each other, nothing of it passes the SBC, and both go on reporting to it.
    pub(crate) fn is_direct(&mut self) -> Result<()> {
        let [one, other] = self.ground.far;
        self.hear_only([&[one], &[other]])?;
        let mark = self.stage.side(Network::Access).mark()?;
        // Behind one NAT they have one address; what tells them apart is their stream.
        let reported = eventually(Duration::from_secs(7), || {
            let Ok(packets) = self.stage.side(Network::Access).since(mark) else { return false };
            let reports = packets.iter().filter(|packet| is_rtcp(&packet.payload));
            let from_phones = reports.filter(|packet| !relay().contains(&packet.source.ip()));
            from_phones.filter_map(|packet| packet.payload.get(4..8)).collect::<HashSet<_>>().len() == 2
        });
        if !reported {
            return Err(self.failure("a direct phone does not report to the SBC"));
        }
        let packets = self.stage.side(Network::Access).since(mark)?;
        let media = |packet: &&Packet| packet.protocol == 17 && is_rtp(&packet.payload);
        let relayed = packets.iter().filter(media).count();
        if relayed > 0 { Err(self.failure(&format!("{relayed} packets of RTP at the SBC"))) } else { Ok(()) }
    }

    /// Both hear each other through the SBC.
    pub(crate) fn is_home(&mut self) -> Result<()> {
        let relay = relay();
        self.hear_only([&relay; 2])
    }

    /// Waits until all that was going on at a moment has been heard.
    pub(crate) fn settled(&self, since: Duration) {
        std::thread::sleep((since + SETTLED).saturating_sub(now()));
    }

    /// When both phones hear through the SBC again: the later of both first packets after a moment.
    pub(crate) fn heard_again(&mut self, mark: &Mark, within: Duration) -> Result<Duration> {
        let relay = relay();
        let mut last = None;
        eventually(within, || {
            let Ok(heard) = self.arrivals(mark) else { return false };
            let first = heard.map(|heard| {
                let home = |arrival: &&Arrival| relay.contains(&arrival.source) && arrival.at > mark.at;
                heard.iter().find(home).map(|arrival| arrival.at)
            });
            last = first[0].and_then(|one| first[1].map(|other| one.max(other)));
            last.is_some()
        });
        last.map(|last| last.saturating_sub(mark.at))
            .ok_or_else(|| self.failure(&format!("not back at the SBC within {within:?}")))
    }

    /// What happened, for who reads the test's output.
    pub(crate) fn failure(&self, what: &str) -> Failure {
        let story = self.stage.sbc.sql("SELECT after_ms, what, why, party, evidence FROM call_path");
        let story = story.unwrap_or_else(|failure| failure.0);
        let folder = self.stage.lab.folder().display();
        Failure(format!("{:?}, {}: {what}\n{folder}\n{story}", self.kinds, self.ground.place()))
    }
}
