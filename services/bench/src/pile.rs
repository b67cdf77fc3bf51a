//! Trades that pile up: opens a second with few of them open and with many, on one mesh.
//!
//! A system whose work grows with what is open gets slower and slower; the peer that set the scale fell from 1,216 opens a second to 630.

use crate::Timing;
use crate::load::{self, Door, Loop, Plan, Work};
use crate::mesh::{Mesh, PATH};
use crate::report::Report;
use crate::sample::{Sample, Spread};
use crate::say;

/// At which sizes it is measured; the largest is an option.
const SIZES: [u64; 3] = [1_000, 10_000, 100_000];
/// Calls at once, as when the peer was measured.
const AT_ONCE: usize = 64;
/// Rates of the peer: with few trades, and with many.
const PEER: [f64; 2] = [1_216.0, 630.0];

/// Opens trades until about so many are open.
///
/// # Errors
/// When calls are not answered.
pub(crate) async fn open(mesh: &Mesh, most: u64, timing: Timing) -> anyhow::Result<()> {
    let mut open = 0;
    while open < most {
        open += some(mesh, "mesh", timing).await?.calls;
    }
    Ok(())
}

/// Opens trades for as long as a measurement lasts.
async fn some(mesh: &Mesh, name: &str, timing: Timing) -> anyhow::Result<Sample> {
    let plan = Plan {
        work: Work::Open,
        door: Door::Grpc,
        load: Loop::Closed { concurrency: AT_ONCE },
        warm_up: std::time::Duration::ZERO,
        measure: timing.measure,
    };
    let sample = load::run(name, &mesh.target, plan).await?;
    anyhow::ensure!(sample.calls > 0, "no trade was opened: {:?}", sample.failed);
    Ok(sample)
}

/// Opens trades until `most` are open, and measures on the way.
///
/// # Errors
/// When calls are not answered.
pub async fn run(mesh: &Mesh, most: u64, timing: Timing, report: &mut Report) -> anyhow::Result<()> {
    let mut sizes: Vec<u64> = SIZES.into_iter().filter(|size| *size < most).collect();
    sizes.push(most);
    let (mut open, mut seen) = (0, Vec::new());
    for size in sizes {
        while open < size {
            open += some(mesh, "mesh", timing).await?.calls;
        }
        say::aside(format!("{open} trades are open"));
        let sample = some(mesh, &format!("mesh, {open} open:"), timing).await?;
        seen.push((open, sample.per_second, sample.cpu_of(&PATH)));
        open += sample.calls;
        report.add(sample);
    }
    let (Some(first), Some(last)) = (seen.first(), seen.last()) else {
        return Ok(());
    };
    let one = |value: f64| Spread::of(&[value]);
    let name = |what: &str| format!("{what}, {} open ÷ {} open", last.0, first.0);
    report.figure(&name("opens a second"), "", one(last.1 / first.1));
    report.figure(&name("processor time of an open"), "", one(last.2 / first.2));
    report.figure("the peer's opens a second, many open ÷ few", "", one(PEER[1] / PEER[0]));
    report.figure("opens a second ÷ the peer's at its best", "", one(last.1 / PEER[0]));
    Ok(())
}
