//! The manifests hold together: selectors find pods, ports exist, settings are ones that this program knows, and every argument parses with
//! its own parser. What a schema can see, `deploy/check` sees; here is what lies between two objects, or between one and the program.

mod network;
mod overlays;

use std::collections::{BTreeMap, BTreeSet};

use clap::{CommandFactory as _, Parser as _};
use fulcrum::cli::Cli;
use overlays::{OVERLAYS, arguments, base64, called, containers, deploy, list, matches, names_in, ours, port, text};
use serde_json::Value;

/// Settings of the program that no manifest gives, and why.
const NOT_GIVEN: [(&str, &str); 13] = [
    (
        "FULCRUM_JOURNAL_RETENTION",
        "the journal is kept for ever: what is dropped is gone, so dropping is somebody's decision",
    ),
    (
        "FULCRUM_CORS_ORIGIN",
        "only who runs the deployment knows from which pages browsers call",
    ),
    (
        "FULCRUM_OTLP_ENDPOINT",
        "traces go nowhere unless the component `tracing` is there",
    ),
    (
        "FULCRUM_TRACE_RATIO",
        "given to all roles that serve; the migration has no calls",
    ),
    (
        "FULCRUM_LOG",
        "given to all roles that serve; the migration says little",
    ),
    ("FULCRUM_SYMBOLS", "all instruments are followed"),
    ("FULCRUM_FEED_SPEED", "a replay runs as recorded"),
    ("FULCRUM_FEED_ONCE", "a replay repeats"),
    ("FULCRUM_REBUILD", "a thing to do once, by hand"),
    ("FULCRUM_TLS_CERTIFICATE", "TLS ends at the cluster's gateway"),
    ("FULCRUM_TLS_KEY", "TLS ends at the cluster's gateway"),
    ("FULCRUM_TLS_CLIENT_CA", "TLS ends at the cluster's gateway"),
    ("FULCRUM_TOKEN_KEY", "the pods that wait for the schema need no key"),
];
/// What other libraries of the program read, and which.
const OF_LIBRARIES: [(&str, &str); 2] = [
    ("PGSSLMODE", "the Postgres client: how far the server is checked"),
    ("PGSSLROOTCERT", "the Postgres client: against what"),
];
/// What somebody else makes, by name, and who.
const MADE_BY_OTHERS: [(&str, &str); 4] = [
    ("fulcrum-token-key", "whoever signs people in"),
    ("fulcrum-redis", "with external stores: whoever runs them"),
    ("fulcrum-database-app", "the Postgres operator"),
    ("fulcrum-database-ca", "the Postgres operator"),
];

/// The command that arguments call, and its options by their environment variable.
fn options(arguments: &[String]) -> BTreeMap<String, clap::Arg> {
    let mut command = Cli::command();
    for word in arguments {
        match command.find_subcommand(word) {
            Some(inner) => command = inner.clone(),
            None => break,
        }
    }
    let by_name = |option: &clap::Arg| Some((option.get_env()?.to_str()?.to_owned(), option.clone()));
    command.get_arguments().filter_map(by_name).collect()
}

#[test]
fn every_setting_is_one_that_the_program_knows_and_can_read() {
    for (overlay, pod, container) in ours() {
        let place = format!("{}: {} {}", overlay.name, called(pod.owner), text(container, "/name"));
        let mut words = vec!["fulcrum".to_owned()];
        words.extend(arguments(container));
        let known = options(&words[1..]);
        for (name, value) in overlay.settings(container) {
            let Some(option) = known.get(&name) else {
                let foreign = OF_LIBRARIES.iter().any(|(library, _)| *library == name);
                assert!(foreign, "{place}: {name} is no setting of `{}`", words.join(" "));
                continue;
            };
            let long = option.get_long().expect("settings have long names");
            // As the environment would give it: the tests of this process share one.
            match (option.get_action().takes_values(), value) {
                (true, value) => words.push(format!("--{long}={}", value.as_deref().unwrap_or("filled-in"))),
                (false, Some(value)) if value != "false" => words.push(format!("--{long}")),
                (false, _) => {}
            }
        }
        if let Err(error) = Cli::try_parse_from(&words) {
            panic!("{place}: {error}");
        }
    }
}

