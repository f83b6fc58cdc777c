//! The Access Control Services extended capability (section 7.7.11).

pub(crate) const CAPABILITY: u16 = 4;
pub(crate) const CONTROL: u16 = 6;
pub(crate) const EGRESS_VECTOR: u16 = 8;
pub(crate) const EGRESS_SIZE_SHIFT: u16 = 8;

pub(crate) const SOURCE_VALIDATION: u16 = 1 << 0;
pub(crate) const TRANSLATION_BLOCKING: u16 = 1 << 1;
pub(crate) const P2P_REQUEST_REDIRECT: u16 = 1 << 2;
pub(crate) const P2P_COMPLETION_REDIRECT: u16 = 1 << 3;
pub(crate) const UPSTREAM_FORWARDING: u16 = 1 << 4;
pub(crate) const P2P_EGRESS_CONTROL: u16 = 1 << 5;
pub(crate) const DIRECT_TRANSLATED_P2P: u16 = 1 << 6;
