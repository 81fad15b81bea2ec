//! One run: the world, who asks, who changes, what fails, and what came of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use parking_lot::Mutex;
use sigmagate::entity::Role;
use sigmagate::id::{ClientId, PracticeId, UserId};
use sigmagate::lifecycle::{Lifecycle, NewClientRequest};
use sigmagate::store::{Actor, Fleet, PgStore, Timing};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, PgConnection};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::fleet::Gateway;
use crate::history::{Change, History, Member, Moment, Piece, Request, Scope, Violation};
use crate::link::{Link, Mode};
use crate::load::{self, Clock, Connection};
use crate::postgres::Postgres;

const LEASE: Duration = Duration::from_secs(1);
const HEARTBEAT: Duration = Duration::from_millis(200);
/// L(1+2ρ) and a tick: how long plain SQL may take.
const BOUND: Duration = Duration::from_millis(1003);

/// Has the register say that every node keeps a lease of a second, whatever the node says with each heartbeat.
const LIE: &str = "
    CREATE FUNCTION lie() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.bound_ms := 1003; RETURN NEW; END $$;
    CREATE TRIGGER lie BEFORE INSERT OR UPDATE ON gateway.nodes FOR EACH ROW EXECUTE FUNCTION lie();
    UPDATE gateway.schema_version SET fingerprint = gateway.fingerprint()";

/// What a run is to be.
#[derive(Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub seconds: u64,
    pub gateways: usize,
    /// The gateways keep no lease, and the register claims that they do; the run ends with the first violation.
    pub planted: bool,
}

/// What came of it.
pub struct Report {
    pub seed: u64,
    pub violations: Vec<Violation>,
    pub admitted: usize,
    pub changes: usize,
    requests: usize,
    pieces: usize,
    ways: BTreeMap<&'static str, usize>,
    faults: BTreeMap<&'static str, usize>,
    /// Receipts by the API: while nothing failed, and while something did.
    calm: Vec<Duration>,
    troubled: Vec<Duration>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = |times: &[Duration]| {
            let mut sorted = times.to_vec();
            sorted.sort();
            let at = |percent: usize| sorted.get(sorted.len() * percent / 100).copied().unwrap_or_default();
            format!("{} receipts, p50 {:.1?}, p99 {:.1?}", sorted.len(), at(50), at(99))
        };
        writeln!(
            f,
            "chaos: seed {}, {} requests ({} admitted), {} pieces of streams, {} changes {:?}, faults {:?}",
            self.seed, self.requests, self.admitted, self.pieces, self.changes, self.ways, self.faults
        )?;
        writeln!(f, "  while nothing failed: {}; while something did: {}", of(&self.calm), of(&self.troubled))?;
        write!(f, "  violations: {}", self.violations.len())?;
        for violation in self.violations.iter().take(5) {
            write!(f, "\n    {violation}")?;
        }
        Ok(())
    }
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same for the same seed, everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below
    }

    fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.next(to - from))
    }
}

/// A client that somebody asks with.
struct App {
    member: Member,
    id: ClientId,
    authorization: Arc<str>,
}

struct World {
    clock: Clock,
    lifecycle: Lifecycle,
    url: String,
    gateways: Vec<Gateway>,
    /// Number 0 nothing ever happens to; 1 is of the practice that is switched, 2 of the user who is; then the victims.
    apps: Vec<App>,
    victim: AtomicUsize,
    history: Mutex<History>,
    over: AtomicBool,
    failing: AtomicBool,
    by: Actor,
    practice: PracticeId,
    user: UserId,
}

