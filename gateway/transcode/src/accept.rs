//! What the client would like to read: `Accept`, with quality values.

use http::HeaderMap;
use http::header::ACCEPT;

use crate::error::Refusal;
use crate::options::StreamFormat;

/// The framing of a server stream; between equals the default, then NDJSON, events, array.
pub(crate) fn stream_format(headers: &HeaderMap, default: StreamFormat) -> Result<StreamFormat, Refusal> {
    let formats = [default, StreamFormat::NdJson, StreamFormat::Events, StreamFormat::Array];
    let offered = "application/x-ndjson, text/event-stream, application/json";
    best(headers, &formats, |it| it.media_type(), offered)
}

/// Refuses a client that will not take JSON.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Refusal> {
    best(headers, &[()], |()| "application/json", "application/json")
}

fn best<T: Copy>(
    headers: &HeaderMap,
    formats: &[T],
    media_type: impl Fn(T) -> &'static str,
    offered: &'static str,
) -> Result<T, Refusal> {
    let accept: Vec<&str> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|it| it.to_str().ok())
        .collect();
    let accept = accept.join(",");
    if accept.trim().is_empty() {
        return Ok(formats[0]);
    }
    let mut best: Option<(f32, T)> = None;
    for format in formats {
        let quality = quality(&accept, media_type(*format));
        if quality > 0.0 && best.is_none_or(|(other, _)| quality > other) {
            best = Some((quality, *format));
        }
    }
    best.map(|(_, format)| format)
        .ok_or(Refusal::NotAcceptable { accept, offered })
}

/// The quality of a media type: that of the most specific range which covers it.
fn quality(accept: &str, media_type: &str) -> f32 {
    let family = media_type.split('/').next().unwrap_or_default();
    let mut found = (0, 0.0);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let rank = if name.eq_ignore_ascii_case(media_type) {
            3
        } else if name
            .strip_suffix("/*")
            .is_some_and(|it| it.eq_ignore_ascii_case(family))
        {
            2
        } else if name == "*/*" {
            1
        } else {
            continue;
        };
        let weight = parts.find_map(|it| it.strip_prefix("q=").or_else(|| it.strip_prefix("Q=")));
        let weight = weight.and_then(|it| it.trim().parse::<f32>().ok()).unwrap_or(1.0);
        if rank > found.0 {
            found = (rank, weight);
        }
    }
    found.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_chooses_the_framing() {
        use StreamFormat::{Array, Events, NdJson};
        for (accept, want) in [
            ("", Some(NdJson)),
            ("*/*", Some(NdJson)),
            ("application/*", Some(NdJson)),
            ("application/json", Some(Array)),
            ("application/x-ndjson", Some(NdJson)),
            ("text/event-stream", Some(Events)),
            ("TEXT/*", Some(Events)),
            ("application/json;q=0.5, text/event-stream", Some(Events)),
            ("text/html, application/json;q=0.9, */*;q=0.1", Some(Array)),
            ("*/*;q=0.5, application/x-ndjson;q=0", Some(Events)),
            ("text/html", None),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, accept.parse().unwrap());
            assert_eq!(stream_format(&headers, NdJson).ok(), want, "{accept}");
        }
        assert_eq!(stream_format(&HeaderMap::new(), Array), Ok(Array));
    }
}
