//! Ports of the loopback for servers that are started later, or again.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports below are for servers of the machine.
const LOWEST: u16 = 10_000;

/// Ports of the loopback that nobody has, each given once by this process.
///
/// None is of those that the system gives to connections and to listeners of port 0: such a port can be taken while the server that it was
/// meant for starts, or between two of its lives.
///
/// # Panics
/// When there are none.
#[must_use]
pub fn free_ports(count: usize) -> Vec<u16> {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    let range = never_given_by_the_system();
    let length = range.end - range.start;
    // Processes that run at the same time begin at different places.
    let first = std::process::id().wrapping_mul(257);
    let candidates = (0..length).map(|_| {
        let step = u32::from(GIVEN.fetch_add(1, Ordering::Relaxed));
        let place = first.wrapping_add(step) % u32::from(length);
        range.start + u16::try_from(place).expect("less than the length of the range")
    });
    let free = candidates.filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok());
    let ports: Vec<_> = free.take(count).collect();
    assert_eq!(ports.len(), count, "too few free ports in {range:?}");
    ports
}

/// One of [`free_ports`], as an address.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports(1)[0]))
}

/// The larger part beside the range in `/proc/sys/net/ipv4/ip_local_port_range`, see ip(7).
fn never_given_by_the_system() -> Range<u16> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let numbers: Vec<u16> = text.split_whitespace().filter_map(|it| it.parse().ok()).collect();
    // Where it cannot be read, the default of Linux.
    let (low, high) = match numbers[..] {
        [low, high] => (low, high),
        _ => (32_768, 60_999),
    };
    let (below, above) = (LOWEST..low.max(LOWEST), high..u16::MAX);
    if below.len() >= above.len() { below } else { above }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_port_is_given_twice_or_while_it_is_taken_or_by_the_system() {
        let ports = free_ports(200);
        assert_eq!(ports.iter().collect::<HashSet<_>>().len(), 200);
        let range = never_given_by_the_system();
        assert!(ports.iter().all(|port| range.contains(port)), "{ports:?}");
        let given_by_the_system = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert!(!range.contains(&given_by_the_system.port()), "{given_by_the_system}");
        // Those after next are taken, whichever they are.
        let next = *ports.last().unwrap();
        let taken: Vec<_> = (1..20)
            .filter_map(|n| TcpListener::bind((Ipv4Addr::LOCALHOST, next + n)).ok())
            .collect();
        let taken: HashSet<u16> = taken.iter().map(|it| it.local_addr().unwrap().port()).collect();
        assert!(!taken.is_empty() && free_ports(50).iter().all(|port| !taken.contains(port)));
    }
}
