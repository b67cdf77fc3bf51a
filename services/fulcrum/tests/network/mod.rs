//! Who may talk to whom: what is not allowed is denied, what is needed is allowed, and addresses lead somewhere.

use serde_json::Value;

use crate::overlays::{OVERLAYS, Overlay, Pod, base64, called, containers, list, matches, port, text};

/// Where a store of the deployment is said to be, as hosts and ports; nothing for one that somebody else runs.
fn places(overlay: &Overlay, secret: &str, key: &str) -> Vec<(String, u64)> {
    let Some(secret) = overlay.find("Secret", secret) else {
        return Vec::new();
    };
    let address = base64(secret["data"][key].as_str().expect("text"));
    let (_, rest) = address.split_once("://").expect("a scheme");
    let rest = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    let hosts = rest.split(['/', '?']).next().expect("hosts").split(',');
    let place = |host: &str| {
        let (name, port) = host.rsplit_once(':').expect("a port");
        (name.to_owned(), port.parse().expect("a number"))
    };
    hosts.map(place).collect()
}

#[test]
fn addresses_of_stores_can_be_read_and_lead_to_pods_that_let_the_roles_in() {
    let mut led = 0;
    for overlay in OVERLAYS.values() {
        if let Some(secret) = overlay.find("Secret", "fulcrum-redis") {
            let address = base64(secret["data"]["url"].as_str().expect("text"));
            bus::Redis::open(&address).unwrap_or_else(|error| panic!("{}: {error}", overlay.name));
        }
        let redis = places(overlay, "fulcrum-redis", "url");
        let postgres = places(overlay, "fulcrum-database-app", "uri");
        for (host, number) in redis.iter().chain(&postgres) {
            let place = format!("{}: {host}:{number}", overlay.name);
            // `pod.service` for one pod of a set, `service` for any.
            let (pod, name) = host
                .split_once('.')
                .map_or((None, host.as_str()), |(pod, name)| (Some(pod), name));
            let service = overlay
                .find("Service", name)
                .unwrap_or_else(|| panic!("{place}: no service"));
            let open = list(service, "/spec/ports").iter().any(|port| port["port"] == *number);
            assert!(open, "{place}: no such port");
            let selector = serde_json::json!({ "matchLabels": service["spec"]["selector"] });
            let store = overlay.selected(&selector).into_iter().next().expect("pods");
            if let Some(pod) = pod {
                let (set, ordinal) = pod.rsplit_once('-').expect("an ordinal");
                let replicas = store.owner["spec"]["replicas"].as_u64().expect("a number");
                assert_eq!(text(store.owner, "/metadata/name"), set, "{place}");
                assert_eq!(text(store.owner, "/spec/serviceName"), name, "{place}");
                assert!(ordinal.parse::<u64>().expect("a number") < replicas, "{place}");
            }
            for role in overlay.pods() {
                let told = containers(role.spec).any(|it| {
                    let url = if redis.contains(&(host.clone(), *number)) {
                        "FULCRUM_REDIS_URL"
                    } else {
                        "FULCRUM_DATABASE_URL"
                    };
                    overlay.settings(it).contains_key(url)
                });
                if told {
                    assert!(
                        lets_through(overlay, &role, &store, *number),
                        "{place}: {}",
                        called(role.owner)
                    );
                    led += 1;
                }
            }
        }
    }
    assert!(led > 20, "{led}");
}

