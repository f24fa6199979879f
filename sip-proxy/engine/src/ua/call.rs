//! A call of a user agent: its dialogs, and how it ends.

use bytes::Bytes;
use sip_wire::{Message, Method, Name};

use super::core::{Alarm, Core, next_hop};
use super::event::{CallNumber, Ending, Event, Fork};
use super::open::{Callee, Caller, Referral, Sent, Transfer};
use crate::dialog::Dialog;
use crate::negotiation::Negotiation;
use crate::session_timer::Agreement;
use crate::timer::TimerId;
use crate::transaction::{self, Answer, Asked, ClientId, Incoming};

/// Who began it, and what only that side has.
#[derive(Debug)]
pub(super) enum Origin {
    Caller(Box<Caller>),
    Callee(Callee),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// The INVITE has no final response.
    Early,
    /// It has a 2xx.
    Up,
    /// Nothing of it is left.
    Over,
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) number: CallNumber,
    pub(super) origin: Origin,
    pub(super) phase: Phase,
    pub(super) legs: Vec<Leg>,
    /// Requests of ours inside its dialogs that wait for their final response.
    pub(super) sent: Vec<Sent>,
    pub(super) next_sent: u32,
    /// The user hung up before the ACK to our 2xx, which BYE has to wait for (RFC 3261 §15).
    pub(super) hangs_up_on_ack: bool,
    /// A call that ends when this one is accepted.
    pub(super) replaces: Option<CallNumber>,
    /// The call that a REFER came in, which this one was placed for.
    pub(super) referrer: Option<CallNumber>,
    /// A REFER of ours that they have not told the end of.
    pub(super) referral: Option<Referral>,
    /// A REFER of theirs that waits for its answer, or is being reported on.
    pub(super) transfer: Option<Transfer>,
    /// The session timer.
    pub(super) session: Option<Agreement>,
    pub(super) session_alarm: Option<TimerId>,
}

/// What their open offer is answered by.
#[derive(Debug)]
pub(super) enum Owed {
    /// The 2xx to a re-INVITE, UPDATE or PRACK.
    Response(Box<Incoming>),
    /// The same, but it is we who are asked to offer.
    Offer(Box<Incoming>),
    /// The PRACK of a reliable response.
    Prack(u32),
    /// The ACK of a 2xx.
    Ack,
}

/// One dialog.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) fork: Fork,
    pub(super) dialog: Dialog,
    pub(super) negotiation: Negotiation,
    pub(super) owed: Option<Owed>,
    /// Their Allow names UPDATE.
    pub(super) has_update: bool,
    /// RSeq of the reliable response taken last.
    pub(super) rseq: Option<u32>,
    /// A reliable provisional response of ours that waits for its PRACK.
    pub(super) provisional: Option<Repeat>,
    /// RSeq of a provisional response that the final one overtook, and CSeq of its INVITE: its PRACK may still come (RFC
    /// 3262 §3).
    pub(super) overtaken: Option<(u32, u32)>,
    /// A 2xx of ours that waits for its ACK.
    pub(super) success: Option<Repeat>,
    /// CSeq of our latest INVITE.
    pub(super) invite_cseq: u32,
    /// The INVITE of ours whose 2xx has not had its ACK.
    pub(super) open_invite: Option<ClientId>,
}

/// A response that is repeated until it is acknowledged (RFC 3261 §13.3.1.4, RFC 3262 §3).
#[derive(Debug)]
pub(super) struct Repeat {
    answer: Answer,
    /// CSeq number of the INVITE, which the ACK bears.
    pub(super) cseq: u32,
    /// RSeq, of a provisional one.
    pub(super) rseq: u32,
    /// Of a provisional one: it holds a description.
    pub(super) describes: bool,
    interval: std::time::Duration,
    until: std::time::Duration,
    timer: TimerId,
}

impl Repeat {
    pub(super) fn start(answer: Answer, cseq: u32, alarm: Alarm, core: &mut Core) -> Self {
        let interval = core.account.timers.t1;
        let timer = core.schedule(interval, alarm);
        let until = core.now.monotonic.saturating_add(interval.saturating_mul(64));
        Self { answer, cseq, rseq: 0, describes: false, interval, until, timer }
    }

    /// Sends it once more; false when its time is over.
    fn again(&mut self, alarm: Alarm, core: &mut Core) -> bool {
        if core.now.monotonic >= self.until {
            return false;
        }
        self.interval = self.interval.saturating_mul(2);
        if self.answer.status >= 200 {
            self.interval = self.interval.min(core.account.timers.t2);
        }
        self.timer = core.schedule(self.interval, alarm);
        core.respond(self.answer.server, self.answer.status, self.answer.response.clone());
        true
    }

    pub(super) fn stop(self, core: &mut Core) {
        core.timers.cancel(self.timer);
    }
}

