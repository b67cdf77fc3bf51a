//! Interleaved comparison: one thing after the other, again and again, and the median of what each round came to.
//!
//! What others do on the machine changes from minute to minute and hits all sides of a round alike. A round in which they used more
//! than half of the machine is void and repeated.

use anyhow::{Context as _, ensure};
use futures::future::BoxFuture;

use crate::load::{self, Door, Loop, Plan, Work};
use crate::marks::{Limit, Mark};
use crate::mesh::{Mesh, PATH};
use crate::report::Report;
use crate::sample::{Ratios, Sample, Spread};
use crate::yardstick::echo::Echo;
use crate::yardstick::lists::{self, Way};
use crate::yardstick::store::Store;
use crate::{Timing, say};

/// Above this part of the machine used by others a round is void.
const VOID_ABOVE: f64 = 0.5;
/// How many times more rounds are tried than are wanted.
const TRIES: usize = 3;
/// An open loop at this part of the closed loop's most calls a second.
const QUARTER: f64 = 0.25;
/// And one that is too much.
const OVERLOAD: f64 = 2.0;

/// One side of a comparison: measured once in each round.
pub(crate) type Side<'a> = Box<dyn Fn() -> BoxFuture<'a, anyhow::Result<Sample>> + Send + Sync + 'a>;

/// The rounds that count.
pub(crate) struct Rounds {
    rounds: Vec<Vec<Sample>>,
    void: usize,
}

impl Rounds {
    /// Measures all sides in turn until there are enough rounds.
    pub(crate) async fn of(what: &str, count: usize, sides: &[Side<'_>]) -> anyhow::Result<Self> {
        let (mut rounds, mut noisy) = (Vec::new(), Vec::new());
        while rounds.len() < count && rounds.len() + noisy.len() < count * TRIES {
            let mut round = Vec::with_capacity(sides.len());
            for side in sides {
                round.push(side().await?);
            }
            let others = round.iter().map(|it| it.others).fold(0.0, f64::max);
            say::aside(format!(
                "{what}: round {} of {count}, others used {:.0} % of the machine",
                rounds.len() + 1,
                others * 100.0
            ));
            if others > VOID_ABOVE { &mut noisy } else { &mut rounds }.push(round);
        }
        let void = noisy.len();
        // The machine never was quiet: what was seen is told, the least disturbed first.
        noisy.sort_by(|a, b| disturbance(a).total_cmp(&disturbance(b)));
        let missing = count.saturating_sub(rounds.len());
        rounds.extend(noisy.into_iter().take(missing));
        Ok(Self { rounds, void })
    }

    /// What `of` is in each round.
    pub(crate) fn spread(&self, of: impl Fn(&[Sample]) -> f64) -> Option<Spread> {
        Spread::of(&self.rounds.iter().map(|round| of(round)).collect::<Vec<_>>())
    }

    /// The round whose first sample is the middle one, for the table.
    pub(crate) fn typical(&self) -> Vec<Sample> {
        let mut sorted: Vec<&Vec<Sample>> = self.rounds.iter().collect();
        sorted.sort_by(|a, b| disturbance(a).total_cmp(&disturbance(b)));
        sorted.first().map(|round| (*round).clone()).unwrap_or_default()
    }

    pub(crate) fn note(&self) -> String {
        let noisy = self
            .rounds
            .iter()
            .filter(|round| disturbance(round) > VOID_ABOVE)
            .count();
        match (self.void, noisy) {
            (0, _) => String::new(),
            (void, 0) => format!("{void} void rounds repeated"),
            (_, noisy) => {
                format!("{noisy} rounds with others on more than half of the machine: none quieter was to be had")
            }
        }
    }
}

fn disturbance(round: &[Sample]) -> f64 {
    round.iter().map(|it| it.others).fold(0.0, f64::max)
}

/// What is compared, and how long each measurement takes.
struct Comparison<'a> {
    mesh: &'a Mesh,
    echo: &'a Echo,
    store: &'a Store,
    timing: Timing,
    rounds: usize,
}

/// Measures what the marks ask for, adds lines to the report and judges.
///
/// # Errors
/// When something cannot be measured at all.
pub async fn run(
    mesh: &Mesh,
    echo: &Echo,
    store: &Store,
    timing: Timing,
    rounds: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    ensure!(rounds > 0, "a median of nothing");
    let comparison = Comparison {
        mesh,
        echo,
        store,
        timing,
        rounds,
    };
    let most = comparison.open_trade(report).await?;
    comparison.at_64_and_alone(report).await?;
    comparison.queue(report).await?;
    comparison.balance(report).await?;
    comparison.open_loops(report, most).await?;
    Ok(())
}

impl<'a> Comparison<'a> {
    fn closed(&self, work: Work, door: Door, concurrency: usize) -> Plan {
        self.plan(work, door, Loop::Closed { concurrency })
    }

    fn plan(&self, work: Work, door: Door, load: Loop) -> Plan {
        Plan {
            work,
            door,
            load,
            warm_up: self.timing.warm_up,
            measure: self.timing.measure,
        }
    }

