//! Transfer (RFC 3515, RFC 5589, RFC 3891): asking for it, being asked, and being told how far it is.

use bytes::Bytes;
use sip_wire::{Message, Method, Name, Uri};

use super::call::Call;
use super::core::Core;
use super::event::{CallNumber, Event, Misuse};
use super::open::{Referral, Transfer};
use crate::dialog::Dialog;
use crate::transaction::{self, Incoming};

/// Where a REFER wants us to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Referred {
    pub(super) target: Bytes,
    pub(super) replaces: Option<Bytes>,
    pub(super) referred_by: Option<Bytes>,
}

impl Call {
    /// Asks the other end to call `target`; with `replaces`, in the place of that call of ours and its dialog.
    pub(super) fn refer(
        &mut self,
        target: &[u8],
        replaces: Option<(CallNumber, &Dialog)>,
        core: &mut Core,
    ) -> Result<(), Misuse> {
        let fork = self.legs.first().filter(|leg| leg.dialog.confirmed).ok_or(Misuse::NotNow)?.fork;
        let refer_to = match replaces {
            None => [b"<", target, b">"].concat(),
            Some((_, dialog)) => {
                // RFC 3891 §3: the tags as the target knows them, its own first.
                let value =
                    [&*dialog.call_id, b";to-tag=", &*dialog.remote_tag, b";from-tag=", &*dialog.local_tag]
                        .concat();
                [b"<", target, b"?Replaces=", Uri::escape(&value).as_bytes(), b">"].concat()
            }
        };
        let referred_by = format!("<{}>", core.account.aor);
        self.referral = Some(Referral { consultation: replaces.map(|(other, _)| other) });
        self.request_in(fork, Method::REFER, core, |request| {
            request.header(Name::ReferTo, &refer_to).header(Name::ReferredBy, referred_by.as_bytes())
        });
        Ok(())
    }

    pub(super) fn on_refer(&mut self, incoming: Incoming, core: &mut Core) {
        let request = &incoming.request;
        let is_readable = request.count(Name::ReferTo) == 1 && referred(request).is_some();
        if !is_readable {
            core.respond_plainly(&incoming, 400);
        } else if self.transfer.is_some() {
            core.respond_plainly(&incoming, 491);
        } else {
            core.tell(Event::TransferRequested { call: self.number, request: Box::new(request.clone()) });
            self.transfer = Some(Transfer::Asked(Box::new(incoming)));
        }
    }

    /// 202, and the first report; the caller of this places the call.
    pub(super) fn accept_refer(&mut self, core: &mut Core) -> Result<Referred, Misuse> {
        let Some(Transfer::Asked(refer)) =
            self.transfer.take_if(|transfer| matches!(transfer, Transfer::Asked(..)))
        else {
            return Err(Misuse::NotNow);
        };
        let referred = referred(&refer.request).ok_or(Misuse::NotNow)?;
        let flow = self.legs.first().map(|leg| leg.dialog.flow).unwrap_or(core.account.proxy);
        let response = core.abilities(transaction::response_to(&refer.request, 202, None, None), &flow);
        core.respond(refer.server, 202, response.finish());
        self.transfer = Some(Transfer::Reporting);
        self.notify(100, core);
        Ok(referred)
    }

    pub(super) fn refuse_refer(&mut self, status: u16, core: &mut Core) -> Result<(), Misuse> {
        let Some(Transfer::Asked(refer)) =
            self.transfer.take_if(|transfer| matches!(transfer, Transfer::Asked(..)))
        else {
            return Err(Misuse::NotNow);
        };
        core.respond_plainly(&*refer, status);
        Ok(())
    }

    /// Tells the referrer how far the call is that it asked for (RFC 3515 §2.4.5).
    pub(super) fn notify(&mut self, status: u16, core: &mut Core) {
        if !matches!(self.transfer, Some(Transfer::Reporting)) {
            return;
        }
        let Some(fork) = self.legs.first().map(|leg| leg.fork) else { return };
        let state: &[u8] = if status < 200 { b"active;expires=60" } else { b"terminated;reason=noresource" };
        if status >= 200 {
            self.transfer = None;
        }
        let body = format!("SIP/2.0 {status} {}\r\n", transaction::reason_of(status));
        self.request_in(fork, Method::NOTIFY, core, |request| {
            request
                .header(Name::Event, b"refer")
                .header(Name::SubscriptionState, state)
                .body(b"message/sipfrag;version=2.0", body.into())
        });
    }

    /// Whether a Replaces value (RFC 3891) names a dialog of this call.
    pub(super) fn is_named_by(&self, replaces: &[u8]) -> bool {
        let call_id = replaces.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let tag = |name: &[u8]| sip_wire::parameter(replaces, name).unwrap_or_default();
        self.legs.iter().any(|leg| {
            *leg.dialog.call_id == *call_id
                && *leg.dialog.local_tag == *tag(b"to-tag")
                && *leg.dialog.remote_tag == *tag(b"from-tag")
        })
    }

    pub(super) fn on_notify(&mut self, incoming: &Incoming, core: &mut Core) {
        core.respond_plainly(incoming, 200);
        let request = &incoming.request;
        let is_refer = request.value(Name::Event).is_some_and(|event| event.starts_with(b"refer"));
        let status = request
            .body()
            .strip_prefix(b"SIP/2.0 ")
            .and_then(|rest| sip_wire::number(rest.get(..3)?))
            .and_then(|status| u16::try_from(status).ok());
        if let (true, Some(status)) = (is_refer, status) {
            let is_last =
                request.value(Name::SubscriptionState).is_some_and(|state| state.starts_with(b"terminated"));
            core.tell(Event::TransferProgress { call: self.number, status, is_last });
            match (status, is_last) {
                (200..=299, _) => {
                    let served =
                        self.referral.take().map(|referral| [Some(self.number), referral.consultation]);
                    core.served.extend(served.into_iter().flatten().flatten());
                }
                (300.., _) | (_, true) => self.referral = None,
                _ => {}
            }
        }
    }
}

/// What a REFER asks for.
fn referred(refer: &Message) -> Option<Referred> {
    let address = sip_wire::Address::parse(refer.value(Name::ReferTo)?).ok()?;
    let uri = address.uri;
    let target = uri.as_bytes().split(|byte| *byte == b'?').next().unwrap_or_default();
    Some(Referred {
        target: Bytes::copy_from_slice(target),
        replaces: uri.header(b"Replaces").map(Into::into),
        referred_by: refer.value(Name::ReferredBy).map(Bytes::copy_from_slice),
    })
}