impl Leg {
    pub(super) fn new(fork: Fork, dialog: Dialog, negotiation: Negotiation) -> Self {
        Self {
            fork,
            dialog,
            negotiation,
            owed: None,
            has_update: false,
            rseq: None,
            provisional: None,
            overtaken: None,
            success: None,
            invite_cseq: 0,
            open_invite: None,
        }
    }

    pub(super) fn learn(&mut self, message: &Message) {
        if message.count(Name::Allow) > 0 {
            self.has_update = message.has_token(Name::Allow, "UPDATE");
        }
    }

    /// Its dialog is over: timers stop, and what still waits for our answer gets 487 (RFC 3261 §15.1.2).
    pub(super) fn leave(self, core: &mut Core) {
        for repeat in [self.provisional, self.success].into_iter().flatten() {
            repeat.stop(core);
        }
        if let Some(Owed::Response(asked) | Owed::Offer(asked)) = self.owed {
            core.respond_plainly(&*asked, 487);
        }
    }

    /// Acknowledges the 2xx to our latest INVITE.
    pub(super) fn acknowledge(&mut self, sdp: Option<&Bytes>, core: &mut Core) {
        let Some(listener) = core.account.listeners.get(usize::from(self.dialog.flow.listener.0)) else {
            return;
        };
        let mut ack = self.dialog.ack_for(self.invite_cseq, &mut core.ids, listener);
        if let Some(sdp) = sdp {
            ack = ack.body(b"application/sdp", sdp.clone());
        }
        let ack = ack.finish();
        let flow = next_hop(&self.dialog);
        match self.open_invite.take() {
            Some(client) => core.transactions.acknowledge(client, flow, ack, &mut core.out),
            None => core.send_stateless(flow, ack),
        }
    }
}

impl Call {
    pub(super) fn new(number: CallNumber, origin: Origin) -> Self {
        Self {
            number,
            origin,
            phase: Phase::Early,
            legs: Vec::new(),
            sent: Vec::new(),
            next_sent: 0,
            hangs_up_on_ack: false,
            replaces: None,
            referrer: None,
            referral: None,
            transfer: None,
            session: None,
            session_alarm: None,
        }
    }

    pub(super) fn leg(&mut self, fork: Fork) -> Option<&mut Leg> {
        self.legs.iter_mut().find(|leg| leg.fork == fork)
    }

    /// Which of its dialogs a request from the wire belongs to.
    pub(super) fn fork_of(&self, request: &Message) -> Option<Fork> {
        self.legs.iter().find(|leg| leg.dialog.is_of_request(request)).map(|leg| leg.fork)
    }

    /// Our address has changed: requests leave from the new one, over a new connection.
    pub(super) fn moved(&mut self, proxy: crate::flow::Flow) {
        for leg in &mut self.legs {
            leg.dialog.flow = crate::flow::Flow { remote: leg.dialog.flow.remote, ..proxy };
        }
    }

    /// The call is up with one dialog; others are gone.
    pub(super) fn establish(&mut self, fork: Fork, core: &mut Core) {
        let (kept, gone): (Vec<Leg>, Vec<Leg>) =
            std::mem::take(&mut self.legs).into_iter().partition(|leg| leg.fork == fork);
        self.legs = kept;
        gone.into_iter().for_each(|leg| leg.leave(core));
        let (kept, gone): (Vec<Sent>, Vec<Sent>) =
            std::mem::take(&mut self.sent).into_iter().partition(|sent| sent.fork == fork);
        self.sent = kept;
        gone.into_iter().for_each(|sent| sent.give_up(core));
        self.phase = Phase::Up;
        self.report(200, core);
    }

    /// Tells the call whose REFER brought this one.
    pub(super) fn report(&self, status: u16, core: &mut Core) {
        if let Some(referrer) = self.referrer {
            core.reports.push_back((referrer, status));
        }
    }

    /// Hangs up, by what the state of the call needs.
    pub(super) fn hang_up(&mut self, ending: Ending, core: &mut Core) {
        match (self.phase, &mut self.origin) {
            (Phase::Over, _) => {}
            (Phase::Early, Origin::Caller(caller)) => caller.cancel(core),
            (Phase::Early, Origin::Callee(_)) => self.decline(480, core),
            (Phase::Up, origin) => {
                let is_first = matches!(origin, Origin::Callee(callee) if !callee.acknowledged);
                let Some(leg) = self.legs.first_mut() else { return };
                if is_first && leg.success.is_some() && ending != Ending::NoAck {
                    self.hangs_up_on_ack = true;
                    return;
                }
                if matches!(leg.owed, Some(Owed::Ack)) {
                    leg.acknowledge(None, core);
                }
                let flow = next_hop(&leg.dialog);
                if let Some(bye) = core.dialog_request(&mut leg.dialog, Method::BYE) {
                    core.take_leave(flow, bye.finish());
                }
                self.end(ending, None, core);
            }
        }
    }

