//! `Debug` that cannot leak.

/// Implements `Debug` for each type as its bare name.
///
/// Derived `Debug` would carry identifiers and keys into the first log line or panic message that formats a struct
/// holding one.
macro_rules! opaque_debug {
    ($($name:ident),+ $(,)?) => {$(
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($name))
            }
        }
    )+};
}

pub(crate) use opaque_debug;
