-- What the server keeps, on PostgreSQL. The same tables, columns and meanings as in ../sqlite/0001_initial.up.sql.
-- `client` wrote it means: it came in a request and was stored as it came, or after checking. `server` wrote it means
-- that this server made it up or derived it. Days count from 1970-01-01 UTC; nothing here is finer than a day, except
-- the expiry of verification sessions, which live for minutes.

-- Values of the server itself, one per row.
CREATE TABLE settings (
    -- Which value. A closed set: `pepper_check`.
    name TEXT NOT NULL PRIMARY KEY,
    -- pepper_check: a keyed hash of a constant, made by the server with the pepper, so that a start with another
    -- pepper is refused before it makes every number unknown.
    value BYTEA NOT NULL
);

-- Registered identities.
CREATE TABLE accounts (
    -- The account's random id. Written by the server.
    aci UUID NOT NULL PRIMARY KEY,
    -- The random id under which the number is known; it stays with the number. Written by the server.
    pni UUID NOT NULL UNIQUE,
    -- HMAC of the phone number under the pepper, which is not in the database. Written by the server: one account per
    -- number, found again at the next registration.
    number_hash BYTEA NOT NULL UNIQUE CHECK (octet_length(number_hash) = 32),
    -- Long-term public key of the ACI namespace, as serialised by the client that wrote it.
    aci_identity BYTEA NOT NULL,
    -- Long-term public key of the PNI namespace, as serialised by the client that wrote it.
    pni_identity BYTEA NOT NULL,
    -- The client's access key for anonymous senders, sealed by the server under a key that is not in the database.
    access_key BYTEA,
    -- Whether the client lets anyone send anonymously.
    unrestricted BOOLEAN NOT NULL,
    -- Whether the client wants its number to be found. Nothing looks it up yet.
    discoverable BOOLEAN NOT NULL,
    -- Salt of recovery_hash. Written by the server.
    recovery_salt BYTEA,
    -- Salted hash of the password with which the owner registers again without a code. Written by the server.
    recovery_hash BYTEA,
    CHECK ((recovery_salt IS NULL) = (recovery_hash IS NULL))
);

-- Queue counters, one row per device. Nothing here or in `envelopes` names an account; devices.mailbox alone does.
CREATE TABLE mailboxes (
    -- The queue's random name. Written by the server.
    id BIGINT NOT NULL PRIMARY KEY,
    -- The number of the envelope accepted last, 0 at first. The row is locked from drawing a number until commit, so
    -- numbers have no gaps and become visible in order.
    last_seq BIGINT NOT NULL,
    -- Envelopes waiting, for the limit. Kept by the server, so that a send need not count rows.
    envelopes BIGINT NOT NULL,
    -- Bytes of content waiting, for the limit. Kept by the server.
    bytes BIGINT NOT NULL
-- Room in each page for the next version of a row that is updated with every batch.
) WITH (fillfactor = 50);

-- Envelopes waiting for their device. It does not reference `mailboxes`: the writer holds the counter row whenever it
-- inserts, whoever deletes a mailbox deletes its envelopes in the same transaction, and a trigger per row would cost
-- more than the insert.
CREATE TABLE envelopes (
    -- The queue it waits in. Written by the server.
    mailbox BIGINT NOT NULL,
    -- Its place in that queue. Written by the server.
    seq BIGINT NOT NULL,
    -- The envelope as it will be delivered, with its sender and times if the sender said them. Not sealed to the device
    -- yet. Never parsed here, never indexed, deleted on ack.
    content BYTEA NOT NULL,
    -- The first day on which it may be dropped. Written by the server.
    expires INTEGER NOT NULL,
    PRIMARY KEY (mailbox, seq)
-- Rows come and go quickly: clean up long before a fifth of the table is dead.
) WITH (autovacuum_vacuum_scale_factor = 0.05);
-- Sealed bytes do not compress.
ALTER TABLE envelopes ALTER COLUMN content SET STORAGE EXTERNAL;
-- Without it every batch of expiry would read the table from its beginning. New rows go to its end.
CREATE INDEX envelopes_expires ON envelopes (expires);

