//! Claims of one-time keys that race and are cut off: no key is handed out twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use serde_json::Value;
use tokio::sync::{Mutex, RwLock};

use crate::support::http::try_ask;
use crate::support::person::people;
use crate::support::server::{Place, postgres_url};
use crate::support::{Backend, PATIENCE, Person, Server, ask, hex, random};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_two_thousand_claims_of_one_hundred_keys_on_one_node() {
    two_thousand_claims(&[Server::spawn(Backend::Sqlite).await]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_two_thousand_claims_of_one_hundred_keys_on_four_nodes_postgres() {
    if postgres_url().is_some() {
        two_thousand_claims(&four_nodes().await).await;
    }
}

async fn four_nodes() -> Vec<Server> {
    let place = Place::new(Backend::Postgres).await;
    ["one", "two", "three", "four"]
        .map(|name| Server::start(Arc::clone(&place), name, &[]))
        .into()
}

async fn two_thousand_claims(nodes: &[Server]) {
    let (bob, callers) = (Person::register(&nodes[0]).await, people(&nodes[0], 20).await);
    bob.upload_keys(&nodes[0], 1, 100).await;
    let path = format!("/v2/keys/{}/1", bob.aci);
    let claims = (0..2_000).map(|n| {
        let (node, caller) = (&nodes[n % nodes.len()], &callers[n / nodes.len() % callers.len()]);
        ask(caller.request(node, "GET", &path))
    });
    // As many at once as connections are worth having.
    let answers: Vec<_> = stream::iter(claims).buffer_unordered(200).collect().await;
    let mut taken = Taken::default();
    for answer in &answers {
        taken.add(&answer.json(), &bob);
        assert_eq!(answer.status, 200);
    }
    assert_eq!((taken.ec.len(), taken.kyber.len()), (100, 100));
    assert_eq!((taken.without_ec, taken.last_resort), (1_900, 1_900));
    assert_eq!(taken.doubles, 0);
}

/// What came of claims of one person's keys.
#[derive(Default)]
struct Taken {
    ec: BTreeSet<u64>,
    kyber: BTreeSet<u64>,
    without_ec: usize,
    last_resort: usize,
    doubles: usize,
}

impl Taken {
    fn add(&mut self, bundle: &Value, of: &Person) {
        let device = &bundle["devices"][0];
        let id = |key: &Value| key["keyId"].as_u64().unwrap();
        match device.get("preKey") {
            Some(key) => self.doubles += usize::from(!self.ec.insert(id(key))),
            None => self.without_ec += 1,
        }
        let kyber = &device["pqPreKey"];
        if kyber["publicKey"] == of.aci_last_resort["publicKey"] {
            self.last_resort += 1;
        } else {
            self.doubles += usize::from(!self.kyber.insert(id(kyber)));
        }
    }
}

/// Four nodes that are killed one after the other, over and over, while everyone claims keys of everyone. Who does not get an
/// answer asks another node with the same idempotency key.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t17_t18_b13_claims_on_nodes_that_are_killed_over_and_over_never_get_a_key_twice() {
    if postgres_url().is_none() {
        return;
    }
    let nodes: Vec<_> = four_nodes().await.into_iter().map(RwLock::new).collect();
    let owners = people(&*nodes[0].read().await, OWNERS).await;
    let mut uploaded = 0;
    for owner in &owners {
        owner.upload_keys(&*nodes[0].read().await, 1, KEYS).await;
        uploaded += KEYS as usize;
    }
    let taken = Mutex::new(owners.iter().map(|_| Taken::default()).collect::<Vec<_>>());
    let (claims, lost) = (AtomicUsize::new(0), AtomicUsize::new(0));

    let claim = async |claimer: usize| {
        let caller = &owners[claimer % OWNERS];
        for n in 0_usize.. {
            if claims.fetch_add(1, Ordering::Relaxed) >= CLAIMS {
                break;
            }
            let owner = usize::from(random::<1>()[0]) % OWNERS;
            let path = format!("/v2/keys/{}/1", owners[owner].aci);
            let key = hex(&random::<16>());
            for at in 0.. {
                let request = {
                    let node = nodes[(claimer + n + at) % nodes.len()].read().await;
                    caller.request(&node, "GET", &path).header("idempotency-key", &key)
                };
                match try_ask(request.timeout(PATIENCE)).await {
                    Ok(answer) if answer.status == 200 => {
                        taken.lock().await[owner].add(&answer.json(), &owners[owner]);
                        break;
                    }
                    // A node that is going down, or one that is not up yet.
                    Ok(answer) => assert!(matches!(answer.status, 429 | 503), "{answer:?}"),
                    Err(_) => {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
                assert!(at < 100, "some node answers");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    };
    let kill = async {
        let mut kills = 0;
        while claims.load(Ordering::Relaxed) < CLAIMS {
            // At a moment that depends on what came before, in the middle of what is being claimed.
            tokio::time::sleep(Duration::from_millis(50 + u64::from(random::<1>()[0]))).await;
            let mut node = nodes[kills % nodes.len()].write().await;
            node.kill();
            *node = node.restart();
            kills += 1;
        }
        kills
    };
    let claimers = join_all((0..CLAIMERS).map(claim));
    let (_, kills) = Box::pin(async { tokio::join!(claimers, kill) }).await;
    assert!(kills >= 4, "every node died: {kills}");

    // What is left is taken to the end, so that a key that was given and not deleted would show.
    let node = nodes[0].read().await;
    let mut taken = taken.into_inner();
    for (owner, taken) in owners.iter().zip(&mut taken) {
        let caller = &owners[0];
        loop {
            let path = format!("/v2/keys/{}/1", owner.aci);
            let answer = ask(caller.request(&node, "GET", &path)).await.expect(200).json();
            let before = taken.without_ec + taken.last_resort;
            taken.add(&answer, owner);
            if taken.without_ec + taken.last_resort == before + 2 {
                break;
            }
        }
    }
    let sum = |what: fn(&Taken) -> usize| taken.iter().map(what).sum::<usize>();
    let counts = BTreeMap::from([
        ("doubles", sum(|taken| taken.doubles)),
        ("ec", sum(|taken| taken.ec.len())),
        ("kyber", sum(|taken| taken.kyber.len())),
        ("lost", lost.load(Ordering::Relaxed)),
        ("kills", kills),
    ]);
    assert_eq!(counts["doubles"], 0, "{counts:?}");
    // A key whose answer was cut off is gone, and no other is.
    for kind in ["ec", "kyber"] {
        let gone = uploaded - counts[kind];
        assert!(gone <= counts["lost"], "{counts:?}");
    }
}

const OWNERS: usize = 30;
const KEYS: u32 = 100;
const CLAIMERS: usize = 16;
const CLAIMS: usize = 3_000;
