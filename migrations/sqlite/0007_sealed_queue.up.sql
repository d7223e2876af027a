-- Envelopes are sealed to the device that will fetch them (keys-schema/src/sealed_queue.rs). The same tables, columns and
-- meanings as in ../postgres/0007_sealed_queue.up.sql. What was stored before is sealed by the program between this step
-- and the next.

-- X25519 public key to which the mailbox's envelopes are sealed. Its private half is derived from the device's password and
-- not stored. Written by the server. 32 zeros until the program has given it one; nothing can be sealed to those.
ALTER TABLE mailboxes ADD COLUMN queue_key BLOB NOT NULL
    DEFAULT x'0000000000000000000000000000000000000000000000000000000000000000' CHECK (length(queue_key) = 32);
-- For a device from before this step, until it connects: the private half of queue_key, made up by the server and sealed under
-- a key that is not in the database. NULL for all others.
ALTER TABLE mailboxes ADD COLUMN interim_key BLOB;

DROP INDEX envelopes_place;
DROP INDEX envelopes_expires;
ALTER TABLE envelopes RENAME TO envelopes_unsealed;
CREATE UNIQUE INDEX envelopes_unsealed_place ON envelopes_unsealed (mailbox, seq);

-- Envelopes waiting for their device. An ordinary rowid table, without a reference to `mailboxes`, as before.
CREATE TABLE envelopes (
    -- The queue it waits in. Written by the server.
    mailbox INTEGER NOT NULL,
    -- Its place in that queue. Written by the server.
    seq INTEGER NOT NULL,
    -- The size to which it was padded, in KiB: 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, … Written by the server.
    bucket INTEGER NOT NULL,
    -- The envelope, padded and sealed by the server to the mailbox's queue_key. Deleted on ack.
    sealed BLOB NOT NULL CHECK (length(sealed) = 1024 * bucket + 252),
    -- The first day on which it may be dropped. Written by the server.
    expires INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX envelopes_place ON envelopes (mailbox, seq);
-- Without it every batch of expiry would read the table from its beginning. New rows go to its end.
CREATE INDEX envelopes_expires ON envelopes (expires);
