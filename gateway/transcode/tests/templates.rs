//! The path template grammar: what parses and into what, what does not and why, and that nothing panics.

use proptest::prelude::*;
use transcode::template::{Segment, Template, TemplateReason};

/// A template in a canonical form: segments, then each variable with its range, then the verb.
fn parsed(text: &str) -> String {
    match Template::parse(text) {
        Err(error) => format!("{:?}", error.reason),
        Ok(template) => {
            let segments = template.segments().iter().map(|segment| match segment {
                Segment::Literal(text) => text.as_str(),
                Segment::One => "*",
                Segment::Rest => "**",
            });
            let mut out = segments.collect::<Vec<_>>().join(" ");
            for variable in template.variables() {
                let mark = if template.is_multi_segment(variable) { "+" } else { "" };
                out += &format!(" {{{mark}{} {:?}}}", variable.field_path, variable.range);
            }
            if let Some(verb) = template.verb() {
                out += &format!(" :{verb}");
            }
            out
        }
    }
}

#[test]
fn the_grammar() {
    for (text, want) in [
        ("/v1", "v1"),
        ("/v1/shelves", "v1 shelves"),
        ("/*", "*"),
        ("/**", "**"),
        ("/v1/*/x/**", "v1 * x **"),
        ("/v1/{id}", "v1 * {id 1..2}"),
        ("/v1/{id=*}", "v1 * {id 1..2}"),
        ("/v1/{id=fixed}", "v1 fixed {id 1..2}"),
        ("/v1/{name=shelves/*}", "v1 shelves * {+name 1..3}"),
        ("/v1/{name=shelves/*/books/**}", "v1 shelves * books ** {+name 1..5}"),
        ("/v1/{path=**}", "v1 ** {+path 1..2}"),
        ("/{a}/{b.c_d.e}/x", "* * x {a 0..1} {b.c_d.e 1..2}"),
        ("/v1/x:verb", "v1 x :verb"),
        ("/v1/{id}:cancel", "v1 * {id 1..2} :cancel"),
        ("/v1/**:all", "v1 ** :all"),
        ("/v1/a-b_c.d~e", "v1 a-b_c.d~e"),
        ("/v1/a%20b%2Fc", "v1 a b/c"),
        ("/v1/$!&'()+,;@", "v1 $!&'()+,;@"),
        ("", "NoLeadingSlash"),
        ("v1", "NoLeadingSlash"),
        ("/", "EmptySegment"),
        ("//", "EmptySegment"),
        ("/v1/", "EmptySegment"),
        ("/v1//x", "EmptySegment"),
        ("/:verb", "EmptySegment"),
        ("/{id=}", "EmptySegment"),
        ("/{id=a/}", "EmptySegment"),
        ("/**/x", "RestNotLast"),
        ("/**/{x}", "RestNotLast"),
        ("/{a=**}/x", "RestNotLast"),
        ("/{a=**/x}", "RestNotLast"),
        ("/{a={b}}", "NestedVariable"),
        ("/{a", "UnclosedVariable"),
        ("/{a=b", "UnclosedVariable"),
        ("/{}", "FieldPath"),
        ("/{a.}", "FieldPath"),
        ("/{.a}", "FieldPath"),
        ("/{1a}", "FieldPath"),
        ("/{a-b}", "FieldPath"),
        ("/{a b}", "FieldPath"),
        ("/{a}/{a}", "RepeatedVariable"),
        ("/v1/x:", "Verb"),
        ("/v1/x:a/b", "Verb"),
        ("/v1/x:a:b", "Verb"),
        ("/v1/x:*", "Verb"),
        ("/v1/x:{a}", "Verb"),
        ("/v1/x{a}", "UnexpectedCharacter"),
        ("/v1/{a}x", "UnexpectedCharacter"),
        ("/v1/*x", "UnexpectedCharacter"),
        ("/v1/x*", "UnexpectedCharacter"),
        ("/v1/***", "UnexpectedCharacter"),
        ("/v1/{a=b:c}", "UnclosedVariable"),
        ("/v1/a}b", "UnexpectedCharacter"),
        ("/v1/a=b", "UnexpectedCharacter"),
        ("/v1/a b", "UnexpectedCharacter"),
        ("/v1/ü", "UnexpectedCharacter"),
        ("/v1/a?b", "UnexpectedCharacter"),
        ("/v1/%zz", "Escape"),
        ("/v1/%FF", "Escape"),
    ] {
        assert_eq!(parsed(text), want, "{text}");
    }
}

#[test]
fn an_error_says_where() {
    let error = Template::parse("/v1/{name=**}/x").unwrap_err();
    assert_eq!((error.at, error.reason), (14, TemplateReason::RestNotLast));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in ".{0,40}") {
        let _ = Template::parse(&text);
    }

    #[test]
    fn no_near_template_makes_the_parser_panic(text in "/?([a-c{}=*/:.%2Fé]{0,3}(/|\\{|\\}|\\*\\*|=|:)?){0,10}") {
        if let Ok(template) = Template::parse(&text) {
            // What parses is whole: ranges lie inside, and it prints as it was written.
            prop_assert_eq!(template.to_string(), text);
            for variable in template.variables() {
                prop_assert!(variable.range.start < variable.range.end);
                prop_assert!(variable.range.end <= template.segments().len());
            }
        }
    }
}
