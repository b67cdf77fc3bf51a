//! The bridge to the bus: public requests into envelopes, replies into public responses.
//!
//! The envelope is built field by field. Nothing of it but the command comes from the client, and of the command the
//! account is the one that was authorised: a body cannot name another account, principal or reply list.

use bytes::Bytes;
use contracts::bus::{self, operation_record, reply, request::Command};
use contracts::v1;
use contracts::v1::ErrorReason;
use prost::Message;
use uuid::Uuid;

use crate::failure::{self, Failure, Refusal};

/// What an envelope is made of.
#[derive(Clone, Debug)]
pub(crate) struct Envelope<'a> {
    /// The token's subject.
    pub principal: &'a str,
    /// The authorised account; empty for market reads.
    pub account_id: &'a str,
    /// Its shard.
    pub shard: u32,
    /// Of a mutation.
    pub request_id: Option<Uuid>,
    /// Wall clock, microseconds since the epoch.
    pub expires_at_us: u64,
    /// To pass on.
    pub traceparent: &'a str,
    /// Of a read.
    pub min_sequence: u64,
    /// The validated request.
    pub command: Command,
}

impl From<Envelope<'_>> for bus::Request {
    fn from(it: Envelope<'_>) -> Self {
        Self {
            // The caller's, filled in by the bus.
            correlation_id: Bytes::new(),
            reply_to: String::new(),
            principal: it.principal.to_owned(),
            account_id: it.account_id.to_owned(),
            shard: it.shard,
            request_id: it
                .request_id
                .map(|id| Bytes::copy_from_slice(id.as_bytes()))
                .unwrap_or_default(),
            expires_at_us: it.expires_at_us,
            traceparent: it.traceparent.to_owned(),
            min_sequence: it.min_sequence,
            // Filled in when it is handed over.
            sent_at_us: 0,
            command: Some(it.command),
        }
    }
}

/// A good reply.
#[derive(Clone, Debug)]
pub(crate) struct Answer<R> {
    /// The response message.
    pub message: R,
    /// Sequence it reflects.
    pub sequence: u64,
    /// Sequence of the last change to the account.
    pub account_sequence: u64,
}

/// Reads a reply.
pub(crate) fn answer<R: Message + Default>(reply: bus::Reply) -> Result<Answer<R>, Failure> {
    match reply.outcome {
        Some(reply::Outcome::Response(bytes)) => {
            let message =
                R::decode(bytes).map_err(|cause| Failure::Internal(format!("a reply that is no response: {cause}")))?;
            Ok(Answer {
                message,
                sequence: reply.sequence,
                account_sequence: reply.account_sequence,
            })
        }
        Some(reply::Outcome::Failure(failure)) => Err(Failure::Refused(Box::new(Refusal {
            failure,
            account_sequence: reply.account_sequence,
        }))),
        None => Err(Failure::Internal("a reply without an outcome".to_owned())),
    }
}

/// Name of the method of a kind of operation; empty for one from the future.
pub(crate) fn method(kind: bus::OperationKind) -> &'static str {
    match kind {
        bus::OperationKind::Unspecified => "",
        bus::OperationKind::InitializeWallet => "InitializeWallet",
        bus::OperationKind::Deposit => "Deposit",
        bus::OperationKind::Withdraw => "Withdraw",
        bus::OperationKind::OpenTrade => "OpenTrade",
        bus::OperationKind::CloseTrade => "CloseTrade",
        bus::OperationKind::ModifyTrade => "ModifyTrade",
    }
}

/// An operation as the public API has it.
pub(crate) fn operation(sequence: u64, at_us: u64, record: bus::OperationRecord) -> v1::Operation {
    let method = method(record.kind());
    let result = record.outcome.map(|outcome| match outcome {
        operation_record::Outcome::Response(response) => v1::operation::Result::Response(prost_types::Any {
            type_url: format!("type.googleapis.com/fulcrum.v1.{method}Response"),
            value: response.to_vec(),
        }),
        operation_record::Outcome::Failure(refusal) => v1::operation::Result::Error(failure::as_message(refusal)),
    });
    v1::Operation {
        request_id: Uuid::from_slice(&record.request_id).unwrap_or_default().to_string(),
        method: method.to_owned(),
        sequence,
        done_time: Some(time(at_us)),
        result,
        window_start_time: None,
    }
}

/// Microseconds since the epoch as the public API has them.
pub(crate) fn time(at_us: u64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(at_us / 1_000_000).unwrap_or(i64::MAX),
        nanos: i32::try_from(at_us % 1_000_000 * 1_000).expect("below a billion"),
    }
}

/// The same from a database.
pub(crate) fn signed_time(at_us: i64) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at_us.div_euclid(1_000_000),
        nanos: i32::try_from(at_us.rem_euclid(1_000_000) * 1_000).expect("below a billion"),
    }
}

/// A quote that something was executed at. How current it is now, nobody asks.
pub(crate) fn quote(used: bus::QuoteUsed) -> v1::Quote {
    v1::Quote {
        symbol: used.symbol,
        bid: used.bid,
        ask: used.ask,
        venue_time: Some(time(used.venue_time_us)),
        update_id: used.update_id,
        state: v1::QuoteState::Unspecified.into(),
    }
}

