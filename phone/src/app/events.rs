//! What the user agent tells, and what becomes of it.

use bytes::Bytes;
use crush::agent;
use serde_json::json;
use sip_engine::ua::{CallNumber, Ending, Event, Fork, Invite};

use super::{App, Duration};

/// INFO that failed is sent again so often (RFC 8840 §4.4: each holds all that came before).
const ATTEMPTS: u32 = 3;

impl App {
    pub(super) fn event(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Registered { seconds } => {
                let name = if seconds > 0 { "registered" } else { "unregistered" };
                self.tell(None, name, json!({ "seconds": seconds }));
                if let Some(uri) = self.to_dial.take_if(|_| seconds > 0) {
                    self.dial(&uri);
                }
            }
            Event::NotRegistered { status } => {
                self.tell(None, "not-registered", json!({ "status": status }));
                // A script waits for its call; a person sees it.
                if self.to_dial.take().is_some() {
                    self.ending.has_failed = true;
                    self.quit();
                }
            }
            Event::Incoming { call, replaces, offer, invite } => {
                let from =
                    invite.from().ok().map(|from| String::from_utf8_lossy(from.uri.as_bytes()).into_owned());
                self.tell(Some(call), "incoming", json!({ "from": from }));
                self.incoming(call, offer, replaces.is_some());
            }
            Event::Progress { call, status, .. } => {
                let name = if status == 180 { "ringing" } else { "progress" };
                self.tell(Some(call), name, json!({ "status": status }));
            }
            Event::Established { call, .. } => {
                self.tell(Some(call), "established", json!({}));
                if let Some(seconds) = self.options.calls.seconds {
                    self.ending.hang_up_at = Some(now + Duration::from_secs_f64(seconds.clamp(0.0, 1e6)));
                }
                if let Some(call) = self.calls.get_mut(&call) {
                    call.up(now);
                }
            }
            Event::Answered { call, sdp, .. } => self.answered(call, &sdp),
            Event::Offered { call, fork, sdp, .. } => self.offered(call, fork, &sdp),
            Event::OfferWanted { call, fork } => {
                if let Some(media) = self.calls.get_mut(&call) {
                    let offer = Bytes::from(media.offer());
                    let _ = self.agent.offer(call, fork, offer, self.clock.now());
                }
            }
            Event::Refused { call, status, .. } => {
                self.tell(Some(call), "change-refused", json!({ "status": status }))
            }
            Event::Withdrawn { .. } => {}
            Event::Info { call, request } => {
                let is_fragment = request
                    .named("Info-Package")
                    .is_some_and(|name| name.eq_ignore_ascii_case(super::PACKAGE.as_bytes()));
                let body = request.body_bytes();
                if let (true, Some(call), Ok(text)) =
                    (is_fragment, self.calls.get_mut(&call), std::str::from_utf8(&body))
                {
                    call.agent.handle(agent::Input::Trickle(text), now);
                }
            }
            Event::Done { call, method: "INFO", status } => self.trickled(call, status),
            Event::Done { call, method, status } => {
                self.tell(Some(call), "done", json!({ "method": method, "status": status }))
            }
            Event::TransferRequested { call, .. } => self.transfer(call),
            Event::TransferProgress { call, status, .. } => {
                self.tell(Some(call), "transfer", json!({ "status": status }))
            }
            Event::Ended { call, ending, .. } => self.ended(call, ending),
        }
    }

    fn incoming(&mut self, number: CallNumber, offer: Option<Bytes>, replaces: bool) {
        if self.ending.ends_at.is_some() {
            let _ = self.agent.refuse(number, 480, self.clock.now());
            return;
        }
        let Some(mut call) = self.make_call(false) else {
            let _ = self.agent.refuse(number, 500, self.clock.now());
            return;
        };
        let (now, clock) = (self.now(), self.clock.now());
        call.due.answer = match &offer {
            Some(offer) => match call.answer(&String::from_utf8_lossy(offer), now) {
                Ok(answer) => Some(answer),
                Err(error) => {
                    let details = json!({ "error": error.to_string() });
                    self.report.tell(now, Some(number), "no-media", details);
                    for pair in call.sockets() {
                        self.net.sockets.close(pair.rtp.0);
                        self.net.sockets.close(pair.rtcp.0);
                    }
                    let _ = self.agent.refuse(number, 488, clock);
                    return;
                }
            },
            None => Some(call.offer()),
        };
        self.keep(number, call);
        let _ = self.agent.ring(number, 180, None, clock);
        // Who has taken the call that this one replaces has taken this one (RFC 3891 §3).
        if self.options.calls.answer || replaces {
            self.take(number);
        }
    }

    /// Answers a call that rings.
    pub(super) fn take(&mut self, number: CallNumber) -> Option<()> {
        let call = self.calls.get_mut(&number)?;
        let sdp = call.due.answer.take()?;
        self.agent.accept(number, Some(sdp.into()), self.clock.now()).ok()?;
        call.begin();
        Some(())
    }

    fn answered(&mut self, number: CallNumber, sdp: &[u8]) {
        let now = self.now();
        let Some(call) = self.calls.get_mut(&number) else { return };
        let text = String::from_utf8_lossy(sdp);
        if let Err(error) = call.answered(&text, now) {
            self.report.tell(now, Some(number), "no-media", json!({ "error": error.to_string() }));
            let _ = self.agent.hang_up(number, self.clock.now());
        }
    }

    fn offered(&mut self, number: CallNumber, fork: Fork, sdp: &[u8]) {
        let (now, clock) = (self.now(), self.clock.now());
        let Some(call) = self.calls.get_mut(&number) else { return };
        match call.answer(&String::from_utf8_lossy(sdp), now) {
            Ok(answer) => drop(self.agent.answer(number, fork, answer.into(), clock)),
            Err(error) => {
                self.report.tell(now, Some(number), "no-media", json!({ "error": error.to_string() }));
                let _ = self.agent.refuse_offer(number, fork, 488, clock);
            }
        }
    }

    /// An INFO has its response.
    fn trickled(&mut self, number: CallNumber, status: u16) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let sent = call.trickle.under_way.take();
        if status < 300 {
            call.trickle.failures = 0;
            return;
        }
        call.trickle.failures += 1;
        if call.trickle.failures < ATTEMPTS && call.trickle.next.is_none() {
            call.trickle.next = sent;
        }
    }

    fn transfer(&mut self, number: CallNumber) {
        let clock = self.clock.now();
        let Some(mut call) = self.make_call(true) else {
            let _ = self.agent.refuse_transfer(number, 500, clock);
            return;
        };
        let invite = Invite { offer: Some(call.offer().into()), ..Invite::default() };
        if let Ok(placed) = self.agent.accept_transfer(number, invite, clock) {
            self.keep(placed, call);
        }
    }

    fn ended(&mut self, number: CallNumber, ending: Ending) {
        let now = self.now();
        let (how, status) = match ending {
            Ending::Bye => ("bye", None),
            Ending::HungUp => ("hung up", None),
            Ending::Cancelled => ("cancelled", None),
            Ending::Refused(status) => ("refused", Some(status)),
            Ending::Declined(status) => ("declined", Some(status)),
            Ending::NoAck => ("no ACK", None),
            Ending::SessionExpired => ("session expired", None),
            Ending::Lost(status) => ("lost", Some(status)),
            Ending::NoAnswer => ("no answer to an offer", None),
        };
        let mut details = json!({ "how": how, "status": status });
        if let Some(call) = self.calls.remove(&number) {
            self.disown(number);
            if call.not_authentic > 0 {
                details["not_authentic"] = json!(call.not_authentic);
            }
            if self.options.video {
                details["pictures"] =
                    json!({ "shown": call.pictures.screen.shown, "missing": call.pictures.screen.missing });
            }
        }
        self.report.tell(now, Some(number), "ended", details);
        self.current = self.calls.keys().next_back().copied();
        // A phone that was started for one call ends with it.
        if self.options.calls.call.is_some() && self.calls.is_empty() {
            self.ending.has_failed |= !matches!(ending, Ending::Bye | Ending::HungUp);
            self.quit();
        }
    }
}
