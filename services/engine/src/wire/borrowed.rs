//! Messages of the journal, read where they lie: a replay comes by some fifty texts a trade, and a message of its own would hold each of
//! them in a piece of memory.
//!
//! Each type has the fields of the message of its name in `proto/fulcrum/bus/v1/journal.proto` that are read; a test holds names and
//! numbers against it. A field that is unknown is passed over, a text or number that comes again counts the last time, and one that is
//! absent is what the format says it is: zero, or empty. <https://protobuf.dev/programming-guides/encoding/>

use super::event::{Unreadable, unreadable};

/// What a field holds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Value<'a> {
    /// A number, the shorter the smaller it is.
    Varint(u64),
    /// A number in eight bytes.
    Fixed64(u64),
    /// Four bytes, of which no message here has any.
    Fixed32,
    /// A text, bytes, or a message.
    Bytes(&'a [u8]),
}

/// The fields of a message, in the order in which they stand.
#[derive(Clone, Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

/// The fields of an encoded message.
pub(crate) fn fields(message: &[u8]) -> Fields<'_> {
    Fields(message)
}

/// The messages that stand in a repeated field.
pub(crate) fn several(message: &[u8], number: u32) -> impl Iterator<Item = Result<&[u8], Unreadable>> {
    fields(message).filter_map(move |field| match field {
        Ok((found, Value::Bytes(bytes))) if found == number => Some(Ok(bytes)),
        Ok(_) => None,
        Err(cause) => Some(Err(cause)),
    })
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let key = u32::try_from(self.varint()?).ok()?;
        let value = match key & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed32)?,
            _ => return None,
        };
        Some((key >> 3, value)).filter(|(number, _)| *number > 0)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn varint(&mut self) -> Option<u64> {
        let mut number = 0;
        for (place, byte) in self.0.iter().enumerate() {
            let bits = u64::from(byte & 0x7f);
            let shift = 7 * place as u32;
            // Ten bytes have six bits more than a number does.
            if bits.checked_shl(shift)? >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if *byte < 0x80 {
                self.0 = &self.0[place + 1..];
                return Some(number);
            }
        }
        None
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field().ok_or_else(|| unreadable("a field of a message"));
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// What a field's value becomes.
pub(crate) trait Slot<'a> {
    /// Takes it; false when it is of another kind.
    fn put(&mut self, value: Value<'a>) -> bool;
}

impl<'a> Slot<'a> for u64 {
    fn put(&mut self, value: Value<'a>) -> bool {
        let Value::Varint(number) = value else { return false };
        *self = number;
        true
    }
}

/// A `fixed64`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fixed64(pub(crate) u64);

impl<'a> Slot<'a> for Fixed64 {
    fn put(&mut self, value: Value<'a>) -> bool {
        let Value::Fixed64(number) = value else { return false };
        self.0 = number;
        true
    }
}

/// An enum.
impl<'a> Slot<'a> for i32 {
    fn put(&mut self, value: Value<'a>) -> bool {
        let Value::Varint(number) = value else { return false };
        // The format sends a negative one in 64 bits.
        *self = number as i32;
        true
    }
}

impl<'a> Slot<'a> for &'a [u8] {
    fn put(&mut self, value: Value<'a>) -> bool {
        let Value::Bytes(bytes) = value else { return false };
        *self = bytes;
        true
    }
}

impl<'a> Slot<'a> for &'a str {
    fn put(&mut self, value: Value<'a>) -> bool {
        let Value::Bytes(bytes) = value else { return false };
        std::str::from_utf8(bytes).is_ok_and(|text| {
            *self = text;
            true
        })
    }
}

/// A message that may be absent, not read yet. One that comes twice would have to be made one of both, and nobody writes that.
impl<'a> Slot<'a> for Option<&'a [u8]> {
    fn put(&mut self, value: Value<'a>) -> bool {
        let Value::Bytes(bytes) = value else { return false };
        self.replace(bytes).is_none()
    }
}

/// A message that is read where it lies.
pub(crate) trait Borrowed<'a>: Default {
    /// Its name in the format.
    const NAME: &'static str;

    /// Takes a field; false when its value is of another kind than it should be.
    fn put(&mut self, number: u32, value: Value<'a>) -> bool;

    /// Reads one.
    ///
    /// # Errors
    /// [`Unreadable`] when the bytes are no such message.
    fn read(message: &'a [u8]) -> Result<Self, Unreadable> {
        let mut it = Self::default();
        for field in fields(message) {
            let (number, value) = field?;
            if !it.put(number, value) {
                return Err(unreadable(format!("field {number} of a {}", Self::NAME)));
            }
        }
        Ok(it)
    }
}

