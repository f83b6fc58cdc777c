//! The macros that make Rust constants, Rust structures and the rows of the C header out of one
//! text.

/// Register offsets of one block: a module of `u64` constants and `TABLE`, one row per register.
macro_rules! registers {
    ($(#[doc = $about:literal])+ $module:ident, $prefix:literal;
     $($(#[doc = $doc:literal])+ $name:ident = $offset:literal, $access:ident;)+) => {
        $(#[doc = $about])+
        pub mod $module {
            use super::{Access, Register};

            $($(#[doc = $doc])+ pub const $name: u64 = $offset;)+

            /// Every register of this block, in ascending order.
            pub const TABLE: &[Register] = &[$(Register {
                name: concat!($prefix, "_", stringify!($name)),
                offset: $offset,
                access: Access::$access,
                about: &[$($doc),+],
            }),+];

            /// What the block is.
            pub const ABOUT: &[&str] = &[$($about),+];
        }
    };
}

/// A group of named numbers (bits, codes, sizes): a module of constants and `TABLE`, one row per
/// constant.
macro_rules! constants {
    ($(#[doc = $about:literal])+ $module:ident, $prefix:literal, $type:ty;
     $($(#[doc = $doc:literal])+ $name:ident = $value:expr;)+) => {
        $(#[doc = $about])+
        pub mod $module {
            use super::Constant;

            $($(#[doc = $doc])+ pub const $name: $type = $value;)+

            /// Every constant of this group.
            pub const TABLE: &[Constant] = &[$(Constant {
                name: concat!($prefix, "_", stringify!($name)),
                value: $name as u64,
                about: &[$($doc),+],
            }),+];

            /// What the group is.
            pub const ABOUT: &[&str] = &[$($about),+];
        }
    };
}

/// A structure in memory, little endian, without padding: a Rust structure and a `LAYOUT` for the C
/// one.
macro_rules! layout {
    ($(#[doc = $about:literal])+ $name:ident, $c_name:literal, $size:literal;
     $($(#[doc = $doc:literal])+ $field:ident: $type:ident $([$count:literal])?;)+) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, FromBytes, IntoBytes, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name {
            $($(#[doc = $doc])+ pub $field: layout!(@rust $type $([$count])?),)+
        }

        impl $name {
            /// The same structure for the C header.
            pub const LAYOUT: Layout = Layout {
                name: $c_name,
                size: $size,
                about: &[$($about),+],
                fields: &[$(Field {
                    name: stringify!($field),
                    c_type: layout!(@c $type),
                    count: layout!(@count $([$count])?),
                    about: &[$($doc),+],
                }),+],
            };
        }

        const _: () = assert!(size_of::<$name>() == $size);
    };
    (@rust $type:ident) => { $type };
    (@rust $type:ident [$count:literal]) => { [$type; $count] };
    (@c u8) => { "__u8" };
    (@c U16) => { "__le16" };
    (@c U32) => { "__le32" };
    (@c U64) => { "__le64" };
    (@count) => { None };
    (@count [$count:literal]) => { Some($count) };
}

pub(super) use {constants, layout, registers};
