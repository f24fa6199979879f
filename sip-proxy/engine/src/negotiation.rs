//! Whose turn it is to describe the session: offer and answer in one dialog (RFC 3264, RFC 3261 §13.2.1 and §14,
//! RFC 3262 §5, RFC 3311 §5; all of it together in RFC 6337).
//!
//! At most one offer is open in a dialog. Descriptions are opaque: only who gave which counts.

use bytes::Bytes;

/// The message that carried an offer; it decides where the answer goes and how an offer can be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// An INVITE: answered in a reliable response to it.
    Invite,
    /// A reliable response to an INVITE without an offer: answered in its PRACK or ACK.
    Response,
    /// A PRACK: answered in its 2xx.
    Prack,
    /// An UPDATE: answered in its 2xx.
    Update,
}

/// What both sides have agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Our description.
    pub local: Bytes,
    /// Theirs.
    pub remote: Bytes,
}

/// The open offer.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Turn {
    /// None.
    Nobodys,
    /// Ours; they owe the answer.
    Theirs(Carrier, Bytes),
    /// Theirs; we owe the answer.
    Ours(Carrier, Bytes),
}

/// Offer and answer in one dialog.
#[derive(Debug, Clone)]
pub struct Negotiation {
    turn: Turn,
    agreed: Option<Agreed>,
}

/// An offer or answer out of turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OutOfTurn {
    /// Ours is open: theirs crossed it (491).
    #[error("an offer of ours is open")]
    Crossed,
    /// Theirs is open: they may not offer again before our answer (500 with Retry-After).
    #[error("an offer of theirs is open")]
    Unanswered,
    /// Nobody offered what is answered.
    #[error("there is no offer to answer")]
    NoOffer,
}

impl OutOfTurn {
    /// The response that a request with such an offer deserves (RFC 3261 §14.2, RFC 3311 §5.2).
    pub fn status(self) -> u16 {
        match self {
            OutOfTurn::Crossed => 491,
            OutOfTurn::Unanswered | OutOfTurn::NoOffer => 500,
        }
    }
}

impl Default for Negotiation {
    fn default() -> Self {
        Self { turn: Turn::Nobodys, agreed: None }
    }
}

impl Negotiation {
    /// What is in force.
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// How an open offer of theirs came.
    pub fn owed(&self) -> Option<Carrier> {
        if let Turn::Ours(carrier, _) = &self.turn { Some(*carrier) } else { None }
    }

    /// How an open offer of ours went.
    pub fn awaited(&self) -> Option<Carrier> {
        if let Turn::Theirs(carrier, _) = &self.turn { Some(*carrier) } else { None }
    }

    /// Whether no offer is open.
    pub fn is_settled(&self) -> bool {
        self.turn == Turn::Nobodys
    }

    /// Whether either side may offer.
    pub fn check_offer(&self) -> Result<(), OutOfTurn> {
        match self.turn {
            Turn::Nobodys => Ok(()),
            Turn::Theirs(..) => Err(OutOfTurn::Crossed),
            Turn::Ours(..) => Err(OutOfTurn::Unanswered),
        }
    }

    /// We offer.
    pub fn offer(&mut self, carrier: Carrier, sdp: Bytes) -> Result<(), OutOfTurn> {
        self.check_offer()?;
        self.turn = Turn::Theirs(carrier, sdp);
        Ok(())
    }

    /// They offer.
    pub fn offered(&mut self, carrier: Carrier, sdp: Bytes) -> Result<(), OutOfTurn> {
        self.check_offer()?;
        self.turn = Turn::Ours(carrier, sdp);
        Ok(())
    }

    /// We answer.
    pub fn answer(&mut self, sdp: Bytes) -> Result<(), OutOfTurn> {
        match std::mem::replace(&mut self.turn, Turn::Nobodys) {
            Turn::Ours(_, remote) => {
                self.agreed = Some(Agreed { local: sdp, remote });
                Ok(())
            }
            other => {
                self.turn = other;
                Err(OutOfTurn::NoOffer)
            }
        }
    }

    /// They answer.
    pub fn answered(&mut self, sdp: Bytes) -> Result<(), OutOfTurn> {
        match std::mem::replace(&mut self.turn, Turn::Nobodys) {
            Turn::Theirs(_, local) => {
                self.agreed = Some(Agreed { local, remote: sdp });
                Ok(())
            }
            other => {
                self.turn = other;
                Err(OutOfTurn::NoOffer)
            }
        }
    }

    /// The open offer, whoever made it, was refused or taken back: what was agreed before stands (RFC 3261 §14.1).
    pub fn abandon(&mut self) {
        self.turn = Turn::Nobodys;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Bytes = Bytes::from_static(b"one");
    const TWO: Bytes = Bytes::from_static(b"two");
    const THREE: Bytes = Bytes::from_static(b"three");

    #[test]
    fn one_offer_is_open_at_a_time_and_tells_glare_from_haste() {
        let mut ours = Negotiation::default();
        ours.offer(Carrier::Invite, ONE).unwrap();
        assert_eq!(ours.offered(Carrier::Update, TWO), Err(OutOfTurn::Crossed));
        let mut theirs = Negotiation::default();
        theirs.offered(Carrier::Invite, ONE).unwrap();
        assert_eq!(theirs.offered(Carrier::Update, TWO), Err(OutOfTurn::Unanswered));
        assert_eq!(theirs.answered(TWO), Err(OutOfTurn::NoOffer));
        theirs.answer(TWO).unwrap();
        assert_eq!(theirs.agreed(), Some(&Agreed { local: TWO, remote: ONE }));
    }

    #[test]
    fn a_refused_offer_leaves_what_was_agreed() {
        let mut negotiation = Negotiation::default();
        negotiation.offer(Carrier::Invite, ONE).unwrap();
        negotiation.answered(TWO).unwrap();
        negotiation.offered(Carrier::Update, THREE).unwrap();
        negotiation.abandon();
        assert!(negotiation.is_settled());
        assert_eq!(negotiation.agreed(), Some(&Agreed { local: ONE, remote: TWO }));
    }
}
