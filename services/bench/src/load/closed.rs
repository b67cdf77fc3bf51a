//! The closed loop: so many callers, each of which waits for its answer before it calls again.
//!
//! It says what a server can do at most. It says little about waiting: a slow server is asked less often.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use contracts::v1;
use uuid::Uuid;

use super::door::{Answer, Call, Door, End};
use super::wire::Wire;
use super::work::{Session, account};
use super::{Counted, Plan, STREAMS_MAX, Target, sessions};
use crate::cpu::{Used, Watch};
use crate::sample::Tally;

/// Money of each account. Enough for as many trades as a run can open.
const DEPOSIT: &str = "1000000000";
/// Wallets made at once.
const PREPARED_AT_ONCE: usize = 64;

/// Connects so many wires to the target.
pub(super) async fn wires(target: &Target, door: Door, count: usize) -> anyhow::Result<Vec<Wire>> {
    let mut wires = Vec::with_capacity(count);
    for n in 0..count {
        let token = target
            .tokens
            .get(n % target.tokens.len().max(1))
            .map_or("", String::as_str);
        wires.push(Wire::connect(target.address, door, token).await?);
    }
    Ok(wires)
}

/// Counts how a call went.
pub(super) fn count(tally: &mut Tally, answer: Option<&Answer>, latency: Duration, in_time: bool) {
    match answer.map(|it| &it.end) {
        Some(End::Done) => {
            tally.latencies.record(latency);
            tally.in_time += u64::from(in_time);
        }
        Some(End::Refused) => tally.refusals.record(latency),
        Some(End::Failed(how)) => *tally.failed.entry(how.clone()).or_default() += 1,
        None => tally.lost += 1,
    }
}

pub(super) async fn run(
    target: &Target,
    plan: &Plan,
    concurrency: usize,
    watch: &Watch,
) -> anyhow::Result<(Tally, Used)> {
    let wires = wires(target, plan.door, concurrency.div_ceil(STREAMS_MAX)).await?;
    let counted = Rc::new(RefCell::new(Counted::default()));
    let stop = Rc::new(Cell::new(false));
    let callers: Vec<_> = sessions(plan.work, target, concurrency)
        .into_iter()
        .zip(wires.iter().cycle().cloned())
        .map(|(session, wire)| {
            tokio::task::spawn_local(keep_calling(session, wire, Rc::clone(&counted), Rc::clone(&stop)))
        })
        .collect();
    tokio::time::sleep(plan.warm_up).await;
    let before = watch.read();
    counted.borrow_mut().counts = true;
    tokio::time::sleep(plan.measure).await;
    counted.borrow_mut().counts = false;
    let used = watch.read().since(&before);
    stop.set(true);
    for caller in callers {
        caller.await.context("a caller panicked")?;
    }
    Ok((counted.take().tally, used))
}

async fn keep_calling(mut session: Session, mut wire: Wire, counted: Rc<RefCell<Counted>>, stop: Rc<Cell<bool>>) {
    while !stop.get() {
        let call = session.next();
        let begun = Instant::now();
        let mut answer = wire.call(&call, session.wants_trade()).await;
        {
            let counted = &mut *counted.borrow_mut();
            if counted.counts {
                count(&mut counted.tally, answer.as_ref(), begun.elapsed(), true);
            }
        }
        match &mut answer {
            Some(answer) => session.answered(answer),
            // The connection is gone, and every call on it would be lost at once.
            None => return,
        }
    }
}

/// See [`super::prepare`].
pub(super) async fn prepare(target: &Target) -> anyhow::Result<()> {
    let wires = wires(target, Door::Grpc, 1).await?;
    let next = Rc::new(Cell::new(0));
    let makers: Vec<_> = (0..PREPARED_AT_ONCE.min(target.accounts))
        .map(|_| {
            let (mut wire, next, accounts) = (wires[0].clone(), Rc::clone(&next), target.accounts);
            tokio::task::spawn_local(async move {
                while next.get() < accounts {
                    let account_id = account(next.replace(next.get() + 1));
                    make_wallet(&mut wire, account_id).await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for maker in makers {
        maker.await.context("preparing panicked")??;
    }
    Ok(())
}

async fn make_wallet(wire: &mut Wire, account_id: String) -> anyhow::Result<()> {
    let request_id = || Uuid::now_v7().to_string();
    let wallet = Call::InitializeWallet(v1::InitializeWalletRequest {
        account_id: account_id.clone(),
        request_id: request_id(),
    });
    let deposit = Call::Deposit(v1::DepositRequest {
        account_id,
        request_id: request_id(),
        amount: Some(v1::Money {
            currency_code: "USDC".to_owned(),
            amount: DEPOSIT.to_owned(),
        }),
    });
    for call in [wallet, deposit] {
        match wire.call(&call, false).await.map(|answer| answer.end) {
            Some(End::Done) => {}
            other => bail!("{call:?} ended with {other:?}"),
        }
    }
    Ok(())
}
