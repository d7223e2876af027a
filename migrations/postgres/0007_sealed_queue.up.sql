-- Envelopes are sealed to the device that will fetch them (keys-schema/src/sealed_queue.rs). The same tables, columns and
-- meanings as in ../sqlite/0007_sealed_queue.up.sql. What was stored before is sealed by the program between this step and
-- the next.

-- X25519 public key to which the mailbox's envelopes are sealed. Its private half is derived from the device's password and
-- not stored. Written by the server. 32 zeros until the program has given it one; nothing can be sealed to those.
ALTER TABLE mailboxes ADD COLUMN queue_key BYTEA NOT NULL
    DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000' CHECK (octet_length(queue_key) = 32);
-- For a device from before this step, until it connects: the private half of queue_key, made up by the server and sealed under
-- a key that is not in the database. NULL for all others.
ALTER TABLE mailboxes ADD COLUMN interim_key BYTEA;

DROP INDEX envelopes_expires;
ALTER TABLE envelopes RENAME TO envelopes_unsealed;
ALTER TABLE envelopes_unsealed RENAME CONSTRAINT envelopes_pkey TO envelopes_unsealed_pkey;

-- Envelopes waiting for their device, without a reference to `mailboxes`, as before.
CREATE TABLE envelopes (
    -- The queue it waits in. Written by the server.
    mailbox BIGINT NOT NULL,
    -- Its place in that queue. Written by the server.
    seq BIGINT NOT NULL,
    -- The size to which it was padded, in KiB: 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, … Written by the server.
    bucket SMALLINT NOT NULL,
    -- The envelope, padded and sealed by the server to the mailbox's queue_key. Deleted on ack.
    sealed BYTEA NOT NULL CHECK (octet_length(sealed) = 1024 * bucket + 252),
    -- The first day on which it may be dropped. Written by the server.
    expires INTEGER NOT NULL,
    PRIMARY KEY (mailbox, seq)
-- Rows come and go quickly: clean up long before a fifth of the table is dead. Most rows are of the buckets up to 4 KiB: they stay
-- in their page instead of being written in pieces to another table.
) WITH (autovacuum_vacuum_scale_factor = 0.05, toast_tuple_target = 8160);
-- Sealed bytes do not compress.
ALTER TABLE envelopes ALTER COLUMN sealed SET STORAGE EXTERNAL;
-- Without it every batch of expiry would read the table from its beginning. New rows go to its end.
CREATE INDEX envelopes_expires ON envelopes (expires);
