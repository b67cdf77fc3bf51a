//! What the overlays build, and how to find one's way in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

use serde_json::{Map, Value};

pub fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy")
}

pub fn names_in(directory: &str) -> BTreeSet<String> {
    let entries = std::fs::read_dir(deploy().join(directory)).expect("a directory of deploy/");
    let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    entries.map(name).collect()
}

/// Every overlay, built once.
pub static OVERLAYS: LazyLock<BTreeMap<String, Overlay>> = LazyLock::new(|| {
    let built = |name: String| {
        let built = Command::new(deploy().join("check"))
            .args(["--json", &name])
            .output()
            .expect("it runs");
        assert!(
            built.status.success(),
            "{}\n(deploy/checks/setup installs what this takes)",
            String::from_utf8_lossy(&built.stderr)
        );
        let objects = serde_json::from_slice(&built.stdout).expect("JSON");
        (name.clone(), Overlay { name, objects })
    };
    names_in("overlays").into_iter().map(built).collect()
});

pub struct Overlay {
    pub name: String,
    pub objects: Vec<Value>,
}

/// A pod as it would be made, and by what.
pub struct Pod<'a> {
    pub owner: &'a Value,
    pub labels: &'a Map<String, Value>,
    pub spec: &'a Value,
}

pub fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value
        .pointer(pointer)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

pub fn called(object: &Value) -> String {
    format!("{} {}", text(object, "/kind"), text(object, "/metadata/name"))
}

impl Overlay {
    pub fn of(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.objects.iter().filter(move |it| text(it, "/kind") == kind)
    }

    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        self.of(kind).find(|it| text(it, "/metadata/name") == name)
    }

    pub fn pods(&self) -> Vec<Pod<'_>> {
        let pods: Vec<_> = ["Deployment", "StatefulSet", "Job"]
            .into_iter()
            .flat_map(|kind| self.of(kind))
            .map(|owner| Pod {
                owner,
                labels: owner
                    .pointer("/spec/template/metadata/labels")
                    .and_then(Value::as_object)
                    .expect("labels"),
                spec: owner.pointer("/spec/template/spec").expect("a pod"),
            })
            .collect();
        assert!(
            pods.len() >= 5,
            "{}: gateway, engine, poller, recorder, migrate",
            self.name
        );
        pods
    }

    /// What a selector of labels finds.
    pub fn selected(&self, selector: &Value) -> Vec<Pod<'_>> {
        self.pods()
            .into_iter()
            .filter(|pod| matches(selector, pod.labels))
            .collect()
    }

    /// The settings of a container with their values; `None` for those that the cluster fills in.
    pub fn settings(&self, container: &Value) -> BTreeMap<String, Option<String>> {
        let mut settings = BTreeMap::new();
        for from in list(container, "/envFrom") {
            let name = text(from, "/configMapRef/name");
            let map = self
                .find("ConfigMap", name)
                .unwrap_or_else(|| panic!("no ConfigMap {name}"));
            let data = map["data"].as_object().expect("data");
            settings.extend(
                data.iter()
                    .map(|(name, value)| (name.clone(), value.as_str().map(str::to_owned))),
            );
        }
        for given in list(container, "/env") {
            let value = given.get("value").and_then(Value::as_str).map(str::to_owned);
            settings.insert(text(given, "/name").to_owned(), value);
        }
        settings
    }
}

/// Whether a selector of either form finds these labels.
pub fn matches(selector: &Value, labels: &Map<String, Value>) -> bool {
    let wanted = selector.get("matchLabels").and_then(Value::as_object);
    let same = wanted.is_none_or(|wanted| wanted.iter().all(|(name, value)| labels.get(name) == Some(value)));
    let one_of = |expression: &Value| {
        assert_eq!(text(expression, "/operator"), "In", "teach this test the operator");
        let label = labels.get(text(expression, "/key"));
        label.is_some_and(|label| list(expression, "/values").contains(label))
    };
    same && list(selector, "/matchExpressions").iter().all(one_of)
}

pub fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    list(pod, "/containers").iter().chain(list(pod, "/initContainers"))
}

/// The number of a port that is named or numbered.
pub fn port(pod: &Pod<'_>, wanted: &Value) -> Option<u64> {
    let ports = containers(pod.spec).flat_map(|container| list(container, "/ports"));
    ports
        .filter(|port| port["name"] == *wanted || port["containerPort"] == *wanted)
        .find_map(|port| port["containerPort"].as_u64())
}

/// Those of our program, with the overlay they are in.
pub fn ours() -> Vec<(&'static Overlay, Pod<'static>, &'static Value)> {
    let mut found = Vec::new();
    for overlay in OVERLAYS.values() {
        for pod in overlay.pods() {
            for container in containers(pod.spec) {
                let image = text(container, "/image");
                if image
                    .split('/')
                    .next_back()
                    .is_some_and(|it| it.starts_with("fulcrum:"))
                {
                    let Pod { owner, labels, spec } = pod;
                    found.push((overlay, Pod { owner, labels, spec }, container));
                }
            }
        }
    }
    assert!(
        found.len() >= 24,
        "three overlays of five roles, four of which wait for the schema"
    );
    found
}

pub fn arguments(container: &Value) -> Vec<String> {
    let word = |word: &Value| word.as_str().expect("a word").to_owned();
    list(container, "/args").iter().map(word).collect()
}

/// Decodes base64 as Kubernetes writes it.
pub fn base64(text: &str) -> String {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut held, mut bytes) = (0_u32, 0, Vec::new());
    // Long ones are broken into lines.
    for symbol in text
        .bytes()
        .filter(|symbol| *symbol != b'=' && !symbol.is_ascii_whitespace())
    {
        let value = ALPHABET.iter().position(|it| *it == symbol).expect("base64");
        bits = bits << 6 | u32::try_from(value).unwrap();
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held & 0xff) as u8);
        }
    }
    String::from_utf8(bytes).expect("text")
}