#[test]
fn redis_servers_and_sentinels_reach_each_other() {
    for (overlay, from, to, number) in [
        ("large", "redis", "redis", 6379),
        ("large", "redis", "redis", 16379),
        ("large", "redis-form", "redis", 6379),
        ("staging", "redis", "redis", 6379),
        ("staging", "redis", "redis-sentinel", 26379),
        ("staging", "redis-sentinel", "redis", 6379),
        ("staging", "redis-sentinel", "redis-sentinel", 26379),
    ] {
        let overlay = &OVERLAYS[overlay];
        let pod = |name: &str| {
            let mut pods = overlay.pods().into_iter();
            pods.find(|pod| pod.labels["app.kubernetes.io/name"] == name)
                .unwrap_or_else(|| panic!("{}: no {name}", overlay.name))
        };
        assert!(
            lets_through(overlay, &pod(from), &pod(to), number),
            "{}: {from} to {to}:{number}",
            overlay.name
        );
        assert!(
            !lets_through(overlay, &pod(to), &pod(from), 8080),
            "what is not named is denied"
        );
    }
}

/// Whether some policy lets one pod out to another, and some policy lets it in there.
fn lets_through(overlay: &Overlay, from: &Pod<'_>, to: &Pod<'_>, number: u64) -> bool {
    let passes = |own: &Pod<'_>, other: &Pod<'_>, rules: &str, peers: &str| {
        overlay.of("NetworkPolicy").any(|policy| {
            let opens = |rule: &Value| {
                let ports = list(rule, "/ports");
                let peers = list(rule, peers);
                ports.iter().any(|port| port["port"] == number)
                    && peers
                        .iter()
                        .any(|peer| peer.get("podSelector").is_some_and(|it| matches(it, other.labels)))
            };
            matches(&policy["spec"]["podSelector"], own.labels) && list(policy, rules).iter().any(opens)
        })
    };
    passes(from, to, "/spec/egress", "/to") && passes(to, from, "/spec/ingress", "/from")
}

#[test]
fn what_is_not_allowed_is_denied_and_what_is_needed_is_allowed() {
    for overlay in OVERLAYS.values() {
        let policies: Vec<&Value> = overlay.of("NetworkPolicy").collect();
        let everything = |it: &&&Value| it["spec"]["podSelector"] == serde_json::json!({});
        let denied = policies.iter().filter(everything).any(|it| {
            list(it, "/spec/policyTypes").len() == 2
                && it["spec"].get("ingress").is_none()
                && it["spec"].get("egress").is_none()
        });
        assert!(denied, "{}: nothing denies all", overlay.name);
        for policy in &policies {
            let operators = policy["spec"]["podSelector"].to_string().contains("cnpg.io/cluster");
            let found = overlay.selected(&policy["spec"]["podSelector"]);
            assert!(operators || !found.is_empty(), "{} selects nothing", called(policy));
            for pod in &found {
                for open in list(policy, "/spec/ingress")
                    .iter()
                    .flat_map(|rule| list(rule, "/ports"))
                {
                    let migrates = text(pod.owner, "/kind") == "Job";
                    assert!(migrates || port(pod, &open["port"]).is_some(), "{}", called(policy));
                }
            }
        }
        // Whoever is told of a store may go there.
        let may = |pod: &Pod<'_>, wanted: u64| {
            policies.iter().any(|policy| {
                let rules = list(policy, "/spec/egress").iter();
                matches(&policy["spec"]["podSelector"], pod.labels)
                    && rules
                        .flat_map(|rule| list(rule, "/ports"))
                        .any(|open| open["port"] == wanted)
            })
        };
        for pod in overlay.pods() {
            for container in containers(pod.spec) {
                let told = overlay.settings(container);
                for (setting, number) in [
                    ("FULCRUM_REDIS_URL", 6379),
                    ("FULCRUM_DATABASE_URL", 5432),
                    ("FULCRUM_OTLP_ENDPOINT", 4317),
                ] {
                    if told.contains_key(setting) {
                        assert!(
                            may(&pod, number),
                            "{}: {} has no way to {setting}",
                            overlay.name,
                            called(pod.owner)
                        );
                    }
                }
                let live = told
                    .get("FULCRUM_FEED")
                    .is_some_and(|feed| feed.as_deref() == Some("live"));
                assert!(!live || may(&pod, 443), "{}: no way to the venue", overlay.name);
            }
        }
    }
}
