//! The statements of lists that are read in an order of the client's choosing.
//!
//! Literals, one for each order, because a statement put together at run time would need to be trusted. Each has the
//! columns of one index in its order and in one comparison of rows, so that Postgres begins at the position and reads
//! what is on the page.

use super::rows::trade_columns;
use crate::order::{LineOrder, TradeField, TradeOrder};

/// Trades: $1 account, $2 shard, $3 status or 0, $4 symbol or '', $5 number and $7 value of the position, $6 how many.
macro_rules! trades_where {
    ($($and:literal),*) => {
        concat!(
            " FROM trades WHERE account_id = $1 AND shard = $2 AND ($3 = 0 OR status = $3) AND ($4 = '' OR symbol = $4)"
            $(, $and)*
        )
    };
}

/// Trades in the order of their numbers.
macro_rules! trades_by_number {
    ($than:literal, $order:literal) => {
        concat!(
            "SELECT ",
            trade_columns!(),
            trades_where!(" AND number ", $than, " $5 ORDER BY ", $order, " LIMIT $6")
        )
    };
}

/// Trades in another order. What is closed stands in an index for it. What is open does not, because every trade would pay for it at
/// its opening; an account's open trades are few enough to be sorted for a page.
macro_rules! trades_by {
    ($closed:literal, $open:literal, $value:literal, $than:literal, $desc:literal) => {
        concat!(
            "SELECT ",
            trade_columns!(),
            " FROM ((SELECT *",
            trades_where!(
                " AND closed_at IS NOT NULL AND (",
                $closed,
                ", number) ",
                $than,
                " (",
                $value,
                ", $5) ORDER BY ",
                $closed,
                $desc,
                ", number",
                $desc,
                " LIMIT $6"
            ),
            ") UNION ALL (SELECT *",
            trades_where!(
                " AND closed_at IS NULL AND (",
                $open,
                ", number) ",
                $than,
                " (",
                $value,
                ", $5) ORDER BY ",
                $open,
                $desc,
                ", number",
                $desc,
                " LIMIT $6"
            ),
            ")) AS trades ORDER BY CASE WHEN closed_at IS NULL THEN ",
            $open,
            " ELSE trades.",
            $closed,
            " END",
            $desc,
            ", number",
            $desc,
            " LIMIT $6"
        )
    };
}

macro_rules! trades_by_close {
    ($than:literal, $desc:literal) => {
        trades_by!(
            "closed_at",
            "'infinity'::timestamptz",
            "$7::text::timestamptz",
            $than,
            $desc
        )
    };
}

macro_rules! trades_by_profit {
    ($than:literal, $desc:literal) => {
        trades_by!(
            "realised_profit",
            "trades.realised_profit",
            "$7::text::numeric",
            $than,
            $desc
        )
    };
}

/// Of trades.
pub(super) fn trades_statement(order: TradeOrder) -> &'static str {
    match (order.by, order.descending) {
        (TradeField::OpenTime, false) => trades_by_number!(">", "number"),
        (TradeField::OpenTime, true) => trades_by_number!("<", "number DESC"),
        (TradeField::CloseTime, false) => trades_by_close!(">", ""),
        (TradeField::CloseTime, true) => trades_by_close!("<", " DESC"),
        (TradeField::RealisedProfit, false) => trades_by_profit!(">", ""),
        (TradeField::RealisedProfit, true) => trades_by_profit!("<", " DESC"),
    }
}

/// Ledger lines: $1 account, $2 shard, $3 currency or '', $4 trade or null, $5 after which sequence, $6 and $7 the
/// position, $8 how many.
macro_rules! lines_by {
    ($than:literal, $order:literal) => {
        concat!(
            "SELECT shard, seq, line, kind, ledger_account, currency_code, amount::text AS amount, trade_number, request_id, \
             (extract(epoch FROM booked_at) * 1000000)::bigint AS booked_us \
             FROM ledger_entries WHERE account_id = $1 AND shard = $2 AND ($3 = '' OR currency_code = $3) \
             AND ($4::bigint IS NULL OR trade_number = $4) AND seq > $5 AND (seq, line) ",
            $than,
            " ($6, $7) ORDER BY ",
            $order,
            " LIMIT $8"
        )
    };
}

/// Of ledger lines.
pub(super) fn lines_statement(order: LineOrder) -> &'static str {
    if order.descending {
        lines_by!("<", "seq DESC, line DESC")
    } else {
        lines_by!(">", "seq, line")
    }
}

#[cfg(test)]
mod tests {
    use testkit::PrivatePostgres;

    use super::*;
    use crate::order::{Field, LineField, Order};

