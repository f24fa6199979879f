//! Which part an endpoint plays in the spray (docs/crush.md §5.2, the table).

use media_wire::sdp::crush::{NatBehaviour, PortPattern};

/// What an endpoint does when ordinary checks do not suffice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// Nothing beyond ordinary checks: of one of the NATs nothing is known.
    Checks,
    /// Ordinary checks should do; where they do not, a socket is opened that sends before the peer knows of it.
    Reopen,
    /// Holds one flow, which the peer looks for.
    Hold,
    /// Looks for the peer's flow around the predicted port.
    Sweep,
    /// Opens holes in counting order.
    Fan,
    /// Looks for the offset of both predictions.
    Scan,
    /// Opens many sockets, for the peer to hit one of them.
    Sockets,
    /// Shoots at random ports.
    Shots,
    /// No method of bounded cost exists for these two NATs.
    GiveUp,
}

impl Part {
    /// The part of the side that owns `mine`.
    pub fn of(mine: &NatBehaviour, theirs: &NatBehaviour, controlling: bool) -> Self {
        let sequential = |nat: &NatBehaviour| matches!(nat.ports, PortPattern::Sequential(_));
        match (mine.is_dependent(), theirs.is_dependent()) {
            (false, false) => Self::Reopen,
            (false, true) if sequential(theirs) => Self::Sweep,
            (false, true) => Self::Shots,
            (true, false) if sequential(mine) => Self::Hold,
            (true, false) => Self::Sockets,
            (true, true) if !(sequential(mine) && sequential(theirs)) => Self::GiveUp,
            (true, true) if controlling => Self::Scan,
            (true, true) => Self::Fan,
        }
    }

    /// How much sooner than others this promises a path, in a search where both families are known: the greatest is looked for. The same
    /// seen from either end, whose parts belong together.
    pub(crate) fn promise(self) -> u8 {
        match self {
            Self::Hold | Self::Sweep => 5,
            Self::Fan | Self::Scan => 4,
            Self::Sockets | Self::Shots => 3,
            // Ordinary checks go on in any case.
            Self::Reopen => 2,
            Self::Checks => 1,
            Self::GiveUp => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use media_wire::sdp::crush::NatKind;

    #[test]
    fn both_sides_choose_parts_that_belong_together() {
        let nat = |mapping, ports| NatBehaviour {
            ipv6: false,
            mapping,
            filtering: NatKind::AddressAndPortDependent,
            ports,
            last: 1,
            round: 0,
        };
        let cone = nat(NatKind::EndpointIndependent, PortPattern::Preserving);
        let counting = nat(NatKind::AddressAndPortDependent, PortPattern::Sequential(1));
        let random = nat(NatKind::AddressDependent, PortPattern::Random);
        let both = |a: &NatBehaviour, b: &NatBehaviour| (Part::of(a, b, true), Part::of(b, a, false));
        assert_eq!(both(&cone, &cone), (Part::Reopen, Part::Reopen));
        assert_eq!(both(&cone, &counting), (Part::Sweep, Part::Hold));
        assert_eq!(both(&counting, &cone), (Part::Hold, Part::Sweep));
        assert_eq!(both(&cone, &random), (Part::Shots, Part::Sockets));
        assert_eq!(both(&counting, &counting), (Part::Scan, Part::Fan));
        assert_eq!(both(&counting, &random), (Part::GiveUp, Part::GiveUp));
        assert_eq!(both(&random, &random), (Part::GiveUp, Part::GiveUp));
    }
}
