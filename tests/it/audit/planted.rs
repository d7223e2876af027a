//! Violations that somebody planted in the database of a running server: each is found, and nothing else is.

use rustix::process::Signal;
use sqlx::{Connection, PgConnection, SqliteConnection};

use super::run::{audit, file};
use crate::support::{Backend, Person, Server, on_each_backend, send};

on_each_backend! {
    b1_an_extra_column_is_found
    b1_an_extra_table_is_found
    b1_an_index_on_a_forbidden_column_is_found
    b1_a_trigger_is_found
    b1_a_view_is_found
    b1_a_missing_index_is_found
    b3_a_plaintext_row_is_found
    b3_an_envelope_that_is_not_sealed_is_found
    b3_a_row_of_a_wrong_length_is_found
    b3_a_service_id_in_a_text_column_is_found_and_not_repeated
    b3_a_number_where_a_sealed_one_should_be_is_found_and_not_repeated
    b10_a_row_that_belongs_to_nobody_is_found
    b10_a_row_past_its_day_is_found
    t48_a_time_finer_than_a_day_is_found
}

/// Statements for each backend, one after the other.
struct Plant {
    sqlite: &'static [&'static str],
    postgres: &'static [&'static str],
}

/// The same statements on both.
const fn both(statements: &'static [&'static str]) -> Plant {
    Plant {
        sqlite: statements,
        postgres: statements,
    }
}

/// A server with two people, of whom one has mail, and what was planted there.
async fn planted(backend: Backend, plant: &Plant) -> Server {
    let server = with_mail(backend).await;
    put(&server, plant).await;
    server
}

async fn with_mail(backend: Backend) -> Server {
    let server = Server::spawn(backend).await;
    let (alice, bob) = (Person::register(&server).await, Person::register(&server).await);
    for number in 0..3_u8 {
        send(&server, &alice, &bob, &[number]).await.expect(200);
    }
    server
}

async fn put(server: &Server, plant: &Plant) {
    match server.place().database_url() {
        Some(url) => {
            let mut db = PgConnection::connect(url).await.unwrap();
            for &statement in plant.postgres {
                sqlx::raw_sql(statement).execute(&mut db).await.unwrap();
            }
            db.close().await.unwrap();
        }
        None => {
            let url = format!("sqlite://{}", server.place().sqlite().display());
            let mut db = SqliteConnection::connect(&url).await.unwrap();
            for &statement in plant.sqlite {
                sqlx::raw_sql(statement).execute(&mut db).await.unwrap();
            }
            db.close().await.unwrap();
        }
    }
}

/// What is planted is found, and nothing else.
async fn finds(backend: Backend, plant: &Plant, violation: &str) {
    let server = planted(backend, plant).await;
    audit(&server, &[], &[]).await.expect(violation);
}

async fn b1_an_extra_column_is_found(backend: Backend) {
    let plant = Plant {
        sqlite: &["ALTER TABLE envelopes ADD COLUMN sender BLOB"],
        postgres: &["ALTER TABLE envelopes ADD COLUMN sender UUID"],
    };
    finds(
        backend,
        &plant,
        "schema: envelopes.sender: a column that is not declared",
    )
    .await;
}

async fn b1_an_extra_table_is_found(backend: Backend) {
    let plant = both(&["CREATE TABLE contacts (owner INTEGER, friend INTEGER)"]);
    finds(backend, &plant, "schema: contacts: a table that is not declared").await;
}

async fn b1_an_index_on_a_forbidden_column_is_found(backend: Backend) {
    let plant = Plant {
        sqlite: &["CREATE INDEX envelopes_alike ON envelopes (sealed)"],
        postgres: &["CREATE INDEX envelopes_alike ON envelopes USING hash (sealed)"],
    };
    let violation = "schema: envelopes: an index that is not declared, on sealed bytes";
    finds(backend, &plant, violation).await;
}

async fn b1_a_trigger_is_found(backend: Backend) {
    let plant = Plant {
        sqlite: &["CREATE TRIGGER spy AFTER DELETE ON envelopes BEGIN SELECT 1; END"],
        // Of a function that is there anyway, so that the trigger is the only thing.
        postgres: &["CREATE TRIGGER spy BEFORE UPDATE ON envelopes FOR EACH ROW \
            EXECUTE FUNCTION suppress_redundant_updates_trigger()"],
    };
    finds(backend, &plant, "schema: a trigger that is not declared: spy").await;
}

async fn b1_a_view_is_found(backend: Backend) {
    let plant = both(&["CREATE VIEW who_waits AS SELECT aci FROM devices JOIN mailboxes ON id = mailbox"]);
    finds(backend, &plant, "schema: a view that is not declared: who_waits").await;
}

async fn b1_a_missing_index_is_found(backend: Backend) {
    let plant = both(&["DROP INDEX envelopes_expires"]);
    let violation = "the index envelopes_expires is declared and not there";
    finds(backend, &plant, violation).await;
}

async fn b3_a_plaintext_row_is_found(backend: Backend) {
    // As long as a sealed row of its bucket.
    let plant = Plant {
        sqlite: &[
            "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) SELECT mailbox, 1000, 1, \
            unixepoch() / 86400 + 5, CAST(substr(replace(hex(zeroblob(50)), '00', 'What only two should ever read. '), \
            1, 1276) AS BLOB) FROM devices LIMIT 1",
        ],
        postgres: &[
            "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) SELECT mailbox, 1000, 1, \
            extract(epoch FROM now())::int8 / 86400 + 5, \
            convert_to(left(repeat('What only two should ever read. ', 50), 1276), 'UTF8') FROM devices LIMIT 1",
        ],
    };
    finds(backend, &plant, "values: envelopes.sealed: readable text").await;
}

