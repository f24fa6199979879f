//! The spray of a search (docs/crush.md §5.2): when it begins, what it sends next, when it is given up.

use std::net::SocketAddr;
use std::time::Duration;

use super::{Finder, Finding, HOLD, Send, Spray, Stage};
use crate::find::diagonal::{Fan, LAG, Scan};
use crate::find::plan::Part;
use crate::find::reopen::Reopen;
use crate::find::shots::Shots;
use crate::find::sockets::Sockets;
use crate::find::sweep::Sweep;
use crate::random::Random;

/// Checks alone have so long.
const CHECKED: Duration = Duration::from_secs(8);
/// What a round of fan or scan is waited for after its last probe.
const ROUND_GRACE: Duration = Duration::from_millis(500);

impl Finder {
    pub(super) fn start_spray(&mut self, now: Duration) {
        let Some((mine, theirs)) = self.nats else {
            return;
        };
        if now < self.spraying.starts || self.stage == Stage::GaveUp || self.list.best().is_some() {
            return;
        }
        let part = match self.spraying.part {
            None => {
                let part = Part::of(&mine, &theirs, self.is_controlling);
                self.spraying.part = Some(part);
                self.spraying.ends = Some(self.spray_end(part, now));
                self.findings.push_back(Finding::Part(part));
                self.spraying.reopen = Reopen::new(part, self.pace.tempo().sweep, now);
                part
            }
            Some(part @ (Part::Fan | Part::Scan)) if self.spraying.spray.is_none() => part,
            Some(_) => return,
        };
        if matches!(part, Part::Fan | Part::Scan) {
            // Each round needs ports of both that were measured for it: those from before tell nothing once the other has gone on.
            if theirs.round > mine.round {
                return self.measure();
            }
            if theirs.round < mine.round || self.rounds.current == Some(mine.round) {
                return;
            }
            self.rounds.current = Some(mine.round);
        }
        self.spraying.spray = match part {
            Part::Checks | Part::Reopen | Part::GiveUp => None,
            Part::Hold => {
                if let (Some((target, _)), Some(ends)) = (self.spraying.target, self.spraying.ends) {
                    self.list.hold(target, HOLD, ends);
                }
                None
            }
            Part::Sweep => Some(Spray::Sweep(Sweep::new(theirs.last, theirs.step()))),
            Part::Shots => Some(Spray::Shots(Shots::new())),
            Part::Fan => Some(Spray::Fan(Fan::new(theirs.last, theirs.step()))),
            Part::Scan => {
                // The peer has checked our candidates, as we have checked its.
                let made = self.pace.made().saturating_sub(self.rounds.flows_at_measure);
                let checked = self.ends.remotes.iter().filter(|remote| remote.address.is_ipv6() == mine.ipv6);
                let expected = (made as i32).saturating_add(checked.count() as i32);
                let lag = Duration::from_secs_f64(f64::from(LAG) / self.pace.tempo().flows);
                self.spraying.starts = now.saturating_add(lag).saturating_add(Duration::from_millis(100));
                Some(Spray::Scan(Scan::new(theirs.last, theirs.step(), expected)))
            }
            Part::Sockets => Some(Spray::Sockets(Sockets::new(self.spraying.most_sockets))),
        };
    }

    /// When a spray ends that begins: what earlier generations have spent on the same address counts.
    fn spray_end(&mut self, part: Part, now: Duration) -> Duration {
        let most = self.pace.tempo().spray;
        let sprays = !matches!(part, Part::Checks | Part::Reopen | Part::GiveUp);
        let Some(target) = self.target().filter(|_| sprays) else { return now.saturating_add(most) };
        self.spraying.target = Some((target.ip(), now));
        now.saturating_add(self.reach.spray_left(target.ip(), most))
    }

    /// The spray is over, and has not met.
    pub(super) fn count_spray(&mut self, now: Duration) {
        if let Some((target, since)) = self.spraying.target.take().filter(|_| self.stage != Stage::Found) {
            self.reach.sprayed(target, now.saturating_sub(since));
        }
    }

    /// Giving up ends everything: no check, no repetition and no keepalive leaves of itself any more.
    pub(super) fn give_up(&mut self, now: Duration) {
        self.stage = Stage::GaveUp;
        self.spraying.spray = None;
        self.rounds.ends = None;
        self.list.give_up();
        self.count_spray(now);
        self.findings.push_back(Finding::GaveUp(self.spraying.part.unwrap_or(Part::Checks)));
    }

    pub(super) fn spray(&mut self, random: &mut Random, now: Duration) -> Option<Send> {
        let checks_alone =
            matches!(self.spraying.part, None | Some(Part::Checks | Part::Reopen | Part::GiveUp));
        // Of the NATs nothing may be known yet.
        let is_settled =
            self.spraying.part.is_some() || now >= self.since.unwrap_or(now).saturating_add(CHECKED);
        if checks_alone
            && is_settled
            && self.spraying.reopen.next().is_none()
            && self.list.has_failed()
            && self.stage != Stage::GaveUp
        {
            self.give_up(now);
        }
        if self.rounds.ends.is_some_and(|ends| now >= ends) {
            self.rounds.ends = None;
            self.spraying.spray = None;
            self.measure();
        }
        if now < self.spraying.starts || self.rounds.ends.is_some() {
            return None;
        }
        // What works is being nominated: nothing more needs to be found.
        if self.list.best().is_some() {
            return None;
        }
        let target = self.target()?;
        let mut socket = self.spraying.from;
        let port = match self.spraying.spray.as_mut()? {
            Spray::Sweep(sweep) => Some(sweep.next(random)),
            Spray::Shots(shots) => Some(shots.next(random)),
            Spray::Fan(fan) => fan.next(),
            Spray::Scan(scan) => scan.next(random),
            Spray::Sockets(sockets) => {
                if let Some(count) = sockets.wanted() {
                    self.findings.push_back(Finding::Sockets(count));
                }
                socket = sockets.next()?;
                // The mapping of the oldest has seen as many of the peer's shots as a new one will: what counts are new ports.
                let list = &self.list;
                let is_asked = |socket| list.pairs().iter().any(|pair| pair.socket == socket && pair.asked);
                if let Some(oldest) = sockets.spent(is_asked) {
                    self.findings.push_back(Finding::Spent(oldest));
                }
                Some(target.port())
            }
        };
        let Some(port) = port else {
            self.rounds.ends = Some(now.saturating_add(ROUND_GRACE));
            return None;
        };
        let to = SocketAddr::new(target.ip(), port);
        self.send(socket, to, random, now)
    }
}
