-- What accounts keep for their own devices, on PostgreSQL. The same tables, columns and meanings as in
-- ../sqlite/0006_account_data.up.sql.

-- One row per account that ever kept something. It is locked from the first look at an entry until commit, so that
-- versions are drawn in the order in which they become visible and no two writers count the same room.
CREATE TABLE account_data_counters (
    -- The account.
    aci UUID NOT NULL PRIMARY KEY REFERENCES accounts (aci) ON DELETE CASCADE,
    -- The version drawn last, 0 at first. Written by the server; never falls.
    revision BIGINT NOT NULL,
    -- Entries that exist, for the limit. Kept by the server.
    entries BIGINT NOT NULL,
    -- Bytes of all values, for the limit. Kept by the server.
    bytes BIGINT NOT NULL,
    -- Deletions that are remembered, for the limit. Kept by the server.
    deletions BIGINT NOT NULL,
    -- The version of the last deletion that was forgotten, 0 if none was. Written by the server, so that a device which
    -- did not hear of it is given the whole list.
    horizon BIGINT NOT NULL
-- Room in each page for the next version of a row that is updated with every write.
) WITH (fillfactor = 50);

-- Entries, and deletions of which the account's other devices have yet to hear.
CREATE TABLE account_data (
    -- The account.
    aci UUID NOT NULL REFERENCES account_data_counters (aci) ON DELETE CASCADE,
    -- The entry's name, derived by the client under a key of its own; says nothing. Written by the client.
    key BYTEA NOT NULL CHECK (octet_length(key) = 32),
    -- The write it comes from. Written by the server.
    version BIGINT NOT NULL,
    -- Client ciphertext; NULL if the entry was deleted. Never parsed here.
    value BYTEA,
    PRIMARY KEY (aci, key)
);
-- Sealed bytes do not compress.
ALTER TABLE account_data ALTER COLUMN value SET STORAGE EXTERNAL;
-- Changes are listed by version.
CREATE UNIQUE INDEX account_data_versions ON account_data (aci, version);
