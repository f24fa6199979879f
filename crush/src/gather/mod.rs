//! Learning how one looks from outside: mapped addresses and the NAT's behaviour (docs/crush.md §3.2).

mod discovery;
mod pattern;

pub(crate) use discovery::{Ask, Discovery};
