-- Profiles. The same table, columns and meanings as in ../sqlite/0004_profiles.up.sql.

-- What owners tell their contacts about themselves, encrypted by their clients under a key that the server never gets.
-- A version is one such key; contacts who know an older one still read what was written under it. The five versions
-- that were written last are kept.
CREATE TABLE profiles (
    -- The account.
    aci UUID NOT NULL REFERENCES accounts (aci) ON DELETE CASCADE,
    -- The name of the profile key, derived from it by the client: who has the key finds the row.
    version BYTEA NOT NULL CHECK (octet_length(version) = 32),
    -- How many other versions were written since: 0 for the one written last. Written by the server, for the limit.
    age SMALLINT NOT NULL CHECK (age >= 0),
    -- The client's commitment to the profile key. Stored and returned, never parsed.
    commitment BYTEA NOT NULL CHECK (octet_length(commitment) = 97),
    -- Encrypted and padded by the client.
    name BYTEA NOT NULL,
    -- Encrypted and padded by the client.
    about BYTEA,
    -- Encrypted and padded by the client.
    about_emoji BYTEA,
    -- Encrypted and padded by the client.
    payment_address BYTEA,
    -- Encrypted by the client.
    phone_number_sharing BYTEA,
    -- The unguessable name of an upload that the client encrypted. Written by the server when it hands out the form.
    avatar TEXT,
    PRIMARY KEY (aci, version)
);
