//! How long the client will wait: `Grpc-Timeout` and `X-Request-Timeout`.

use std::time::Duration;

use http::HeaderMap;

use crate::error::Refusal;

const GRPC_TIMEOUT: &str = "grpc-timeout";
const REQUEST_TIMEOUT: &str = "x-request-timeout";

/// The shorter of the two timeouts, if either is there.
pub(crate) fn read(headers: &HeaderMap) -> Result<Option<Duration>, Refusal> {
    let read_one = |name: &str, parse: fn(&str) -> Option<Duration>, form: &str| -> Result<Option<Duration>, Refusal> {
        let Some(value) = headers.get(name) else {
            return Ok(None);
        };
        let timeout = value.to_str().ok().map(str::trim).and_then(parse);
        timeout.map(Some).ok_or_else(|| Refusal::HeaderInvalid {
            name: name.to_owned(),
            cause: form.to_owned(),
        })
    };
    let grpc = read_one(
        GRPC_TIMEOUT,
        parse_grpc,
        "it is up to 8 digits and one of H, M, S, m, u, n",
    )?;
    let plain = read_one(
        REQUEST_TIMEOUT,
        parse_plain,
        "it is seconds, or a number with one of ms, s, m, h",
    )?;
    Ok(match (grpc, plain) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    })
}

/// The form of gRPC: `1S`, `250m`.
fn parse_grpc(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let digits = &text[..text.len() - unit.len_utf8()];
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(count * 3600)),
        'M' => Some(Duration::from_secs(count * 60)),
        'S' => Some(Duration::from_secs(count)),
        'm' => Some(Duration::from_millis(count)),
        'u' => Some(Duration::from_micros(count)),
        'n' => Some(Duration::from_nanos(count)),
        _ => None,
    }
}

/// The form that people write: `2`, `1.5s`, `500ms`, `1m`.
fn parse_plain(text: &str) -> Option<Duration> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let seconds_each = match unit.trim() {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // What gRPC can carry: eight digits of hours.
    let seconds = number * seconds_each;
    (seconds <= 99_999_999.0 * 3600.0).then(|| Duration::try_from_secs_f64(seconds).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_nothing_else() {
        for (name, text, want) in [
            (GRPC_TIMEOUT, "10S", Some(10_000)),
            (GRPC_TIMEOUT, "250m", Some(250)),
            (GRPC_TIMEOUT, "2M", Some(120_000)),
            (GRPC_TIMEOUT, "1H", Some(3_600_000)),
            (GRPC_TIMEOUT, "123456789S", None),
            (GRPC_TIMEOUT, "10", None),
            (GRPC_TIMEOUT, "S", None),
            (GRPC_TIMEOUT, "-1S", None),
            (REQUEST_TIMEOUT, "2", Some(2_000)),
            (REQUEST_TIMEOUT, "1.5s", Some(1_500)),
            (REQUEST_TIMEOUT, "500ms", Some(500)),
            (REQUEST_TIMEOUT, "1m", Some(60_000)),
            (REQUEST_TIMEOUT, "soon", None),
            (REQUEST_TIMEOUT, "", None),
            (REQUEST_TIMEOUT, "1e9", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, text.parse().unwrap());
            let got = read(&headers).ok().flatten().map(|it| it.as_millis());
            assert_eq!(got, want, "{name}: {text}");
        }
    }

    #[test]
    fn the_shorter_of_two_counts() {
        let mut headers = HeaderMap::new();
        headers.insert(GRPC_TIMEOUT, "5S".parse().unwrap());
        headers.insert(REQUEST_TIMEOUT, "2".parse().unwrap());
        assert_eq!(read(&headers), Ok(Some(Duration::from_secs(2))));
    }
}