#[test]
fn every_setting_of_the_program_is_given_or_left_out_for_a_reason() {
    let mut missing = BTreeMap::new();
    for (overlay, _, container) in ours() {
        let arguments = arguments(container);
        if text(container, "/name") != "fulcrum" {
            continue;
        }
        let given = overlay.settings(container);
        for (name, option) in options(&arguments) {
            let excused = NOT_GIVEN.iter().any(|(excused, _)| *excused == name);
            if !given.contains_key(&name) && !excused && !option.is_hide_set() {
                missing.insert(name, arguments.join(" "));
            }
        }
    }
    assert_eq!(
        missing,
        BTreeMap::new(),
        "name it in deploy/base/settings, or say in NOT_GIVEN why not"
    );
    let known: BTreeSet<String> = ours()
        .iter()
        .flat_map(|(_, _, it)| options(&arguments(it)).into_keys())
        .collect();
    for (name, _) in NOT_GIVEN {
        assert!(known.contains(name), "{name} is excused, but no command has it");
    }
}

#[test]
fn selectors_find_what_they_are_for() {
    for overlay in OVERLAYS.values() {
        for pod in overlay.pods() {
            if text(pod.owner, "/kind") != "Job" {
                let selector = pod.owner.pointer("/spec/selector").expect("a selector");
                assert!(matches(selector, pod.labels), "{}", called(pod.owner));
                assert_eq!(
                    overlay.selected(selector).len(),
                    1,
                    "{}: it selects others",
                    called(pod.owner)
                );
            }
            for spread in list(pod.spec, "/topologySpreadConstraints") {
                assert!(matches(&spread["labelSelector"], pod.labels), "{}", called(pod.owner));
            }
        }
        for budget in overlay.of("PodDisruptionBudget") {
            let selected = overlay.selected(&budget["spec"]["selector"]);
            assert_eq!(selected.len(), 1, "{}: {}", overlay.name, called(budget));
        }
        let mut scaled = BTreeSet::new();
        for scaler in overlay.of("HorizontalPodAutoscaler").chain(overlay.of("ScaledObject")) {
            let target = &scaler["spec"]["scaleTargetRef"];
            let found = overlay.find(text(target, "/kind"), text(target, "/name"));
            let found = found.unwrap_or_else(|| panic!("{} scales nothing", called(scaler)));
            assert!(
                found.pointer("/spec/replicas").is_none(),
                "an apply would undo what was scaled"
            );
            assert!(
                scaled.insert(called(found)),
                "{}: two scale {}",
                overlay.name,
                called(found)
            );
            let wanted =
                |pointer| containers(&found["spec"]["template"]["spec"]).any(|it| text(it, "/name") == pointer);
            for metric in list(scaler, "/spec/metrics") {
                let container = text(metric, "/containerResource/container");
                assert!(container.is_empty() || wanted(container), "{}", called(scaler));
            }
            for trigger in list(scaler, "/spec/triggers") {
                let container = text(trigger, "/metadata/containerName");
                assert!(container.is_empty() || wanted(container), "{}", called(scaler));
            }
        }
        for monitor in overlay.of("PodMonitor") {
            let selected = overlay.selected(&monitor["spec"]["selector"]);
            assert!(!selected.is_empty(), "{}", called(monitor));
            for endpoint in list(monitor, "/spec/podMetricsEndpoints") {
                let serving = selected.iter().filter(|pod| text(pod.owner, "/kind") != "Job");
                serving.for_each(|pod| assert!(port(pod, &endpoint["port"]).is_some(), "{}", called(pod.owner)));
            }
        }
    }
}

