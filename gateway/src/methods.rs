//! What is known of each method before its message is read: from the interface definitions, not from a list kept by hand.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost::Message as _;
use prost_types::FileDescriptorSet;

/// The package whose services this gateway offers.
const PACKAGE: &str = "fulcrum.v1";

/// One method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Method {
    /// Full name of its service, for example `fulcrum.v1.TradeService`.
    pub service: String,
    /// Its own name, for example `OpenTrade`.
    pub name: String,
    /// Whether it answers with a stream.
    pub streams: bool,
    /// Whether it changes something.
    pub mutates: bool,
    /// Whether it waits for an engine, and has no place when too many do.
    pub waits: bool,
}

static METHODS: LazyLock<HashMap<String, Method>> = LazyLock::new(|| {
    let set = FileDescriptorSet::decode(contracts::DESCRIPTOR_SET).expect("our own build made it");
    let files = set.file.iter().filter(|file| file.package() == PACKAGE);
    let services = files.flat_map(|file| &file.service);
    let methods = services.flat_map(|service| service.method.iter().map(move |method| (service, method)));
    methods
        .map(|(service, method)| {
            let known = Method {
                service: format!("{PACKAGE}.{}", service.name()),
                name: method.name().to_owned(),
                streams: method.server_streaming(),
                mutates: mutates(method.name()),
                waits: !method.server_streaming() && service.name() != "UsageService",
            };
            (format!("/{}/{}", known.service, known.name), known)
        })
        .collect()
});

fn mutates(name: &str) -> bool {
    matches!(
        name,
        "InitializeWallet" | "Deposit" | "Withdraw" | "OpenTrade" | "CloseTrade" | "ModifyTrade"
    )
}

/// The method behind a path; nothing for health, reflection and what does not exist.
pub(crate) fn find(path: &str) -> Option<&'static Method> {
    METHODS.get(path)
}

/// Names of the services, in no order.
pub(crate) fn services() -> Vec<&'static str> {
    let mut names: Vec<&str> = METHODS.values().map(|method| method.service.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_methods_are_those_of_the_contract() {
        assert_eq!(services().len(), 7);
        assert_eq!(METHODS.values().filter(|method| method.mutates).count(), 6);
        let streams: Vec<&str> = METHODS
            .values()
            .filter(|it| it.streams)
            .map(|it| it.name.as_str())
            .collect();
        assert_eq!(streams.len(), 2, "{streams:?}");
        assert!(find("/fulcrum.v1.TradeService/OpenTrade").unwrap().mutates);
        assert!(find("/fulcrum.v1.BalanceService/GetBalance").unwrap().waits);
        assert!(!find("/fulcrum.v1.UsageService/GetUsage").unwrap().waits);
        assert!(!find("/fulcrum.v1.TradeService/StreamAccountEvents").unwrap().waits);
        assert!(find("/fulcrum.v1.TradeService/Nothing").is_none());
    }
}