/// Runs it.
pub async fn run(plan: Plan) -> Report {
    let server = tokio::task::spawn_blocking(|| Postgres::start(&[])).await.unwrap();
    let url = server.database();
    let clock = Clock(Instant::now());
    let fleet =
        Fleet { timing: Timing { lease: LEASE, heartbeat: HEARTBEAT, freeze_allowance: Duration::ZERO }, durability_asserted: false };
    let store = PgStore::open(&url, &fleet, true).await.unwrap();
    // Who writes by hand says whether it is to hold for them.
    server.strict(&url);
    let lifecycle = Lifecycle::new(Arc::new(store), None);
    let victims = usize::try_from(plan.seconds * 12).unwrap();
    let (practice, user, apps) = people(&lifecycle, victims).await;
    let upstream = load::upstream(clock).await;
    let dir = tempfile::tempdir().unwrap();
    let lease = if plan.planted { "lease_ms = 3600000\nheartbeat_ms = 200" } else { "lease_ms = 1000\nheartbeat_ms = 200" };
    let mut gateways = Vec::new();
    let (_, database) = url.rsplit_once('/').unwrap();
    for n in 0..plan.gateways {
        gateways.push(Gateway::new(&dir.path().join(n.to_string()), Link::to(server.port()).await, database, lease, upstream));
    }
    let world = Arc::new(World {
        clock,
        lifecycle,
        url,
        gateways,
        apps,
        victim: AtomicUsize::new(3),
        history: Mutex::default(),
        over: AtomicBool::new(false),
        failing: AtomicBool::new(false),
        by: Actor { name: "operator".into(), origin: "chaos".into() },
        practice,
        user,
    });
    if plan.planted {
        let mut conn = connect(&world.url).await.unwrap();
        sqlx::raw_sql(LIE).execute(&mut conn).await.unwrap();
    }
    for gateway in &world.gateways {
        gateway.start().await;
    }
    let mut asking = JoinSet::new();
    for node in 0..plan.gateways {
        asking.spawn(ask(Arc::clone(&world), node, Dice(plan.seed ^ 1)));
        asking.spawn(ask(Arc::clone(&world), node, Dice(plan.seed ^ 2)));
        asking.spawn(stream(Arc::clone(&world), node));
    }
    let changing = tokio::spawn(change(Arc::clone(&world), Dice(plan.seed ^ 3)));
    let server = Arc::new(server);
    let breaking = tokio::spawn(break_things(Arc::clone(&world), Arc::clone(&server), Dice(plan.seed ^ 4), plan.planted));
    let end = clock.now() + plan.seconds * 1_000_000_000;
    while clock.now() < end {
        sleep(Duration::from_millis(100)).await;
        if plan.planted && !world.history.lock().violations().is_empty() {
            break;
        }
    }
    world.over.store(true, Ordering::Relaxed);
    let faults = breaking.await.unwrap();
    let (ways, calm, troubled) = changing.await.unwrap();
    if !plan.planted {
        recovered(&world).await;
    }
    // Those that still wait for an answer or for a piece have nothing more to tell.
    asking.shutdown().await;
    let history = world.history.lock();
    Report {
        seed: plan.seed,
        violations: history.violations(),
        admitted: history.requests.iter().filter(|request| request.status == 200).count(),
        changes: history.changes.len(),
        requests: history.requests.len(),
        pieces: history.pieces.len(),
        ways,
        faults,
        calm,
        troubled,
    }
}

async fn people(lifecycle: &Lifecycle, victims: usize) -> (PracticeId, UserId, Vec<App>) {
    let by = Actor { name: "operator".into(), origin: "chaos".into() };
    let (steady, switched): (PracticeId, PracticeId) = ("steady".parse().unwrap(), "switched".parse().unwrap());
    let user: UserId = "user".parse().unwrap();
    for practice in [&steady, &switched] {
        lifecycle.put_practice(practice, "Practice", &by).await.unwrap();
        lifecycle.approve(practice, &by).await.unwrap();
    }
    lifecycle.put_user(&switched, &user, Role::Member, &by).await.unwrap();
    lifecycle.set_user_access(&user, true, &by).await.unwrap();
    let mut apps = Vec::new();
    for client in 0..victims + 3 {
        let (switch, personal) = (matches!(client, 1 | 2), client == 2);
        let practice = if switch { &switched } else { &steady };
        let new = NewClientRequest {
            owner: personal.then(|| user.clone()),
            tier: None,
            ..NewClientRequest::new(practice.clone(), "app", vec!["billing".parse().unwrap()])
        };
        let issued = lifecycle.create_client(new, &by).await.unwrap();
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{}:{}", issued.client.id, issued.secret.reveal()));
        apps.push(App {
            member: Member { client, personal, switched: switch },
            id: issued.client.id,
            authorization: format!("Basic {basic}").into(),
        });
    }
    (switched, user, apps)
}

async fn connect(url: &str) -> Result<PgConnection, sqlx::Error> {
    url.parse::<PgConnectOptions>()?.connect().await
}

impl World {
    fn over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    fn victim(&self) -> &App {
        &self.apps[self.victim.load(Ordering::Relaxed).min(self.apps.len() - 1)]
    }

    /// Notes that a change begins: when, and where it is noted.
    fn begin(&self, scope: Scope, allows: bool) -> (Moment, usize) {
        let mut history = self.history.lock();
        // Inside the lock: whoever is admitted or refused because of it can be noted only after it.
        let begun = self.clock.now();
        history.changes.push(Change { scope, allows, begun, in_force: None });
        (begun, history.changes.len() - 1)
    }

