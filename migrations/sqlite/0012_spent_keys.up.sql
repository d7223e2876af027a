-- One-time prekeys that were handed out, on SQLite. The same table, columns and meanings as in
-- ../postgres/0012_spent_keys.up.sql.
--
-- `settings` also holds how old the database is, so that an older copy of it in its place is noticed: `database_id` (random),
-- `generation` (a count of looks, eight bytes), `restore_epoch` (a count of restores, eight bytes), and in a copy made by
-- `blind-relay backup` the mark `backup_copy`.

-- Ids of one-time prekeys under which a key was handed out, so that an upload that names one again does not put it back. Kept
-- for 90 days. It does not reference `devices`: whoever removes a device removes these rows in the same transaction.
CREATE TABLE spent_keys (
    -- The account.
    aci BLOB NOT NULL,
    -- The device that wrote the key.
    device_id INTEGER NOT NULL,
    -- Namespace: 0 for ACI, 1 for PNI.
    kind INTEGER NOT NULL CHECK (kind IN (0, 1)),
    -- Whether it was a Kyber key. Written by the server.
    kyber INTEGER NOT NULL CHECK (kyber IN (0, 1)),
    -- The client's number for it.
    key_id INTEGER NOT NULL,
    -- The last eight bytes of the public key: the same key is told from another by them.
    tail BLOB NOT NULL CHECK (length(tail) = 8),
    -- The day on which it was handed out. Written by the server.
    day INTEGER NOT NULL,
    PRIMARY KEY (aci, device_id, kind, kyber, key_id)
) STRICT;
-- For the sweeper.
CREATE INDEX spent_keys_day ON spent_keys (day);
