-- What the operator does through the admin socket, on PostgreSQL. The same tables, columns and meanings as in
-- ../sqlite/0013_admin.up.sql; who wrote what is said as in 0001_initial.up.sql.

-- Whether the operator has suspended the account: its credentials open nothing until he resumes it.
ALTER TABLE accounts ADD COLUMN suspended BOOLEAN NOT NULL DEFAULT FALSE;
-- Every node looks now and then whether who is connected to it has been suspended.
CREATE INDEX accounts_suspended ON accounts (aci) WHERE suspended;

-- The operator's acts, and what he tried, in a chain of hashes. Its ends are in `settings`, under `admin_log`.
CREATE TABLE admin_log (
    -- Its place. Written by the server, without gaps.
    seq BIGINT NOT NULL PRIMARY KEY,
    -- When, in minutes since 1970-01-01 UTC. Written by the server.
    minute BIGINT NOT NULL,
    -- What, by its number in a closed set. Written by the server.
    act BIGINT NOT NULL,
    -- What came of it, likewise.
    outcome BIGINT NOT NULL,
    -- Whom it was about: HMAC of its id under a key that is not in the database. Written by the server.
    target BYTEA,
    -- The user of the machine who did it. Written by the server.
    uid BIGINT NOT NULL,
    -- SHA-256 of the hash before and of this row. Written by the server.
    hash BYTEA NOT NULL
);
-- See 0009_no_samples.up.sql.
ALTER TABLE admin_log ALTER COLUMN seq SET STATISTICS 0, ALTER COLUMN minute SET STATISTICS 0,
    ALTER COLUMN act SET STATISTICS 0, ALTER COLUMN outcome SET STATISTICS 0, ALTER COLUMN target SET STATISTICS 0,
    ALTER COLUMN uid SET STATISTICS 0, ALTER COLUMN hash SET STATISTICS 0;