    /// How Postgres goes about a statement when it may neither read a whole table nor sort: with an index that fits, or not at all.
    async fn plan(postgres: &PrivatePostgres, statement: &str, arguments: &str) -> String {
        let mut connection = postgres.pool().acquire().await.unwrap();
        for setting in [
            "enable_seqscan",
            "enable_sort",
            "enable_bitmapscan",
            "enable_incremental_sort",
        ] {
            let set = format!("SET {setting} = off");
            sqlx::raw_sql(sqlx::AssertSqlSafe(set))
                .execute(&mut *connection)
                .await
                .unwrap();
        }
        let prepare = format!("PREPARE it AS {statement}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(prepare))
            .execute(&mut *connection)
            .await
            .unwrap();
        // Whoever asks often gets the plan that fits all arguments.
        sqlx::raw_sql("SET plan_cache_mode = force_generic_plan")
            .execute(&mut *connection)
            .await
            .unwrap();
        let explain = format!("EXPLAIN (COSTS off) EXECUTE it({arguments})");
        let lines: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(explain))
            .persistent(false)
            .fetch_all(&mut *connection)
            .await
            .unwrap();
        lines.join("\n")
    }

    /// Enough rows that one account's are few among them.
    async fn fill(postgres: &PrivatePostgres) {
        sqlx::raw_sql(
            "INSERT INTO trades (shard, number, account_id, symbol, side, status, quantity, opened_quantity, entry_price, leverage, \
             currency_code, margin, opened_at, closed_at, realised_profit, commission, opened_seq, seq, quote) \
             SELECT n % 4, n, 'a' || n % 100, 'SOL_USDC', 1, CASE n % 7 WHEN 0 THEN 1 ELSE 2 END, 1, 1, 1, 1, 'USDC', 1, now(), \
                 CASE n % 7 WHEN 0 THEN NULL ELSE now() END, n % 50, 0, n, n, '' \
             FROM generate_series(1, 4000) AS n; \
             INSERT INTO ledger_entries (shard, seq, line, event, kind, account_id, ledger_account, currency_code, amount, booked_at) \
             SELECT n % 4, n, 0, 0, 'DEPOSITED', 'a' || n % 100, 1, 'USDC', 1, now() FROM generate_series(1, 4000) AS n; \
             ANALYZE",
        )
        .execute(&postgres.pool())
        .await
        .unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_order_has_an_index_that_begins_at_the_position() {
        let postgres = PrivatePostgres::migrated().await;
        fill(&postgres).await;
        for (_, by) in TradeField::ALL {
            for descending in [false, true] {
                let value = match by {
                    TradeField::OpenTime => "",
                    TradeField::CloseTime | TradeField::RealisedProfit => ", 'infinity'",
                };
                let arguments = format!("'demo', 3, 0::smallint, '', 7, 100{value}");
                let plan = plan(&postgres, trades_statement(Order { by: *by, descending }), &arguments).await;
                let (index, condition) = match by {
                    TradeField::OpenTime => ("trades_pkey", "number "),
                    TradeField::CloseTime => ("trades_of_account_by_close", "ROW(closed_at, number)"),
                    TradeField::RealisedProfit => ("trades_of_account_by_profit", "ROW(realised_profit, number)"),
                };
                assert!(
                    plan.contains(&format!("using {index} on")),
                    "{by:?} {descending}\n{plan}"
                );
                let begins = plan
                    .lines()
                    .find(|line| line.contains("Index Cond"))
                    .unwrap_or_default();
                assert!(begins.contains(condition), "{by:?} {descending}\n{plan}");
                // What is sorted is what was found: a page of closed and one of open trades; and what is open, by its profit.
                let (sorts, open) = match by {
                    TradeField::OpenTime => (0, 0),
                    TradeField::CloseTime => (1, 1),
                    TradeField::RealisedProfit => (2, 1),
                };
                let count = |what: &str| plan.lines().filter(|line| line.contains(what)).count();
                assert_eq!(count("Sort Key"), sorts, "{by:?} {descending}\n{plan}");
                assert_eq!(
                    count("using trades_of_account_open on"),
                    open,
                    "{by:?} {descending}\n{plan}"
                );
                assert_eq!(count("Index Scan"), 1 + open, "{by:?} {descending}\n{plan}");
            }
        }
        for (_, by) in LineField::ALL {
            for descending in [false, true] {
                let statement = lines_statement(Order { by: *by, descending });
                let plan = plan(&postgres, statement, "'demo', 3, '', NULL, 0, 7, 1, 100").await;
                assert!(!plan.contains("Sort"), "{by:?} {descending}\n{plan}");
                assert!(
                    plan.contains("using ledger_entries_pkey on"),
                    "{by:?} {descending}\n{plan}"
                );
                let begins = plan
                    .lines()
                    .find(|line| line.contains("Index Cond"))
                    .unwrap_or_default();
                assert!(begins.contains("ROW(seq, line)"), "{by:?} {descending}\n{plan}");
            }
        }
    }
}