/// Name of a ledger account; empty for one from the future.
pub(crate) fn ledger_account(kind: i32) -> &'static str {
    match bus::LedgerAccountKind::try_from(kind) {
        Ok(bus::LedgerAccountKind::Client) => "client",
        Ok(bus::LedgerAccountKind::Margin) => "margin",
        Ok(bus::LedgerAccountKind::House) => "house",
        Ok(bus::LedgerAccountKind::Fee) => "fee",
        Ok(bus::LedgerAccountKind::Cash) => "cash",
        Ok(bus::LedgerAccountKind::Unspecified) | Err(_) => "",
    }
}

/// Whether the engine does not have the trade as an open one, so that the history may.
pub(crate) fn may_be_history(refusal: &Refusal) -> bool {
    matches!(
        refusal.failure.reason(),
        ErrorReason::TradeClosed | ErrorReason::TradeNotFound
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fault_16_the_envelope_takes_nothing_from_a_body_but_the_command() {
        let id = Uuid::now_v7();
        let command = Command::Deposit(v1::DepositRequest {
            account_id: "mine".into(),
            ..Default::default()
        });
        let request = bus::Request::from(Envelope {
            principal: "alice",
            account_id: "mine",
            shard: 3,
            request_id: Some(id),
            expires_at_us: 7,
            traceparent: "",
            min_sequence: 0,
            command: command.clone(),
        });
        assert_eq!(
            (request.principal.as_str(), request.account_id.as_str(), request.shard),
            ("alice", "mine", 3)
        );
        assert_eq!(request.request_id.as_ref(), id.as_bytes());
        assert!(
            request.reply_to.is_empty() && request.correlation_id.is_empty(),
            "the bus fills these in"
        );
        assert_eq!(request.command, Some(command));
    }

    #[test]
    fn a_reply_is_a_response_a_refusal_or_a_fault_of_ours() {
        let response = v1::DepositResponse {
            sequence: 9,
            ..Default::default()
        };
        let reply = |outcome| bus::Reply {
            sequence: 9,
            account_sequence: 8,
            outcome,
            ..Default::default()
        };
        let good =
            answer::<v1::DepositResponse>(reply(Some(reply::Outcome::Response(response.encode_to_vec().into()))));
        assert_eq!(good.unwrap().message, response);
        let refused = reply(Some(reply::Outcome::Failure(bus::Failure {
            reason: ErrorReason::TradeClosed.into(),
            ..Default::default()
        })));
        let Err(Failure::Refused(refusal)) = answer::<v1::DepositResponse>(refused) else {
            panic!("refused")
        };
        assert_eq!(refusal.account_sequence, 8);
        assert!(may_be_history(&refusal));
        assert!(matches!(
            answer::<v1::DepositResponse>(reply(None)),
            Err(Failure::Internal(_))
        ));
        let garbage = reply(Some(reply::Outcome::Response(Bytes::from_static(&[0xff]))));
        assert!(matches!(
            answer::<v1::DepositResponse>(garbage),
            Err(Failure::Internal(_))
        ));
    }

    #[test]
    fn an_operation_carries_its_first_answer() {
        let id = Uuid::now_v7();
        let record = |outcome| bus::OperationRecord {
            principal: "alice".into(),
            request_id: Bytes::copy_from_slice(id.as_bytes()),
            kind: bus::OperationKind::OpenTrade.into(),
            outcome,
            ..Default::default()
        };
        let response = v1::OpenTradeResponse {
            sequence: 4,
            ..Default::default()
        }
        .encode_to_vec();
        let good = operation(
            4,
            1_500_000,
            record(Some(operation_record::Outcome::Response(response.clone().into()))),
        );
        assert_eq!(
            (good.request_id, good.method.as_str(), good.sequence),
            (id.to_string(), "OpenTrade", 4)
        );
        assert_eq!(
            good.done_time,
            Some(prost_types::Timestamp {
                seconds: 1,
                nanos: 500_000_000
            })
        );
        let Some(v1::operation::Result::Response(any)) = good.result else {
            panic!("a response")
        };
        assert_eq!(
            (any.type_url.as_str(), any.value),
            ("type.googleapis.com/fulcrum.v1.OpenTradeResponse", response)
        );

        let failure = bus::Failure {
            reason: ErrorReason::StalePrice.into(),
            message: "old".into(),
            ..Default::default()
        };
        let bad = operation(5, 0, record(Some(operation_record::Outcome::Failure(failure))));
        let Some(v1::operation::Result::Error(error)) = bad.result else {
            panic!("an error")
        };
        assert_eq!((error.code, error.message.as_str()), (14, "old"));
    }

    #[test]
    fn every_kind_of_operation_has_the_name_of_its_method() {
        for number in 1..=6 {
            let kind = bus::OperationKind::try_from(number).unwrap();
            let words = kind
                .as_str_name()
                .trim_start_matches("OPERATION_KIND_")
                .replace('_', "");
            assert_eq!(method(kind).to_uppercase(), words);
        }
    }
}
