//! One misfortune at a time, looked at closely: the real program in processes of its own, as in [`chaos`], and callers who count what
//! they are told.
//!
//! What takes how long is printed, not asserted: the machine that runs this may be busy with something else.

#[path = "../binary/mod.rs"]
mod binary;
mod callers;
mod clocks;
mod outages;
mod take_over;

use std::fmt::Display;
use std::io::Write as _;

/// A figure, for people; shown whether the test passes or not.
fn figure(text: impl Display) {
    let _unheard = writeln!(std::io::stderr().lock(), "{text}");
}
