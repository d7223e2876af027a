-- Whom an account has blocked, on PostgreSQL.

-- 16 bytes for each id that the account has blocked, in their order: a keyed hash under a key of the account that is not in the
-- database. NULL if there are none. Written by the server.
ALTER TABLE accounts ADD COLUMN blocks BYTEA CHECK (octet_length(blocks) BETWEEN 16 AND 16000 AND octet_length(blocks) % 16 = 0);
-- Hashes do not compress.
ALTER TABLE accounts ALTER COLUMN blocks SET STORAGE EXTERNAL;
ALTER TABLE accounts ALTER COLUMN blocks SET STATISTICS 0;
