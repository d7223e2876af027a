//! Reads of one row for many who ask at the same time: while some are being read the others gather, and are read with one
//! statement next. On a morning on which everybody connects again that is a statement for hundreds of devices.
//!
//! What is answered was read after it was asked for: whoever asks while a read is under way waits for the next one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::StorageError;

/// Reads values by key, several at once where several are asked for.
pub(super) struct Gather<K, V>(Arc<Shared<K, V>>);

struct Shared<K, V> {
    read: Read<K, V>,
    waiting: Mutex<Waiting<K, V>>,
}

/// One answer for each key, in their order.
type Read<K, V> = Box<dyn Fn(Vec<K>) -> BoxFuture<'static, Result<Vec<Option<V>>, StorageError>> + Send + Sync>;

struct Waiting<K, V> {
    asked: Vec<(K, oneshot::Sender<Option<V>>)>,
    readers: usize,
}

impl<K, V> Gather<K, V>
where
    K: Copy + Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// `read` is given one key or more, each once.
    pub(super) fn new(
        read: impl Fn(Vec<K>) -> BoxFuture<'static, Result<Vec<Option<V>>, StorageError>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            read: Box::new(read),
            waiting: Mutex::new(Waiting {
                asked: Vec::new(),
                readers: 0,
            }),
        }))
    }

    /// The value as it is in storage now.
    pub(super) async fn read(&self, key: K) -> Result<Option<V>, StorageError> {
        let (reply, answer) = oneshot::channel();
        if self.0.ask(key, reply) {
            // A task of its own: who asked may go away, and others wait for the same read.
            let reader = Reader {
                shared: Arc::clone(&self.0),
                left: false,
            };
            tokio::spawn(reader.run());
        }
        match answer.await {
            Ok(found) => Ok(found),
            // What many asked for failed. Each asks alone, and hears why it fails.
            Err(_) => Ok((self.0.read)(vec![key]).await?.pop().flatten()),
        }
    }
}

