//! What the run says to the person in front of it: the only place that writes to the terminal.

use std::fmt::Display;
use std::io::Write as _;

/// A line of what was asked for.
pub(crate) fn line(text: impl Display) {
    let _unheard = writeln!(std::io::stdout().lock(), "{text}");
}

/// How it goes, for whoever waits; not part of the result.
pub(crate) fn aside(text: impl Display) {
    let _unheard = writeln!(std::io::stderr().lock(), "chaos: {text}");
}
