//! One row for each message.

use crate::node::Outcome::{self, Answered, Dropped, Relayed};

/// A message, what becomes of it, and why.
pub(crate) struct Case {
    /// Below `sip-proxy/wire/tests/torture`, without `.dat`.
    pub(crate) file: &'static str,
    /// Section of its RFC.
    pub(crate) section: &'static str,
    /// What we do.
    pub(crate) outcome: Outcome,
    /// Why.
    pub(crate) why: &'static str,
}

const fn case(file: &'static str, section: &'static str, outcome: Outcome, why: &'static str) -> Case {
    Case { file, section, outcome, why }
}

/// All of them, in the order of the RFCs.
pub(crate) const CASES: &[Case] = &[
    case(
        "rfc4475/wsinv",
        "3.1.1.1",
        Answered(481),
        "valid, all of it read; its To has a tag, and we have no such dialog",
    ),
    case("rfc4475/intmeth", "3.1.1.2", Relayed, "valid: any token is a method; NUL stands in a quoted pair"),
    case("rfc4475/esc01", "3.1.1.3", Relayed, "valid: escapes are left as they are"),
    case("rfc4475/escnull", "3.1.1.4", Relayed, "valid: %00 stays escaped in what we send"),
    case("rfc4475/esc02", "3.1.1.5", Relayed, "valid: % escapes nothing in a method or a header name"),
    case("rfc4475/lwsdisp", "3.1.1.6", Relayed, "to be taken as valid: no space before <"),
    case("rfc4475/longreq", "3.1.1.7", Relayed, "valid: long values, 34 Vias"),
    case("rfc4475/dblreq", "3.1.1.8", Relayed, "valid: octets behind Content-Length are no part of it"),
    case("rfc4475/semiuri", "3.1.1.9", Relayed, "valid: a semicolon in a user part"),
    case("rfc4475/transports", "3.1.1.10", Relayed, "valid: any token is a transport"),
    case("rfc4475/mpart01", "3.1.1.11", Relayed, "valid: a binary part, not looked into"),
    case("rfc4475/unreason", "3.1.1.12", Dropped, "valid, to no request of ours"),
    case("rfc4475/noreason", "3.1.1.13", Dropped, "valid, to no request of ours"),
    case("rfc4475/badinv01", "3.1.2.1", Answered(400), "a Via value that is only separators"),
    case("rfc4475/clerr", "3.1.2.2", Answered(400), "ends before its body does"),
    case("rfc4475/ncl", "3.1.2.3", Answered(400), "a negative Content-Length is no number"),
    case("rfc4475/scalar02", "3.1.2.4", Answered(400), "CSeq above 2^31, and more"),
    case("rfc4475/scalarlg", "3.1.2.5", Dropped, "a response whose CSeq cannot be read"),
    case(
        "rfc4475/quotbal",
        "3.1.2.6",
        Answered(400),
        "a quoted string without an end: where the URI begins is a guess",
    ),
    case(
        "rfc4475/ltgtruri",
        "3.1.2.7",
        Answered(400),
        "< > round a Request-URI: the next hop may read another one",
    ),
    case("rfc4475/lwsruri", "3.1.2.8", Answered(400), "white space in a Request-URI"),
    case("rfc4475/lwsstart", "3.1.2.9", Answered(400), "more than one space in a request line"),
    case("rfc4475/trws", "3.1.2.10", Answered(400), "spaces behind the version"),
    case(
        "rfc4475/escruri",
        "3.1.2.11",
        Relayed,
        "liberal: referred phones send headers in a Request-URI; ours has none",
    ),
    case("rfc4475/baddate", "3.1.2.12", Relayed, "we do not use Date, and pass it as it is"),
    case(
        "rfc4475/regbadct",
        "3.1.2.13",
        Answered(400),
        "? without < >: whose parameters and headers follow is a guess",
    ),
    case("rfc4475/badaspec", "3.1.2.14", Answered(400), "spaces in an addr-spec"),
    case("rfc4475/baddn", "3.1.2.15", Answered(400), "a comma in a display name without quotes"),
    case("rfc4475/badvers", "3.1.2.16", Answered(505), "SIP/7.0"),
    case("rfc4475/mismatch01", "3.1.2.17", Answered(400), "CSeq names another method"),
    case(
        "rfc4475/mismatch02",
        "3.1.2.18",
        Answered(501),
        "CSeq names another method, and nobody knows this one",
    ),
    case("rfc4475/bigcode", "3.1.2.19", Dropped, "a status above 699"),
    case(
        "rfc4475/badbranch",
        "3.2.1",
        Relayed,
        "no branch behind the cookie: matched by the rules of RFC 2543",
    ),
    case(
        "rfc4475/insuf",
        "3.3.1",
        Answered(400),
        "no Call-ID, From or To; its Via says where the answer goes",
    ),
    case("rfc4475/unkscm", "3.3.2", Answered(416), "a scheme that nothing here routes"),
    case("rfc4475/novelsc", "3.3.3", Answered(416), "a scheme that nothing here routes"),
    case(
        "rfc4475/unksm2",
        "3.3.4",
        Answered(400),
        "the AOR of a REGISTER is a SIP or SIPS URI (RFC 3261 §10.3)",
    ),
    case("rfc4475/bext01", "3.3.5", Answered(420), "options that neither we know nor the realm passes"),
    case("rfc4475/invut", "3.3.6", Relayed, "a body of an unknown type is for its receiver to judge"),
    case(
        "rfc4475/regaut01",
        "3.3.7",
        Relayed,
        "unknown credentials are for the registrar behind us; ours would challenge",
    ),
    case("rfc4475/multi01", "3.3.8", Answered(400), "two of what comes once"),
    case("rfc4475/mcl01", "3.3.9", Answered(400), "two different Content-Lengths"),
    case(
        "rfc4475/bcast",
        "3.3.10",
        Dropped,
        "a response with two Vias is not to a request of ours (RFC 3261 §8.1.3.3)",
    ),
    case("rfc4475/zeromf", "3.3.11", Answered(483), "no hop is left for the next"),
    case("rfc4475/cparam01", "3.3.12", Relayed, "valid: without < > the parameter is the header's"),
    case("rfc4475/cparam02", "3.3.13", Relayed, "valid: inside < > the parameter is the URI's"),
    case("rfc4475/regescrt", "3.3.14", Relayed, "valid: a header in a Contact URI"),
    case("rfc4475/sdp01", "3.3.15", Answered(406), "Accept leaves out what its answer would be: SDP"),
    case("rfc4475/inv2543", "3.4.1", Relayed, "no Contact: what follows goes to where it came from"),
    case(
        "rfc4475/test",
        "A.1",
        Dropped,
        "in the archive only: neither version nor Via, so nothing to answer to",
    ),
    case("rfc5118/ipv6-good", "4.1", Relayed, "valid"),
    case(
        "rfc5118/ipv6-bad",
        "4.2",
        Answered(400),
        "an IPv6 address without brackets: where its port begins is a guess",
    ),
    case("rfc5118/port-ambiguous", "4.3", Relayed, "valid, whatever its sender meant"),
    case("rfc5118/port-unambiguous", "4.4", Relayed, "valid"),
    case(
        "rfc5118/via-received-param-with-delim",
        "4.5",
        Answered(481),
        "read, with the brackets round received; we have no such dialog",
    ),
    case(
        "rfc5118/via-received-param-no-delim",
        "4.5",
        Answered(200),
        "valid; an OPTIONS without a user is for ourselves",
    ),
    case("rfc5118/ipv6-in-sdp", "4.6", Relayed, "valid"),
    case("rfc5118/mult-ip-in-header", "4.7", Answered(481), "valid; we have no such dialog"),
    case("rfc5118/mult-ip-in-sdp", "4.8", Relayed, "valid"),
    case("rfc5118/ipv4-mapped-ipv6", "4.9", Relayed, "valid"),
    case(
        "rfc5118/ipv6-bug-abnf-3-colons",
        "4.10",
        Relayed,
        "a colon too many is taken for part of a name, and goes no further than us",
    ),
    case("rfc5118/ipv6-correct-abnf-2-colons", "4.10", Relayed, "valid"),
];
