//! Header names: those the product reads or writes; any other is [`Name::Other`] and keeps its text in the message.

macro_rules! names {
    ($($variant:ident $text:literal)*) => {
        /// A header's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Name {
            /// One without an entry here.
            Other,
            $(#[doc = concat!("`", $text, "`.")] $variant,)*
        }

        const TEXTS: &[&str] = &["", $($text),*];
        const NAMES: &[Name] = &[Name::Other, $(Name::$variant),*];
    };
}

names! {
    Accept "Accept" AcceptContact "Accept-Contact" AcceptEncoding "Accept-Encoding" AcceptLanguage "Accept-Language"
    AlertInfo "Alert-Info" Allow "Allow" AllowEvents "Allow-Events" AuthenticationInfo "Authentication-Info"
    Authorization "Authorization" CallId "Call-ID" CallInfo "Call-Info" Contact "Contact"
    ContentDisposition "Content-Disposition" ContentEncoding "Content-Encoding" ContentLanguage "Content-Language"
    ContentLength "Content-Length" ContentType "Content-Type" CSeq "CSeq" Date "Date" Diversion "Diversion"
    ErrorInfo "Error-Info" Event "Event" Expires "Expires" From "From" HistoryInfo "History-Info" Identity "Identity"
    InReplyTo "In-Reply-To" Join "Join" MaxBreadth "Max-Breadth" MaxForwards "Max-Forwards" MimeVersion "MIME-Version"
    MinExpires "Min-Expires" MinSe "Min-SE" Organization "Organization" PAccessNetworkInfo "P-Access-Network-Info"
    PAssertedIdentity "P-Asserted-Identity" PPreferredIdentity "P-Preferred-Identity" Path "Path" Priority "Priority"
    Privacy "Privacy" ProxyAuthenticate "Proxy-Authenticate" ProxyAuthorization "Proxy-Authorization"
    ProxyRequire "Proxy-Require" RAck "RAck" Reason "Reason" RecordRoute "Record-Route" ReferSub "Refer-Sub"
    ReferTo "Refer-To" ReferredBy "Referred-By" RejectContact "Reject-Contact" RemotePartyId "Remote-Party-ID"
    Replaces "Replaces" ReplyTo "Reply-To" RequestDisposition "Request-Disposition" Require "Require"
    RetryAfter "Retry-After" Route "Route" RSeq "RSeq" Server "Server" ServiceRoute "Service-Route"
    SessionExpires "Session-Expires" SipEtag "SIP-ETag" SipIfMatch "SIP-If-Match" Subject "Subject"
    SubscriptionState "Subscription-State" Supported "Supported" Timestamp "Timestamp" To "To"
    Unsupported "Unsupported" UserAgent "User-Agent" Via "Via" Warning "Warning" WwwAuthenticate "WWW-Authenticate"
}

const SIZE: usize = 512;

/// Open addressing, filled by the compiler: an index into `NAMES`, 0 where nothing is.
#[expect(clippy::indexing_slicing, reason = "run by the compiler")]
static TABLE: [u8; SIZE] = {
    let mut table = [0u8; SIZE];
    let mut index = 1;
    while index < TEXTS.len() {
        let text = TEXTS[index].as_bytes();
        let mut place = hash(text);
        while table[place] != 0 {
            place = (place + 1) % SIZE;
        }
        table[place] = index as u8;
        index += 1;
    }
    table
};

/// The same in any case.
const fn hash(text: &[u8]) -> usize {
    let (_, from_middle) = text.split_at(text.len() / 2);
    let (Some(first), Some(middle), Some(last)) = (text.first(), from_middle.first(), text.last()) else {
        return 0;
    };
    let (first, middle, last) = ((*first | 0x20) as u32, (*middle | 0x20) as u32, (*last | 0x20) as u32);
    let sum = (text.len() as u32)
        .wrapping_mul(37)
        .wrapping_add(first.wrapping_mul(5))
        .wrapping_add(last.wrapping_mul(17))
        .wrapping_add(middle.wrapping_mul(3));
    sum as usize % SIZE
}

impl Name {
    /// From its text, in any case, compact or not (RFC 3261 §7.3.3).
    pub fn of(text: &[u8]) -> Self {
        if let [letter] = text {
            return Self::of_compact(letter.to_ascii_lowercase());
        }
        if text.is_empty() {
            return Name::Other;
        }
        let mut place = hash(text);
        loop {
            let index = TABLE.get(place).copied().map_or(0, usize::from);
            let (Some(known), Some(name)) = (TEXTS.get(index), NAMES.get(index)) else { return Name::Other };
            let known = known.as_bytes();
            // The text of what has no entry is empty. Nearly everybody writes names as the RFCs do, and equal bytes are
            // found faster than equal letters.
            if index == 0 || known == text || known.eq_ignore_ascii_case(text) {
                return *name;
            }
            place = place.wrapping_add(1) % SIZE;
        }
    }

    fn of_compact(letter: u8) -> Self {
        match letter {
            b'a' => Name::AcceptContact,
            b'b' => Name::ReferredBy,
            b'c' => Name::ContentType,
            b'd' => Name::RequestDisposition,
            b'e' => Name::ContentEncoding,
            b'f' => Name::From,
            b'i' => Name::CallId,
            b'j' => Name::RejectContact,
            b'k' => Name::Supported,
            b'l' => Name::ContentLength,
            b'm' => Name::Contact,
            b'o' => Name::Event,
            b'r' => Name::ReferTo,
            b's' => Name::Subject,
            b't' => Name::To,
            b'u' => Name::AllowEvents,
            b'v' => Name::Via,
            b'x' => Name::SessionExpires,
            b'y' => Name::Identity,
            _ => Name::Other,
        }
    }

    /// How it is written; empty for [`Name::Other`].
    pub fn as_str(self) -> &'static str {
        TEXTS.get(self as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_in_any_case_and_nothing_else_is() {
        for (text, name) in TEXTS.iter().zip(NAMES).skip(1) {
            assert_eq!(Name::of(text.as_bytes()), *name);
            assert_eq!(Name::of(text.to_uppercase().as_bytes()), *name);
            assert_eq!(name.as_str(), *text);
        }
        for text in ["", "X-Other", "Vias", "Fro", "z"] {
            assert_eq!(Name::of(text.as_bytes()), Name::Other, "{text}");
        }
    }
}
