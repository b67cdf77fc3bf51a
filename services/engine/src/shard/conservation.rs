//! The proof that money is conserved on this shard: every account added up, one by one, beside what came in and went out.

use std::collections::BTreeMap;

use contracts::bus::Failure;
use contracts::v1::{Conservation, ErrorReason, ShardConservation};
use engine_core::{Currency, Entity, LedgerAccount, Money};

use super::Shard;
use super::read::plain_failure;
use crate::wire::amount_text;

/// What there is of one currency.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    client: Money,
    margin: Money,
    house: Money,
    fee: Money,
    cash: Money,
}

impl Shard {
    /// Adds everything up. Costs a pass over the accounts.
    pub(super) fn conservation(&self) -> Result<ShardConservation, Failure> {
        let sums = self.sums().ok_or_else(too_much)?;
        let currencies = sums.iter().map(|(currency, sums)| written(currency, sums));
        Ok(ShardConservation {
            shard: self.number,
            sequence: self.sequence,
            state_hash: format!("{:032x}", self.hash()),
            currencies: currencies.collect::<Option<_>>().ok_or_else(too_much)?,
        })
    }

    /// Nothing when the sums are past what can be counted.
    fn sums(&self) -> Option<BTreeMap<Currency, Sums>> {
        let mut all: BTreeMap<Currency, Sums> = BTreeMap::new();
        for account in self.state.accounts() {
            for balance in &account.balances {
                let sums = all.entry(balance.currency.clone()).or_default();
                sums.client = sums.client.checked_add(balance.free)?;
                sums.margin = sums.margin.checked_add(balance.locked)?;
            }
        }
        for entity in self.state.entities().take_while(|it| !matches!(it, Entity::Account(_))) {
            let Entity::Ledger(entry) = entity else { continue };
            let sums = all.entry(entry.currency.clone()).or_default();
            let sum = match entry.account {
                LedgerAccount::House => &mut sums.house,
                LedgerAccount::Fee => &mut sums.fee,
                LedgerAccount::Cash => &mut sums.cash,
                LedgerAccount::Client(_) | LedgerAccount::Margin(_) => continue,
            };
            *sum = sum.checked_add(entry.balance)?;
        }
        Some(all)
    }
}

fn written(currency: &Currency, sums: &Sums) -> Option<Conservation> {
    let inside = sums
        .client
        .checked_add(sums.margin)?
        .checked_add(sums.house)?
        .checked_add(sums.fee)?;
    // The world outside has lost what came in.
    let net_deposits = sums.cash.negated();
    let text = |amount| amount_text(amount, currency);
    Some(Conservation {
        currency_code: currency.as_str().to_owned(),
        client_balances: text(sums.client),
        locked_margin: text(sums.margin),
        house: text(sums.house),
        fees: text(sums.fee),
        net_deposits: text(net_deposits),
        difference: text(inside.checked_sub(net_deposits)?),
    })
}

fn too_much() -> Failure {
    plain_failure(
        ErrorReason::Internal,
        "there is more money than can be added up".to_owned(),
    )
}
