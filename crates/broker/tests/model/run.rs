//! A run: chance lets one thing happen after the other, then the faults stop, and the grant must live.

use std::fmt::Write as _;
use std::time::Duration;

use tokenward_storage::ConnectionState;
use tokenward_types::{Rng, SeededRng};

use crate::gate::Pass;
use crate::storage::Cheat;
use crate::vendor::{GRACE, Mode, Vendor};
use crate::world::{NODES, Stage, World};

/// How many things happen before the faults stop.
const STEPS: usize = 70;

/// What a search found.
pub(crate) struct Outcome {
    pub(crate) runs: u64,
    /// The first run that lost a grant that need not be lost: how, and by which seed.
    pub(crate) lost: Option<String>,
    /// Runs that lost one that nobody could have kept.
    pub(crate) unavoidable: u64,
}

/// What may still happen in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Budget {
    asks: u32,
    resolves: u32,
    crashes: u32,
    lost_replies: u32,
    lost_commits: u32,
    not_sent: u32,
    late_calls: u32,
    cuts: u32,
    pauses: u32,
    consents: u32,
    disconnects: u32,
    jumps: u32,
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Release(usize, Pass),
    Ask(usize),
    Resolve(usize),
    Crash(usize),
    Restart(usize),
    Cut(usize),
    Heal(usize),
    ExpireLease,
    Consent,
    Disconnect,
    Jump(usize, bool),
    CatchUp,
}

/// A step at which one broker stands for a while: what most races need.
struct Stall {
    node: usize,
    step: &'static str,
    until: usize,
}

/// Searches runs for a lost grant; stops at the first.
pub(crate) fn search(mode: Mode, cheat: Cheat, runs: u64) -> Outcome {
    let stage = Stage::new();
    let only = std::env::var("TOKENWARD_MODEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let runs = std::env::var("TOKENWARD_MODEL_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(runs);
    let seeds = only.map_or(1..=runs, |seed: u64| seed..=seed);
    let mut outcome = Outcome { runs: 0, lost: None, unavoidable: 0 };
    for seed in seeds {
        outcome.runs += 1;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let vendor = Vendor::new(mode);
        let ended = runtime.block_on(async {
            let world = World::new(&stage, vendor, cheat, seed).await;
            Run::new(world, seed, cheat).play().await
        });
        match ended {
            Ended::Kept => {}
            Ended::Unavoidable => outcome.unavoidable += 1,
            Ended::Lost(how) => {
                outcome.lost = Some(how);
                break;
            }
        }
    }
    outcome
}

enum Ended {
    Kept,
    Unavoidable,
    Lost(String),
}

struct Run<'a> {
    world: World<'a>,
    rng: SeededRng,
    seed: u64,
    start: Budget,
    left: Budget,
    stall: Option<Stall>,
    is_disconnected: bool,
    /// What was wrong at some moment, though it may have been mended later.
    wrong: Option<&'static str>,
    trace: String,
}

impl<'a> Run<'a> {
    fn new(world: World<'a>, seed: u64, cheat: Cheat) -> Self {
        let rng = SeededRng::new(seed);
        let once = |one_in: u64| u32::from(rng.below(one_in) == 0);
        let budget = Budget {
            asks: 4,
            resolves: 3,
            crashes: once(2),
            lost_replies: once(2),
            lost_commits: once(3),
            not_sent: once(3),
            late_calls: once(2),
            cuts: once(2),
            pauses: once(2),
            consents: once(3),
            disconnects: once(8),
            jumps: 2,
        };
        // Spares are for calls that the vendor gets to in another order than that of their leases.
        let steps: &[&str] =
            if cheat == Cheat::HideSpares { &["send"] } else { &["send", "reply", "commit", "begin"] };
        let stall = (rng.below(4) != 0).then(|| Stall {
            node: pick(&rng, NODES),
            step: steps[pick(&rng, steps.len())],
            until: 25 + pick(&rng, 30),
        });
        Self {
            world,
            rng,
            seed,
            start: budget,
            left: budget,
            stall,
            is_disconnected: false,
            wrong: None,
            trace: String::new(),
        }
    }

