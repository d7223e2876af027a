-- There is nothing to bring back.
SELECT 1;
