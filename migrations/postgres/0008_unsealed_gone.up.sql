-- The program has sealed every envelope that was stored before 0007.
DROP TABLE envelopes_unsealed;
-- Every mailbox has a key by now, and a release that gives none to new ones makes none from here on.
ALTER TABLE mailboxes ALTER COLUMN queue_key DROP DEFAULT;
-- Envelopes now count by their size buckets.
UPDATE mailboxes AS m SET envelopes = coalesce(waiting.envelopes, 0), bytes = coalesce(waiting.bytes, 0)
FROM mailboxes AS every LEFT JOIN (
    SELECT mailbox, count(*) AS envelopes, sum(bucket) * 1024 AS bytes FROM envelopes GROUP BY mailbox
) AS waiting ON waiting.mailbox = every.id
WHERE m.id = every.id;