    /// The end: nothing of it waits any longer.
    pub(super) fn end(&mut self, ending: Ending, response: Option<Box<Message>>, core: &mut Core) {
        if self.phase == Phase::Over {
            return;
        }
        self.phase = Phase::Over;
        for leg in std::mem::take(&mut self.legs) {
            leg.leave(core);
        }
        if let Some(Transfer::Asked(refer)) = self.transfer.take() {
            core.respond_plainly(&*refer, 487);
        }
        if let Some(timer) = self.session_alarm.take() {
            core.timers.cancel(timer);
        }
        for sent in self.sent.drain(..) {
            sent.give_up(core);
        }
        if let Ending::Refused(status) = ending {
            self.report(status, core);
        } else {
            self.report(487, core);
        }
        core.tell(Event::Ended { call: self.number, ending, response });
    }

    /// A provisional response of ours is due again.
    pub(super) fn on_provisional_due(&mut self, core: &mut Core) {
        let alarm = Alarm::Provisional(self.number);
        let Some(leg) = self.legs.first_mut() else { return };
        let Some(repeat) = &mut leg.provisional else { return };
        if !repeat.again(alarm, core) {
            leg.provisional = None;
            // RFC 3262 §3: the INVITE is refused with a 5xx.
            self.decline(504, core);
        }
    }

    /// A 2xx of ours is due again.
    pub(super) fn on_success_due(&mut self, core: &mut Core) {
        let alarm = Alarm::Final(self.number);
        let Some(leg) = self.legs.first_mut() else { return };
        let Some(repeat) = &mut leg.success else { return };
        if !repeat.again(alarm, core) {
            leg.success = None;
            self.hang_up(Ending::NoAck, core);
        }
    }

    /// A 2xx of ours with its session timer, as it leaves.
    pub(super) fn succeed(&mut self, fork: Fork, asked: Asked<'_>, sdp: Option<Bytes>, core: &mut Core) {
        let Asked { server, request } = asked;
        let Some(leg) = self.legs.iter_mut().find(|leg| leg.fork == fork) else { return };
        let tag = String::from_utf8_lossy(&leg.dialog.local_tag).into_owned();
        let mut response = transaction::response_to(request, 200, None, Some(&tag));
        let method = request.method().unwrap_or(Method::INFO);
        let is_session = method == Method::INVITE || method == Method::UPDATE;
        if method == Method::INVITE {
            for route in request.values(Name::RecordRoute) {
                response = response.header(Name::RecordRoute, route);
            }
        }
        if is_session {
            response = core.abilities(response, &leg.dialog.flow);
            if let Some(agreed) = Agreement::answering(request, core.account.session_timer) {
                response = response.header(Name::SessionExpires, agreed.as_answer().as_bytes());
                if !agreed.we_refresh {
                    response = response.header(Name::Require, b"timer");
                }
                self.session = Some(agreed);
            }
        }
        response = core.product(response, Name::Server);
        if let Some(sdp) = sdp {
            response = response.body(b"application/sdp", sdp);
        }
        let response = Bytes::from(response.finish());
        core.respond(server, 200, response.clone());
        if method == Method::INVITE {
            let cseq = request.cseq().map(|cseq| cseq.number).unwrap_or_default();
            let answer = Answer { server, status: 200, response };
            let repeat = Repeat::start(answer, cseq, Alarm::Final(self.number), core);
            if let Some(old) = leg.success.replace(repeat) {
                old.stop(core);
            }
        }
        if is_session && self.phase != Phase::Over {
            self.arm_session_timer(core);
        }
    }

    /// Starts or restarts the session timer.
    pub(super) fn arm_session_timer(&mut self, core: &mut Core) {
        if let Some(old) = self.session_alarm.take() {
            core.timers.cancel(old);
        }
        self.session_alarm =
            self.session.map(|agreed| core.schedule(agreed.due_after(), Alarm::Session(self.number)));
    }

    pub(super) fn on_session_due(&mut self, core: &mut Core) {
        self.session_alarm = None;
        if self.phase != Phase::Up {
            self.arm_session_timer(core);
            return;
        }
        if self.session.is_some_and(|agreed| !agreed.we_refresh) {
            self.hang_up(Ending::SessionExpired, core);
            return;
        }
        // If something else is under way, it refreshes too.
        let Some(leg) = self.legs.first() else { return };
        let (fork, has_update) = (leg.fork, leg.has_update);
        let local = leg.negotiation.agreed().map(|agreed| agreed.local.clone());
        let _ = if has_update { self.update(fork, None, core) } else { self.reinvite(local, core) };
        self.arm_session_timer(core);
    }
}
