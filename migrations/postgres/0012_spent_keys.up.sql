-- One-time prekeys that were handed out, on PostgreSQL. The same table, columns and meanings as in
-- ../sqlite/0012_spent_keys.up.sql.
--
-- `settings` also holds how old the database is, so that an older copy of it in its place is noticed: `database_id` (random),
-- `generation` (a count of looks, eight bytes), `restore_epoch` (a count of restores, eight bytes), and `database_place` (the
-- numbers that PostgreSQL gave the database and this table: a dump that is read in has others).

-- Ids of one-time prekeys under which a key was handed out, so that an upload that names one again does not put it back. Kept
-- for 90 days. It does not reference `devices`: whoever removes a device removes these rows in the same transaction, and a
-- trigger per row would lock the device's row for each bundle.
CREATE TABLE spent_keys (
    -- The account.
    aci UUID NOT NULL,
    -- The device that wrote the key.
    device_id SMALLINT NOT NULL,
    -- Namespace: 0 for ACI, 1 for PNI.
    kind SMALLINT NOT NULL CHECK (kind IN (0, 1)),
    -- Whether it was a Kyber key. Written by the server.
    kyber BOOLEAN NOT NULL,
    -- The client's number for it.
    key_id BIGINT NOT NULL,
    -- The last eight bytes of the public key: the same key is told from another by them.
    tail BYTEA NOT NULL CHECK (octet_length(tail) = 8),
    -- The day on which it was handed out. Written by the server.
    day INTEGER NOT NULL,
    PRIMARY KEY (aci, device_id, kind, kyber, key_id)
);
ALTER TABLE spent_keys ALTER COLUMN aci SET STATISTICS 0;
ALTER TABLE spent_keys ALTER COLUMN key_id SET STATISTICS 0;
ALTER TABLE spent_keys ALTER COLUMN tail SET STATISTICS 0;
-- For the sweeper.
CREATE INDEX spent_keys_day ON spent_keys (day);
