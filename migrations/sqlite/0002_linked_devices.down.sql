-- Takes back 0002_linked_devices.up.sql. Linked devices stay; offers and registration locks are lost.
DROP TABLE link_offers;
DROP INDEX devices_idle;
ALTER TABLE devices DROP COLUMN created_at;
ALTER TABLE accounts DROP COLUMN lock_hash;
ALTER TABLE accounts DROP COLUMN lock_salt;
