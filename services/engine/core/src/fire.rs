//! What a new price sets off: stop-losses, take-profits and liquidations, found through the index.

use crate::decide::close::settle;
use crate::event::Event;
use crate::grid;
use crate::ids::Symbol;
use crate::instrument::TradingMode;
use crate::market::Market;
use crate::state::State;
use crate::time::Timestamp;

/// Adds to `out` a closing for every trade that the current quote of one instrument fires: stop-losses first, then
/// take-profits, then liquidations, by trade id within each. A trade fires once, and closes whole, at this quote and
/// not at its trigger's price.
///
/// Call it after a quote was accepted, and apply what it gives before anything else is decided. It gives nothing when
/// the quote is past the hard age, awaits confirmation, is the first after a silence or a start, or the instrument is
/// halted; calling it again without applying gives the same again.
pub fn fire(state: &State, market: &Market, at: Timestamp, symbol: &Symbol, out: &mut Vec<Event>) {
    let Some(book) = state
        .book(symbol)
        .filter(|book| book.instrument.mode != TradingMode::Halted)
    else {
        return;
    };
    let Some(quote) = market.to_fire(&book.instrument, at) else {
        return;
    };
    let tick = book.instrument.tick.get();
    let Some((bid, ask)) = grid::floor(quote.bid.get(), tick).zip(grid::ceil(quote.ask.get(), tick)) else {
        return;
    };
    for (reason, id) in book.triggers.fired(bid, ask) {
        // Sizes were held to what can be exact when the trade was opened, so this always settles; if one ever did
        // not, it must not keep the others from being closed.
        let settled = state
            .trade(id)
            .map(|trade| settle(trade, &book.instrument, quote.clone(), reason, trade.quantity));
        out.extend(settled.and_then(Result::ok));
    }
}