async fn b3_an_envelope_that_is_not_sealed_is_found(backend: Backend) {
    // What 0006 would have stored: type 6, both times, 1228 bytes of random content, the recipient in compact form; then
    // zeros. Where a short row of random bytes would pass, its form does not.
    let plant = Plant {
        sqlite: &[
            "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) SELECT mailbox, 1000, 1, \
            unixepoch() / 86400 + 5, CAST(x'0806' || x'28fbe489a6bc31' || x'50fce489a6bc31' || x'42cc09' || \
            randomblob(1228) || x'a20110' || randomblob(16) || zeroblob(10) AS BLOB) FROM devices LIMIT 1",
        ],
        postgres: &[
            "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) SELECT mailbox, 1000, 1, \
            extract(epoch FROM now())::int8 / 86400 + 5, '\\x080628fbe489a6bc3150fce489a6bc3142cc09'::bytea || \
            (SELECT substr(decode(string_agg(md5(random()::text), ''), 'hex'), 1, 1228) FROM generate_series(1, 77)) || \
            '\\xa20110'::bytea || decode(md5(random()::text), 'hex') || decode(repeat('00', 10), 'hex') \
            FROM devices LIMIT 1",
        ],
    };
    let violation = "values: envelopes.sealed: an envelope that is not sealed";
    finds(backend, &plant, violation).await;
}

async fn b3_a_row_of_a_wrong_length_is_found(backend: Backend) {
    let plant = Plant {
        sqlite: &[
            "PRAGMA ignore_check_constraints = ON",
            "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) \
                SELECT mailbox, 1000, 1, unixepoch() / 86400 + 5, randomblob(700) FROM devices LIMIT 1",
        ],
        postgres: &[
            "ALTER TABLE envelopes DROP CONSTRAINT envelopes_check",
            "INSERT INTO envelopes (mailbox, seq, bucket, expires, sealed) SELECT mailbox, 1000, 1, \
                extract(epoch FROM now())::int8 / 86400 + 5, \
                (SELECT decode(string_agg(md5(random()::text), ''), 'hex') FROM generate_series(1, 44)) \
                FROM devices LIMIT 1",
        ],
    };
    let violation = "values: envelopes.sealed: not of the length that its bucket has";
    finds(backend, &plant, violation).await;
}

const SERVICE_ID: &str = "9d0652a3-dcc3-4d11-975f-74d61598733f";
const NUMBER: &str = "+4915112345678";

async fn b3_a_service_id_in_a_text_column_is_found_and_not_repeated(backend: Backend) {
    let plant = Plant {
        sqlite: &["INSERT INTO settings (name, value) VALUES ('9d0652a3-dcc3-4d11-975f-74d61598733f', x'01')"],
        postgres: &["INSERT INTO settings (name, value) VALUES ('9d0652a3-dcc3-4d11-975f-74d61598733f', '\\x01')"],
    };
    let server = planted(backend, &plant).await;
    let report = file(&server, "report.json");
    let audit = audit(&server, &["--report", report.to_str().unwrap()], &[]).await;
    audit.expect("values: settings.name: a service id in text");
    let said = format!("{}{}{}", audit.out, audit.err, std::fs::read_to_string(report).unwrap());
    assert!(!said.contains(&SERVICE_ID[..8]), "{said}");
}

async fn b3_a_number_where_a_sealed_one_should_be_is_found_and_not_repeated(backend: Backend) {
    let plant = Plant {
        sqlite: &["UPDATE devices SET sealed_number = CAST('+4915112345678' AS BLOB) \
            WHERE rowid = (SELECT min(rowid) FROM devices)"],
        postgres: &[
            "UPDATE devices SET sealed_number = convert_to('+4915112345678', 'UTF8') \
            WHERE mailbox = (SELECT min(mailbox) FROM devices)",
        ],
    };
    let server = planted(backend, &plant).await;
    let report = file(&server, "report.json");
    let audit = audit(&server, &["--report", report.to_str().unwrap()], &[]).await;
    audit.expect("values: devices.sealed_number: a phone number");
    let said = format!("{}{}{}", audit.out, audit.err, std::fs::read_to_string(report).unwrap());
    assert!(!said.contains(&NUMBER[1..]), "{said}");
}

async fn b10_a_row_that_belongs_to_nobody_is_found(backend: Backend) {
    let plant = both(&["UPDATE envelopes SET mailbox = 7 WHERE seq = 1"]);
    let violation = "owners: envelopes: rows that belong to nothing in mailboxes";
    finds(backend, &plant, violation).await;
}

async fn b10_a_row_past_its_day_is_found(backend: Backend) {
    let server = with_mail(backend).await;
    // Its sweeper must not be quicker.
    server.signal(Signal::STOP);
    put(&server, &both(&["UPDATE envelopes SET expires = 20000 WHERE seq = 2"])).await;
    audit(&server, &[], &[])
        .await
        .expect("values: envelopes.expires: past its day");
}

async fn t48_a_time_finer_than_a_day_is_found(backend: Backend) {
    let plant = both(&["UPDATE mailboxes SET last_seq = 1767323096789 WHERE envelopes = 3"]);
    let violation = "values: mailboxes.last_seq: a time that is finer than a day";
    finds(backend, &plant, violation).await;
}