-- The clients of an account.
CREATE TABLE devices (
    -- The account.
    aci UUID NOT NULL REFERENCES accounts (aci) ON DELETE CASCADE,
    -- 1 for the device that registered, others for linked ones. Written by the server.
    device_id SMALLINT NOT NULL CHECK (device_id BETWEEN 1 AND 127),
    -- Its queue, and the only link from a queue to an account. Written by the server, new at each registration.
    mailbox BIGINT NOT NULL UNIQUE REFERENCES mailboxes (id),
    -- Drawn by the client at registration; tells a sender that its session is stale.
    registration_id INTEGER NOT NULL,
    -- The same for the PNI namespace. Written by the client.
    pni_registration_id INTEGER NOT NULL,
    -- What the owner calls the device, encrypted by the client.
    name BYTEA,
    -- Salt of credential_hash. Written by the server.
    credential_salt BYTEA NOT NULL,
    -- Salted hash of the device's random password. Written by the server.
    credential_hash BYTEA NOT NULL,
    -- The phone number, sealed by the server to a key derived from the device's password: readable only while the
    -- device authenticates.
    sealed_number BYTEA NOT NULL,
    -- Whether the client keeps a connection open instead of being woken by push.
    fetches_messages BOOLEAN NOT NULL,
    -- What the client says it can do, as bits of a closed set.
    capabilities BIGINT NOT NULL,
    -- The last day on which the device authenticated. Written by the server, for the expiry of idle devices.
    last_seen INTEGER NOT NULL,
    PRIMARY KEY (aci, device_id)
);

-- The keys of a device that are handed out again and again. Public keys only.
CREATE TABLE signed_keys (
    -- The account.
    aci UUID NOT NULL,
    -- The device that wrote the row.
    device_id SMALLINT NOT NULL,
    -- Namespace: 0 for ACI, 1 for PNI.
    kind SMALLINT NOT NULL CHECK (kind IN (0, 1)),
    -- The client's number for its signed EC prekey.
    signed_id BIGINT,
    -- The signed EC prekey, serialised.
    signed_key BYTEA,
    -- Its signature by the identity key, checked by the server.
    signed_signature BYTEA,
    -- The client's number for its last-resort Kyber prekey, handed out when one-time Kyber keys have run out.
    last_resort_id BIGINT,
    -- The last-resort Kyber prekey, serialised.
    last_resort_key BYTEA,
    -- Its signature by the identity key, checked by the server.
    last_resort_signature BYTEA,
    PRIMARY KEY (aci, device_id, kind),
    FOREIGN KEY (aci, device_id) REFERENCES devices (aci, device_id) ON DELETE CASCADE,
    CHECK ((signed_id IS NULL) = (signed_key IS NULL) AND (signed_id IS NULL) = (signed_signature IS NULL)),
    CHECK ((last_resort_id IS NULL) = (last_resort_key IS NULL)
        AND (last_resort_id IS NULL) = (last_resort_signature IS NULL))
);

-- One-time EC prekeys that nobody has been given yet. A row that is handed out is deleted in the same transaction.
CREATE TABLE one_time_ec_keys (
    -- The account.
    aci UUID NOT NULL,
    -- The device that wrote the key.
    device_id SMALLINT NOT NULL,
    -- Namespace: 0 for ACI, 1 for PNI.
    kind SMALLINT NOT NULL CHECK (kind IN (0, 1)),
    -- Its place in the client's upload: keys are handed out in that order.
    position INTEGER NOT NULL,
    -- The client's number for it.
    key_id BIGINT NOT NULL,
    -- The public key, serialised.
    key BYTEA NOT NULL,
    PRIMARY KEY (aci, device_id, kind, position),
    FOREIGN KEY (aci, device_id) REFERENCES devices (aci, device_id) ON DELETE CASCADE
);

-- One-time Kyber prekeys that nobody has been given yet. A row that is handed out is deleted in the same transaction.
CREATE TABLE one_time_kyber_keys (
    -- The account.
    aci UUID NOT NULL,
    -- The device that wrote the key.
    device_id SMALLINT NOT NULL,
    -- Namespace: 0 for ACI, 1 for PNI.
    kind SMALLINT NOT NULL CHECK (kind IN (0, 1)),
    -- Its place in the client's upload: keys are handed out in that order.
    position INTEGER NOT NULL,
    -- The client's number for it.
    key_id BIGINT NOT NULL,
    -- The public key, serialised.
    key BYTEA NOT NULL,
    -- Its signature by the identity key, checked by the server.
    signature BYTEA NOT NULL,
    PRIMARY KEY (aci, device_id, kind, position),
    FOREIGN KEY (aci, device_id) REFERENCES devices (aci, device_id) ON DELETE CASCADE
);

-- Attempts to verify a number. They live for minutes.
CREATE TABLE verification_sessions (
    -- SHA-256 of the session's id, which only the client knows. Written by the server.
    key BYTEA NOT NULL PRIMARY KEY CHECK (octet_length(key) = 32),
    -- As in accounts.
    number_hash BYTEA NOT NULL CHECK (octet_length(number_hash) = 32),
    -- The number, sealed by the server to a key derived from the session's id: needed while a code is sent.
    sealed_number BYTEA NOT NULL,
    -- Whether the right code was given. Written by the server.
    verified BOOLEAN NOT NULL,
    -- Codes tried so far. Written by the server, for the limit.
    attempts INTEGER NOT NULL,
    -- When it is dropped, in milliseconds since 1970-01-01 UTC. Written by the server.
    expires BIGINT NOT NULL
);
