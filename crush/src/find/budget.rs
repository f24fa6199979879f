//! What new flows a host may make: one account for all of its calls, since NATs and flood limiters count hosts (docs/crush.md §5.1).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use media_wire::sdp::crush::Temper;

use super::tempo::{Bucket, Tempo};

/// Who was served longest ago goes first; the others wait so much longer each.
const TURN: Duration = Duration::from_millis(1);
/// After a limiter seems to have struck.
const PAUSE: Duration = Duration::from_secs(3);

/// The account of a host, on a network. Clones are the same account: an application hands one to all of its calls
/// ([`crate::agent::Config::flows`]).
///
/// It only becomes slower by itself. What a network bears is known to its user or operator, and is not found out by trying: the trial is the
/// harm.
#[derive(Debug, Clone)]
pub struct FlowBudget(Arc<Mutex<Account>>);

#[derive(Debug)]
struct Account {
    temper: Temper,
    /// Nothing has been said of the network, and nothing learnt: the first word counts, whatever it is.
    is_open: bool,
    limit: Option<f64>,
    flows: Bucket,
    paused_until: Duration,
    /// Calls that draw on it; the first has waited longest.
    calls: Vec<u64>,
    next_call: u64,
}

impl FlowBudget {
    /// `temper`: what the user has said; `None`: nothing. `limit`: new flows in any second, if that is less than the temper's.
    pub fn new(temper: Option<Temper>, limit: Option<f64>) -> Self {
        let (is_open, temper) = (temper.is_none(), temper.unwrap_or_default());
        let flows = Tempo::of(temper).new_flows(limit, Duration::ZERO);
        let (paused_until, calls) = (Duration::ZERO, Vec::new());
        let account = Account { temper, is_open, limit, flows, paused_until, calls, next_call: 0 };
        Self(Arc::new(Mutex::new(account)))
    }

    /// A panic of another call's thread leaves nothing half done here.
    fn account(&self) -> MutexGuard<'_, Account> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn share(&self) -> Share {
        let mut account = self.account();
        let number = account.next_call;
        account.next_call = number.wrapping_add(1);
        account.calls.insert(0, number);
        Share(Arc::new(Call { budget: self.clone(), number }))
    }
}

impl Account {
    /// What the operator says of the network, once; nobody is asked twice.
    fn is_said(&mut self, temper: Temper, now: Duration) {
        if self.is_open && temper < self.temper {
            self.temper = temper;
            self.flows.become_like(Tempo::of(temper).new_flows(self.limit, now), now);
        }
        self.slow_down(temper, now);
    }

    /// Never up again.
    fn slow_down(&mut self, temper: Temper, now: Duration) {
        self.is_open = false;
        if temper > self.temper {
            self.temper = temper;
            self.flows.become_like(Tempo::of(temper).new_flows(self.limit, now), now);
        }
    }
}

/// One call's part in it, until the last clone is dropped.
#[derive(Debug, Clone)]
pub(super) struct Share(Arc<Call>);

#[derive(Debug)]
struct Call {
    budget: FlowBudget,
    number: u64,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.budget.account().calls.retain(|number| *number != self.number);
    }
}

impl Share {
    /// When it may be its turn.
    pub(super) fn ready(&self) -> Duration {
        let account = self.0.budget.account();
        let rank = account.calls.iter().position(|number| *number == self.0.number);
        let wait = TURN.saturating_mul(rank.unwrap_or(0).min(16) as u32);
        account.flows.ready().max(account.paused_until).saturating_add(wait)
    }

    /// To be called once [`Share::ready`] has come.
    pub(super) fn take(&self, now: Duration) -> bool {
        let mut account = self.0.budget.account();
        if now < account.paused_until || !account.flows.take(now) {
            return false;
        }
        account.calls.retain(|number| *number != self.0.number);
        account.calls.push(self.0.number);
        true
    }

    /// Flows that were made without leave.
    pub(super) fn charge(&self, flows: u32, now: Duration) {
        self.0.budget.account().flows.charge(flows, now);
    }

    /// What the operator says; the temper of the host from then on.
    pub(super) fn is_said(&self, temper: Temper, now: Duration) -> Temper {
        let mut account = self.0.budget.account();
        account.is_said(temper, now);
        account.temper
    }

    pub(super) fn slow_down(&self, temper: Temper, now: Duration) {
        self.0.budget.account().slow_down(temper, now);
    }

