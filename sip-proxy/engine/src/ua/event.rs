//! What a user agent tells its user, and what it is told amiss.

use bytes::Bytes;
use sip_wire::Message;

use crate::negotiation::Carrier;

/// A call of one user agent; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallNumber(pub u32);

/// One dialog of a call: a forked INVITE has several early ones (RFC 3261 §12.1.2), an answered call one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fork(pub u16);

/// What happened.
#[derive(Debug)]
pub enum Event {
    /// The registrar has accepted a registration, for so many seconds; 0: it is undone.
    Registered {
        /// Granted.
        seconds: u32,
    },
    /// The registrar refused, or did not answer (408).
    NotRegistered {
        /// Its status.
        status: u16,
    },
    /// Somebody calls. To be answered with [`ring`](super::UserAgent::ring), [`accept`](super::UserAgent::accept),
    /// [`refuse`](super::UserAgent::refuse) or [`redirect`](super::UserAgent::redirect).
    Incoming {
        /// The new call.
        call: CallNumber,
        /// The call that it replaces once it is accepted (RFC 3891).
        replaces: Option<CallNumber>,
        /// The offer; without one we are to make it.
        offer: Option<Bytes>,
        /// The INVITE.
        invite: Box<Message>,
    },
    /// A provisional response to our INVITE.
    Progress {
        /// Which call.
        call: CallNumber,
        /// Which of its early dialogs; `None` if the response made none.
        fork: Option<Fork>,
        /// 101 to 199.
        status: u16,
        /// What an unreliable response says the answer will be. Nothing is agreed by it.
        preview: Option<Bytes>,
    },
    /// The call is up: 2xx received, or ours acknowledged.
    Established {
        /// Which call.
        call: CallNumber,
        /// Its dialog.
        fork: Fork,
    },
    /// They offer. [`answer`](super::UserAgent::answer) or [`refuse_offer`](super::UserAgent::refuse_offer).
    Offered {
        /// Which call.
        call: CallNumber,
        /// Which dialog.
        fork: Fork,
        /// How the offer came.
        carrier: Carrier,
        /// The offer.
        sdp: Bytes,
    },
    /// They ask for an offer of ours by an INVITE without one. [`offer`](super::UserAgent::offer) or
    /// [`refuse_offer`](super::UserAgent::refuse_offer).
    OfferWanted {
        /// Which call.
        call: CallNumber,
        /// Which dialog.
        fork: Fork,
    },
    /// They answered our offer.
    Answered {
        /// Which call.
        call: CallNumber,
        /// Which dialog.
        fork: Fork,
        /// The answer.
        sdp: Bytes,
    },
    /// A re-INVITE or UPDATE of ours failed; what was agreed stands.
    Refused {
        /// Which call.
        call: CallNumber,
        /// Which dialog.
        fork: Fork,
        /// Their status, 408 for none.
        status: u16,
    },
    /// They took their re-INVITE back.
    Withdrawn {
        /// Which call.
        call: CallNumber,
        /// Which dialog.
        fork: Fork,
    },
    /// INFO (RFC 6086), answered with 200 already.
    Info {
        /// Which call.
        call: CallNumber,
        /// The request.
        request: Box<Message>,
    },
    /// A request without consequences for the session (INFO, REFER) has its final response.
    Done {
        /// Which call.
        call: CallNumber,
        /// Its method.
        method: &'static str,
        /// Its status, 408 for none.
        status: u16,
    },
    /// They ask us to call somebody else (RFC 3515).
    /// [`accept_transfer`](super::UserAgent::accept_transfer) or
    /// [`refuse_transfer`](super::UserAgent::refuse_transfer).
    TransferRequested {
        /// In which call.
        call: CallNumber,
        /// The REFER.
        request: Box<Message>,
    },
    /// How far the transfer is that we asked for: the status of the referred call (RFC 3515 §2.4.5).
    TransferProgress {
        /// In which call we asked.
        call: CallNumber,
        /// 100 to 699.
        status: u16,
        /// Whether no more will be told.
        is_last: bool,
    },
    /// The call is over.
    Ended {
        /// Which call; its number finds nothing any more.
        call: CallNumber,
        /// Why.
        ending: Ending,
        /// The response that refused it, if one did.
        response: Option<Box<Message>>,
    },
}

/// Why a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// They hung up.
    Bye,
    /// We hung up.
    HungUp,
    /// The caller gave up before an answer.
    Cancelled,
    /// They refused our call; 408 if nobody answered, 503 if nobody could be reached.
    Refused(u16),
    /// We refused theirs.
    Declined(u16),
    /// Our 2xx was never acknowledged.
    NoAck,
    /// The session timer ran out (RFC 4028).
    SessionExpired,
    /// A request inside the dialog met 408 or 481: the other end has lost it (RFC 5057).
    Lost(u16),
    /// They broke the rules of offer and answer.
    NoAnswer,
}

/// Why a wish cannot be carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misuse {
    /// It is over, or never was.
    #[error("there is no such call")]
    NoCall,
    /// An offer is open, or none is there to answer.
    #[error("it is not our turn to describe the session")]
    OutOfTurn,
    /// The call is not in a state that allows it.
    #[error("the call is not in a state that allows it")]
    NotNow,
    /// The other end lacks the extension.
    #[error("the other end does not know this extension")]
    NotSupported,
}
