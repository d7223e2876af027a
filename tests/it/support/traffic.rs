//! Traffic from many senders at once, and what must be true of it when it arrives.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use futures_util::future::join_all;

use super::{Person, Server, send};

/// The marker of a sender's envelope of that number.
pub(crate) fn content(sender: usize, number: u32) -> Vec<u8> {
    format!("{sender}:{number}").into_bytes()
}

/// Each sender sends its numbers in order, all senders at the same time. Every send must succeed.
pub(crate) async fn flood(server: &Server, senders: &[Person], to: &Person, numbers: Range<u32>) {
    let sending = senders.iter().enumerate().map(|(sender, person)| {
        let numbers = numbers.clone();
        async move {
            for number in numbers {
                send(server, person, to, &content(sender, number)).await.expect(200);
            }
        }
    });
    join_all(sending).await;
}

/// The numbers of each sender, in the order in which they came.
pub(crate) fn by_sender<'a>(contents: impl IntoIterator<Item = &'a Bytes>) -> BTreeMap<usize, Vec<u32>> {
    let mut numbers: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for content in contents {
        let (sender, number) = parse(content);
        numbers.entry(sender).or_default().push(number);
    }
    numbers
}

/// Sender and number of a marker.
pub(crate) fn parse(content: &[u8]) -> (usize, u32) {
    let (sender, number) = std::str::from_utf8(content).unwrap().split_once(':').unwrap();
    (sender.parse().unwrap(), number.parse().unwrap())
}

/// Fails unless every sender's numbers came once each and in order.
pub(crate) fn expect_each_once_in_order(contents: &[Bytes], senders: usize, numbers: Range<u32>) {
    let came = by_sender(contents);
    let expected: Vec<u32> = numbers.collect();
    for sender in 0..senders {
        assert!(
            came.get(&sender) == Some(&expected),
            "sender {sender}: {:?}",
            came.get(&sender)
        );
    }
}