    fn note(&self, request: Request) {
        self.history.lock().requests.push(request);
    }
}

/// Asks one gateway without end: mostly with the client that is about to be revoked, or just was.
async fn ask(world: Arc<World>, node: usize, mut dice: Dice) {
    let mut connection = Connection::default();
    loop {
        let Some(address) = world.gateways[node].address() else {
            sleep(Duration::from_millis(5)).await;
            continue;
        };
        let app = match dice.next(8) {
            0 => &world.apps[0],
            1 => &world.apps[1],
            2 => &world.apps[2],
            _ => world.victim(),
        };
        let begun = world.clock.now();
        let status = connection.ask(address, &app.authorization).await;
        world.note(Request { member: app.member, node, begun, ended: world.clock.now(), status });
        if status == 0 {
            sleep(Duration::from_millis(5)).await;
        } else {
            // As fast as can be would measure the machine; this leaves it room for what is to be tested.
            sleep(Duration::from_micros(500)).await;
        }
    }
}

/// Keeps a stream open with the client that is about to be revoked.
async fn stream(world: Arc<World>, node: usize) {
    loop {
        if let Some(address) = world.gateways[node].address() {
            let app = world.victim();
            let member = app.member;
            let history = &world.history;
            load::follow(address, Arc::clone(&app.authorization), |sent| history.lock().pieces.push(Piece { member, node, sent })).await;
        }
        sleep(Duration::from_millis(5)).await;
    }
}

