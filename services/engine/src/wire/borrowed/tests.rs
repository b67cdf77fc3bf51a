//! The borrowed messages beside the format, and beside the library that owns what it reads.

use contracts::bus;
use proptest::prelude::*;
use prost::Message as _;
use prost_types::{DescriptorProto, FileDescriptorSet};

use super::*;
use crate::window::Journaled;

fn message<'a>(set: &'a FileDescriptorSet, name: &str) -> &'a DescriptorProto {
    let files = set.file.iter().filter(|file| file.package() == "fulcrum.bus.v1");
    files
        .flat_map(|file| &file.message_type)
        .find(|message| message.name() == name)
        .unwrap_or_else(|| panic!("no message {name}"))
}

fn number(message: &DescriptorProto, name: &str) -> Option<i32> {
    let found = message.field.iter().find(|field| field.name() == name)?;
    Some(found.number())
}

#[test]
fn names_and_numbers_are_those_of_the_format() {
    let set = FileDescriptorSet::decode(contracts::DESCRIPTOR_SET).unwrap();
    for (name, fields) in ALL {
        let message = message(&set, name);
        for (field, expected) in *fields {
            assert_eq!(number(message, field), i32::try_from(*expected).ok(), "{name}.{field}");
        }
    }
    for (name, field, expected) in [
        ("JournalBatch", "entries", ENTRIES),
        ("JournalEntry", "events", EVENTS),
        ("JournalEvent", "lines", LINES),
    ] {
        assert_eq!(
            number(message(&set, name), field),
            i32::try_from(expected).ok(),
            "{name}.{field}"
        );
    }
}

#[test]
fn a_message_is_read_as_it_was_written() {
    let written = bus::TradeState {
        number: u64::MAX,
        account_id: "ada".to_owned(),
        side: -1,
        opened_at_us: 0x0102_0304_0506_0708,
        realised_profit: "-0.01".to_owned(),
        ..bus::TradeState::default()
    }
    .encode_to_vec();
    let it = TradeState::read(&written).unwrap();
    assert_eq!((it.number, it.account_id, it.side), (u64::MAX, "ada", -1));
    assert_eq!(
        (it.opened_at_us.0, it.realised_profit),
        (0x0102_0304_0506_0708, "-0.01")
    );
    assert_eq!((it.symbol, it.margin), ("", ""));
}

#[test]
fn what_is_unknown_is_passed_over_and_what_comes_again_counts_the_last_time() {
    let first = bus::WalletInitialized {
        account_id: "ada".to_owned(),
    }
    .encode_to_vec();
    let second = bus::WalletInitialized {
        account_id: "bob".to_owned(),
    }
    .encode_to_vec();
    // Field 99: a number, eight bytes, four bytes, a text.
    let unknown = [
        &[0x98, 0x06, 0x2a][..],
        &[0x99, 0x06, 1, 2, 3, 4, 5, 6, 7, 8],
        &[0x9d, 0x06, 1, 2, 3, 4],
        &[0x9a, 0x06, 2, b'h', b'i'],
    ]
    .concat();
    let both = [first, unknown, second].concat();
    assert_eq!(WalletInitialized::read(&both).unwrap().account_id, "bob");
}

#[test]
fn a_message_that_comes_twice_is_refused() {
    let once = bus::TradeOpened {
        trade: Some(bus::TradeState::default()),
        ..bus::TradeOpened::default()
    }
    .encode_to_vec();
    assert!(TradeOpened::read(&once).is_ok());
    let twice = [once.clone(), once].concat();
    TradeOpened::read(&twice).unwrap_err();
}

#[test]
fn what_is_no_message_is_refused() {
    for bytes in [
        // A text longer than what is there, one that is none, and a number where a text should be.
        &[0x0a, 5, b'a'][..],
        &[0x0a, 1, 0xff],
        &[0x08, 1],
        // A key that ends nowhere, one of field 0, a group, and a number of more than 64 bits.
        &[0x80],
        &[0x02, 0],
        &[0x0b],
        &[0x98, 0x06, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02],
        &[
            0x98, 0x06, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01,
        ],
    ] {
        WalletInitialized::read(bytes).expect_err(&format!("{bytes:x?}"));
        bus::WalletInitialized::decode(bytes).expect_err(&format!("{bytes:x?}"));
    }
}

fn operation() -> impl Strategy<Value = Vec<u8>> {
    let outcome = prop_oneof![
        any::<Vec<u8>>().prop_map(|bytes| bus::operation_record::Outcome::Response(bytes.into())),
        ".*".prop_map(|message| bus::operation_record::Outcome::Failure(bus::Failure {
            message,
            ..bus::Failure::default()
        })),
    ];
    ("[a-z]{0,9}", any::<[u8; 16]>(), any::<i32>(), outcome).prop_map(|(principal, id, kind, outcome)| {
        bus::OperationRecord {
            principal,
            request_id: id.to_vec().into(),
            kind,
            outcome: Some(outcome),
            ..bus::OperationRecord::default()
        }
        .encode_to_vec()
    })
}

proptest! {
    /// A remembered operation is read whole only when it is asked for again, so what is taken in must be readable then.
    #[test]
    fn what_is_remembered_can_be_read_again(
        mut bytes in operation(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        if damage.is_empty() {
            prop_assert!(Journaled::read(&bytes).is_ok());
        }
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if Journaled::read(&bytes).is_ok() {
            prop_assert!(bus::OperationRecord::decode(&*bytes).is_ok(), "{bytes:x?}");
        }
    }
}