    fn of_echo(&self, plan: Plan) -> Side<'a> {
        let target = &self.echo.target;
        Box::new(move || Box::pin(load::run("echo", target, plan)))
    }

    fn of_mesh(&self, plan: Plan) -> Side<'a> {
        let target = &self.mesh.target;
        Box::new(move || Box::pin(load::run("mesh", target, plan)))
    }

    /// Marks 1, 2, 7 and 8 at 256 calls at once; gives the calls a second of the mesh and of the echo.
    async fn open_trade(&self, report: &mut Report) -> anyhow::Result<f64> {
        let plan = |door| self.closed(Work::Open, door, 256);
        let sides = [
            self.of_echo(plan(Door::Grpc)),
            self.of_mesh(plan(Door::Grpc)),
            self.of_mesh(plan(Door::Rest)),
            self.of_mesh(plan(Door::GrpcWeb)),
        ];
        let rounds = Rounds::of("open at 256", self.rounds, &sides).await?;
        let echo = |of: fn(Ratios) -> f64| rounds.spread(|it| of(to_echo(&it[1], &it[0])));
        let server = |n: usize| rounds.spread(|it| it[n].cpu_of(&["gateway"]) / it[1].cpu_of(&["gateway"]));
        let note = rounds.note();
        let mut mark = |number, what, limit, seen| {
            report.judged(Mark::judge(number, what, limit, seen).noting(&note));
        };
        mark(
            1,
            "cpu of a durable open ÷ echo, 256 at once",
            Limit::AtMost(2.2),
            echo(|it| it.cpu),
        );
        mark(
            2,
            "durable opens/s ÷ echo, 256 at once",
            Limit::AtLeast(0.50),
            echo(|it| it.rate),
        );
        mark(7, "REST ÷ gRPC, gateway's cpu", Limit::AtMost(1.3), server(2));
        let rest = rounds.spread(|it| it[2].per_second / it[1].per_second);
        mark(7, "REST ÷ gRPC, calls/s", Limit::AtLeast(0.6), rest);
        mark(8, "grpc-web ÷ gRPC, gateway's cpu", Limit::AtMost(1.1), server(3));
        report.judged(Mark::unmeasured(
            8,
            "gRPC with ÷ without the grpc-web layer",
            "native calls do not pass that layer: the media type chooses before it",
        ));
        add(report, rounds.typical(), &["echo"]);
        let most = rounds.spread(|it| it[1].per_second).context("no round")?;
        Ok(most.median)
    }

    /// The rest of mark 2, and mark 3.
    async fn at_64_and_alone(&self, report: &mut Report) -> anyhow::Result<()> {
        for concurrency in [64, 1] {
            let plan = self.closed(Work::Open, Door::Grpc, concurrency);
            let sides = [self.of_echo(plan), self.of_mesh(plan)];
            let rounds = Rounds::of(&format!("open at {concurrency}"), self.rounds, &sides).await?;
            let mark = if concurrency == 64 {
                let seen = rounds.spread(|it| to_echo(&it[1], &it[0]).rate);
                Mark::judge(2, "durable opens/s ÷ echo, 64 at once", Limit::AtLeast(0.38), seen)
            } else {
                let seen = rounds.spread(|it| to_echo(&it[1], &it[0]).p50);
                Mark::judge(3, "p50 of a durable call alone ÷ echo", Limit::AtMost(4.5), seen)
            };
            report.judged(mark.noting(&rounds.note()));
            add(report, rounds.typical(), &["echo"]);
        }
        Ok(())
    }

    /// Mark 5.
    async fn queue(&self, report: &mut Report) -> anyhow::Result<()> {
        let side = |way| -> Side<'a> {
            let (store, timing) = (self.store, self.timing);
            Box::new(move || Box::pin(lists::run(store, way, 256, timing.warm_up, timing.measure)))
        };
        let sides = [side(Way::Aggregated), side(Way::Ours), side(Way::Naive)];
        let rounds = Rounds::of("lists at 256", self.rounds, &sides).await?;
        let seen = rounds.spread(|it| it[1].cpu_of(&lists::PARTS) / it[0].cpu_of(&lists::PARTS));
        let naive = rounds.spread(|it| it[1].per_second / it[2].per_second);
        let note = naive.map_or_else(String::new, |it| {
            format!("{:.1} times the naive way's calls/s", it.median)
        });
        report.judged(
            Mark::judge(
                5,
                "cpu of our queue ÷ bare lists, 256 at once",
                Limit::AtMost(1.15),
                seen,
            )
            .noting(&note),
        );
        add(report, rounds.typical(), &[]);
        Ok(())
    }

    /// Mark 6.
    async fn balance(&self, report: &mut Report) -> anyhow::Result<()> {
        let plan = self.closed(Work::Balance, Door::Grpc, 256);
        let sides = [self.of_echo(plan), self.of_mesh(plan)];
        let rounds = Rounds::of("balance at 256", self.rounds, &sides).await?;
        let note = rounds.note();
        let cpu = rounds.spread(|it| to_echo(&it[1], &it[0]).cpu);
        let rate = rounds.spread(|it| to_echo(&it[1], &it[0]).rate);
        report.judged(Mark::judge(6, "cpu of a balance ÷ echo, 256 at once", Limit::AtMost(1.8), cpu).noting(&note));
        report.judged(Mark::judge(6, "balances/s ÷ echo, 256 at once", Limit::AtLeast(0.6), rate).noting(&note));
        add(report, rounds.typical(), &["echo"]);
        Ok(())
    }

    /// Marks 9 and 10.
    async fn open_loops(&self, report: &mut Report, most: f64) -> anyhow::Result<()> {
        let per_second = most * QUARTER;
        let plan = self.plan(Work::Open, Door::Grpc, Loop::Open { per_second });
        let sides = [self.of_echo(plan), self.of_mesh(plan)];
        let rounds = Rounds::of("a quarter of the most", self.rounds, &sides).await?;
        let lost: u64 = rounds.rounds.iter().map(|it| it[1].lost + it[1].refused).sum();
        let seen = rounds.spread(|it| to_echo(&it[1], &it[0]).p99);
        let note = format!("{lost} lost or refused. {}", rounds.note());
        report.judged(
            Mark::judge(9, "open loop at 25 % of the most: p99 ÷ echo", Limit::AtMost(2.5), seen)
                .noting(note.trim_end()),
        );
        add(report, rounds.typical(), &["echo"]);

        let per_second = most * OVERLOAD;
        let sides = [
            self.of_mesh(self.closed(Work::Open, Door::Grpc, 256)),
            self.of_mesh(self.plan(Work::Open, Door::Grpc, Loop::Open { per_second })),
        ];
        let rounds = Rounds::of("twice the most", self.rounds, &sides).await?;
        let seen = rounds.spread(|it| it[1].per_second / it[0].per_second);
        let refused: u64 = rounds.rounds.iter().map(|it| it[1].refused).sum();
        let lost: u64 = rounds.rounds.iter().map(|it| it[1].lost).sum();
        let note = format!("{refused} refused, {lost} without an answer. {}", rounds.note());
        report.judged(
            Mark::judge(
                10,
                "open loop at twice the most: goodput ÷ closed",
                Limit::AtLeast(0.9),
                seen,
            )
            .noting(note.trim_end()),
        );
        add(report, rounds.typical().split_off(1), &[]);
        Ok(())
    }
}

