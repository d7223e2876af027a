CREATE TABLE envelopes_unsealed (
    mailbox BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    content BYTEA NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (mailbox, seq)
) WITH (autovacuum_vacuum_scale_factor = 0.05);
ALTER TABLE envelopes_unsealed ALTER COLUMN content SET STORAGE EXTERNAL;
ALTER TABLE mailboxes ALTER COLUMN queue_key SET
    DEFAULT '\x0000000000000000000000000000000000000000000000000000000000000000';
