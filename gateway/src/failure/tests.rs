//! Every failure as a status: its code, its details, and nothing of our insides.

use super::*;

fn reasons() -> impl Iterator<Item = ErrorReason> {
    (1..100).filter_map(|number| ErrorReason::try_from(number).ok())
}

#[test]
fn every_refusal_of_the_engine_carries_its_reason_and_the_code_that_the_contract_names() {
    // The comments of the contract end in the code: the table is written once, there.
    let contract = include_str!("../../../proto/fulcrum/v1/error.proto");
    for reason in reasons() {
        let status = Status::from(Failure::refused(reason, "why"));
        let before = contract.split(&format!(" {} = ", reason.as_str_name())).next().unwrap();
        let comment = before
            .rsplit("\n\n")
            .next()
            .unwrap_or(before)
            .rsplit(';')
            .next()
            .unwrap();
        let named = comment.trim().trim_end_matches('.').rsplit([' ', '\n']).next().unwrap();
        let code = format!("{:?}", status.code()).to_uppercase();
        assert_eq!(code, named.replace('_', ""), "{reason:?}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, reason.code());
        assert_eq!(details.error_info().unwrap().domain, "fulcrum");
    }
    assert!(reasons().count() >= 26);
}

#[test]
fn nothing_accepted_says_when_to_come_back_in_both_ways() {
    let status = Status::from(Failure::NotAccepted(NotAccepted::NoLeader));
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status.get_details_retry_info().unwrap().retry_delay, Some(RETRY_AFTER));
    assert_eq!(status.metadata().get("grpc-retry-pushback-ms").unwrap(), "500");
}

#[test]
fn an_unknown_outcome_names_the_request_id() {
    let id = Uuid::now_v7();
    let status = Status::from(Failure::UnknownOutcome { request_id: Some(id) });
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), &info.metadata["request_id"]),
        ("UNKNOWN_OUTCOME", &id.to_string())
    );
}

#[test]
fn our_insides_stay_ours() {
    let status = Status::from(Failure::Internal("password=hunter2".to_owned()));
    assert!(!format!("{status:?}").contains("hunter2"));
    let status = Status::from(Failure::refused(
        ErrorReason::Internal,
        "index out of bounds at core.rs:7",
    ));
    assert!(!format!("{status:?}").contains("core.rs"));
}

#[test]
fn an_error_of_tonic_is_completed_and_ours_keeps_its_details() {
    let mut headers = HeaderMap::new();
    Status::unimplemented("").add_header(&mut headers).unwrap();
    complete(&mut headers, "r-1", "abc");
    let status = Status::from_header_map(&headers).unwrap();
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "METHOD_UNKNOWN");
    assert_eq!(details.request_info().unwrap().request_id, "r-1");
    assert_eq!(details.request_info().unwrap().serving_data, "trace abc");

    let mut headers = HeaderMap::new();
    Status::from(Failure::invalid("margin", "is required"))
        .add_header(&mut headers)
        .unwrap();
    complete(&mut headers, "r-2", "");
    let details = Status::from_header_map(&headers).unwrap().get_error_details();
    assert_eq!(details.bad_request().unwrap().field_violations[0].field, "margin");
    assert_eq!(details.request_info().unwrap().request_id, "r-2");
}

#[test]
fn an_error_as_data_is_the_same_error() {
    let refusal = contracts::bus::Failure {
        reason: ErrorReason::InsufficientMargin.into(),
        message: "needs 100.00 USDC, 50.00 is free".to_owned(),
        facts: vec![contracts::bus::Fact {
            name: "free".to_owned(),
            value: "50.00".to_owned(),
        }],
        ..Default::default()
    };
    let message = as_message(refusal.clone());
    let status = Status::from(Failure::from(refusal));
    assert_eq!((message.code, &*message.message), (9, status.message()));
    assert_eq!(message.details.len(), 2);
}
