//! Which routes hand one-time keys out, found by using every one of them (T16).

use blind_relay::http::routes::{ROUTES, Service};
use blind_relay::limits::Limit;

use super::cases::case;
use super::matrix::{Cast, Way, perform};
use crate::support::{Backend, Person, Server, ask};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t16_every_route_that_hands_out_keys_counts_who_asks() {
    let server = Server::spawn(Backend::Sqlite).await;
    let mut claiming = Vec::new();
    for route in ROUTES.iter().filter(|route| route.service != Service::Streams) {
        let Cast { alice, bob, .. } = Cast::new(&server).await;
        bob.upload_keys(&server, 1, 3).await;
        let before = left(&server, &bob).await;
        let case = case(route, &server, &alice, &bob).await;
        // As a device, as a stranger, and as a stranger who knows the access key.
        let key = [("unidentified-access-key", bob.access_key_header())];
        perform(&server, route, &case, &Way::Http(Some(alice.authorization())), &[]).await;
        perform(&server, route, &case, &Way::Http(None), &[]).await;
        perform(&server, route, &case, &Way::Http(None), &key).await;
        if left(&server, &bob).await != before {
            claiming.push(route);
        }
    }
    // Those have the budgets of tests/it/key_budgets.rs, which are counted where keys are taken.
    let named: Vec<_> = claiming.iter().map(|route| (route.method, route.path)).collect();
    assert_eq!(named, [("get", "/v2/keys/{target}/{device}")]);
    for route in claiming {
        assert_eq!(
            (route.strangers, route.devices),
            (Limit::SealedKeyRequests, Limit::KeyRequests)
        );
        assert!(route.strangers.declared().shared && route.devices.declared().shared);
    }
}

async fn left(server: &Server, person: &Person) -> u64 {
    let answer = ask(person.request(server, "GET", "/v2/keys")).await.expect(200).json();
    answer["count"].as_u64().unwrap() + answer["pqCount"].as_u64().unwrap()
}
