-- Takes back 0001_initial.up.sql with all that is stored.
DROP TABLE verification_sessions;
DROP TABLE one_time_kyber_keys;
DROP TABLE one_time_ec_keys;
DROP TABLE signed_keys;
DROP TABLE devices;
DROP TABLE envelopes;
DROP TABLE mailboxes;
DROP TABLE accounts;
DROP TABLE settings;
