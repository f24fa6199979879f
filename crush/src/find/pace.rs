//! How fast new flows are made: what NATs count, and flood limiters punish (docs/crush.md §5.1).

use std::time::Duration;

use media_wire::sdp::crush::Temper;

use super::budget::{FlowBudget, Share};
use super::tempo::{Bucket, Tempo};
use crate::count::Count;

/// What a packet is to NATs and limiters on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The first one from a socket to a destination.
    New,
    /// Nothing has come back yet: whoever did not let the first one pass sees a new flow.
    Unproven,
    /// Something authentic has come on it.
    Proven,
}

/// Token buckets for new flows and for packets on proven ones: a call's own, by its temper, and its share of its host's.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    temper: Temper,
    /// Nobody has said anything of the network, and nothing has been learnt.
    is_open: bool,
    host: Share,
    flows: Bucket,
    packets: Bucket,
    made: u64,
}

impl Pace {
    /// `budget`: the host's.
    pub(crate) fn new(temper: Option<Temper>, budget: &FlowBudget, now: Duration) -> Self {
        let (is_open, temper) = (temper.is_none(), temper.unwrap_or_default());
        let tempo = Tempo::of(temper);
        Self {
            temper,
            is_open,
            host: budget.share(),
            flows: tempo.new_flows(None, now),
            packets: Bucket::new(tempo.packets, tempo.burst, now),
            made: 0,
        }
    }

    /// For another generation, which brings no burst of its own.
    pub(crate) fn renewed(&self) -> Self {
        Self { made: 0, ..self.clone() }
    }

    pub(crate) fn temper(&self) -> Temper {
        self.temper
    }

    pub(crate) fn tempo(&self) -> Tempo {
        Tempo::of(self.temper)
    }

    /// New flows so far.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    /// No faster than this from now on.
    pub(crate) fn slow_down(&mut self, temper: Temper, now: Duration) {
        self.is_open = false;
        if temper > self.temper {
            self.set_temper(temper, now);
        }
    }

    fn set_temper(&mut self, temper: Temper, now: Duration) {
        self.temper = temper;
        let tempo = self.tempo();
        self.flows.become_like(tempo.new_flows(None, now), now);
        self.packets.become_like(Bucket::new(tempo.packets, tempo.burst, now), now);
    }

    /// What the operator says of the network. Haste is believed where nobody has said anything else of it, and nothing has been learnt, by
    /// this call or another of the host; slowness always.
    pub(crate) fn network_bears(&mut self, temper: Temper, now: Duration) {
        let host = self.host.is_said(temper, now);
        if self.is_open && host <= temper && temper < self.temper {
            self.set_temper(temper, now);
        }
        self.slow_down(temper, now);
    }

    /// What is learnt of one call's network holds for the host there.
    pub(crate) fn slow_host_down(&mut self, temper: Temper, now: Duration) {
        self.slow_down(temper, now);
        self.host.slow_down(temper, now);
    }

    /// A limiter seems to have struck: nothing new leaves before the time that this says.
    pub(crate) fn struck(&mut self, now: Duration) -> Duration {
        let slower = match self.temper {
            Temper::Fast => Temper::Normal,
            Temper::Normal | Temper::Stealth => Temper::Stealth,
        };
        self.slow_down(slower, now);
        self.host.struck(slower, now)
    }

    /// Flows that the call makes in any case.
    pub(crate) fn charge(&mut self, flows: u32, now: Duration) {
        self.flows.charge(flows, now);
        self.host.charge(flows, now);
    }

    /// Leave for one packet.
    pub(crate) fn take(&mut self, flow: Flow, now: Duration) -> bool {
        if flow == Flow::Proven {
            return self.packets.take(now);
        }
        let leave = self.ready(flow) <= now && self.host.take(now);
        if leave {
            self.flows.take(now);
            if flow == Flow::New {
                self.made.up();
            }
        }
        leave
    }

    /// When [`Pace::take`] may say yes again.
    pub(crate) fn ready(&self, flow: Flow) -> Duration {
        match flow {
            Flow::New | Flow::Unproven => self.flows.ready().max(self.host.ready()),
            Flow::Proven => self.packets.ready(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(temper: Temper) -> Pace {
        Pace::new(Some(temper), &FlowBudget::new(Some(temper), None), Duration::ZERO)
    }

    #[test]
    fn no_second_sees_more_new_flows_than_a_flood_limiter_of_30_allows_unless_told_to() {
        for (temper, most, least) in [(Temper::Stealth, 25, 1190), (Temper::Normal, 29, 1490)] {
            let mut pace = pace(temper);
            let mut made = Vec::new();
            for tick in 0..60_000 {
                let now = Duration::from_millis(tick);
                while pace.take(Flow::New, now) {
                    made.push(now);
                }
            }
            for (index, start) in made.iter().enumerate() {
                let end = *start + Duration::from_secs(1);
                let within = made[index..].iter().take_while(|at| **at < end).count();
                assert!(within <= most, "{within} in the second from {start:?}");
            }
            assert!(made.len() >= least);
        }
    }

    #[test]
    fn ready_says_when_a_flow_may_be_made() {
        let fast = Some(Temper::Fast);
        let mut pace = Pace::new(fast, &FlowBudget::new(fast, Some(5.0)), Duration::ZERO);
        while pace.take(Flow::New, Duration::ZERO) {}
        let ready = pace.ready(Flow::New);
        assert!(ready >= Duration::from_millis(200));
        assert!(!pace.take(Flow::New, ready - Duration::from_millis(1)));
        assert!(pace.take(Flow::New, ready));
    }

    #[test]
    fn another_generation_brings_no_burst() {
        let mut pace = pace(Temper::Normal);
        let burst = |pace: &mut Pace| {
            std::iter::from_fn(|| pace.take(Flow::New, Duration::ZERO).then_some(())).count()
        };
        assert_eq!(burst(&mut pace), 4);
        let mut pace = pace.renewed();
        assert_eq!((burst(&mut pace), pace.made()), (0, 0));
    }

    #[test]
    fn what_the_call_makes_in_any_case_is_counted() {
        let mut pace = pace(Temper::Normal);
        pace.charge(6, Duration::ZERO);
        assert!(pace.ready(Flow::New) >= Duration::from_millis(120) && !pace.take(Flow::New, Duration::ZERO));
    }

    #[test]
    fn after_a_strike_it_waits_three_seconds_and_goes_slower() {
        let mut pace = pace(Temper::Fast);
        pace.struck(Duration::from_secs(1));
        assert_eq!(pace.temper(), Temper::Normal);
        assert!(!pace.take(Flow::New, Duration::from_millis(3900)));
        assert!(pace.take(Flow::New, Duration::from_millis(4000)));
        pace.slow_down(Temper::Fast, Duration::from_secs(9));
        assert_eq!(pace.temper(), Temper::Normal);
    }
}
