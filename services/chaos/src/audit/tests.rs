//! Small histories, right and wrong. The whole of a real run is spoilt in the same ways where it is run.

use contracts::bus::{
    Failure, JournalBatch, JournalEntry, JournalEvent, JournalLine, LedgerAccountKind, OperationKind,
};
use contracts::v1::{self, ErrorReason};

use super::*;
use crate::history::{Recorded, Row};
use crate::order::Order;

const ACCOUNT: &str = "alice";

/// A wallet, a deposit and a refused withdrawal, on one shard.
fn good() -> History {
    let mut history = History {
        shards: 1,
        ..History::default()
    };
    let id = |n: u128| Uuid::from_u128(n);
    let refusal = Failure {
        reason: ErrorReason::InsufficientFunds.into(),
        message: "too much".to_owned(),
        ..Default::default()
    };
    let deposit = v1::DepositRequest {
        request_id: id(2).to_string(),
        ..Default::default()
    };
    let withdraw = v1::WithdrawRequest {
        request_id: id(3).to_string(),
        ..Default::default()
    };
    let told = [
        (
            Order::Deposit(deposit),
            OperationKind::Deposit,
            Outcome::Response(vec![1, 2].into()),
        ),
        (
            Order::Withdraw(withdraw),
            OperationKind::Withdraw,
            Outcome::Failure(refusal.clone()),
        ),
    ];
    for ((sequence, number), (order, kind, outcome)) in (1..).zip(2..).zip(told) {
        let answer = match &outcome {
            Outcome::Response(bytes) => Answer::Done(bytes.to_vec()),
            Outcome::Failure(failure) => Answer::Refused {
                reason: failure.reason().code().to_owned(),
                message: failure.message.clone(),
            },
        };
        history.acknowledged.push(Acknowledged {
            account: ACCOUNT.to_owned(),
            order,
            answer,
        });
        let record = OperationRecord {
            principal: ACCOUNT.to_owned(),
            account_id: ACCOUNT.to_owned(),
            request_id: id(number).as_bytes().to_vec().into(),
            kind: kind.into(),
            outcome: Some(outcome),
            ..Default::default()
        };
        let lines = [(LedgerAccountKind::Cash, "-5"), (LedgerAccountKind::Client, "5")];
        let booked = if kind == OperationKind::Deposit {
            &lines[..]
        } else {
            &[]
        };
        let lines: Vec<JournalLine> = booked
            .iter()
            .map(|(ledger_account, amount)| JournalLine {
                ledger_account: (*ledger_account).into(),
                account_id: ACCOUNT.to_owned(),
                currency_code: CURRENCY.to_owned(),
                amount: (*amount).to_owned(),
            })
            .collect();
        let line = |line: &JournalLine| Line {
            shard: 0,
            sequence,
            event: 0,
            ledger_account: line.ledger_account,
            account: ACCOUNT.to_owned(),
            currency: CURRENCY.to_owned(),
            amount: line.amount.parse().unwrap(),
        };
        history.ledger.extend(lines.iter().map(line));
        history.operations.push(Recorded {
            shard: 0,
            sequence,
            record: record.clone(),
        });
        let entry = JournalEntry {
            sequence,
            operation: Some(record),
            events: vec![JournalEvent { kind: None, lines }],
            ..Default::default()
        };
        history.journal.push(Row {
            shard: 0,
            first: sequence,
            last: sequence,
            epoch: sequence,
            batch: JournalBatch {
                entries: vec![entry],
                ..Default::default()
            },
        });
    }
    history.heads.insert(0, (2, 2));
    let five = (Decimal::from(5), Decimal::ZERO);
    history.balances.insert((ACCOUNT.to_owned(), CURRENCY.to_owned()), five);
    history.computed.insert(ACCOUNT.to_owned(), five);
    history
}

/// What is found once a good history is spoilt.
fn found(spoil: impl FnOnce(&mut History)) -> Vec<Kind> {
    let mut history = good();
    spoil(&mut history);
    let mut kinds: Vec<Kind> = audit(&history).iter().map(|finding| finding.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

#[test]
fn nothing_is_wrong_with_a_good_history() {
    assert_eq!(audit(&good()), []);
}

#[test]
fn a_lost_acknowledgement_is_found() {
    let last_row_gone = |history: &mut History| {
        // As if it had never been: rows, tables and head agree with each other. Only the client knows better.
        history.journal.pop();
        history.operations.pop();
        history.heads.insert(0, (2, 1));
    };
    assert_eq!(found(last_row_gone), [Kind::Lost]);
}

#[test]
fn an_operation_executed_twice_is_found() {
    let again = |history: &mut History| {
        let mut row = history.journal[1].clone();
        (row.first, row.last) = (3, 3);
        row.batch.entries[0].sequence = 3;
        history.journal.push(row);
        history.heads.insert(0, (2, 3));
    };
    assert!(found(again).contains(&Kind::Doubled));
}

#[test]
fn another_answer_than_was_given_is_found() {
    let other_bytes = |history: &mut History| history.acknowledged[0].answer = Answer::Done(vec![1, 3]);
    assert_eq!(found(other_bytes), [Kind::Different]);
    let other_refusal = |history: &mut History| {
        history.acknowledged[1].answer = Answer::Refused {
            reason: "INSUFFICIENT_FUNDS".to_owned(),
            message: "much too much".to_owned(),
        };
    };
    assert_eq!(found(other_refusal), [Kind::Different]);
    let other_owner = |history: &mut History| history.journal[0].batch.entries[0].operation = None;
    assert!(found(other_owner).contains(&Kind::Lost));
}

#[test]
fn an_operation_that_nobody_was_told_of_is_found() {
    assert_eq!(
        found(|history| {
            history.acknowledged.pop();
        }),
        [Kind::Unknown]
    );
}

#[test]
fn gaps_and_old_leaders_are_found() {
    assert!(
        found(|history| {
            history.journal.remove(0);
        })
        .contains(&Kind::Sequence)
    );
    assert_eq!(found(|history| history.journal[1].epoch = 0), [Kind::Sequence]);
    assert_eq!(
        found(|history| {
            history.heads.insert(0, (2, 3));
        }),
        [Kind::Sequence]
    );
    assert_eq!(found(|history| history.journal[1].last = 3), [Kind::Sequence]);
}

#[test]
fn money_that_does_not_add_up_is_found() {
    let cent = |history: &mut History| history.ledger[1].amount += Decimal::new(1, 2);
    assert_eq!(found(cent), [Kind::Table, Kind::Unbalanced, Kind::Balance]);
    let computed = |history: &mut History| history.computed.values_mut().for_each(|it| it.0 += Decimal::ONE);
    assert_eq!(found(computed), [Kind::Balance]);
    assert_eq!(
        found(|history| {
            history.operations.pop();
        }),
        [Kind::Table]
    );
}
