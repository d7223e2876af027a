DO $$
DECLARE
    sampled record;
BEGIN
    FOR sampled IN
        SELECT c.relname, a.attname
        FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind = 'r' AND a.attnum > 0
            AND NOT a.attisdropped AND a.attstattarget = 0
    LOOP
        EXECUTE format('ALTER TABLE %I ALTER COLUMN %I SET STATISTICS -1', sampled.relname, sampled.attname);
    END LOOP;
END
$$;