#[test]
fn services_lead_to_ports_that_are_open() {
    for overlay in OVERLAYS.values() {
        for service in overlay.of("Service") {
            let selector = serde_json::json!({ "matchLabels": service["spec"]["selector"] });
            let selected = overlay.selected(&selector);
            assert_eq!(selected.len(), 1, "{}: {}", overlay.name, called(service));
            for open in list(service, "/spec/ports") {
                assert!(port(&selected[0], &open["targetPort"]).is_some(), "{}", called(service));
            }
        }
        for set in overlay.of("StatefulSet") {
            let name = text(set, "/spec/serviceName");
            let service = overlay.find("Service", name).expect("a set needs its service");
            assert_eq!(text(service, "/spec/clusterIP"), "None", "{name}");
        }
        for route in overlay.of("HTTPRoute").chain(overlay.of("GRPCRoute")) {
            for parent in list(route, "/spec/parentRefs") {
                assert!(
                    overlay.find("Gateway", text(parent, "/name")).is_some(),
                    "{}",
                    called(route)
                );
            }
            for backend in list(route, "/spec/rules")
                .iter()
                .flat_map(|rule| list(rule, "/backendRefs"))
            {
                let service = overlay.find("Service", text(backend, "/name")).expect("a service");
                let ports = list(service, "/spec/ports");
                assert!(
                    ports.iter().any(|port| port["port"] == backend["port"]),
                    "{}",
                    called(route)
                );
            }
        }
        let hosts = |kind| {
            overlay
                .of(kind)
                .flat_map(|it| list(it, "/spec/hostnames"))
                .collect::<Vec<_>>()
        };
        assert!(
            hosts("HTTPRoute").iter().all(|host| !hosts("GRPCRoute").contains(host)),
            "one host name must not have routes of both kinds"
        );
        for certificate in overlay.of("Certificate") {
            let named = list(certificate, "/spec/dnsNames");
            let all = [hosts("HTTPRoute"), hosts("GRPCRoute")].concat();
            assert!(all.iter().all(|host| named.contains(host)), "{}", called(certificate));
        }
    }
}

