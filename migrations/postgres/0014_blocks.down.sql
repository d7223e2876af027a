-- Takes back 0014_blocks.up.sql. Nobody is blocked any more.
ALTER TABLE accounts DROP COLUMN blocks;
