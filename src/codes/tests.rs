//! What becomes of a code, whatever its carrier does.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::auth::{EmailAddress, Number};

/// Answers as it was told, and counts how often it was asked.
struct Told {
    answers: Vec<Result<(), Failed>>,
    asked: AtomicUsize,
    speaks: bool,
}

impl Told {
    fn new(answers: &[Result<(), Failed>]) -> Arc<Self> {
        Arc::new(Self {
            answers: answers.to_vec(),
            asked: AtomicUsize::new(0),
            speaks: false,
        })
    }
}

#[async_trait]
impl Carrier for Told {
    fn name(&self) -> &'static str {
        "told"
    }

    fn speaks(&self) -> bool {
        self.speaks
    }

    async fn carry(&self, message: &Message<'_>) -> Result<(), Failed> {
        assert_eq!(message.text, format!("Your code is {}.", message.code));
        let at = self.asked.fetch_add(1, Ordering::Relaxed);
        match self.answers.get(at) {
            Some(answer) => *answer,
            None => std::future::pending().await,
        }
    }
}

fn codes(sms: Option<Arc<dyn Carrier>>, email: Option<Arc<dyn Carrier>>, in_flight: usize) -> Codes {
    let text = "Your code is {code}.".to_owned();
    Codes::new(sms, email, text, Duration::from_secs(10), in_flight)
}

fn number() -> Contact {
    Contact::Number(Number::parse("+15550100001").unwrap())
}

fn email() -> Contact {
    Contact::Email(EmailAddress::parse("alice@example.org").unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_second_try_is_made_only_where_the_first_came_to_nothing() {
    let (again, rejected, unavailable) = (
        Failed::Again("lost"),
        Failed::Rejected("no such number"),
        Failed::Unavailable("full"),
    );
    for (answers, expected, asked) in [
        (vec![Ok(())], Ok(()), 1),
        (vec![Err(again), Ok(())], Ok(()), 2),
        (vec![Err(again), Err(again), Ok(())], Err(CodeRefused::Unavailable), 2),
        (vec![Err(again), Err(rejected)], Err(CodeRefused::Rejected), 2),
        (vec![Err(rejected)], Err(CodeRefused::Rejected), 1),
        (vec![Err(unavailable)], Err(CodeRefused::Unavailable), 1),
        // It never answers.
        (vec![], Err(CodeRefused::Unavailable), 1),
    ] {
        let carrier = Told::new(&answers);
        let codes = codes(Some(Arc::clone(&carrier) as _), None, 1);
        let sent = codes.send(&number(), Transport::Sms, &SentCode::draw()).await;
        assert_eq!(sent, expected);
        assert_eq!(carrier.asked.load(Ordering::Relaxed), asked);
        assert_eq!(codes.in_flight.available_permits(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn only_so_many_are_on_their_way() {
    let carrier = Told::new(&[]);
    let codes = Arc::new(codes(Some(Arc::clone(&carrier) as _), None, 2));
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let codes = Arc::clone(&codes);
        waiting.push(tokio::spawn(async move {
            codes.send(&number(), Transport::Sms, &SentCode::draw()).await
        }));
    }
    tokio::task::yield_now().await;
    let refused = codes.send(&number(), Transport::Sms, &SentCode::draw()).await;
    assert_eq!(refused, Err(CodeRefused::Busy));
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap(), Err(CodeRefused::Unavailable));
    }
    assert_eq!(carrier.asked.load(Ordering::Relaxed), 2);
}

#[test]
fn codes_go_where_a_carrier_goes() {
    let speaking: Arc<dyn Carrier> = Arc::new(Told {
        answers: vec![],
        asked: AtomicUsize::new(0),
        speaks: true,
    });
    let silent: Arc<dyn Carrier> = Told::new(&[]);
    for (sms, mail, expected) in [
        (None, None, [false; 4]),
        (Some(&silent), None, [true, false, false, false]),
        (Some(&speaking), None, [true, true, false, false]),
        (None, Some(&speaking), [false, false, true, false]),
        (Some(&silent), Some(&silent), [true, false, true, false]),
    ] {
        let codes = codes(sms.cloned(), mail.cloned(), 1);
        let sends = [
            codes.sends(&number(), Transport::Sms),
            codes.sends(&number(), Transport::Voice),
            codes.sends(&email(), Transport::Sms),
            codes.sends(&email(), Transport::Voice),
        ];
        assert_eq!(sends, expected);
    }
}
