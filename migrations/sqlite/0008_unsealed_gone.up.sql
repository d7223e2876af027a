-- The program has sealed every envelope that was stored before 0007.
DROP TABLE envelopes_unsealed;
-- Envelopes now count by their size buckets.
UPDATE mailboxes SET (envelopes, bytes) = (
    SELECT count(*), coalesce(sum(bucket), 0) * 1024 FROM envelopes WHERE mailbox = mailboxes.id);
