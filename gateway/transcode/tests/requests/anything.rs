//! Whatever is sent: text arrives as it left, and nothing is an internal error.

use proptest::prelude::*;
use transcode::Options;

use crate::common::Library;

/// Everything but `[-_.~0-9a-zA-Z]`.
fn escape(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'-' | b'_' | b'.' | b'~' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

thread_local! {
    static LIBRARY: Library = Library::echo(Options::default());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_text_survives_a_path_segment_and_a_query(text in ".{1,30}") {
        let library = LIBRARY.with(Library::clone);
        // Dots alone are steps in a path to every client; the escape for them is the dot itself.
        for line in [format!("GET /v1/pages/x{}", escape(&text)), format!("GET /v1/search?text=x{}", escape(&text))] {
            let answer = block_on(library.send(&line, &[], ""));
            prop_assert_eq!(answer.status, 200);
            let message = library.take_call().message;
            let got = message.get_field_by_name("path").or_else(|| message.get_field_by_name("text")).unwrap();
            prop_assert_eq!(got.as_str().unwrap(), format!("x{text}"));
        }
    }

    #[test]
    fn nothing_a_client_sends_is_an_internal_error(
        method in "GET|PUT|POST|HEAD|PURGE",
        path in "(/(v1|shelves|books|search|pages|tags|upload|1|[:%a-c*{}.]{0,3}|%2[Ff]|:publish)){0,7}",
        query in "((text|tags|author\\.name|weights\\[a\\]|by_field|since|[a-z.%\\[\\]+]{0,6})=?[0-9a-z%+.-]{0,5}&?){0,4}",
        body in "|\\{(\"(title|isbn|author|tags|x)\":(1|\"a\"|null|\\[\\]|\\{\\}),?){0,3}\\}|[{}\\[\\]\",:0-9a-z]{0,20}",
    ) {
        let url = format!("http://localhost{path}?{query}");
        prop_assume!(url.parse::<http::Uri>().is_ok());
        let library = LIBRARY.with(Library::clone);
        let answer = block_on(library.send(&format!("{method} {url}"), &[], &body));
        prop_assert!(answer.status < 500, "{}", answer.status);
        if answer.status != 200 && method != "HEAD" {
            answer.reason();
        }
    }
}
