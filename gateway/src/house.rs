//! `HouseService`: the proof that money is conserved, put together from all shards, and what the house stands against.

use std::collections::BTreeMap;
use std::sync::Arc;

use bus::Calls;
use contracts::bus::request::Command;
use contracts::v1::house_service_server::HouseService;
use contracts::v1::{
    Conservation, GetConservationRequest, GetConservationResponse, GetExposureRequest, GetExposureResponse,
    ShardConservation,
};
use futures::future::try_join_all;
use rust_decimal::Decimal;
use tonic::{Request, Response, Status};

use crate::auth::Scope;
use crate::failure::Failure;
use crate::room::{Call, Room};
use crate::wire::Answer;

/// The service.
pub(crate) struct House<C>(pub Arc<Room<C>>);

#[tonic::async_trait]
impl<C: Calls> HouseService for House<C> {
    async fn get_conservation(
        &self,
        request: Request<GetConservationRequest>,
    ) -> Result<Response<GetConservationResponse>, Status> {
        let call = Call::of(&request, Scope::Operator)?;
        let asked = (0..self.0.shards).map(|shard| {
            let command = Command::GetConservation(GetConservationRequest {});
            self.0.read_shard::<ShardConservation>(&call, shard, command)
        });
        let answers = try_join_all(asked).await?;
        let shards: Vec<ShardConservation> = answers.into_iter().map(|Answer { message, .. }| message).collect();
        let totals = totals(&shards).ok_or_else(|| Failure::Internal("a sum that is none".to_owned()))?;
        Ok(Response::new(GetConservationResponse { totals, shards }))
    }

    async fn get_exposure(
        &self,
        request: Request<GetExposureRequest>,
    ) -> Result<Response<GetExposureResponse>, Status> {
        let _call = Call::of(&request, Scope::Operator)?;
        Ok(Response::new(self.0.history.exposure().await?))
    }
}

/// All shards together, by currency; nothing when an amount cannot be read or added.
fn totals(shards: &[ShardConservation]) -> Option<Vec<Conservation>> {
    let mut totals: BTreeMap<&str, [Decimal; 6]> = BTreeMap::new();
    for one in shards.iter().flat_map(|shard| &shard.currencies) {
        let sums = totals.entry(&one.currency_code).or_default();
        for (sum, text) in sums.iter_mut().zip(amounts(one)) {
            *sum = sum.checked_add(text.parse().ok()?)?;
        }
    }
    let written = totals.into_iter().map(|(currency, sums)| {
        let [client_balances, locked_margin, house, fees, net_deposits, difference] = sums.map(|sum| sum.to_string());
        Conservation {
            currency_code: currency.to_owned(),
            client_balances,
            locked_margin,
            house,
            fees,
            net_deposits,
            difference,
        }
    });
    Some(written.collect())
}

/// The amounts, in the order of the message.
fn amounts(of: &Conservation) -> [&str; 6] {
    [
        &of.client_balances,
        &of.locked_margin,
        &of.house,
        &of.fees,
        &of.net_deposits,
        &of.difference,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_added_up_currency_by_currency() {
        let one = |code: &str, [client, margin, house, fees, net]: [&str; 5]| Conservation {
            currency_code: code.to_owned(),
            client_balances: client.to_owned(),
            locked_margin: margin.to_owned(),
            house: house.to_owned(),
            fees: fees.to_owned(),
            net_deposits: net.to_owned(),
            difference: "0.00".to_owned(),
        };
        let shard = |currencies| ShardConservation {
            currencies,
            ..ShardConservation::default()
        };
        let shards = [
            shard(vec![one("USDC", ["4900.00", "100.00", "-0.50", "0.50", "5000.00"])]),
            shard(vec![
                one("SOL", ["1.00000000", "0", "0", "0", "1.00000000"]),
                one("USDC", ["10.00", "0.00", "-1.25", "1.25", "10.00"]),
            ]),
        ];
        let totals = totals(&shards).unwrap();
        assert_eq!(totals.len(), 2);
        assert_eq!(
            totals[1],
            one("USDC", ["4910.00", "100.00", "-1.75", "1.75", "5010.00"])
        );
        let unreadable = [shard(vec![one("USDC", ["x", "0", "0", "0", "0"])])];
        assert!(super::totals(&unreadable).is_none());
    }
}
