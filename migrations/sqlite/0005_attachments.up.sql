-- Attachments, on SQLite. The same tables, columns and meanings as in ../postgres/0005_attachments.up.sql. No row names
-- an account or a device: an attachment is known by the hash of its key, which is in the hands of clients alone.

-- Uploads and what became of them. The bytes are in the attachment store, in immutable objects.
CREATE TABLE attachments (
    -- SHA-256 of the key. Written by the server.
    name BLOB NOT NULL PRIMARY KEY CHECK (length(name) = 32),
    -- 0 open, 1 complete, 2 removed with objects that may still be there, 3 removed. A name is never used again: the row
    -- of a removed attachment stays until the form of its upload has run out, and so does one of a profile's picture that
    -- was given up before it came. Written by the server.
    state INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
    -- How many bytes the client said there will be, once it did.
    length INTEGER,
    -- How many bytes there are. Kept by the server: where an interrupted upload goes on.
    stored INTEGER NOT NULL,
    -- Bytes that have been taken from a day's budget for it. Written by the server, so that none is taken twice.
    charged INTEGER NOT NULL,
    -- Counts the requests that wrote to it. Kept by the server: a request that was overtaken by another one writes no more.
    turn INTEGER NOT NULL,
    -- While it is open: when it is dropped, in milliseconds since 1970-01-01 UTC, minutes after its last byte. Written by
    -- the server.
    drop_at INTEGER,
    -- Otherwise the day from which it is gone. Written by the server.
    expires INTEGER,
    CHECK ((state = 0) = (drop_at IS NOT NULL) AND (state = 0) = (expires IS NULL))
) STRICT;
CREATE INDEX attachments_drop_at ON attachments (drop_at) WHERE state = 0;
CREATE INDEX attachments_expires ON attachments (expires) WHERE state <> 0;
CREATE INDEX attachments_removed ON attachments (name) WHERE state = 2;

-- The objects that make up an attachment, in order and without gaps.
CREATE TABLE attachment_segments (
    -- The attachment.
    name BLOB NOT NULL REFERENCES attachments (name) ON DELETE CASCADE,
    -- The place of its first byte. Written by the server.
    start INTEGER NOT NULL,
    -- Its bytes. Written by the server.
    length INTEGER NOT NULL,
    -- The random part of the object's name, so that two requests never write the same object. Written by the server.
    tag INTEGER NOT NULL,
    PRIMARY KEY (name, start)
) STRICT;

-- How much has been uploaded, for the limit of a day.
CREATE TABLE attachment_budgets (
    -- HMAC of account and day under a key that is not in the database: one account's rows of two days cannot be told
    -- from two accounts'. Written by the server.
    bucket BLOB NOT NULL PRIMARY KEY CHECK (length(bucket) = 16),
    -- The day. Rows are dropped after two. Written by the server.
    day INTEGER NOT NULL,
    -- Bytes taken. Kept by the server.
    bytes INTEGER NOT NULL
) STRICT;
CREATE INDEX attachment_budgets_day ON attachment_budgets (day);
