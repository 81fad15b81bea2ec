//! What a decision costs: the pure one, the whole gate on a warm cache, by a secret and by a token, and the route map; at
//! 10 and 10,000 routes, at 100 and 100,000 clients. `cargo bench --bench decision`

#![allow(missing_docs, dead_code, clippy::cast_possible_truncation, reason = "a benchmark")]

#[path = "support/gate.rs"]
mod gate;

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use gate::{Size, request, table, world};
use sigmagate::access::{Facts, authorize};
use sigmagate::credential::Secret;
use sigmagate::entity::ApiAccess;
use sigmagate::route::Method;
use sigmagate::scope::{ScopeRegistry, ScopeToken};

fn decisions(c: &mut Criterion) {
    let registry = ScopeRegistry::default();
    for routes in [10, 10_000] {
        let table = table(&registry, routes);
        let path = format!("/api/public/v1/service{}/invoices/17", routes / 2);
        c.bench_function(&format!("route/{routes}"), |b| b.iter(|| table.find(black_box(&path), Some(Method::Get)).is_ok()));
    }
    let table = table(&registry, 10);
    let billing: ScopeToken = "billing".parse().expect("a scope");
    let scopes = registry.intern(&billing).expect("room for a scope");
    let facts =
        Facts { revoked: false, expired: false, practice: ApiAccess::Active, owner: None, address_allowed: true, scopes, fenced: false };
    c.bench_function("authorize", |b| b.iter(|| authorize(black_box(&table.routes()[0]), black_box(&facts)).is_ok()));
    for (routes, clients) in [(10, 100), (10, 100_000), (10_000, 100)] {
        let world = world(Size { routes, clients, practices: 50 });
        let target = world.target();
        let wrong = request(&gate::basic(&format!("smd_{}", "z".repeat(20)), Secret::generate().reveal()), &target);
        let gate = &world.gate;
        assert!(gate.decide(&wrong).outcome.is_err());
        let shown =
            [("permit", &world.basic(clients / 2)), ("permit by token", &world.token), ("permit by an issuer's token", &world.foreign)];
        for (name, authorization) in shown {
            let right = request(authorization, &target);
            assert!(gate.decide(&right).outcome.is_ok(), "{name}");
            c.bench_function(&format!("gate/{name}/{routes} routes/{clients} clients"), |b| {
                b.iter(|| gate.decide(black_box(&right)).outcome.is_ok());
            });
        }
        c.bench_function(&format!("gate/401/{routes} routes/{clients} clients"), |b| {
            b.iter(|| gate.decide(black_box(&wrong)).outcome.is_ok());
        });
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
