//! Limits of new flows, which some networks set against floods.

use std::net::IpAddr;
use std::time::Duration;

use ahash::{AHashMap, RandomState};

/// How many new flows an internal host may open. A flow is a pair of internal and remote address and port, whatever the mapping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FlowLimit {
    /// New flows per second in the long run.
    pub per_second: f64,
    /// New flows at once after a pause.
    pub burst: u32,
    /// What happens to who opens more.
    pub penalty: Penalty,
}

/// What a limiter does beyond its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Penalty {
    /// Drops what would open the flow.
    Drop,
    /// Lets nothing of the host through in either direction for this time.
    Block(Duration),
}

/// A host's account.
#[derive(Debug, Clone, Copy)]
struct Account {
    tokens: f64,
    counted_at: Duration,
    blocked_until: Duration,
}

/// What is kept of all internal hosts.
#[derive(Debug, Clone)]
pub(crate) struct Limiter {
    limit: FlowLimit,
    accounts: AHashMap<IpAddr, Account>,
}

impl Limiter {
    pub(crate) fn new(limit: FlowLimit, hasher: RandomState) -> Self {
        Self { limit, accounts: AHashMap::with_hasher(hasher) }
    }

    /// Whether the host is being punished.
    pub(crate) fn is_blocked(&self, host: IpAddr, now: Duration) -> bool {
        self.accounts.get(&host).is_some_and(|account| now < account.blocked_until)
    }

    /// Whether the host may open one more flow now; it counts as opened if so.
    pub(crate) fn admits(&mut self, host: IpAddr, now: Duration) -> bool {
        let burst = f64::from(self.limit.burst.max(1));
        let full = Account { tokens: burst, counted_at: now, blocked_until: Duration::ZERO };
        let account = self.accounts.entry(host).or_insert(full);
        let passed = now.saturating_sub(account.counted_at).as_secs_f64();
        account.tokens = (account.tokens + passed * self.limit.per_second).min(burst);
        account.counted_at = now;
        if account.tokens >= 1.0 {
            account.tokens -= 1.0;
            return true;
        }
        if let Penalty::Block(time) = self.limit.penalty {
            account.blocked_until = now + time;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 1, 10));

    fn limiter(penalty: Penalty) -> Limiter {
        Limiter::new(FlowLimit { per_second: 30.0, burst: 30, penalty }, RandomState::with_seeds(1, 2, 3, 4))
    }

    fn admitted(limiter: &mut Limiter, flows: usize, now: Duration) -> usize {
        (0..flows).filter(|_| limiter.admits(HOST, now)).count()
    }

    #[test]
    fn a_burst_passes_up_to_its_size_and_the_rate_afterwards() {
        let mut limiter = limiter(Penalty::Drop);
        assert_eq!(admitted(&mut limiter, 200, Duration::ZERO), 30);
        assert_eq!(admitted(&mut limiter, 200, Duration::from_millis(100)), 3);
        assert_eq!(admitted(&mut limiter, 200, Duration::from_secs(60)), 30);
        assert!(!limiter.is_blocked(HOST, Duration::ZERO));
    }

    #[test]
    fn who_exceeds_the_limit_is_blocked_for_the_time_set() {
        let mut limiter = limiter(Penalty::Block(Duration::from_secs(2)));
        assert_eq!(admitted(&mut limiter, 31, Duration::ZERO), 30);
        assert!(limiter.is_blocked(HOST, Duration::from_millis(1_999)));
        assert!(!limiter.is_blocked(HOST, Duration::from_secs(2)));
    }
}
