//! Names of servers that stand for other addresses after a while.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::proxy::Upkeep;
use crate::upstream::{Origin, Settings, Upstream};

/// An upstream called `core.internal`, followed with a resolver that says what is in the list.
fn followed(answers: &Arc<Mutex<Result<Vec<SocketAddr>, ()>>>) -> Arc<Upstream> {
    crate::tls::install_provider();
    let origins = vec![Origin::parse("http://core.internal:9001").unwrap()];
    let first = origins[0].servers(vec!["10.0.0.1:9001".parse().unwrap()], None).unwrap();
    let upstream =
        Arc::new(Upstream::new("core", Settings { origins, resolve_every: Duration::from_millis(1), ..Settings::default() }, first));
    let answers = Arc::clone(answers);
    let upkeep = Upkeep::with(Box::new(move |host, port| {
        assert_eq!((&*host, port), ("core.internal", 9001));
        let answer = answers.lock().clone();
        Box::pin(async move { answer.map_err(|()| std::io::ErrorKind::TimedOut.into()) })
    }));
    upkeep.take_up(&upstream);
    upkeep.take_up(&upstream);
    upstream
}

async fn until(upstream: &Upstream, addresses: &[&str]) {
    let want: Vec<SocketAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    while upstream.servers().iter().map(|server| server.address).collect::<Vec<_>>() != want {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_name_is_followed_and_what_cannot_be_resolved_stays_as_it_was() {
    let answers = Arc::new(Mutex::new(Ok(vec!["10.0.0.1:9001".parse().unwrap()])));
    let upstream = followed(&answers);
    *answers.lock() = Ok(vec!["10.0.0.2:9001".parse().unwrap(), "10.0.0.3:9001".parse().unwrap()]);
    until(&upstream, &["10.0.0.2:9001", "10.0.0.3:9001"]).await;
    let before = upstream.servers();
    *answers.lock() = Err(());
    // Asked again, and again: the task goes on after a failure, and takes up what comes then.
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(Arc::ptr_eq(&before, &upstream.servers()));
    *answers.lock() = Ok(vec![]);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(Arc::ptr_eq(&before, &upstream.servers()), "a name without an address is no reason to have no server");
    *answers.lock() = Ok(vec!["10.0.0.3:9001".parse().unwrap()]);
    until(&upstream, &["10.0.0.3:9001"]).await;
    assert!(Arc::ptr_eq(&before[1], &upstream.servers()[0]));
    // Nobody uses it any more: the task ends, and lets go of its resolver.
    drop(upstream);
    while Arc::strong_count(&answers) > 1 {
        tokio::task::yield_now().await;
    }
}
