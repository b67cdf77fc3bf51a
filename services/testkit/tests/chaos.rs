//! Real misfortune in short: twenty strikes on real processes under load, every kind among them, and then the auditor. The long form is
//! `fulcrum chaos`, which is the same code.
//!
//! The auditor is believed only because it was seen to find what is wrong: the history of the run is spoilt in every way that matters, and
//! it must say so each time.

mod binary;

use std::io::Write as _;

use chaos::Options;
use chaos::audit::{Kind, audit};
use chaos::history::History;
use chaos::order::Answer;
use chaos::strike::Strike;
use contracts::bus::operation_record::Outcome;
use rust_decimal::Decimal;

fn seed() -> Option<u64> {
    std::env::var("FULCRUM_CHAOS_SEED").ok()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fault_05_whatever_is_killed_stopped_or_emptied_nothing_acknowledged_is_lost_or_done_twice() {
    let options = Options {
        kills: 20,
        acks: 1_500,
        seed: seed(),
        clients: 8,
        shards: 4,
        outage: 4,
        program: None,
    };
    let (report, history) = chaos::run(binary::program(), &options).await.expect("a run");
    // The figures, also when all is well.
    let _unheard = write!(std::io::stderr().lock(), "{report}");
    assert!(report.is_good(), "{report}");
    assert_eq!(report.strikes(), options.kills);
    assert_eq!(
        report.strikes.len(),
        Strike::DECK_SIZE - 2,
        "every kind was met: two are in the deck twice"
    );
    assert!(report.acknowledged >= options.acks && history.acknowledged.len() as u64 == report.acknowledged);
    assert!(report.repeated > 0 && report.marks.commits_cut > 0 && !report.marks.take_overs.is_empty());

    spoilt(&history, Kind::Lost, "an acknowledged operation vanishes", |history| {
        let row = history.journal.iter_mut().find(|row| has_operation(row));
        let entries = &mut row.expect("operations").batch.entries;
        let entry = entries.iter_mut().find(|entry| entry.operation.is_some());
        entry.expect("an operation").operation = None;
    });
    spoilt(&history, Kind::Doubled, "an operation was executed twice", |history| {
        let row = history.journal.iter().rposition(has_operation).expect("operations");
        let mut again = history.journal[row].clone();
        (again.first, again.last) = (again.last + 1, again.last + 1);
        again.batch.entries.truncate(1);
        again.batch.entries[0].sequence = again.first;
        history.journal.insert(row + 1, again);
    });
    spoilt(&history, Kind::Different, "another answer was given", |history| {
        let first = history.acknowledged.iter_mut().find_map(|it| match &mut it.answer {
            Answer::Done(bytes) => bytes.last_mut(),
            Answer::Refused { .. } => None,
        });
        *first.expect("an answer") ^= 1;
    });
    spoilt(
        &history,
        Kind::Different,
        "a refusal was given where money moved",
        |history| {
            let operations = history.journal.iter_mut().flat_map(|row| &mut row.batch.entries);
            let mut records = operations.filter_map(|entry| entry.operation.as_mut());
            let done = records.find(|record| matches!(record.outcome, Some(Outcome::Response(_))));
            done.expect("an operation").outcome = Some(Outcome::Failure(Default::default()));
        },
    );
    spoilt(&history, Kind::Unknown, "a client forgot an answer", |history| {
        history.acknowledged.pop();
    });
    spoilt(&history, Kind::Sequence, "a row is missing", |history| {
        history.journal.remove(history.journal.len() / 2);
    });
    spoilt(
        &history,
        Kind::Sequence,
        "a leader wrote after its successor",
        |history| {
            let last = history.journal.last_mut().expect("rows");
            last.epoch = 0;
        },
    );
    spoilt(&history, Kind::Unbalanced, "a cent came from nowhere", |history| {
        history.ledger[0].amount += Decimal::new(1, 2);
    });
    spoilt(&history, Kind::Balance, "a balance is off", |history| {
        let balance = history.balances.values_mut().next().expect("balances");
        balance.0 += Decimal::new(1, 2);
    });
    spoilt(&history, Kind::Table, "the table misses an operation", |history| {
        history.operations.pop();
    });
}

fn has_operation(row: &chaos::history::Row) -> bool {
    row.batch.entries.first().is_some_and(|entry| entry.operation.is_some())
}

/// Spoils a copy of a good history, and expects the auditor to find that.
fn spoilt(history: &History, kind: Kind, what: &str, spoil: impl FnOnce(&mut History)) {
    let mut history = history.clone();
    spoil(&mut history);
    let found = audit(&history);
    assert!(
        found.iter().any(|finding| finding.kind == kind),
        "{what}, and nobody noticed: {found:?}"
    );
}