fn to_echo(mesh: &Sample, echo: &Sample) -> Ratios {
    Ratios::of(mesh, &PATH, echo, &["echo"])
}

/// Adds a round to the table; those after the first get their ratio to it when it is the yardstick.
fn add(report: &mut Report, round: Vec<Sample>, yardstick: &[&str]) {
    let first = round.first().cloned();
    for (n, mut sample) in round.into_iter().enumerate() {
        if let (Some(first), false, 1..) = (&first, yardstick.is_empty(), n) {
            sample.to_echo = Some(Ratios::of(&sample, &PATH, first, yardstick));
        }
        report.add(sample);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Used;
    use crate::sample::Tally;
    use std::collections::BTreeMap;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    fn sample(others: f64, calls: u64) -> Sample {
        let mut tally = Tally::default();
        tally.latencies.record(Duration::from_micros(100));
        tally.in_time = calls;
        let used = Used {
            by_name: BTreeMap::new(),
            wall: Duration::from_secs(1),
            others,
        };
        Sample::of("x", &tally, &used)
    }

    fn side(others: &'static [f64], asked: &'static AtomicUsize) -> Side<'static> {
        Box::new(move || {
            let n = asked.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move { Ok(sample(others[n % others.len()], n as u64 + 1)) })
        })
    }

    #[tokio::test]
    async fn a_disturbed_round_is_void_and_repeated() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let rounds = Rounds::of("x", 2, &[side(&[0.9, 0.1, 0.2], &ASKED)]).await.unwrap();
        assert_eq!((rounds.rounds.len(), rounds.void), (2, 1));
        assert_eq!(rounds.note(), "1 void rounds repeated");
        let seen = rounds.spread(|it| it[0].per_second).unwrap();
        assert!((seen.median - 2.5).abs() < 1e-9, "the second and the third");
    }

    #[tokio::test]
    async fn on_a_machine_that_is_never_quiet_the_least_disturbed_are_told_as_such() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let rounds = Rounds::of("x", 2, &[side(&[0.9, 0.8, 0.7], &ASKED)]).await.unwrap();
        assert_eq!(ASKED.load(Ordering::Relaxed), 2 * TRIES);
        assert_eq!(rounds.rounds.len(), 2);
        assert!(rounds.rounds.iter().all(|it| (it[0].others - 0.7).abs() < 1e-9));
        assert!(rounds.note().contains("none quieter"));
    }
}