    async fn play(mut self) -> Ended {
        for step in 0..STEPS {
            let events = self.events(step);
            let total: u64 = events.iter().map(|(weight, _)| weight).sum();
            if total == 0 {
                break;
            }
            let mut left = self.rng.below(total);
            let chosen = events.into_iter().find(|(weight, _)| {
                let is_this = left < *weight;
                left = left.saturating_sub(*weight);
                is_this
            });
            if let Some((_, event)) = chosen {
                self.happen(event).await;
            }
            self.world.gate.quiet().await;
            self.look().await;
        }
        self.settle().await;
        self.look().await;
        let ended = self.judge().await;
        self.world.clear();
        ended
    }

    /// What can happen next, each with its weight.
    fn events(&self, step: usize) -> Vec<(u64, Event)> {
        let (world, left) = (&self.world, &self.left);
        let mut events = Vec::new();
        for (index, (actor, name)) in world.gate.parked().into_iter().enumerate() {
            let is_stalled = self.stall.as_ref().is_some_and(|stall| {
                step < stall.until && name == stall.step && world.nodes[stall.node].actor == actor
            });
            if !is_stalled {
                events.push((if name == "wait" { 3 } else { 8 }, Event::Release(index, Pass::Go)));
            }
            let (is_left, pass) = match name {
                "reply" => (left.lost_replies > 0, Pass::Lost),
                "commit" => (left.lost_commits > 0, Pass::Lost),
                "send" => (left.not_sent > 0, Pass::Away),
                _ => (false, Pass::Away),
            };
            if is_left {
                events.push((1, Event::Release(index, pass)));
            }
            if name == "send" && left.late_calls > 0 {
                events.push((1, Event::Release(index, Pass::Late)));
            }
        }
        for (index, node) in world.nodes.iter().enumerate() {
            if node.broker.is_none() {
                events.push((3, Event::Restart(index)));
                continue;
            }
            let mut add = |may: bool, weight, event| {
                if may {
                    events.push((weight, event));
                }
            };
            let is_idle = world.is_idle(index);
            add(left.asks > 0 && is_idle, 4, Event::Ask(index));
            add(left.resolves > 0 && is_idle, 2, Event::Resolve(index));
            add(left.crashes > 0 && !is_idle, 1, Event::Crash(index));
            add(left.cuts > 0 && !node.is_cut, 1, Event::Cut(index));
            add(node.is_cut, 2, Event::Heal(index));
            add(left.jumps > 0, 1, Event::Jump(index, self.rng.below(2) == 0));
        }
        if let Some(lease) = world.row().and_then(|row| row.lease) {
            let is_held = world.nodes.iter().any(|node| {
                node.broker.as_ref().is_some_and(|broker| broker.settings().server_id == lease.owner)
            });
            if !is_held {
                events.push((4, Event::ExpireLease));
            } else if left.pauses > 0 {
                events.push((3, Event::ExpireLease));
            }
        }
        if world.vendor.is_behind() {
            events.push((2, Event::CatchUp));
        }
        if left.consents > 0 {
            events.push((1, Event::Consent));
        }
        if left.disconnects > 0 {
            events.push((1, Event::Disconnect));
        }
        events
    }

    async fn happen(&mut self, event: Event) {
        let parked = self.world.gate.parked();
        let detail = match event {
            Event::Release(index, _) => format!("{:?}", parked[index]),
            _ => String::new(),
        };
        let _ = writeln!(self.trace, "  {event:?} {detail}");
        let left = &mut self.left;
        match event {
            Event::Release(index, pass) => {
                match (parked[index].1, pass) {
                    ("reply", Pass::Lost) => left.lost_replies -= 1,
                    ("commit", Pass::Lost) => left.lost_commits -= 1,
                    ("send", Pass::Away) => left.not_sent -= 1,
                    ("send", Pass::Late) => left.late_calls -= 1,
                    _ => {}
                }
                self.world.gate.release(index, pass);
            }
            Event::Ask(node) => {
                left.asks -= 1;
                self.world.ask(node);
            }
            Event::Resolve(node) => {
                left.resolves -= 1;
                self.world.resolve(node);
            }
            Event::Crash(node) => {
                left.crashes -= 1;
                self.world.crash(node);
            }
            Event::Restart(node) => self.world.restart(node).await,
            Event::Cut(node) => {
                left.cuts -= 1;
                self.world.cut(node, true);
            }
            Event::Heal(node) => self.world.cut(node, false),
            Event::ExpireLease => {
                let owner = self.world.row().and_then(|row| row.lease).map(|lease| lease.owner);
                let is_held = self.world.nodes.iter().any(|node| {
                    node.broker.as_ref().map(|broker| &broker.settings().server_id) == owner.as_ref()
                });
                left.pauses -= u32::from(is_held);
                self.world.expire_lease();
            }
            Event::Consent => {
                left.consents -= 1;
                self.is_disconnected = false;
                self.world.consent().await;
            }
            Event::Disconnect => {
                let disconnected = self.world.disconnect();
                left.disconnects -= u32::from(disconnected);
                self.is_disconnected |= disconnected;
            }
            Event::Jump(node, forward) => {
                left.jumps -= 1;
                self.world.time.jump(node, forward);
            }
            Event::CatchUp => self.world.vendor.catch_up(),
        }
    }

