//! Behaviour of the engine that takes more than one message to see, in virtual time and between user agents.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod acts;
mod bindings;
mod bodies;
mod bounds;
mod breadth;
mod by_hand;
mod forwarding;
mod handed_over;
mod identity;
mod legs;
mod line;
mod liveness;
mod orders;
mod passing;
mod pickup;
mod redirection;
mod registering;
mod renegotiation;
mod reunion;
mod sessions;
mod small_print;
mod strangers;
mod subscriptions;
mod targets;
mod telephones;
mod trunks;