impl<K, V> Shared<K, V> {
    /// Whether a reader is to begin.
    fn ask(&self, key: K, reply: oneshot::Sender<Option<V>>) -> bool {
        let mut waiting = self.waiting();
        waiting.asked.push((key, reply));
        let begins = waiting.readers < READERS;
        waiting.readers += usize::from(begins);
        begins
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<K, V>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that reads until nothing is asked for any more.
struct Reader<K, V> {
    shared: Arc<Shared<K, V>>,
    left: bool,
}

impl<K, V> Reader<K, V>
where
    K: Copy + Eq + Hash,
    V: Clone,
{
    async fn run(mut self) {
        while let Some(asked) = self.next() {
            let mut replies: HashMap<K, Vec<oneshot::Sender<Option<V>>>> = HashMap::with_capacity(asked.len());
            for (key, reply) in asked {
                if !reply.is_closed() {
                    replies.entry(key).or_default().push(reply);
                }
            }
            let (keys, replies): (Vec<K>, Vec<_>) = replies.into_iter().unzip();
            if keys.is_empty() {
                continue;
            }
            // An error drops the replies, which is the word to ask alone.
            if let Ok(found) = (self.shared.read)(keys).await {
                for (found, replies) in found.into_iter().zip(replies) {
                    answer(found, replies);
                }
            }
        }
    }

    /// What was asked for; if that is nothing, this is a reader no more.
    fn next(&mut self) -> Option<Vec<(K, oneshot::Sender<Option<V>>)>> {
        let mut waiting = self.shared.waiting();
        if waiting.asked.is_empty() {
            waiting.asked.shrink_to(MOST);
            waiting.readers -= 1;
            self.left = true;
            return None;
        }
        let first = waiting.asked.len().min(MOST);
        Some(waiting.asked.drain(..first).collect())
    }
}

impl<K, V> Drop for Reader<K, V> {
    fn drop(&mut self) {
        if self.left {
            return;
        }
        // Cut short, by a runtime that ends. Whoever waits yet asks alone.
        let mut waiting = self.shared.waiting();
        waiting.readers -= 1;
        if waiting.readers == 0 {
            waiting.asked.clear();
        }
    }
}

fn answer<V: Clone>(found: Option<V>, mut replies: Vec<oneshot::Sender<Option<V>>>) {
    let last = replies.pop();
    for reply in replies {
        let _ = reply.send(found.clone());
    }
    if let Some(last) = last {
        let _ = last.send(found);
    }
}

/// With a second one, what takes long does not hold up everybody.
const READERS: usize = 2;
/// Keys of one read.
const MOST: usize = 256;

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    /// What was read, each as the number of keys; every read takes a while and answers how often it was read before.
    struct Table {
        reads: Mutex<Vec<Vec<u32>>>,
        age: AtomicU32,
    }

    fn table() -> (Arc<Table>, Gather<u32, u32>) {
        let table = Arc::new(Table {
            reads: Mutex::default(),
            age: AtomicU32::new(0),
        });
        let inside = Arc::clone(&table);
        let gather = Gather::new(move |keys: Vec<u32>| {
            let table = Arc::clone(&inside);
            Box::pin(async move {
                let mut sorted = keys.clone();
                sorted.sort_unstable();
                table.reads.lock().unwrap().push(sorted);
                let age = table.age.load(Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(10)).await;
                if keys.contains(&FAILS) {
                    return Err(StorageError::Corrupt {
                        table: "t",
                        column: "c",
                    });
                }
                Ok(keys
                    .into_iter()
                    .map(|key| (key < UNKNOWN).then_some(key * 100 + age))
                    .collect())
            })
        });
        (table, gather)
    }

    const UNKNOWN: u32 = 1_000_000;
    const FAILS: u32 = 2_000_000;

    impl Table {
        fn reads(&self) -> Vec<usize> {
            self.reads.lock().unwrap().iter().map(Vec::len).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_alone_is_answered_from_a_read_of_one() {
        let (table, gather) = table();
        assert_eq!(gather.read(7).await.unwrap(), Some(700));
        assert_eq!(gather.read(UNKNOWN).await.unwrap(), None);
        assert_eq!(table.reads(), [1, 1]);
        assert_eq!(gather.0.waiting().readers, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_asked_for_during_a_read_is_read_together_and_each_key_once() {
        let (table, gather) = table();
        let answers = join_all((0..1_000).map(|n| gather.read(n / 2))).await;
        for (n, answer) in (0..1_000).zip(answers) {
            assert_eq!(answer.unwrap(), Some(n / 2 * 100));
        }
        let reads = table.reads();
        assert!(reads.len() < 10, "{reads:?}");
        assert!(reads.iter().all(|keys| *keys <= MOST), "{reads:?}");
        assert_eq!(gather.0.waiting().readers, 0);
        assert!(gather.0.waiting().asked.capacity() <= MOST);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_answered_from_a_read_that_began_before_it_was_asked_for() {
        let (table, gather) = table();
        let early = join_all([gather.read(1), gather.read(2)]);
        let late = async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            table.age.store(1, Ordering::SeqCst);
            gather.read(1).await
        };
        let (early, late) = tokio::join!(early, late);
        assert_eq!(
            early.into_iter().map(Result::unwrap).collect::<Vec<_>>(),
            [Some(100), Some(200)]
        );
        assert_eq!(late.unwrap(), Some(101), "as it was when it was asked for");
    }

    #[tokio::test(start_paused = true)]
    async fn a_read_that_fails_is_done_again_for_each_alone() {
        let (_, gather) = table();
        let answers = join_all([1, 2, FAILS, 3].map(|key| gather.read(key))).await;
        let found: Vec<_> = answers
            .iter()
            .map(|answer| answer.as_ref().ok().copied().flatten())
            .collect();
        assert_eq!(found, [Some(100), Some(200), None, Some(300)]);
        assert!(answers[2].is_err(), "and it hears of it");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_takes_nothing_from_the_others() {
        let (table, gather) = table();
        let gather = Arc::new(gather);
        let mut tasks: Vec<_> = (0..100)
            .map(|n| {
                let gather = Arc::clone(&gather);
                tokio::spawn(async move { gather.read(n).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_millis(5)).await;
        for task in tasks.drain(..50) {
            task.abort();
        }
        for (n, task) in (50..).zip(tasks) {
            assert_eq!(task.await.unwrap().unwrap(), Some(n * 100));
        }
        // What is still waiting when its asker has gone is not read.
        let gone = gather.read(5_000);
        let (first, second) = (gather.read(1), gather.read(2));
        let _ = futures_util::future::join3(first, second, tokio::time::timeout(Duration::from_millis(5), gone)).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let read: Vec<u32> = table.reads.lock().unwrap().concat();
        assert!(read.contains(&1) && read.contains(&2), "{read:?}");
        assert_eq!(gather.0.waiting().readers, 0);
    }

    #[test]
    fn a_runtime_that_ends_during_a_read_leaves_nothing_that_others_wait_for() {
        let (_, gather) = table();
        let gather = Arc::new(gather);
        let runtime = || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap()
        };
        let first = runtime();
        let asker = Arc::clone(&gather);
        first.spawn(async move { asker.read(1).await });
        first.block_on(tokio::task::yield_now());
        first.block_on(tokio::task::yield_now());
        drop(first);
        assert_eq!(runtime().block_on(gather.read(2)).unwrap(), Some(200));
    }
}
