//! What the house stands against, added up another way than the product does: trade by trade from the rows of trades, and its profit line
//! by line from the ledger.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::Value;

use crate::mesh::Mesh;

/// Of one instrument and currency: trades, quantity and notional of longs, the same of shorts.
type Open = [Decimal; 6];

fn number(text: &Value) -> Decimal {
    let text = text.as_str().expect("a text");
    text.parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

/// Holds an answer of `GetExposure` against trades and ledger. Nothing may happen meanwhile.
///
/// # Panics
/// When they differ.
pub async fn compare(mesh: &Mesh, answer: &Value) {
    let trades: Vec<(String, String, i16, i16, String, String)> = sqlx::query_as(
        "SELECT symbol, currency_code, side, status, quantity::text, entry_price::text FROM trades ORDER BY shard, number",
    )
    .fetch_all(&mesh.pool)
    .await
    .expect("trades");
    let mut expected: BTreeMap<(String, String), Open> = BTreeMap::new();
    for (symbol, currency, side, status, quantity, price) in trades {
        let open = expected.entry((symbol, currency)).or_default();
        if status == 1 {
            let (quantity, price): (Decimal, Decimal) =
                (quantity.parse().expect("a number"), price.parse().expect("a price"));
            let first = if side == 1 { 0 } else { 3 };
            open[first] += Decimal::ONE;
            open[first + 1] += quantity;
            open[first + 2] += quantity * price;
        }
    }
    let exposures = answer["exposures"].as_array().expect("exposures");
    assert_eq!(exposures.len(), expected.len(), "{answer}");
    let (mut realised, mut unrealised) = (Decimal::ZERO, Decimal::ZERO);
    for (one, ((symbol, currency), open)) in exposures.iter().zip(&expected) {
        assert_eq!(
            (&one["symbol"], &one["currencyCode"]),
            (&symbol.as_str().into(), &currency.as_str().into())
        );
        let names = [
            "longTrades",
            "longQuantity",
            "longNotional",
            "shortTrades",
            "shortQuantity",
            "shortNotional",
        ];
        assert_eq!(names.map(|name| number(&one[name])), *open, "{one}");
        let net = open[4] - open[1];
        let mark = number(&one["markPrice"]);
        assert_eq!(number(&one["netQuantity"]), net, "{one}");
        assert_eq!(number(&one["netNotional"]), net * mark, "{one}");
        // A long client at 100 gives the house 10 when the price is 90.
        let gained = open[2] - open[1] * mark + open[4] * mark - open[5];
        assert_eq!(number(&one["unrealisedProfit"]), gained, "{one}");
        realised += number(&one["realisedProfit"]);
        unrealised += gained;
    }
    let ledger: Vec<(i16, String)> = sqlx::query_as(
        "SELECT ledger_account, amount::text FROM ledger_entries WHERE ledger_account IN (3, 4) AND trade_number IS NOT NULL",
    )
    .fetch_all(&mesh.pool)
    .await
    .expect("lines");
    let booked = |account: Option<i16>| -> Decimal {
        let lines = ledger
            .iter()
            .filter(|(of, _)| account.is_none_or(|wanted| wanted == *of));
        lines
            .map(|(_, amount)| amount.parse::<Decimal>().expect("an amount"))
            .sum()
    };
    let profits = answer["profits"].as_array().expect("profits");
    let [profit] = profits.as_slice() else {
        panic!("one currency: {answer}")
    };
    assert_eq!(
        number(&profit["realisedProfit"]),
        booked(None),
        "house and fee lines: {answer}"
    );
    assert_eq!(number(&profit["commission"]), booked(Some(4)), "fee lines: {answer}");
    assert_eq!(
        (number(&profit["realisedProfit"]), number(&profit["unrealisedProfit"])),
        (realised, unrealised),
        "{answer}"
    );
    assert!(
        !ledger.is_empty() && !expected.is_empty(),
        "there is something to compare"
    );
}
