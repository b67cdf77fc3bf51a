//! Adding and changing instruments.

use super::{balanced, invalid};
use crate::event::{Event, EventKind};
use crate::instrument::Instrument;
use crate::refusal::{InvalidProblem, Refusal};
use crate::state::State;

/// Open trades keep the maintenance rate they were opened under. What they cannot survive is another grid or another
/// currency, so those stay as they are until the last trade is closed.
pub(super) fn configure(state: &State, instrument: &Instrument) -> Result<Event, Refusal> {
    instrument.check()?;
    if let Some(book) = state.book(&instrument.symbol).filter(|book| book.open > 0) {
        let now = &book.instrument;
        let moved = [
            ("tick", now.tick != instrument.tick),
            ("step", now.step != instrument.step),
            ("base", now.base != instrument.base),
            ("quote", now.quote != instrument.quote),
        ];
        if let Some((field, _)) = moved.into_iter().find(|(_, moved)| *moved) {
            return Err(invalid(field, InvalidProblem::InUse { open: book.open }));
        }
    }
    Ok(balanced(
        EventKind::InstrumentConfigured(instrument.clone()),
        Vec::new(),
    ))
}