#[test]
fn a_pod_may_do_nothing_that_it_need_not() {
    for overlay in OVERLAYS.values() {
        for pod in overlay.pods() {
            let place = format!("{}: {}", overlay.name, called(pod.owner));
            let is = |pointer: &str, wanted: Value| {
                assert_eq!(pod.spec.pointer(pointer), Some(&wanted), "{place}: {pointer}")
            };
            is("/securityContext/runAsNonRoot", true.into());
            is("/securityContext/seccompProfile/type", "RuntimeDefault".into());
            is("/automountServiceAccountToken", false.into());
            for container in containers(pod.spec) {
                let is = |pointer: &str, wanted: Value| {
                    assert_eq!(container.pointer(pointer), Some(&wanted), "{place}: {pointer}")
                };
                is("/securityContext/allowPrivilegeEscalation", false.into());
                is("/securityContext/readOnlyRootFilesystem", true.into());
                is("/securityContext/capabilities/drop", serde_json::json!(["ALL"]));
                for pointer in [
                    "/resources/requests/cpu",
                    "/resources/requests/memory",
                    "/resources/limits/memory",
                ] {
                    assert!(container.pointer(pointer).is_some(), "{place}: {pointer}");
                }
                let (image, tag) = text(container, "/image").rsplit_once(':').expect("an image with a tag");
                assert!(!image.is_empty() && tag != "latest", "{place}");
                for mount in list(container, "/volumeMounts") {
                    let volumes = list(pod.spec, "/volumes").iter().map(|it| &it["name"]);
                    let claims = list(pod.owner, "/spec/volumeClaimTemplates")
                        .iter()
                        .map(|it| &it["metadata"]["name"]);
                    assert!(
                        volumes.chain(claims).any(|name| *name == mount["name"]),
                        "{place}: {mount}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_process_lives_whatever_its_stores_do() {
    for (overlay, pod, container) in ours() {
        let place = format!("{}: {}", overlay.name, called(pod.owner));
        for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let Some(probe) = container.get(probe) else { continue };
            let asked = probe.pointer("/httpGet/port").or_else(|| probe.pointer("/grpc/port"));
            assert!(port(&pod, asked.expect("a port")).is_some(), "{place}");
        }
        assert!(
            container.get("startupProbe").is_none(),
            "{place}: it would restart what waits for a store"
        );
        if text(container, "/name") == "fulcrum" && text(pod.owner, "/kind") != "Job" {
            assert_eq!(text(container, "/livenessProbe/httpGet/path"), "/livez", "{place}");
            let ready = [
                container.pointer("/readinessProbe/httpGet/path"),
                container.pointer("/readinessProbe/grpc"),
            ];
            assert!(ready.iter().any(Option::is_some), "{place}");
        }
    }
}

#[test]
fn a_stop_in_order_has_the_time_it_takes() {
    let mut seen = 0;
    for (overlay, pod, container) in ours() {
        let place = format!("{}: {}", overlay.name, called(pod.owner));
        let Some(grace) = pod.spec["terminationGracePeriodSeconds"].as_u64() else {
            assert_eq!(text(pod.owner, "/kind"), "Job", "{place} needs a grace period");
            continue;
        };
        let before = container
            .pointer("/lifecycle/preStop/sleep/seconds")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        let drain = overlay.settings(container).get("FULCRUM_DRAIN").cloned().flatten();
        let drain = drain.map_or(0, |it| fulcrum::settings::duration(&it).expect("a time").as_secs());
        assert!(
            before + drain + 5 <= grace,
            "{place}: {before} s and {drain} s do not fit into {grace} s"
        );
        seen += usize::from(before > 0 && drain > 0);
    }
    assert_eq!(seen, OVERLAYS.len(), "each gateway waits, then drains");
}

#[test]
fn what_is_referred_to_is_there_or_made_by_somebody_else() {
    for overlay in OVERLAYS.values() {
        for pod in overlay.pods() {
            let mut wanted = BTreeSet::new();
            for volume in list(pod.spec, "/volumes") {
                wanted.insert(("ConfigMap", text(volume, "/configMap/name")));
                wanted.insert(("Secret", text(volume, "/secret/secretName")));
            }
            for container in containers(pod.spec) {
                for given in list(container, "/env") {
                    wanted.insert(("Secret", text(given, "/valueFrom/secretKeyRef/name")));
                    wanted.insert(("ConfigMap", text(given, "/valueFrom/configMapKeyRef/name")));
                    if let (Some(secret), key) = (
                        overlay.find("Secret", text(given, "/valueFrom/secretKeyRef/name")),
                        text(given, "/valueFrom/secretKeyRef/key"),
                    ) {
                        assert!(secret["data"].get(key).is_some(), "{}: no {key}", called(secret));
                    }
                }
            }
            for (kind, name) in wanted.into_iter().filter(|(_, name)| !name.is_empty()) {
                let known = overlay.find(kind, name).is_some() || MADE_BY_OTHERS.iter().any(|(it, _)| *it == name);
                assert!(known, "{}: {} refers to {kind} {name}", overlay.name, called(pod.owner));
            }
            let account = text(pod.spec, "/serviceAccountName");
            assert!(
                account.is_empty() || overlay.find("ServiceAccount", account).is_some(),
                "{account}"
            );
        }
    }
}

#[test]
fn nothing_secret_is_written_down() {
    fn texts<'a>(value: &'a Value, all: &mut Vec<&'a str>) {
        match value {
            Value::String(text) => all.push(text),
            Value::Array(items) => items.iter().for_each(|item| texts(item, all)),
            Value::Object(fields) => fields.values().for_each(|field| texts(field, all)),
            _ => {}
        }
    }
    for overlay in OVERLAYS.values() {
        let mut decoded = Vec::new();
        for secret in overlay.of("Secret") {
            for (name, value) in secret["data"].as_object().expect("data") {
                assert!(["uri", "url"].contains(&name.as_str()), "{}: {name}", called(secret));
                decoded.push(base64(value.as_str().expect("text")));
            }
        }
        let mut all: Vec<&str> = decoded.iter().map(String::as_str).collect();
        overlay.objects.iter().for_each(|object| texts(object, &mut all));
        for text in all {
            assert!(!text.contains("PRIVATE KEY"), "{}: a key", overlay.name);
            let after = text.split_once("://").map_or("", |(_, after)| after);
            let user = after.split_once('@').map_or("", |(user, _)| user);
            assert!(!user.contains(':'), "{}: a password in {text}", overlay.name);
        }
        for (_, _, container) in ours() {
            for given in list(container, "/env").iter().filter(|it| it.get("value").is_some()) {
                let name = text(given, "/name");
                assert!(
                    !name.contains("PASSWORD") && !name.ends_with("_URL"),
                    "{name} is written down"
                );
            }
        }
    }
}

#[test]
fn an_overlay_is_short_and_every_component_is_used_and_explained() {
    let readme = std::fs::read_to_string(deploy().join("README.md")).expect("deploy/README.md");
    let mut used = String::new();
    for name in names_in("overlays") {
        let file = deploy().join("overlays").join(&name).join("kustomization.yaml");
        let overlay = std::fs::read_to_string(file).unwrap();
        assert!(
            overlay.lines().count() <= 12,
            "{name}: an overlay chooses, components say"
        );
        assert!(
            readme.contains(&format!("`overlays/{name}`")),
            "deploy/README.md does not say what {name} is"
        );
        used += &overlay;
    }
    for name in names_in("components") {
        assert!(
            used.contains(&format!("components/{name}")),
            "{name} is in no overlay, so nothing checks it"
        );
        assert!(
            readme.contains(&format!("`components/{name}`")),
            "deploy/README.md does not explain {name}"
        );
    }
}
