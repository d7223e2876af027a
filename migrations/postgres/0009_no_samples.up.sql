-- PostgreSQL samples the values of columns for its planner, and keeps the samples in a table of its own until the next time it
-- looks, whatever is deleted here meanwhile. Every statement of the server finds rows by an index, so that nothing is lost without
-- samples. Kept are those of small numbers, days and flags. Columns of later steps must say the same; a test looks.
DO $$
DECLARE
    sampled record;
BEGIN
    FOR sampled IN
        SELECT c.relname, a.attname
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND c.relname <> '_sqlx_migrations'
            AND a.attnum > 0 AND NOT a.attisdropped
            AND a.atttypid IN ('bytea'::regtype, 'uuid'::regtype, 'text'::regtype, 'bigint'::regtype)
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I SET STATISTICS 0', sampled.relname, sampled.attname);
    END LOOP;
END
$$;
