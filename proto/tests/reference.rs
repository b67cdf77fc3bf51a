//! `docs/api/reference.md` is what the comments of the contract say. This writes the page, and fails when the one there differs.
//!
//! `FULCRUM_WRITE=1 cargo test -p contracts --test reference` puts it right.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use prost_reflect::{
    DescriptorPool, EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ServiceDescriptor,
};
use transcode::{Options, Services, Transcoder};

const PACKAGE: &str = "fulcrum.v1";
/// Where a file's `syntax` stands in its source info; the file's own comment is before it.
const SYNTAX: &[i32] = &[12];
const HEAD: &str = "\
# API reference

Made from the comments in [`proto/fulcrum/v1`](../../proto/fulcrum/v1) by `proto/tests/reference.rs`: change those, not this page. A first
call in each language: [first-call.md](first-call.md).

Each method is there through gRPC, grpc-web and REST, and gives the same answer through each. In JSON, fields are in `lowerCamelCase`,
64-bit numbers are strings, and fields that are not in the path or the body are query parameters.

";

#[test]
fn the_reference_says_what_the_comments_say() {
    let pool = DescriptorPool::decode(contracts::DESCRIPTOR_SET).expect("descriptors");
    // The rules as they are served, not read a second time.
    let rest = Transcoder::new(pool.clone(), Services::All, Options::default()).expect("sound rules");
    let page = page(&pool, &rest);
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api/reference.md");
    if std::env::var_os("FULCRUM_WRITE").is_some() {
        std::fs::write(&file, &page).expect("a disk");
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    let differs = page.lines().zip(there.lines()).position(|(new, old)| new != old);
    assert!(
        page == there,
        "docs/api/reference.md is not what the comments say (line {}): write it anew with \
         FULCRUM_WRITE=1 cargo test -p contracts --test reference",
        differs.unwrap_or_else(|| page.lines().count().min(there.lines().count())) + 1
    );
}

fn page(pool: &DescriptorPool, rest: &Transcoder) -> String {
    let mut page = HEAD.to_owned();
    let shared = pool.get_file_by_name("fulcrum/v1/common.proto").expect("the file");
    let conventions = comment(&shared, SYNTAX);
    let (_, conventions) = conventions
        .split_once("package:\n\n")
        .expect("the conventions of the whole package:");
    writeln!(page, "## Conventions\n\n{conventions}\n").expect("memory");

    page.push_str("## Services\n\n| method | REST |\n|---|---|\n");
    for service in services(pool) {
        for method in service.methods() {
            let name = method.name();
            let bindings = bindings(rest, &method);
            let bindings: Vec<String> = bindings.iter().map(|(path, _)| format!("`{path}`")).collect();
            let (anchor, paths) = (name.to_lowercase(), bindings.join("<br>"));
            writeln!(page, "| {}.[{name}](#{anchor}) | {paths} |", service.name()).expect("memory");
        }
    }
    page.push('\n');

    let mut own = BTreeSet::new();
    for service in services(pool) {
        let file = service.parent_file();
        writeln!(page, "## {}\n\n{}\n", service.name(), comment(&file, service.path())).expect("memory");
        for method in service.methods() {
            writeln!(page, "### {}\n\n{}\n", method.name(), comment(&file, method.path())).expect("memory");
            for (path, body) in bindings(rest, &method) {
                writeln!(page, "REST: `{path}`{body}\n").expect("memory");
            }
            for (what, message) in [("Request", method.input()), ("Answer", method.output())] {
                let many = if what == "Answer" && method.is_server_streaming() {
                    ", a stream of them"
                } else {
                    ""
                };
                writeln!(page, "{what}: `{}`{many}. {}\n", message.name(), prose(&message)).expect("memory");
                fields(&mut page, &message);
                own.insert(message.full_name().to_owned());
            }
        }
    }

    page.push_str("## Messages\n\n");
    for message in messages(pool).into_iter().filter(|it| !own.contains(it.full_name())) {
        writeln!(page, "### {}\n\n{}\n", message.name(), prose(&message)).expect("memory");
        fields(&mut page, &message);
    }
    page.push_str("## Enums\n\n");
    for kind in enums(pool) {
        let file = kind.parent_file();
        writeln!(page, "### {}\n\n{}\n", kind.name(), comment(&file, kind.path())).expect("memory");
        page.push_str("| value | number | meaning |\n|---|---|---|\n");
        for value in kind.values() {
            let meaning = cell(&comment(&file, value.path()));
            writeln!(page, "| `{}` | {} | {meaning} |", value.name(), value.number()).expect("memory");
        }
        page.push('\n');
    }
    format!("{}\n", page.trim_end())
}

fn prose(message: &MessageDescriptor) -> String {
    comment(&message.parent_file(), message.path())
}

/// A table of a message's fields.
fn fields(page: &mut String, message: &MessageDescriptor) {
    if message.fields().len() == 0 {
        return;
    }
    page.push_str("| field | type | number | meaning |\n|---|---|---|---|\n");
    for field in message.fields() {
        let one_of = field.containing_oneof().filter(|it| !it.is_synthetic());
        let one_of = one_of.map_or_else(String::new, |it| format!("One of `{}`. ", it.name()));
        let meaning = cell(&comment(&message.parent_file(), field.path()));
        writeln!(
            page,
            "| `{}` | {} | {} | {one_of}{meaning} |",
            field.name(),
            type_of(&field),
            field.number()
        )
        .expect("memory");
    }
    page.push('\n');
}

fn type_of(field: &FieldDescriptor) -> String {
    let linked = |name: &str, full: &str| {
        if full.starts_with(PACKAGE) {
            format!("[{name}](#{})", name.to_lowercase())
        } else {
            full.trim_start_matches("google.protobuf.").to_owned()
        }
    };
    let one = match field.kind() {
        Kind::Message(it) => linked(it.name(), it.full_name()),
        Kind::Enum(it) => linked(it.name(), it.full_name()),
        other => format!("{other:?}"),
    };
    if field.is_list() { format!("list of {one}") } else { one }
}

/// `GET /v1/…`, and what is in the body, for each binding of a method.
fn bindings(rest: &Transcoder, method: &MethodDescriptor) -> Vec<(String, String)> {
    let ours = rest.bindings().iter().filter(|binding| binding.method() == method);
    ours.map(|binding| {
        let body = match binding.body() {
            "" => String::new(),
            "*" => ", the other fields in the body".to_owned(),
            field => format!(", `{field}` in the body"),
        };
        (format!("{} {}", binding.http_method(), binding.template()), body)
    })
    .collect()
}

/// The comment before something, without the blank that begins each line.
fn comment(file: &FileDescriptor, path: &[i32]) -> String {
    let info = file.file_descriptor_proto().source_code_info.as_ref();
    let location = info.and_then(|it| it.location.iter().find(|it| it.path == path));
    let lines = location.map(|it| it.leading_comments()).unwrap_or_default().lines();
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    lines.join("\n").trim().to_owned()
}

/// A comment as one line of a table.
fn cell(comment: &str) -> String {
    let paragraphs = comment.split("\n\n").map(|it| it.replace('\n', " "));
    paragraphs.collect::<Vec<_>>().join("<br>").replace('|', "\\|")
}

fn services(pool: &DescriptorPool) -> Vec<ServiceDescriptor> {
    pool.services().filter(|it| it.package_name() == PACKAGE).collect()
}

fn messages(pool: &DescriptorPool) -> Vec<MessageDescriptor> {
    let mut found: Vec<_> = pool.all_messages().filter(|it| it.package_name() == PACKAGE).collect();
    found.sort_by(|one, other| one.name().cmp(other.name()));
    found
}

fn enums(pool: &DescriptorPool) -> Vec<EnumDescriptor> {
    let mut found: Vec<_> = pool.all_enums().filter(|it| it.package_name() == PACKAGE).collect();
    found.sort_by(|one, other| one.name().cmp(other.name()));
    found
}