type Told = (BTreeMap<&'static str, usize>, Vec<Duration>, Vec<Duration>);

/// Revokes one victim after the other, by every way there is, and switches the user and the practice.
async fn change(world: Arc<World>, mut dice: Dice) -> Told {
    let (mut ways, mut calm, mut troubled) = (BTreeMap::new(), Vec::new(), Vec::new());
    let mut conn = None;
    while !world.over() && world.victim.load(Ordering::Relaxed) < world.apps.len() - 1 {
        sleep(dice.millis(20, 120)).await;
        let victim = world.victim();
        let failing = world.failing.load(Ordering::Relaxed);
        let (way, scope) = match dice.next(10) {
            0 => ("user off and on", Scope::User),
            1 => ("practice off and on", Scope::Practice),
            2 => ("sql", Scope::Client(victim.member.client)),
            3 => ("sql and await", Scope::Client(victim.member.client)),
            4 => ("sql in strict mode", Scope::Client(victim.member.client)),
            _ => ("api", Scope::Client(victim.member.client)),
        };
        let (begun, noted) = world.begin(scope, false);
        let done = match way {
            "user off and on" => world.lifecycle.set_user_access(&world.user, false, &world.by).await.is_ok(),
            "practice off and on" => world.lifecycle.disable(&world.practice, &world.by).await.is_ok(),
            "api" => world.lifecycle.revoke(victim.id, &world.by).await.is_ok(),
            _ => false,
        };
        let mut in_force = done.then(|| world.clock.now());
        if way == "api" && done {
            let took = Duration::from_nanos(world.clock.now() - begun);
            if failing || world.failing.load(Ordering::Relaxed) { troubled.push(took) } else { calm.push(took) }
        } else if way.starts_with("sql") {
            in_force = by_sql(&world, &mut conn, victim.id, way).await;
        }
        *ways.entry(way).or_insert(0) += 1;
        world.history.lock().changes[noted].in_force = in_force;
        // A while in which it is still asked with.
        sleep(dice.millis(30, 100)).await;
        if let Scope::Client(_) = scope {
            world.victim.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        world.begin(scope, true);
        // Until it is done: what is on again must not be off for the rest of the run.
        while if scope == Scope::User {
            world.lifecycle.set_user_access(&world.user, true, &world.by).await.is_err()
        } else {
            world.lifecycle.enable(&world.practice, &world.by).await.is_err()
                && world
                    .lifecycle
                    .store()
                    .practice(&world.practice)
                    .await
                    .is_ok_and(|p| p.api_access != sigmagate::entity::ApiAccess::Active)
        } {
            sleep(Duration::from_millis(20)).await;
        }
    }
    (ways, calm, troubled)
}

/// Revokes by hand; from when on that is in force, if it is known to have happened.
async fn by_sql(world: &World, conn: &mut Option<PgConnection>, id: ClientId, way: &str) -> Option<Moment> {
    if conn.is_none() {
        *conn = connect(&world.url).await.ok();
    }
    let open = conn.as_mut()?;
    let strict = way == "sql in strict mode";
    let done = async {
        sqlx::query("SELECT set_config('gateway.waits', $1, false)").bind(if strict { "off" } else { "on" }).execute(&mut *open).await?;
        sqlx::query("UPDATE gateway.clients SET revoked_at = now() WHERE client_id = $1").bind(id.to_string()).execute(&mut *open).await
    };
    let done = done.await;
    let committed = world.clock.now();
    if done.is_err() {
        *conn = None;
        return None;
    }
    if strict {
        return Some(committed);
    }
    if way == "sql and await" {
        match sqlx::query("SELECT gateway.await(NULL, '20 s')").execute(open).await {
            Ok(_) => return Some(world.clock.now()),
            Err(_) => *conn = None,
        }
    }
    Some(committed + u64::try_from(BOUND.as_nanos()).unwrap())
}

/// One fault after the other, each healed again.
async fn break_things(world: Arc<World>, server: Arc<Postgres>, mut dice: Dice, planted: bool) -> BTreeMap<&'static str, usize> {
    let mut faults = BTreeMap::new();
    while !world.over() {
        sleep(dice.millis(200, 700)).await;
        let gateway = &world.gateways[usize::try_from(dice.next(world.gateways.len() as u64)).unwrap()];
        let held = dice.millis(200, 2500);
        let fault = if planted { 2 } else { dice.next(9) };
        world.failing.store(true, Ordering::Relaxed);
        let name = match fault {
            0 => {
                gateway.pause(true);
                sleep(held).await;
                gateway.pause(false);
                "a gateway stopped and continued"
            }
            1 => {
                gateway.kill();
                sleep(held / 4).await;
                gateway.start().await;
                "a gateway killed and started"
            }
            2 => {
                gateway.link.set(Mode::Hold, Mode::Hold);
                sleep(held).await;
                gateway.link.set(Mode::Pass, Mode::Pass);
                "a link dead in both directions"
            }
            3 => {
                gateway.link.set(Mode::Hold, Mode::Pass);
                sleep(held).await;
                gateway.link.set(Mode::Pass, Mode::Pass);
                "a link dead towards the database"
            }
            4 => {
                gateway.link.set(Mode::Pass, Mode::Hold);
                sleep(held).await;
                gateway.link.set(Mode::Pass, Mode::Pass);
                "a link dead towards the gateway"
            }
            5 => {
                let late = dice.millis(5, 400);
                gateway.link.set(Mode::Delay(late), Mode::Delay(late));
                sleep(held).await;
                gateway.link.set(Mode::Pass, Mode::Pass);
                "a slow link"
            }
            6 => {
                gateway.link.cut();
                "connections broken"
            }
            7 => {
                if let Ok(mut conn) = connect(&world.url).await {
                    let all =
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sigmagate' AND random() < 0.5";
                    let _ = sqlx::query(all).execute(&mut conn).await;
                }
                "backends terminated"
            }
            _ => {
                let server = Arc::clone(&server);
                let crash = move || {
                    server.crash();
                    std::thread::sleep(held / 2);
                    server.resume();
                };
                tokio::task::spawn_blocking(crash).await.unwrap();
                "the database crashed and restarted"
            }
        };
        *faults.entry(name).or_insert(0) += 1;
        // Until everybody is well again, or calm would not be calm.
        sleep(LEASE / 2).await;
        world.failing.store(false, Ordering::Relaxed);
    }
    faults
}

/// Waits until every gateway admits again whom it should, and one more revocation is in force on all of them.
async fn recovered(world: &World) {
    for gateway in &world.gateways {
        let mut connection = Connection::default();
        while connection.ask(gateway.address().unwrap(), &world.apps[0].authorization).await != 200 {
            sleep(Duration::from_millis(10)).await;
        }
    }
    let last = world.apps.last().unwrap();
    // Those of gateways that were killed are still in the register for a lease.
    while world.lifecycle.revoke(last.id, &world.by).await.is_err() {
        sleep(Duration::from_millis(10)).await;
    }
    for gateway in &world.gateways {
        let mut connection = Connection::default();
        loop {
            match connection.ask(gateway.address().unwrap(), &last.authorization).await {
                401 => break,
                200 => panic!("admitted after the receipt"),
                // On a machine that is busy with other things a lease may run out at any time.
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    }
}
