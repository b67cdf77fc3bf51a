//! The comment above a thing in its interface definition.

use prost_reflect::{EnumDescriptor, EnumValueDescriptor, FieldDescriptor, FileDescriptor, MessageDescriptor};
use prost_reflect::{MethodDescriptor, ServiceDescriptor};

/// Something that has a place in a file.
pub(crate) trait Commented {
    /// The file and the way to it, as source code info spells it.
    fn place(&self) -> (FileDescriptor, Vec<i32>);

    /// What stands above it, or behind it on the same line; without line breaks inside a paragraph.
    fn comment(&self) -> String {
        let (file, path) = self.place();
        let found = file.file_descriptor_proto().source_code_info.as_ref().and_then(|info| {
            let location = info.location.iter().find(|location| location.path == path)?;
            location
                .leading_comments
                .clone()
                .or_else(|| location.trailing_comments.clone())
        });
        paragraphs(&found.unwrap_or_default())
    }
}

fn paragraphs(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for line in text.lines().map(str::trim) {
        match (line.is_empty(), out.is_empty() || out.ends_with('\n')) {
            (true, true) => {}
            (true, false) => out.push_str("\n\n"),
            (false, true) => out.push_str(line),
            (false, false) => {
                out.push(' ');
                out.push_str(line);
            }
        }
    }
    out.trim_end().to_owned()
}

macro_rules! commented {
    ($($descriptor:ty),*) => {$(
        impl Commented for $descriptor {
            fn place(&self) -> (FileDescriptor, Vec<i32>) {
                (self.parent_file(), self.path().to_vec())
            }
        }
    )*};
}

commented!(MessageDescriptor, EnumDescriptor, ServiceDescriptor);

impl Commented for FieldDescriptor {
    fn place(&self) -> (FileDescriptor, Vec<i32>) {
        (self.parent_message().parent_file(), self.path().to_vec())
    }
}

impl Commented for EnumValueDescriptor {
    fn place(&self) -> (FileDescriptor, Vec<i32>) {
        (self.parent_enum().parent_file(), self.path().to_vec())
    }
}

impl Commented for MethodDescriptor {
    fn place(&self) -> (FileDescriptor, Vec<i32>) {
        (self.parent_service().parent_file(), self.path().to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::paragraphs;

    #[test]
    fn lines_of_a_paragraph_become_one() {
        assert_eq!(paragraphs(" One\n two.\n\n Three.\n"), "One two.\n\nThree.");
        assert_eq!(paragraphs(""), "");
    }
}
