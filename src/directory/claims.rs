//! Group commit of claims: everything that is asked for while one transaction commits goes into the next.
//!
//! There is no timer, as in the queue's writer: alone, a claim is made at once. A lane is one taker with one transaction at
//! a time. All claims of an account share a lane, in the order in which they came, so that two lanes of a node never reach
//! for the same keys. A claim is answered when the keys in it are gone from storage for good. Who goes away before that
//! leaves keys that nobody was given; they are gone as well.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio_util::task::TaskTracker;

use crate::domain::{Aci, Day, Take, TakenBundles};
use crate::storage::{KeyStore, StorageError};

/// Storage did not carry it out, or has too much to do; no key was handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("keys cannot be taken")]
pub struct KeysUnavailable;

/// The way to the keys.
pub(super) struct Claims {
    lanes: Vec<mpsc::Sender<Job>>,
}

type Answer = Result<Option<TakenBundles>, KeysUnavailable>;

struct Job {
    take: Take,
    today: Day,
    reply: oneshot::Sender<Answer>,
}

impl Claims {
    /// Starts `lanes` takers on the tracker. They end when the `Claims` is dropped and all that was asked for is done.
    pub(super) fn start(lanes: usize, tasks: &TaskTracker, keys: &Arc<dyn KeyStore>) -> Self {
        let lanes = (0..lanes.max(1))
            .map(|_| {
                let (jobs, waiting) = mpsc::channel(WAITING_JOBS);
                tasks.spawn(run(Arc::clone(keys), waiting));
                jobs
            })
            .collect();
        Self { lanes }
    }

    /// Returns once what was taken is gone from storage. More than may wait are refused.
    pub(super) async fn take(&self, take: Take, today: Day) -> Answer {
        let (reply, answer) = oneshot::channel();
        let lane = self.lane(take.aci);
        lane.try_send(Job { take, today, reply }).map_err(|_| KeysUnavailable)?;
        answer.await.map_err(|_| KeysUnavailable)?
    }

    fn lane(&self, account: Aci) -> &mpsc::Sender<Job> {
        // Account ids are random, so any of their bytes spreads them evenly.
        &self.lanes[usize::from(account.as_bytes()[15]) % self.lanes.len()]
    }
}

async fn run(keys: Arc<dyn KeyStore>, mut waiting: mpsc::Receiver<Job>) {
    let mut jobs = Vec::with_capacity(JOBS_PER_BATCH);
    while waiting.recv_many(&mut jobs, JOBS_PER_BATCH).await > 0 {
        let (mut takes, mut replies) = (Vec::with_capacity(jobs.len()), Vec::with_capacity(jobs.len()));
        let mut today = Day(0);
        for job in jobs.drain(..) {
            takes.push(job.take);
            replies.push(job.reply);
            // Around midnight the later one: ids of spent keys are kept no shorter than they were to be.
            today = today.max(job.today);
        }
        match keys.take_bundles(&takes, today).await {
            Ok(takings) => {
                for (reply, taking) in replies.into_iter().zip(takings) {
                    // Whoever asked may have gone away.
                    let _ = reply.send(taking.map_err(|error| unavailable(&error)));
                }
            }
            Err(error) => {
                let failed = unavailable(&error);
                for reply in replies {
                    let _ = reply.send(Err(failed));
                }
            }
        }
    }
}

fn unavailable(error: &StorageError) -> KeysUnavailable {
    tracing::error!(cause = error.log_safe_cause(), "keys could not be taken");
    KeysUnavailable
}

