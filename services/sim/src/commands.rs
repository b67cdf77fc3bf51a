//! What clients ask for: random commands, mostly sensible, some not.

use contracts::bus::request::Command;
use contracts::v1;

use crate::dice::Dice;
use crate::feed::{SYMBOLS, text};

/// A random mutation for an account that has seen these trades.
pub fn mutation(dice: &mut Dice, trades: &[String], shard: u32) -> Command {
    let trade_id = if trades.is_empty() || dice.chance(100) {
        format!("{shard}-{}", dice.between(1, 30))
    } else {
        dice.pick(trades).clone()
    };
    match dice.between(0, 99) {
        0..=3 => Command::InitializeWallet(v1::InitializeWalletRequest::default()),
        4..=24 => Command::Deposit(v1::DepositRequest {
            amount: money(dice),
            ..Default::default()
        }),
        25..=36 => Command::Withdraw(v1::WithdrawRequest {
            amount: money(dice),
            ..Default::default()
        }),
        37..=74 => open(dice),
        75..=90 => Command::CloseTrade(v1::CloseTradeRequest {
            trade_id,
            portion: dice
                .chance(400)
                .then(|| v1::close_trade_request::Portion::Percent(dice.between(1, 100).to_string())),
            ..Default::default()
        }),
        _ => Command::ModifyTrade(v1::ModifyTradeRequest {
            trade_id,
            add_margin: format!("{}.50", dice.between(0, 20)),
            ..Default::default()
        }),
    }
}

fn open(dice: &mut Dice) -> Command {
    let (symbol, price, decimals) = *dice.pick(&SYMBOLS);
    let is_long = dice.chance(500);
    let near = |dice: &mut Dice, above: bool| {
        if dice.chance(500) {
            return String::new();
        }
        let away = price * dice.between(50, 300) / 10_000;
        text(if above { price + away } else { price - away }, decimals)
    };
    Command::OpenTrade(v1::OpenTradeRequest {
        symbol: symbol.to_owned(),
        side: if is_long { v1::Side::Long } else { v1::Side::Short }.into(),
        size: Some(v1::open_trade_request::Size::Margin(dice.between(5, 120).to_string())),
        leverage: dice.between(1, 100).to_string(),
        stop_loss_price: near(dice, !is_long),
        take_profit_price: near(dice, is_long),
        ..Default::default()
    })
}

fn money(dice: &mut Dice) -> Option<v1::Money> {
    // Rarely one that is refused before anything else, and one that no account can pay.
    let amount = match dice.between(0, 19) {
        0 => "-1".to_owned(),
        1 => "100000".to_owned(),
        _ => format!("{}.{:02}", dice.between(1, 400), dice.between(0, 99)),
    };
    Some(v1::Money {
        currency_code: "USDC".to_owned(),
        amount,
    })
}