macro_rules! borrowed {
    ($($(#[$doc:meta])* $name:ident<$life:lifetime> { $($field:ident: $type:ty = $number:literal,)* })*) => {
        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, Default)]
            pub(crate) struct $name<$life> {
                $(pub(crate) $field: $type,)*
            }

            impl<$life> Borrowed<$life> for $name<$life> {
                const NAME: &'static str = stringify!($name);

                fn put(&mut self, number: u32, value: Value<$life>) -> bool {
                    match number {
                        $($number => Slot::put(&mut self.$field, value),)*
                        _ => true,
                    }
                }
            }
        )*

        /// The names of all of them, with the names and numbers of their fields.
        #[cfg(test)]
        const ALL: &[(&str, &[(&str, u32)])] = &[$((stringify!($name), &[$((stringify!($field), $number)),*])),*];
    };
}

borrowed! {
    /// One row, without its entries: [`ENTRIES`].
    JournalBatch<'a> {
        price_cursor: &'a str = 2,
    }

    /// One step of a shard, without its events: [`EVENTS`].
    JournalEntry<'a> {
        sequence: u64 = 1,
        at_us: Fixed64 = 2,
        operation: Option<&'a [u8]> = 3,
    }

    /// A mutation and its first answer.
    OperationRecord<'a> {
        principal: &'a str = 1,
        request_id: &'a [u8] = 2,
        kind: i32 = 3,
        payload_hash: &'a [u8] = 4,
        account_id: &'a str = 5,
        response: &'a [u8] = 6,
        failure: Option<&'a [u8]> = 7,
    }

    /// Something that happened, without its lines: [`LINES`].
    JournalEvent<'a> {
        instrument_configured: Option<&'a [u8]> = 1,
        wallet_initialized: Option<&'a [u8]> = 2,
        deposited: Option<&'a [u8]> = 3,
        withdrawn: Option<&'a [u8]> = 4,
        trade_opened: Option<&'a [u8]> = 5,
        trade_modified: Option<&'a [u8]> = 6,
        trade_closed: Option<&'a [u8]> = 7,
    }

    /// One line of the ledger.
    JournalLine<'a> {
        ledger_account: i32 = 1,
        account_id: &'a str = 2,
        currency_code: &'a str = 3,
        amount: &'a str = 4,
    }

    /// A wallet was made.
    WalletInitialized<'a> {
        account_id: &'a str = 1,
    }

    /// Money came in.
    Deposited<'a> {
        account_id: &'a str = 1,
        currency_code: &'a str = 2,
        amount: &'a str = 3,
    }

    /// Money went out.
    Withdrawn<'a> {
        account_id: &'a str = 1,
        currency_code: &'a str = 2,
        amount: &'a str = 3,
    }

    /// The quote that something was executed at.
    QuoteUsed<'a> {
        symbol: &'a str = 1,
        bid: &'a str = 2,
        ask: &'a str = 3,
        venue_bid: &'a str = 4,
        venue_ask: &'a str = 5,
        venue_time_us: Fixed64 = 6,
        update_id: u64 = 7,
    }

    /// A trade, complete.
    TradeState<'a> {
        number: u64 = 1,
        account_id: &'a str = 2,
        symbol: &'a str = 3,
        side: i32 = 4,
        quantity: &'a str = 5,
        opened_quantity: &'a str = 6,
        entry_price: &'a str = 7,
        leverage: &'a str = 8,
        margin: &'a str = 9,
        currency_code: &'a str = 10,
        stop_loss_price: &'a str = 11,
        take_profit_price: &'a str = 12,
        liquidation_price: &'a str = 13,
        maintenance_rate: &'a str = 14,
        opened_at_us: Fixed64 = 15,
        commission: &'a str = 16,
        realised_profit: &'a str = 17,
    }

    /// A trade was opened.
    TradeOpened<'a> {
        trade: Option<&'a [u8]> = 1,
        quote: Option<&'a [u8]> = 2,
    }

    /// A trade's stop-loss, take-profit or margin changed.
    TradeModified<'a> {
        trade: Option<&'a [u8]> = 1,
        margin_added: &'a str = 2,
        quote: Option<&'a [u8]> = 3,
    }

    /// A trade, or a part of one, was closed.
    TradeClosed<'a> {
        trade: Option<&'a [u8]> = 1,
        reason: i32 = 2,
        closed_quantity: &'a str = 3,
        close_price: &'a str = 4,
        released_margin: &'a str = 5,
        realised_profit: &'a str = 6,
        gross_profit: &'a str = 7,
        commission: &'a str = 8,
        house_covered: &'a str = 9,
        quote: Option<&'a [u8]> = 10,
    }
}

/// `JournalBatch.entries`.
pub(crate) const ENTRIES: u32 = 1;
/// `JournalEntry.events`.
pub(crate) const EVENTS: u32 = 4;
/// `JournalEvent.lines`.
pub(crate) const LINES: u32 = 10;

#[cfg(test)]
mod tests;
