//! A client as one should be written: it makes an id for each order, sends it until it is answered, and keeps the answer. Unlike others
//! it also sends old orders again now and then, and minds whether it gets the old answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use contracts::v1;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::book::{Book, CURRENCY};
use crate::mesh::SYMBOL;
use crate::order::{Answer, Door, Order, Try};
use crate::progress::Progress;
use crate::proof::{Acknowledged, Proof};

/// How long one try may take.
const DEADLINE: Duration = Duration::from_secs(3);
/// Pause before an order is sent again.
const PAUSE: Duration = Duration::from_millis(50);
/// Old orders that are repeated in a round.
const REPEATS: usize = 8;
/// Old orders that are repeated at the end.
const REPEATS_AT_THE_END: usize = 200;
/// Trades that a client holds at once.
const OPEN_MAX: usize = 20;

/// A client with an account of its own.
#[derive(Debug)]
pub struct Client {
    account: String,
    shard: u32,
    doors: [Door; 2],
    /// Which of the two is used now.
    at: usize,
    proof: Proof,
    book: Book,
    past: Vec<(Order, Answer)>,
    dice: SmallRng,
    round: u64,
    progress: Arc<Progress>,
}

/// What a client has at the end.
#[derive(Clone, Debug)]
pub struct Holdings {
    /// Whose.
    pub account: String,
    /// Free cash as it computed it.
    pub free: Decimal,
    /// Locked margin as it computed it.
    pub locked: Decimal,
}

