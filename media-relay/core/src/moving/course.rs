//! From the first to the last of a call's moves: how they begin, what they are told, when they are looked at, and what they leave.

use std::time::Duration;

use seam::Side;
use seam::path::{Constraint, Stay};

use crate::motion::scene::Scene;
use crate::motion::shell::{Past, Refusals, Shell};
use crate::moving::Moving;
use crate::moving::chain::{self, Chain, Found, Link};
use crate::moving::cover::Cover;
use crate::moving::mover::{Mover, Whereabouts};
use crate::moving::seen::pair_of;
use crate::path::phone::Temperament;
use crate::path::{Outset, Release};
use crate::ports::{Ports, StreamId};
use crate::transport::Mux;

/// What is left when a call's moves are over.
pub(crate) struct Parted {
    pub(crate) chain: Chain,
    movers: [Mover; 2],
}

impl Parted {
    /// Who is in another half than `session`, which has ended it, and is told by nobody else that he is alone.
    pub(crate) fn stranded(self, session: u64) -> impl Iterator<Item = Mover> {
        let is_longer = self.chain.len() > 1;
        let movers = self.movers.into_iter().filter(move |_| is_longer);
        movers.filter(move |mover| mover.session != session && mover.may_be_away())
    }
}

impl Moving {
    /// What is found may be released from now on; `None` if policy never lets it go.
    pub(crate) fn begin(found: Found, scene: &mut Scene<'_>) -> Option<Self> {
        let Scene { sessions, streams, settings, now, .. } = scene;
        let policy = settings.release.as_ref()?;
        let constraint = chain::constraint(sessions, &found.chain, policy)?;
        let outer = chain::outer(sessions, &found.chain)?;
        let temperaments = outer.map(|leg| Temperament::of(&leg.party.product));
        let [one, other] = outer.map(|leg| leg.party.realm.0);
        let networks = policy.networks(one, other);
        let legs = found.chain.iter().flat_map(|link| link.ends.map(|end| (link.session, end)));
        let is_private = legs
            .filter_map(|(session, end)| chain::leg(sessions, session, end))
            .any(|leg| leg.party.is_private);
        let Found { chain, lines, carriers } = found;
        let (first, last) = (chain.first().copied()?, chain.last().copied()?);
        let mut pasts: Vec<Option<Past>> = chain
            .iter()
            .map(|link| sessions.get_mut(&link.session).and_then(|session| session.past_moves.take()))
            .collect();
        let wishes = pasts.iter().flatten().map(|past| past.wishes).max().unwrap_or_default();
        // Of one session alone the past goes on; of several each has its own.
        let past = if chain.len() == 1 { pasts.pop().flatten() } else { None };
        let told = past.as_ref().map_or(0, |past| past.told);
        let past = past.map(|past| past.timeline);
        let outset = Outset { settings: policy.settings, constraint, lines: lines.len(), past };
        let mut release = Release::new(outset, networks, temperaments, *now);
        let is_muxed = |stream: &StreamId| streams.get(*stream).is_some_and(|stream| stream.mux == Mux::Yes);
        if lines.iter().any(|(_, pair)| pair.iter().any(is_muxed)) {
            release.mux_reports();
        }
        let number = chain.iter().map(|link| link.session).min().unwrap_or(first.session);
        let cover = Cover::of(number, policy.settings.cover_percent);
        if is_private {
            release.keep(Stay::Privacy, *now);
        } else if cover == Cover::Stays {
            release.keep(Stay::Policy, *now);
        }
        let cover = if let Cover::ComesBack(after) = cover { Some(now.saturating_add(after)) } else { None };
        Some(Self {
            release,
            movers: [
                Mover::new(first.session, first.ends[Side::First]),
                Mover::new(last.session, last.ends[Side::Second]),
            ],
            chain,
            pasts,
            lines,
            carriers,
            shell: Shell::after(wishes, told, *now).covered(cover),
        })
    }

    /// The parties are no more what they were; what happened stays told.
    pub(crate) fn end(mut self, scene: &mut Scene<'_>) -> Parted {
        let now = scene.now;
        self.account(scene);
        self.release.finish(now);
        self.tell(scene.events, now);
        for stream in self.streams() {
            if let Some(stream) = scene.streams.get_mut(stream) {
                stream.gate.is_released = false;
                stream.reception.come_back();
            }
        }
        let Self { release, movers, chain, mut pasts, shell, .. } = self;
        let timeline = release.into_timeline();
        for (index, link) in chain.iter().enumerate() {
            let Some(session) = scene.sessions.get_mut(&link.session) else { continue };
            session.away.is_away = false;
            let past = pasts.get_mut(index).and_then(Option::take).map_or_else(
                || shell.past(timeline.clone()),
                |past| past.followed_by(&timeline, shell.wishes()),
            );
            session.past_moves = Some(past);
        }
        Parted { chain, movers }
    }

    /// The other half of its call is gone, or is another's: a mover of it comes home then, to where its own session is.
    pub(crate) fn strand(&mut self, mover: Mover, homeward: Duration, now: Duration) {
        self.release.keep(Stay::Unfit, now);
        if let Some(own) = self.movers.iter_mut().find(|own| own.endpoint == mover.endpoint) {
            *own = Mover { want: Whereabouts::Home, retry: homeward, refusals: Refusals::default(), ..mover };
        }
    }

    /// An exchange of the parties' own has told those of one session to come home. In another session of the chain the same exchange
    /// is still on its way, or nobody there is told by itself.
    pub(crate) fn renegotiated(&mut self, session: u64, scene: &mut Scene<'_>) {
        // What was direct until now, in all halves, is counted by what the parties were told until now.
        self.account(scene);
        let is_held = |link: &Link| scene.sessions.get(&link.session).is_some_and(|session| session.is_held);
        let should_flow = !self.chain.iter().any(is_held);
        self.come_back(session, should_flow, scene.now);
    }

    /// What policy says of all of its call now.
    pub(crate) fn heed(&mut self, scene: &Scene<'_>) {
        let policy = scene.settings.release.as_ref();
        let said = policy.and_then(|policy| chain::constraint(scene.sessions, &self.chain, policy));
        self.release.constrain(said.unwrap_or(Constraint::MustAnchor), scene.now);
    }

    /// Looks at it: its time has come.
    pub(crate) fn look(&mut self, scene: &mut Scene<'_>, ports: &mut dyn Ports) {
        let now = scene.now;
        self.see(scene, ports);
        let legs = chain::outer(scene.sessions, &self.chain);
        let pair = || pair_of(legs?, &self.lines, scene.streams);
        if self.shell.meets(pair, scene.memory, now) {
            self.release.keep(Stay::Remembered, now);
        }
        if self.shell.is_cover_due(now) {
            self.release.constrain(Constraint::MustAnchor, now);
        }
        self.account(scene);
        self.release.handle_timeout(now);
        self.obey(scene, ports);
        self.ask(scene);
        let rest = scene.rest();
        self.shell.remember(self.release.timeline(), scene.memory, rest, now);
        self.tell(scene.events, now);
        self.shell.due = self.next_look(now);
    }
}
