-- What accounts keep for their own devices, on SQLite. The same tables, columns and meanings as in
-- ../postgres/0006_account_data.up.sql.

-- One row per account that ever kept something. It is locked from the first look at an entry until commit, so that
-- versions are drawn in the order in which they become visible and no two writers count the same room.
CREATE TABLE account_data_counters (
    -- The account.
    aci BLOB NOT NULL PRIMARY KEY REFERENCES accounts (aci) ON DELETE CASCADE,
    -- The version drawn last, 0 at first. Written by the server; never falls.
    revision INTEGER NOT NULL,
    -- Entries that exist, for the limit. Kept by the server.
    entries INTEGER NOT NULL,
    -- Bytes of all values, for the limit. Kept by the server.
    bytes INTEGER NOT NULL,
    -- Deletions that are remembered, for the limit. Kept by the server.
    deletions INTEGER NOT NULL,
    -- The version of the last deletion that was forgotten, 0 if none was. Written by the server, so that a device which
    -- did not hear of it is given the whole list.
    horizon INTEGER NOT NULL
) STRICT;

-- Entries, and deletions of which the account's other devices have yet to hear.
CREATE TABLE account_data (
    -- The account.
    aci BLOB NOT NULL REFERENCES account_data_counters (aci) ON DELETE CASCADE,
    -- The entry's name, derived by the client under a key of its own; says nothing. Written by the client.
    key BLOB NOT NULL CHECK (length(key) = 32),
    -- The write it comes from. Written by the server.
    version INTEGER NOT NULL,
    -- Client ciphertext; NULL if the entry was deleted. Never parsed here.
    value BLOB,
    PRIMARY KEY (aci, key)
) STRICT;
-- Changes are listed by version.
CREATE UNIQUE INDEX account_data_versions ON account_data (aci, version);
