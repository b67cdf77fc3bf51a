//! What a command says to the person in front of it: the only place that writes to the terminal.
//!
//! Results go to standard output, trouble to standard error. A reader that has gone away is not an error: nobody is left to tell.

use std::fmt::Display;
use std::io::Write as _;

/// A line of what was asked for.
pub(crate) fn line(text: impl Display) {
    let _unheard = writeln!(std::io::stdout().lock(), "{text}");
}

/// Something to know that ends nothing.
pub(crate) fn warning(text: &str) {
    let _unheard = writeln!(std::io::stderr().lock(), "fulcrum: WARNING: {text}");
}

/// Why a command ended.
pub(crate) fn error(text: &str) {
    let _unheard = writeln!(std::io::stderr().lock(), "fulcrum: {text}");
}
