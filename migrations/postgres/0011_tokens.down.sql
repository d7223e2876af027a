-- Takes back 0011_tokens.up.sql. Sessions with tokens are over; devices have their passwords still.
DROP TABLE token_keys;
DROP TABLE token_sessions;
