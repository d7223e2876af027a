CREATE TABLE envelopes_unsealed (
    mailbox INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    content BLOB NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX envelopes_unsealed_place ON envelopes_unsealed (mailbox, seq);
