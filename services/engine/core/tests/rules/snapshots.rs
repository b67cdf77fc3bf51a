//! The state's identity: its hash, its bytes, and what does not fit.

use engine_core::canonical::{Entity, LedgerBalance};
use engine_core::{EntityOwned, Event, EventKind, LedgerAccount, LedgerLine, Market, State, TradeId};

use crate::story::{World, account, currency, instrument, money, play};

const A_LIFE: &str = "
    instrument SOL_USDC commission 0.001 maintenance 0.005
    quote SOL_USDC 199.98 200
    quote BTC_USDC 60000 60001
    open zoe SOL_USDC long margin 100 leverage 10 stop 190
    open amy BTC_USDC short quantity 0.5 leverage 20 take 50000
    open zoe BTC_USDC long quantity 0.1 leverage 5
    close zoe 1 percent 50
    open amy SOL_USDC short margin 7.77 leverage 3
    close amy 2
    modify zoe 3 add 12.34";

fn bytes_of(state: &State) -> Vec<Vec<u8>> {
    let encoded = state.entities().map(|entity| {
        let mut bytes = Vec::new();
        entity.encode(&mut bytes);
        bytes
    });
    encoded.collect()
}

#[test]
fn a_restored_state_lists_the_same_entities_in_the_same_order() {
    let world = play(A_LIFE);
    let copy = world.copied();
    assert_eq!(bytes_of(&copy), bytes_of(&world.state));
    assert_eq!(bytes_of(&copy).len(), 1 + 3 + 3 + 2 + 3);
}

#[test]
fn a_restored_state_goes_on_as_the_original() {
    let mut world = play(A_LIFE);
    let mut copy = World::new();
    (copy.state, copy.market, copy.now) = (world.copied(), world.market.clone(), world.now);
    for it in [&mut world, &mut copy] {
        it.outcomes.clear();
        it.tell("quote SOL_USDC 190 190.02 id 100");
        it.tell("open amy SOL_USDC long margin 50 leverage 4");
        it.tell("close zoe 3");
    }
    assert_eq!(world.outcomes, copy.outcomes);
    assert!(
        world
            .outcomes
            .first()
            .is_some_and(|it| it.starts_with("zoe trade 1 stopped")),
        "{:?}",
        world.outcomes
    );
    assert_eq!(world.state.hash(), copy.state.hash());
}

#[test]
fn the_order_of_entities_does_not_matter() {
    let world = play(A_LIFE);
    let mut entities: Vec<EntityOwned> = world.state.entities().map(|it| it.to_owned()).collect();
    entities.reverse();
    assert_eq!(State::restore(entities.into_iter()).hash(), world.state.hash());
}

#[test]
fn every_missing_entity_shows_in_the_hash() {
    let world = play(A_LIFE);
    let entities: Vec<EntityOwned> = world.state.entities().map(|it| it.to_owned()).collect();
    for missing in 0..entities.len() {
        let rest = entities
            .iter()
            .enumerate()
            .filter(|(place, _)| *place != missing)
            .map(|(_, it)| it.clone());
        if let Ok(state) = State::try_restore(rest) {
            assert_ne!(state.hash(), world.state.hash(), "{:?}", entities[missing]);
        }
    }
}

#[test]
fn every_flipped_bit_is_refused_or_shows() {
    let world = play(A_LIFE);
    for bytes in bytes_of(&world.state) {
        assert_eq!(
            EntityOwned::decode(&bytes).map(|it| it.as_entity().to_owned() == it),
            Ok(true)
        );
        for place in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[place / 8] ^= 1 << (place % 8);
            if let Ok(entity) = EntityOwned::decode(&damaged) {
                let mut again = Vec::new();
                entity.as_entity().encode(&mut again);
                assert_eq!(again, damaged, "what is accepted is what was written");
            }
        }
        assert!(EntityOwned::decode(&bytes[..bytes.len() - 1]).is_err());
        assert!(EntityOwned::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }
}

#[test]
fn the_bytes_of_a_number_do_not_depend_on_how_it_was_written() {
    let (mut one, mut other) = (
        play("deposit demo 1.5 USDC").state,
        play("deposit demo 1.50 USDC").state,
    );
    assert_eq!(one.hash(), other.hash());
    // The empty state is an entity too: its counters.
    (one, other) = (State::new(), State::default());
    assert_eq!(bytes_of(&one), bytes_of(&other));
    assert!(matches!(one.entities().next(), Some(Entity::Counters(_))));
}

/// A pinned value: if it changes, every journal and snapshot in the world stops verifying. Change it knowingly.
#[test]
fn the_hash_of_a_known_life_is_known() {
    assert_eq!(State::new().hash().to_string(), "0221bd99cddffeb5c7fb03c6dc556247");
    assert_eq!(
        play(A_LIFE).state.hash().to_string(),
        "e0ce071894944ab4407088c39eda20eb"
    );
}

