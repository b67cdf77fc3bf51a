//! Bad input for every field of a request, made from the contract: what is missing, out of range, malformed, too long, unknown.
//!
//! A field is known by its type and, where that is text, by what the text stands for; text that stands for nothing known ends the test,
//! so that a new field must be thought about here.

use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};
use serde_json::{Value, json};

/// One field of a request.
#[derive(Clone, Debug)]
pub struct Place {
    /// From the request to the field, in the words of the contract.
    pub path: Vec<String>,
    pub field: FieldDescriptor,
}

impl Place {
    /// As it stands in a test's table.
    pub fn name(&self) -> String {
        self.path.join(".")
    }

    /// The request with this value in this place; without one the field is taken out. Of alternatives the others go.
    pub fn set(&self, request: &Value, value: Option<&Value>) -> Value {
        let mut changed = request.clone();
        let (last, parents) = self.path.split_last().expect("a field");
        let mut within = &mut changed;
        for parent in parents {
            if within[parent].is_null() {
                within[parent] = json!({});
            }
            within = &mut within[parent];
        }
        let members = within.as_object_mut().expect("a message");
        match value {
            None => drop(members.remove(last)),
            Some(value) => {
                for other in self.field.containing_oneof().iter().flat_map(|it| it.fields()) {
                    members.remove(other.name());
                }
                members.insert(last.clone(), value.clone());
            }
        }
        changed
    }
}

/// All fields of a request, those within its messages too.
pub fn places(message: &MessageDescriptor) -> Vec<Place> {
    let mut all = Vec::new();
    gather(message, &[], &mut all);
    all
}

fn gather(message: &MessageDescriptor, parents: &[String], all: &mut Vec<Place>) {
    for field in message.fields() {
        let path = [parents, &[field.name().to_owned()]].concat();
        all.push(Place {
            path: path.clone(),
            field: field.clone(),
        });
        if let Kind::Message(inner) = field.kind()
            && inner.package_name() != "google.protobuf"
        {
            gather(&inner, &path, all);
        }
    }
}

/// Values for a field that a client may send through every door and, but for some, should not. Nothing: the field is left out.
pub fn values(place: &Place) -> Vec<Option<Value>> {
    let one: Vec<Value> = match place.field.kind() {
        Kind::String => text(place).into_iter().map(Value::from).collect(),
        Kind::Enum(_) => [0, 99, -1].map(Value::from).to_vec(),
        Kind::Int32 => [-1, i32::MAX].map(Value::from).to_vec(),
        Kind::Uint32 => [0, u32::MAX].map(Value::from).to_vec(),
        Kind::Uint64 => ["9223372036854775808", "18446744073709551615"]
            .map(Value::from)
            .to_vec(),
        Kind::Bool => [false, true].map(Value::from).to_vec(),
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Duration" => ["-1s", "61s", "315576000000s"].map(Value::from).to_vec(),
            "google.protobuf.Timestamp" => ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
                .map(Value::from)
                .to_vec(),
            _ => vec![json!({})],
        },
        other => panic!("{}: say here what is bad of {other:?}", place.name()),
    };
    let missing = std::iter::once(None);
    if place.field.is_list() {
        let many = json!(vec!["A"; 101]);
        let alone = one.into_iter().map(|value| json!([value]));
        return missing.chain(alone.chain([many]).map(Some)).collect();
    }
    missing.chain(one.into_iter().map(Some)).collect()
}

/// Text that is not what a field stands for.
fn text(place: &Place) -> Vec<String> {
    let long = |letter: &str, length| letter.repeat(length);
    let known: Vec<String> = match place.field.name() {
        "account_id" => vec![
            "Not An Account".into(),
            "é".into(),
            "a/b".into(),
            long("a", 65),
            "other".into(),
        ],
        "request_id" => vec![
            "x".into(),
            "c7b1ee1c-5ad1-4f3c-8d0e-3d1dd1a4d2a1".into(),
            "01890a5d-ac96-774b-bcce-b302099a8057".into(),
        ],
        "trade_id" => vec!["first".into(), "07-1".into(), "0-0".into(), "0-999999".into()],
        "symbol" | "symbols" | "currency_code" => vec!["x".into(), "A-B".into(), long("A", 33), "DOGE_USDC".into()],
        "page_token" => vec!["x".into(), "****".into(), "AAAA".into(), long("A", 129)],
        "order_by" => vec![
            "nonsense".into(),
            "open_time sideways".into(),
            "open_time,close_time".into(),
        ],
        "principal" => vec!["other".into(), long("a", 129)],
        "margin" | "quantity" | "leverage" | "stop_loss_price" | "take_profit_price" | "expected_price" | "percent"
        | "add_margin" | "amount" => {
            let malformed = ["x", "1e2", "+1", "01", "1.", ".5", "1,000", "NaN", "١٠٠", " 1"];
            let out_of_range = ["0", "-1", "0.0000001", "12345678901234567890"];
            malformed
                .iter()
                .chain(&out_of_range)
                .map(|it| (*it).to_owned())
                .collect()
        }
        other => panic!("{other}: say here what is bad of it"),
    };
    known.into_iter().chain([String::new(), long("9", 1_000)]).collect()
}

/// What only JSON can say wrongly of a field: another type, a word that is none.
pub fn of_json_alone(place: &Place) -> Vec<Value> {
    match place.field.kind() {
        // In an address everything is text.
        Kind::String => vec![],
        Kind::Enum(_) => vec!["NO_SUCH_WORD".into(), "1.5".into()],
        Kind::Int32 => vec!["many".into(), "2147483648".into(), "1.5".into()],
        Kind::Uint32 => vec!["many".into(), "-1".into(), "4294967296".into()],
        Kind::Uint64 => vec!["many".into(), "-1".into(), "18446744073709551616".into()],
        Kind::Bool => vec!["perhaps".into()],
        Kind::Message(message) if message.package_name() == "google.protobuf" => vec!["yesterday".into(), "1".into()],
        _ => vec!["text".into()],
    }
}