const JOBS_PER_BATCH: usize = 512;
/// About as many as are answered within a second.
const WAITING_JOBS: usize = 8192;

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;
    use futures_util::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::domain::{
        Actor, Allowance, BundleSelector, DeviceId, IdentityKind, KeyCount, KeyUpload, ProtocolAddress, Published,
        SignedKeys,
    };
    use crate::storage::Takings;
    use crate::storage::conformance::fixtures::{aci, actor, ec_key, identity, register};
    use crate::storage::testing::{ROOMY, sqlite};

    const TODAY: Day = Day(20_000);

    fn take(n: u8) -> Take {
        Take {
            aci: aci(n),
            kind: IdentityKind::Aci,
            selector: BundleSelector::One(DeviceId::PRIMARY),
            allowance: Allowance::EVERYTHING,
        }
    }

    /// Keys of which each transaction waits to be let through.
    struct Gate {
        passes: Semaphore,
        batches: Mutex<Vec<(Vec<Aci>, Day)>>,
    }

    impl Gate {
        fn new() -> Arc<Self> {
            Arc::new(Self {
                passes: Semaphore::new(0),
                batches: Mutex::default(),
            })
        }

        async fn until_there_are(&self, batches: usize) {
            while self.batches.lock().unwrap().len() < batches {
                tokio::task::yield_now().await;
            }
        }

        fn batches(&self) -> Vec<usize> {
            self.batches
                .lock()
                .unwrap()
                .iter()
                .map(|(takes, _)| takes.len())
                .collect()
        }
    }

    #[async_trait]
    impl KeyStore for Gate {
        async fn take_bundles(&self, takes: &[Take], today: Day) -> Result<Takings, StorageError> {
            let accounts = takes.iter().map(|take| take.aci).collect();
            self.batches.lock().unwrap().push((accounts, today));
            self.passes.acquire().await.unwrap().forget();
            let bundles = |take: &Take| match take.aci {
                spoiled if spoiled == aci(13) => Err(StorageError::Corrupt {
                    table: "signed_keys",
                    column: "signed_key",
                }),
                unknown if unknown == aci(99) => Ok(None),
                known => Ok(Some(TakenBundles {
                    identity: identity(known.as_bytes()[15]),
                    devices: vec![],
                })),
            };
            Ok(takes.iter().map(bundles).collect())
        }

        async fn publish(&self, _: &Actor, _: IdentityKind, _: &KeyUpload) -> Result<Published, StorageError> {
            unreachable!("nobody publishes")
        }

        async fn count(&self, _: ProtocolAddress, _: IdentityKind) -> Result<KeyCount, StorageError> {
            unreachable!("nobody counts")
        }

        async fn find_signed(&self, _: ProtocolAddress, _: IdentityKind) -> Result<Option<SignedKeys>, StorageError> {
            unreachable!("nobody looks")
        }

        async fn forget_spent(&self, _: Day, _: u32) -> Result<u64, StorageError> {
            unreachable!("nobody sweeps")
        }
    }

    fn start(gate: &Arc<Gate>, lanes: usize) -> (Claims, TaskTracker) {
        let (tasks, keys) = (TaskTracker::new(), Arc::clone(gate) as Arc<dyn KeyStore>);
        (Claims::start(lanes, &tasks, &keys), tasks)
    }

    #[tokio::test]
    async fn what_comes_while_one_batch_commits_is_the_next_one_and_each_is_answered_with_its_own() {
        let gate = Gate::new();
        let (claims, _tasks) = start(&gate, 1);
        let first = claims.take(take(1), TODAY);
        let rest = async {
            gate.until_there_are(1).await;
            let others = join_all([2, 99, 13, 3].map(|n| claims.take(take(n), TODAY.plus(i32::from(n == 2)))));
            let open = async {
                // They are asked for before the first is let through.
                tokio::task::yield_now().await;
                gate.passes.add_permits(2);
            };
            tokio::join!(others, open).0
        };
        let (first, rest) = tokio::join!(first, rest);
        assert!(first.unwrap().unwrap().identity == identity(aci(1).as_bytes()[15]));
        let own = |answer: &Answer| match answer {
            Ok(taken) => Ok(taken.as_ref().map(|taken| taken.identity)),
            Err(error) => Err(*error),
        };
        let of = |n: u8| Some(identity(aci(n).as_bytes()[15]));
        let answers: Vec<_> = rest.iter().map(own).collect();
        assert!(answers[0] == Ok(of(2)) && answers[1] == Ok(None) && answers[3] == Ok(of(3)));
        assert!(answers[2] == Err(KeysUnavailable), "and nobody else has failed");
        assert_eq!(gate.batches(), [1, 4]);
        let batches = gate.batches.lock().unwrap();
        assert_eq!(batches[1], (vec![aci(2), aci(99), aci(13), aci(3)], TODAY.plus(1)));
    }

    #[tokio::test]
    async fn an_account_has_one_lane_and_others_do_not_wait_for_it() {
        let gate = Gate::new();
        let (claims, _tasks) = start(&gate, 2);
        let (one, two) = (
            aci(1),
            (2..=u8::MAX)
                .map(aci)
                .find(|other| other.as_bytes()[15] % 2 != aci(1).as_bytes()[15] % 2),
        );
        let of = |aci: Aci| claims.take(Take { aci, ..take(1) }, TODAY);
        let look = async {
            // Both lanes are in a transaction; what comes for the first account waits for its own.
            gate.until_there_are(2).await;
            let again = of(one);
            let open = async {
                tokio::task::yield_now().await;
                assert_eq!(gate.batches(), [1, 1]);
                gate.passes.add_permits(3);
            };
            tokio::join!(again, open).0
        };
        let answers = tokio::join!(of(one), of(two.unwrap()), look);
        assert!(answers.0.is_ok() && answers.1.is_ok() && answers.2.is_ok());
        assert_eq!(gate.batches(), [1, 1, 1]);
    }

    #[tokio::test]
    async fn more_than_may_wait_are_refused_and_those_who_wait_are_served() {
        let gate = Gate::new();
        let (claims, _tasks) = start(&gate, 1);
        let first = claims.take(take(1), TODAY);
        let rest = async {
            gate.until_there_are(1).await;
            let waiting = join_all((0..WAITING_JOBS + 3).map(|_| claims.take(take(2), TODAY)));
            let open = async {
                tokio::task::yield_now().await;
                gate.passes.add_permits(Semaphore::MAX_PERMITS / 2);
            };
            tokio::join!(waiting, open).0
        };
        let (first, rest) = tokio::join!(first, rest);
        assert!(first.is_ok());
        assert_eq!(rest.iter().filter(|answer| answer.is_err()).count(), 3);
        assert!(gate.batches().iter().all(|batch| *batch <= JOBS_PER_BATCH));
    }

    #[tokio::test]
    async fn what_was_asked_for_is_done_though_the_server_ends_or_whoever_asked_is_gone() {
        let gate = Gate::new();
        let (claims, tasks) = start(&gate, 1);
        for n in [1, 2] {
            let asked = claims.take(take(n), TODAY);
            tokio::select! {
                biased;
                _ = asked => unreachable!("nothing is let through"),
                () = gate.until_there_are(1) => {}
            }
        }
        drop(claims);
        tasks.close();
        assert!(!tasks.is_empty());
        gate.passes.add_permits(2);
        tasks.wait().await;
        assert_eq!(gate.batches(), [1, 1]);
    }

    #[tokio::test]
    async fn storage_that_is_away_hands_out_nothing() {
        let database = sqlite(ROOMY).await.unwrap();
        register(&database, 1, 1001).await;
        let storage = database.storage();
        let upload = KeyUpload {
            one_time: vec![ec_key(1), ec_key(2), ec_key(3)],
            ..KeyUpload::default()
        };
        storage
            .keys
            .publish(&actor(1, 1001), IdentityKind::Aci, &upload)
            .await
            .unwrap();
        let claims = Claims::start(1, &TaskTracker::new(), &storage.keys);
        let taken = claims.take(take(1), TODAY).await.unwrap().unwrap();
        assert!(taken.devices[0].one_time == Some(ec_key(1)));
        storage.accounts.close().await;
        let answers = join_all((0..5).map(|_| claims.take(take(1), TODAY))).await;
        assert!(answers.iter().all(|answer| matches!(answer, Err(KeysUnavailable))));
    }
}