impl Client {
    /// One that has done nothing yet.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub async fn new(
        account: String,
        shard: u32,
        doors: [Door; 2],
        file: PathBuf,
        seed: u64,
        progress: Arc<Progress>,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            account,
            shard,
            doors,
            at: usize::from(seed % 2 == 1),
            proof: Proof::create(&file).await?,
            book: Book::default(),
            past: Vec::new(),
            dice: SmallRng::seed_from_u64(seed),
            round: 0,
            progress,
        })
    }

    /// Trades until told to stop; then finishes what it is at, and repeats some of the old.
    ///
    /// # Errors
    /// When its disk refuses.
    pub async fn run(mut self) -> anyhow::Result<Holdings> {
        let first = self.initialize();
        self.carry_out(first).await?;
        while !self.progress.stops() {
            if self.round != self.progress.round() {
                self.round = self.progress.round();
                self.repeat(REPEATS).await;
            }
            let order = self.draw();
            self.carry_out(order).await?;
        }
        self.repeat(REPEATS_AT_THE_END).await;
        Ok(Holdings {
            account: self.account,
            free: self.book.free,
            locked: self.book.locked(),
        })
    }

    async fn carry_out(&mut self, order: Order) -> anyhow::Result<()> {
        let Some(answer) = self.insist(&order).await else {
            return Ok(());
        };
        self.progress.answer(self.shard);
        let acknowledged = Acknowledged {
            account: self.account.clone(),
            order,
            answer,
        };
        self.proof.keep(&acknowledged).await?;
        self.progress.acknowledge();
        let Acknowledged { order, answer, .. } = acknowledged;
        if let Err(error) = self.book.take(&order, &answer) {
            self.wrong(&order, &format!("{error:#}"));
        }
        self.past.push((order, answer));
        Ok(())
    }

    /// Sends an order until it is answered; nothing when the answer is one that should not be.
    async fn insist(&mut self, order: &Order) -> Option<Answer> {
        loop {
            match self.doors[self.at].send(order, DEADLINE).await {
                Try::Answered(answer) => return Some(answer),
                Try::Again { reason, .. } => self.progress.again(&reason),
                Try::Wrong(what) => {
                    self.wrong(order, &what);
                    return None;
                }
            }
            self.at = 1 - self.at;
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Sends old orders again, the first and the last among them.
    async fn repeat(&mut self, count: usize) {
        for n in 0..count.min(self.past.len()) {
            let place = match n {
                0 => self.past.len() - 1,
                1 => 0,
                _ => self.dice.random_range(0..self.past.len()),
            };
            let (order, first) = self.past[place].clone();
            // Not always through the door it went through.
            self.at = self.dice.random_range(0..2);
            let again = self.insist(&order).await;
            self.progress.repeat();
            if again.as_ref().is_some_and(|again| *again != first) {
                self.wrong(&order, &format!("first {first:?}, then {again:?}"));
            }
        }
    }

    fn wrong(&self, order: &Order, what: &str) {
        let (account, kind, id) = (&self.account, order.kind().as_str_name(), order.request_id());
        self.progress.fault(format!("{account} {kind} {id}: {what}"));
    }

    fn draw(&mut self) -> Order {
        let (open, free) = (self.book.open.len(), self.book.free);
        match self.dice.random_range(0..100) {
            0..32 if open < OPEN_MAX && free > Decimal::from(100) => self.open(),
            0..60 if open > 0 => self.close(),
            60..72 if open > 0 && free > Decimal::TEN => self.modify(),
            72..84 if free > Decimal::TEN => {
                let amount = Decimal::new(self.dice.random_range(1..1_000), 2);
                self.withdraw(amount)
            }
            // More than there is, which is refused for ever.
            84..87 => self.withdraw(free + Decimal::ONE),
            87..90 => self.close_again().unwrap_or_else(|| self.initialize()),
            90 => self.initialize(),
            _ => self.deposit(),
        }
    }

    fn initialize(&self) -> Order {
        Order::Initialize(v1::InitializeWalletRequest {
            account_id: self.account.clone(),
            request_id: id(),
        })
    }

    fn deposit(&mut self) -> Order {
        Order::Deposit(v1::DepositRequest {
            account_id: self.account.clone(),
            request_id: id(),
            amount: Some(money(Decimal::new(self.dice.random_range(1..2_000), 2))),
        })
    }

    fn withdraw(&self, amount: Decimal) -> Order {
        Order::Withdraw(v1::WithdrawRequest {
            account_id: self.account.clone(),
            request_id: id(),
            amount: Some(money(amount)),
        })
    }

    fn open(&mut self) -> Order {
        let side = if self.dice.random() {
            v1::Side::Long
        } else {
            v1::Side::Short
        };
        let margin = Decimal::new(self.dice.random_range(1_000..3_000), 2);
        Order::Open(v1::OpenTradeRequest {
            account_id: self.account.clone(),
            request_id: id(),
            symbol: SYMBOL.to_owned(),
            side: side.into(),
            size: Some(v1::open_trade_request::Size::Margin(margin.to_string())),
            leverage: self.dice.random_range(1..=5).to_string(),
            ..Default::default()
        })
    }

    fn one_of_the_open(&mut self) -> (String, v1::Side, bool) {
        let place = self.dice.random_range(0..self.book.open.len());
        let (id, trade) = self.book.open.iter().nth(place).expect("within the count");
        (id.clone(), trade.side, trade.reduced)
    }

    fn close(&mut self) -> Order {
        let (trade_id, _, reduced) = self.one_of_the_open();
        // Half of it once, so that what is left never falls below the least quantity.
        let half = !reduced && self.dice.random_range(0..3) == 0;
        Order::Close(v1::CloseTradeRequest {
            account_id: self.account.clone(),
            request_id: id(),
            trade_id,
            portion: half.then(|| v1::close_trade_request::Portion::Percent("50".to_owned())),
        })
    }

    /// One that is closed already, which is refused for ever.
    fn close_again(&self) -> Option<Order> {
        let trade_id = self.book.closed.last()?.clone();
        Some(Order::Close(v1::CloseTradeRequest {
            account_id: self.account.clone(),
            request_id: id(),
            trade_id,
            portion: None,
        }))
    }

    fn modify(&mut self) -> Order {
        let (trade_id, side, _) = self.one_of_the_open();
        let mut order = v1::ModifyTradeRequest {
            account_id: self.account.clone(),
            request_id: id(),
            trade_id,
            ..Default::default()
        };
        if self.dice.random() {
            order.add_margin = money(Decimal::new(self.dice.random_range(1..300), 2)).amount;
        } else {
            // Far from any price of the tape.
            let away = self.dice.random_range(1..50);
            let price = match side {
                v1::Side::Short => 100 - away,
                _ => 300 + away,
            };
            order.take_profit = Some(v1::modify_trade_request::TakeProfit::TakeProfitPrice(price.to_string()));
        }
        Order::Modify(order)
    }
}

fn id() -> String {
    Uuid::now_v7().to_string()
}

fn money(amount: Decimal) -> v1::Money {
    v1::Money {
        currency_code: CURRENCY.to_owned(),
        amount: amount.to_string(),
    }
}
