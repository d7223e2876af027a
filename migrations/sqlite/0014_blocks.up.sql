-- Whom an account has blocked, on SQLite. The same column and meaning as in ../postgres/0014_blocks.up.sql.

-- 16 bytes for each id that the account has blocked, in their order: a keyed hash under a key of the account that is not in the
-- database. NULL if there are none. Written by the server.
ALTER TABLE accounts ADD COLUMN blocks BLOB CHECK (length(blocks) BETWEEN 16 AND 16000 AND length(blocks) % 16 = 0);