#[test]
fn an_event_that_does_not_fit_is_refused() {
    let world = play(A_LIFE);
    let opened = world
        .events
        .iter()
        .find(|(_, it)| matches!(it.kind, EventKind::TradeOpened { .. }))
        .expect("one opened");
    let last = world
        .events
        .iter()
        .rfind(|(_, it)| matches!(it.kind, EventKind::TradeClosed(_)))
        .expect("one closed");
    for (name, (at, event)) in [("opened twice", opened), ("closed twice", last)] {
        assert!(world.state.clone().try_apply(*at, event).is_err(), "{name}");
    }

    let overdrawn = |account, amount: &str| {
        let (currency, amount) = (currency("USDC"), money(amount));
        let line = LedgerLine {
            account,
            currency: currency.clone(),
            amount,
        };
        let kind = EventKind::Withdrawn {
            account: crate::story::account("zoe"),
            currency,
            amount,
        };
        Event {
            kind,
            lines: vec![line],
        }
    };
    let at = world.now;
    for (event, fits) in [
        (overdrawn(LedgerAccount::Client(account("zoe")), "-1"), true),
        (overdrawn(LedgerAccount::Client(account("zoe")), "-10000"), false),
        (overdrawn(LedgerAccount::Margin(account("zoe")), "-10000"), false),
        (overdrawn(LedgerAccount::Client(account("stranger")), "1"), false),
        (overdrawn(LedgerAccount::House, "-1000000"), true),
    ] {
        assert_eq!(world.state.clone().try_apply(at, &event).is_ok(), fits, "{event:?}");
    }
}

#[test]
fn instruments_are_listed_by_symbol() {
    let mut world = World::new();
    for name in ["ZZZ_USDC", "AAA_USDC"] {
        world
            .act(&engine_core::Command::ConfigureInstrument(instrument(name)))
            .expect("valid");
    }
    let names: Vec<&str> = world.state.instruments().map(|it| it.symbol.as_str()).collect();
    assert_eq!(names, ["AAA_USDC", "BTC_USDC", "ETH_USDC", "SOL_USDC", "ZZZ_USDC"]);
    assert_eq!(world.state.trade(TradeId::new(1)), None);
    assert_eq!(
        world.market.tradable(&crate::story::symbol("SOL_USDC")),
        Market::new().tradable(&crate::story::symbol("x"))
    );
}

/// No event of ours has lines of two clients; one that had would still move each one's money and nobody else's.
#[test]
fn lines_of_several_accounts_reach_each_of_them() {
    let mut world = play(A_LIFE);
    let free = |world: &World, name: &str| world.state.account(&account(name)).unwrap().free(&currency("USDC"));
    let (zoe, amy) = (free(&world, "zoe"), free(&world, "amy"));
    let line = |name: &str, amount: &str| LedgerLine {
        account: LedgerAccount::Client(account(name)),
        currency: currency("USDC"),
        amount: money(amount),
    };
    let event = Event {
        kind: EventKind::Deposited {
            account: account("zoe"),
            currency: currency("USDC"),
            amount: money("5"),
        },
        lines: vec![line("zoe", "5"), line("amy", "-7"), line("zoe", "2")],
    };
    world.state.apply(world.now, &event);
    assert_eq!(free(&world, "zoe").checked_sub(zoe), Some(money("7")));
    assert_eq!(free(&world, "amy").checked_sub(amy), Some(money("-7")));
    assert_eq!(world.state.hash(), world.state.recompute_hash());
}

#[test]
fn amounts_of_every_size_survive_their_bytes() {
    for amount in [
        "0.01",
        "42949672.95",
        "42949672.96",
        "123456789012.34",
        "999999999999.9",
    ] {
        let mut world = World::new();
        world.tell("quote SOL_USDC 199.98 200");
        world.tell(&format!("deposit zoe {amount} USDC"));
        assert_eq!(bytes_of(&world.copied()), bytes_of(&world.state), "{amount}");
        let free = |state: &State| state.account(&account("zoe")).unwrap().free(&currency("USDC"));
        assert_eq!(free(&world.copied()), free(&world.state), "{amount}");
    }
}

#[test]
fn a_clients_balance_beside_its_account_is_refused() {
    for owner in [
        LedgerAccount::Client(account("zoe")),
        LedgerAccount::Margin(account("zoe")),
    ] {
        let entry = LedgerBalance {
            account: owner,
            currency: currency("USDC"),
            balance: money("5"),
        };
        let mut bytes = Vec::new();
        Entity::Ledger(&entry).encode(&mut bytes);
        let read = EntityOwned::decode(&bytes).expect("the bytes are an entity");
        assert_eq!(read, EntityOwned::Ledger(entry));
        let restored = State::try_restore(std::iter::once(read));
        assert!(restored.is_err_and(|cause| cause.to_string().contains("outside its account")));
    }
}

/// `decide` refuses it; a journal that says so all the same is damaged.
#[test]
fn a_grid_does_not_move_under_open_trades() {
    let moved = |change: fn(&mut engine_core::Instrument)| {
        let mut it = instrument("SOL_USDC");
        change(&mut it);
        Event {
            kind: EventKind::InstrumentConfigured(it),
            lines: Vec::new(),
        }
    };
    let tick = moved(|it| it.tick = engine_core::Price::parse("0.05").unwrap());
    let step = moved(|it| it.step = engine_core::Quantity::parse("0.01").unwrap());
    let mode = moved(|it| it.mode = engine_core::TradingMode::CloseOnly);
    for event in [&tick, &step] {
        let mut world = play(A_LIFE);
        assert!(world.state.try_apply(world.now, event).is_err());
        let mut world = World::new();
        world.tell("quote SOL_USDC 199.98 200");
        assert_eq!(world.state.try_apply(world.now, event), Ok(()));
        assert_eq!(world.state.hash(), world.state.recompute_hash());
    }
    let mut world = play(A_LIFE);
    assert_eq!(world.state.try_apply(world.now, &mode), Ok(()));
}
