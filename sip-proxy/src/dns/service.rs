//! The order in which the servers of a service are tried (RFC 2782).

/// One SRV record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) port: u16,
    pub(super) target: String,
}

/// By priority, and within one by weight, at random: `random` draws from 0 to its argument, both included.
pub(super) fn order(mut records: Vec<Service>, mut random: impl FnMut(u32) -> u32) -> Vec<Service> {
    // Those of weight 0 come first, which leaves them a very small chance to be chosen before others.
    records.sort_by_key(|record| (record.priority, record.weight != 0));
    let mut ordered = Vec::with_capacity(records.len());
    while let Some(priority) = records.first().map(|record| record.priority) {
        let same = records.iter().take_while(|record| record.priority == priority);
        let total = same.clone().map(|record| u32::from(record.weight)).sum();
        let drawn = random(total);
        let mut sum = 0;
        let chosen = same.into_iter().position(|record| {
            sum = u32::saturating_add(sum, u32::from(record.weight));
            sum >= drawn
        });
        ordered.push(records.remove(chosen.unwrap_or(0)));
    }
    ordered
}

/// A number from 0 to `highest`. Without randomness the order is still right by priority.
pub(super) fn random(highest: u32) -> u32 {
    let mut seed = [0; 8];
    let _ = getrandom::fill(&mut seed);
    u64::from_ne_bytes(seed).checked_rem(u64::from(highest).saturating_add(1)).unwrap_or(0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(priority: u16, weight: u16) -> Service {
        Service { priority, weight, port: 5060, target: format!("{priority}-{weight}") }
    }

    #[test]
    fn priority_comes_before_weight_and_nothing_is_lost() {
        let records = vec![service(20, 0), service(10, 5), service(10, 0), service(10, 65535)];
        for _ in 0..50 {
            let ordered = order(records.clone(), random);
            assert_eq!(ordered.iter().map(|record| record.priority).collect::<Vec<_>>(), [10, 10, 10, 20]);
            let mut targets: Vec<_> = ordered.iter().map(|record| record.target.as_str()).collect();
            targets.sort_unstable();
            assert_eq!(targets, ["10-0", "10-5", "10-65535", "20-0"]);
        }
    }

    #[test]
    fn shares_follow_weights() {
        let records = vec![service(1, 0), service(1, 10), service(1, 30)];
        // Every draw there is, once.
        let firsts: Vec<_> = (0..=40).map(|draw| order(records.clone(), |_| draw).remove(0).weight).collect();
        let count = |weight| firsts.iter().filter(|first| **first == weight).count();
        assert_eq!([count(0), count(10), count(30)], [1, 10, 30]);
    }
}
