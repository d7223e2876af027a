-- SQLite samples values only when it is told to (ANALYZE), which the server never does. Should somebody else have done it, the
-- samples go; see ../postgres/0009_no_samples.up.sql.
DROP TABLE IF EXISTS sqlite_stat1;
DROP TABLE IF EXISTS sqlite_stat4;
