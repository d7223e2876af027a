-- Linked devices and registration locks, on SQLite. The same tables, columns and meanings as in
-- ../postgres/0002_linked_devices.up.sql; who wrote what is said as in 0001_initial.up.sql.

-- Salt of lock_hash. Written by the server.
ALTER TABLE accounts ADD COLUMN lock_salt BLOB;
-- Salted hash of the registration lock, a random value of the client. Whoever registers the number anew while its
-- devices are in use must show it. Written by the server.
ALTER TABLE accounts ADD COLUMN lock_hash BLOB CHECK ((lock_salt IS NULL) = (lock_hash IS NULL));

-- When the device came to be, encrypted by the server to the account's ACI identity key for the account's device list:
-- the server cannot read it back. Absent for devices from before this step.
ALTER TABLE devices ADD COLUMN created_at BLOB;
-- Linked devices that were not seen for long are looked for again and again.
CREATE INDEX devices_idle ON devices (last_seen) WHERE device_id > 1;

-- Offers of a primary device to take in one more device, for ten minutes, and for an hour after they were taken up.
CREATE TABLE link_offers (
    -- SHA-256 of the link token, which only the primary and whom it gives it to know. Written by the server.
    key BLOB NOT NULL PRIMARY KEY CHECK (length(key) = 32),
    -- The account that offers.
    aci BLOB NOT NULL REFERENCES accounts (aci) ON DELETE CASCADE,
    -- The phone number, sealed by the server to a key derived from the token: the new device gets it sealed to its own
    -- password. Absent once the offer was taken up.
    sealed_number BLOB,
    -- The device that took it up, for the primary that waits for it. Written by the server; with the device the row goes.
    device_id INTEGER,
    -- When it is dropped, in milliseconds since 1970-01-01 UTC. Written by the server.
    expires INTEGER NOT NULL,
    FOREIGN KEY (aci, device_id) REFERENCES devices (aci, device_id) ON DELETE CASCADE,
    CHECK ((sealed_number IS NULL) = (device_id IS NOT NULL))
) STRICT;
CREATE INDEX link_offers_account ON link_offers (aci, device_id);
