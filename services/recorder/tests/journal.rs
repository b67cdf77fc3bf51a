//! The journal becomes tables: exactly once, whatever dies, and never by covering up what is wrong.

mod support;

use contracts::bus::TradeState;
use contracts::v1::{CloseReason, Side};
use recorder::RecorderError;
use support::{World, closed, deposited, entry, modified, opened, operation, trade};

#[tokio::test]
async fn a_trades_life_is_followed_from_row_to_row() {
    let world = World::start().await;
    let recorder = world.recorder();
    let status = "SELECT concat_ws(' ', status, quantity, margin, coalesce(stop_loss_price::text, '-'), coalesce(close_price::text, '-'),
                  close_reason, realised_profit, commission, opened_seq, seq, closed_at IS NOT NULL) FROM trades";
    world
        .append(
            2,
            vec![entry(
                1,
                Some(operation(1)),
                vec![deposited("500.00"), opened(trade(1, Side::Long))],
            )],
        )
        .await;
    world.until_recorded().await;
    assert_eq!(world.text(status).await, "1 5 100.00 - - 0 0.00 0.50 1 1 f");

    let after = TradeState {
        stop_loss_price: "190".into(),
        margin: "120.00".into(),
        ..trade(1, Side::Long)
    };
    world
        .append(2, vec![entry(2, Some(operation(2)), vec![modified(after.clone())])])
        .await;
    world.until_recorded().await;
    assert_eq!(world.text(status).await, "1 5 120.00 190 - 0 0.00 0.50 1 2 f");

    let after = TradeState {
        quantity: "2".into(),
        realised_profit: "31.44".into(),
        commission: "0.80".into(),
        ..after
    };
    world
        .append(
            2,
            vec![entry(
                3,
                Some(operation(3)),
                vec![closed(after.clone(), CloseReason::Client)],
            )],
        )
        .await;
    world.until_recorded().await;
    assert_eq!(world.text(status).await, "1 2 120.00 190 210.5 1 31.44 0.80 1 3 f");

    let after = TradeState {
        quantity: "0".into(),
        margin: "0.00".into(),
        realised_profit: "52.40".into(),
        ..after
    };
    world
        .append(2, vec![entry(4, None, vec![closed(after, CloseReason::TakeProfit)])])
        .await;
    world.until_recorded().await;
    assert_eq!(world.text(status).await, "2 0 0.00 190 210.5 3 52.40 0.80 1 4 t");

    assert_eq!(
        world.count("SELECT count(*) FROM operations").await,
        3,
        "the market's close is nobody's operation"
    );
    let lines = "SELECT string_agg(concat_ws(' ', seq, line, event, kind, ledger_account, amount, coalesce(trade_number::text, '-'),
                 coalesce(right(request_id::text, 1), '-')), ', ' ORDER BY seq, line) FROM ledger_entries";
    assert_eq!(
        world.text(lines).await,
        "1 0 0 DEPOSITED 5 -500.00 - 1, 1 1 0 DEPOSITED 1 500.00 - 1, \
         1 2 1 TRADE_OPENED 1 -100.00 1 1, 1 3 1 TRADE_OPENED 2 100.00 1 1, \
         3 0 0 TRADE_CLOSED 2 -40.00 1 3, 3 1 0 TRADE_CLOSED 1 40.00 1 3, \
         4 0 0 TRADE_CLOSED 2 -40.00 1 -, 4 1 0 TRADE_CLOSED 1 40.00 1 -"
    );
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn fault_10_every_amount_is_stored_to_its_last_digit() {
    let world = World::start().await;
    let recorder = world.recorder();
    let amounts = [
        "1.15",
        "100.50",
        "0.00000001",
        "123456789012345678",
        "0.000000000000000001",
        "9999999999.99999999",
    ];
    let events = amounts.iter().map(|amount| deposited(amount)).collect();
    world.append(0, vec![entry(1, Some(operation(1)), events)]).await;
    world.until_recorded().await;
    let sql = "SELECT string_agg(amount::text, ' ' ORDER BY line) FROM ledger_entries WHERE line % 2 = 1";
    assert_eq!(world.text(sql).await, amounts.join(" "));
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn fault_11_a_short_is_stored_as_a_short() {
    let world = World::start().await;
    let recorder = world.recorder();
    let events = vec![opened(trade(1, Side::Long)), opened(trade(2, Side::Short))];
    world.append(0, vec![entry(1, Some(operation(1)), events)]).await;
    world.until_recorded().await;
    let sql = "SELECT string_agg(number || ':' || side, ' ' ORDER BY number) FROM trades";
    assert_eq!(world.text(sql).await, "1:1 2:2");
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn fault_14_a_failed_write_is_tried_again_not_acknowledged() {
    let world = World::start().await;
    sqlx::raw_sql(
        "CREATE SEQUENCE refused;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM nextval('refused'); RAISE 'not now' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON ledger_entries EXECUTE FUNCTION refuse();",
    )
    .execute(&world.pool)
    .await
    .unwrap();
    let recorder = world.recorder();
    world
        .append(0, vec![entry(1, Some(operation(1)), vec![deposited("1.00")])])
        .await;
    world
        .append(0, vec![entry(2, Some(operation(2)), vec![deposited("2.00")])])
        .await;
    world.until("SELECT last_value >= 3 FROM refused").await;
    assert_eq!(
        world.tables().await,
        Vec::<String>::new(),
        "nothing of a failed transaction stays, the cursor least of all"
    );

    sqlx::query("DROP TRIGGER refuse ON ledger_entries")
        .execute(&world.pool)
        .await
        .unwrap();
    world.until_recorded().await;
    assert_eq!(world.count("SELECT count(*) FROM ledger_entries").await, 4);
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_recorder_killed_anywhere_is_continued_by_the_next() {
    let world = World::start().await;
    world.append_a_busy_day(600).await;
    let mut kills = 0;
    let behind =
        "SELECT count(*) FROM shard_head h LEFT JOIN recorder_cursor c USING (shard) WHERE h.seq > coalesce(c.seq, 0)";
    while world.count(behind).await > 0 {
        let recorder = world.recorder();
        // A little longer each time, so that it gets somewhere on any machine.
        tokio::time::sleep(std::time::Duration::from_millis(5 + 3 * kills)).await;
        recorder.kill().await;
        kills += 1;
    }
    let recorded = world.tables().await;
    assert_eq!(recorded.len(), 4 * (1 + 600 * 2 + 150 + 600 * 2 + 450 * 2));
    recorder::rebuild(&world.pool).await.unwrap();
    assert!(
        world.tables().await == recorded,
        "killed {kills} times, or never: the same tables"
    );
}

#[tokio::test]
async fn recorders_at_once_do_the_work_of_one() {
    let world = World::start().await;
    let recorders = [world.recorder(), world.recorder(), world.recorder()];
    world.append_a_busy_day(150).await;
    world.until_recorded().await;
    let recorded = world.tables().await;
    for recorder in recorders {
        recorder.stop().await.unwrap();
    }
    assert_eq!(recorded.len(), 4 * (1 + 150 * 2 + 38 + 150 * 2 + (38 + 37 + 37) * 2));
    recorder::rebuild(&world.pool).await.unwrap();
    assert!(
        world.tables().await == recorded,
        "three recorders, or one: the same tables"
    );
}

#[tokio::test]
async fn a_rebuild_beside_a_running_recorder_gives_the_same_tables() {
    let world = World::start().await;
    world.append_a_busy_day(100).await;
    let recorder = world.recorder();
    world.until_recorded().await;
    let recorded = world.tables().await;
    for _ in 0..3 {
        recorder::rebuild(&world.pool).await.unwrap();
        world.until_recorded().await;
        assert!(world.tables().await == recorded);
    }
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_rebuild_from_a_trimmed_journal_is_refused_and_touches_nothing() {
    let world = World::start().await;
    world.append_a_busy_day(3).await;
    let recorder = world.recorder();
    world.until_recorded().await;
    recorder.stop().await.unwrap();
    let recorded = world.tables().await;
    let trim = "DELETE FROM journal WHERE shard = 1 AND first_seq < 4";
    sqlx::query(trim).execute(&world.pool).await.unwrap();
    let error = recorder::rebuild(&world.pool).await.unwrap_err();
    assert!(
        matches!(
            error,
            RecorderError::JournalTrimmed {
                shard: 1,
                first: Some(4)
            }
        ),
        "{error}"
    );
    assert_eq!(world.tables().await, recorded);
}

#[tokio::test]
async fn postgres_may_go_away_and_come_back() {
    let mut world = World::start().await;
    let recorder = world.recorder();
    world
        .append(0, vec![entry(1, Some(operation(1)), vec![deposited("1.00")])])
        .await;
    world.until_recorded().await;
    for sequence in 2..5 {
        world.postgres.kill();
        world.postgres.start_again().await;
        world.pool = world.postgres.pool();
        world
            .append(0, vec![entry(sequence, None, vec![deposited("1.00")])])
            .await;
        world.until_recorded().await;
    }
    assert_eq!(world.count("SELECT count(*) FROM ledger_entries").await, 8);
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn an_operation_executed_twice_stops_the_recorder() {
    for in_one_row in [true, false] {
        let world = World::start().await;
        let mut entries: Vec<_> = [7, 8, 7].into_iter().zip(1..).collect();
        let mut entry = |rows: usize| -> Vec<_> {
            entries
                .drain(..rows)
                .map(|(id, n)| entry(n, Some(operation(id)), vec![deposited("1.00")]))
                .collect()
        };
        if in_one_row {
            world.append(1, entry(3)).await;
        } else {
            world.append(1, entry(2)).await;
            let recorder = world.recorder();
            world.until_recorded().await;
            recorder.stop().await.unwrap();
            world.append(1, entry(1)).await;
        }
        let error = world.recorder().ended().await.unwrap_err();
        let RecorderError::ExecutedTwice {
            shard: 1,
            principal,
            request_id,
            first: 1,
            second: 3,
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((principal.as_str(), request_id.as_u128()), ("alice", 7));
        let recorded = if in_one_row { 0 } else { 2 };
        assert_eq!(world.count("SELECT count(*) FROM operations").await, recorded);
        assert_eq!(
            world.count("SELECT coalesce(max(seq), 0) FROM recorder_cursor").await,
            recorded
        );
    }
}

#[tokio::test]
async fn a_client_cannot_stop_the_recorder_by_using_one_request_id_on_two_shards() {
    let world = World::start().await;
    let recorder = world.recorder();
    world
        .append(1, vec![entry(1, Some(operation(7)), vec![deposited("1.00")])])
        .await;
    world.until_recorded().await;
    world
        .append(2, vec![entry(1, Some(operation(7)), vec![deposited("1.00")])])
        .await;
    world
        .append(2, vec![entry(2, Some(operation(8)), vec![deposited("1.00")])])
        .await;
    world.until_recorded().await;
    assert_eq!(
        world.count("SELECT count(*) FROM ledger_entries").await,
        6,
        "all money is in the ledger"
    );
    recorder.stop().await.unwrap();
}

#[tokio::test]
async fn a_gap_in_the_journal_stops_the_recorder() {
    let world = World::start().await;
    world.append(3, vec![entry(1, None, vec![deposited("1.00")])]).await;
    world.append(3, vec![entry(3, None, vec![deposited("1.00")])]).await;
    let error = world.recorder().ended().await.unwrap_err();
    assert!(
        matches!(
            error,
            RecorderError::Gap {
                shard: 3,
                expected: 2,
                found: Some(3)
            }
        ),
        "{error}"
    );

    sqlx::query("DELETE FROM journal").execute(&world.pool).await.unwrap();
    let error = world.recorder().ended().await.unwrap_err();
    assert!(
        matches!(
            error,
            RecorderError::Gap {
                shard: 3,
                expected: 1,
                found: None
            }
        ),
        "{error}"
    );
    assert_eq!(world.tables().await, Vec::<String>::new());
}

#[tokio::test]
async fn a_change_of_a_trade_that_never_opened_stops_the_recorder() {
    let world = World::start().await;
    world
        .append(
            0,
            vec![entry(
                1,
                None,
                vec![opened(trade(1, Side::Long)), modified(trade(2, Side::Long))],
            )],
        )
        .await;
    let error = world.recorder().ended().await.unwrap_err();
    assert!(
        matches!(error, RecorderError::TradeUnknown { shard: 0, number: 2 }),
        "{error}"
    );
    assert_eq!(world.tables().await, Vec::<String>::new());
}