    /// A limiter seems to have struck: all calls of the host wait, and are slower afterwards.
    pub(super) fn struck(&self, temper: Temper, now: Duration) -> Duration {
        let mut account = self.0.budget.account();
        account.slow_down(temper, now);
        account.flows.empty(now);
        account.paused_until = now.saturating_add(PAUSE);
        account.paused_until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// When calls that want all they can get make flows within so long.
    fn made(budget: &FlowBudget, calls: usize, until: Duration) -> Vec<Vec<Duration>> {
        let shares: Vec<Share> = (0..calls).map(|_| budget.share()).collect();
        let mut made = vec![Vec::new(); calls];
        let mut now = Duration::ZERO;
        while now < until {
            for (share, made) in shares.iter().zip(&mut made) {
                while share.ready() <= now && share.take(now) {
                    made.push(now);
                }
            }
            now += MS(1);
        }
        made
    }

    fn most_in_a_second(made: &[Vec<Duration>]) -> usize {
        let mut all: Vec<Duration> = made.iter().flatten().copied().collect();
        all.sort();
        let within = |(place, start): (usize, &Duration)| {
            all[place..].iter().take_while(|at| **at < *start + MS(1000)).count()
        };
        all.iter().enumerate().map(within).max().unwrap_or(0)
    }

    #[test]
    fn all_calls_of_a_host_together_make_no_more_flows_than_one_and_each_gets_its_part() {
        for calls in 1..=5 {
            let made = made(&FlowBudget::new(None, None), calls, MS(20_000));
            assert!(most_in_a_second(&made) <= 29, "{calls} calls");
            for one in &made {
                assert!(one.len() >= 490 / calls && one.len() <= 510 / calls + 2, "{} of {calls}", one.len());
            }
        }
    }

    #[test]
    fn no_second_holds_more_flows_than_the_limit() {
        for limit in [1.0, 2.0, 5.0, 12.0, 24.0, 40.0, 100.0] {
            let made = made(&FlowBudget::new(Some(Temper::Fast), Some(limit)), 3, MS(20_000));
            let (most, sum) = (most_in_a_second(&made), made.iter().map(Vec::len).sum::<usize>());
            assert!(most as f64 <= limit, "{most} of {limit}");
            assert!(sum as f64 >= limit * 9.5, "{sum} in 20 s at {limit}");
        }
    }

    #[test]
    fn what_one_call_leaves_goes_to_the_others_and_a_call_that_is_over_has_no_turn() {
        let budget = FlowBudget::new(None, None);
        let (idle, over) = (budget.share(), budget.share());
        drop(over);
        let made = made(&budget, 1, MS(10_000));
        assert!(made[0].len() >= 250);
        drop(idle);
        assert!(budget.account().calls.is_empty());
    }

    #[test]
    fn a_strike_holds_for_all_calls_and_is_never_forgotten() {
        let budget = FlowBudget::new(Some(Temper::Fast), None);
        let (one, other) = (budget.share(), budget.share());
        one.struck(Temper::Normal, MS(1000));
        assert!(other.ready() >= MS(4000));
        other.slow_down(Temper::Fast, MS(5000));
        let mut made = 0;
        for now in (4000..6000).map(MS) {
            made += usize::from(other.ready() <= now && other.take(now));
        }
        assert!((40..=54).contains(&made), "{made}");
    }

    #[test]
    fn an_operator_is_believed_once_unless_the_user_has_said_something_or_a_limiter_has_struck() {
        let after = |budget: &FlowBudget, said: &[Temper]| {
            let share = budget.share();
            said.iter().fold(None, |_, temper| Some(share.is_said(*temper, MS(1000))))
        };
        use Temper::{Fast, Normal, Stealth};
        let unsaid = || FlowBudget::new(None, None);
        assert_eq!(after(&unsaid(), &[Fast]), Some(Fast));
        assert_eq!(after(&unsaid(), &[Fast, Stealth, Fast]), Some(Stealth));
        assert_eq!(after(&unsaid(), &[Normal, Fast]), Some(Normal));
        assert_eq!(after(&FlowBudget::new(Some(Normal), None), &[Fast]), Some(Normal));
        assert_eq!(after(&FlowBudget::new(Some(Fast), None), &[Normal]), Some(Normal));
        let struck = unsaid();
        struck.share().struck(Normal, MS(1));
        assert_eq!(after(&struck, &[Fast]), Some(Normal));
        let moved = unsaid();
        moved.share().slow_down(Normal, MS(1));
        assert_eq!(after(&moved, &[Fast]), Some(Normal));
        // A limit is one, whatever pace is said.
        let limited = FlowBudget::new(None, Some(12.0));
        assert_eq!(after(&limited, &[Fast]), Some(Fast));
        assert!(most_in_a_second(&made(&limited, 2, MS(5000))) <= 12);
    }
}
