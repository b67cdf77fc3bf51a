//! Money in and out. All of it touches free cash only: what is locked by a trade is not here to be taken.

use super::{balanced, check_amount, line};
use crate::currency::{CATALOGUE, DEMO_GRANT};
use crate::event::{Event, EventKind, LedgerAccount};
use crate::ids::{AccountId, Currency};
use crate::money::Money;
use crate::refusal::Refusal;
use crate::state::State;

/// A demo wallet with the grant in the first currency and nothing in the others; `None` when it is there already.
///
/// The zeros are lines of the event, so that a replay under a longer catalogue still opens the wallet as it was.
pub(super) fn initialize(state: &State, account: &AccountId) -> Option<Event> {
    if state.account(account).is_some() {
        return None;
    }
    let mut lines = Vec::with_capacity(CATALOGUE.len().saturating_add(1));
    for (place, spec) in CATALOGUE.iter().enumerate() {
        let currency = Currency::new(spec.code).expect("the catalogue's codes are short ASCII");
        let client = LedgerAccount::Client(account.clone());
        if place == 0 {
            lines.push(line(LedgerAccount::Cash, &currency, DEMO_GRANT.negated()));
            lines.push(line(client, &currency, DEMO_GRANT));
        } else {
            lines.push(line(client, &currency, Money::ZERO));
        }
    }
    Some(balanced(
        EventKind::WalletInitialized {
            account: account.clone(),
        },
        lines,
    ))
}

pub(super) fn deposit(
    state: &State,
    account: &AccountId,
    currency: &Currency,
    amount: Money,
) -> Result<Event, Refusal> {
    check_amount("amount", amount, currency)?;
    if state.account(account).is_none() {
        return Err(Refusal::AccountNotFound {
            account: account.clone(),
        });
    }
    let lines = vec![
        line(LedgerAccount::Cash, currency, amount.negated()),
        line(LedgerAccount::Client(account.clone()), currency, amount),
    ];
    let kind = EventKind::Deposited {
        account: account.clone(),
        currency: currency.clone(),
        amount,
    };
    Ok(balanced(kind, lines))
}

pub(super) fn withdraw(
    state: &State,
    account: &AccountId,
    currency: &Currency,
    amount: Money,
) -> Result<Event, Refusal> {
    check_amount("amount", amount, currency)?;
    let owner = state.account(account).ok_or_else(|| Refusal::AccountNotFound {
        account: account.clone(),
    })?;
    let free = owner.free(currency);
    if amount > free {
        return Err(Refusal::InsufficientFunds {
            needed: amount,
            free,
            currency: currency.clone(),
        });
    }
    let lines = vec![
        line(LedgerAccount::Client(account.clone()), currency, amount.negated()),
        line(LedgerAccount::Cash, currency, amount),
    ];
    let kind = EventKind::Withdrawn {
        account: account.clone(),
        currency: currency.clone(),
        amount,
    };
    Ok(balanced(kind, lines))
}