    /// What must hold at every moment: what the customer or the operator said last stands.
    async fn look(&mut self) {
        let Some(row) = self.world.row() else { return };
        if self.is_disconnected && (row.state != ConnectionState::Revoked || row.tokens.is_some()) {
            self.wrong = Some("a disconnected connection came back");
        }
        if let Some(token) = self.world.stored_token(&row).await
            && !self.world.vendor.is_of_newest_consent(&token)
        {
            self.wrong = Some("a new consent was overwritten");
        }
    }

    /// The faults stop: what is in flight ends, journals are replayed, unknown outcomes are resolved.
    async fn settle(&mut self) {
        let world = &mut self.world;
        for node in 0..NODES {
            world.cut(node, false);
        }
        world.gate.open();
        world.gate.quiet().await;
        for node in 0..NODES {
            if world.nodes[node].broker.is_none() {
                world.restart(node).await;
            }
        }
        for _ in 0..4 {
            world.expire_lease();
            for node in 0..NODES {
                world.resolve(node);
                world.gate.quiet().await;
            }
        }
        while world.vendor.is_behind() {
            world.vendor.catch_up();
        }
        // Halfway through the period of grace what is stored has to prove itself: after it, nobody may ask in vain.
        world.time.advance(GRACE / 2);
        for node in 0..NODES {
            world.resolve(node);
            world.gate.quiet().await;
        }
        world.time.advance(GRACE);
        world.vendor.end_grace();
        for try_at in 0..3 {
            let Some(row) = world.row() else { return };
            let Some(token) = world.stored_token(&row).await else { return };
            if world.vendor.lives(&token) {
                return;
            }
            world.ask(try_at % NODES);
            world.gate.quiet().await;
            world.time.advance(Duration::from_secs(61));
        }
    }

    async fn judge(&self) -> Ended {
        let row = self.world.row().expect("nobody deletes a connection");
        let token = self.world.stored_token(&row).await;
        let lives =
            self.is_disconnected || token.as_ref().is_some_and(|token| self.world.vendor.lives(token));
        let reused = self.world.vendor.mode != Mode::Strict && self.world.vendor.saw_reuse();
        let broken = self.wrong.or(reused.then_some("the vendor saw a token reused"));
        let is_broken = broken.is_some();
        let wrong = broken
            .map(str::to_owned)
            .or_else(|| (!lives).then(|| format!("the stored token {token:?} is dead")));
        let Some(wrong) = wrong else { return Ended::Kept };
        let (start, left) = (&self.start, &self.left);
        let nobody_had_it = start.lost_replies > left.lost_replies
            || start.late_calls > left.late_calls
            || start.crashes > left.crashes
            || start.pauses > left.pauses;
        if self.world.vendor.mode == Mode::Strict && nobody_had_it && !is_broken {
            return Ended::Unavoidable;
        }
        Ended::Lost(format!(
            "{wrong}; repeat it with TOKENWARD_MODEL_SEED={}\n{}  {row:?}",
            self.seed, self.trace
        ))
    }
}

fn pick(rng: &SeededRng, count: usize) -> usize {
    usize::try_from(rng.below(u64::try_from(count).unwrap())).unwrap()
}
