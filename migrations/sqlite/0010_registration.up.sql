-- Who may register: invites, and codes that are sent.

-- Invites. Whoever has the code of one may register so many numbers. Who used it is not kept, and a row goes with its last
-- use. Written by the server, at the operator's word.
CREATE TABLE invites (
    -- A random name, by which the operator revokes it.
    id BLOB NOT NULL PRIMARY KEY CHECK (length(id) = 16),
    -- HMAC of the code under a key that comes from the pepper.
    code_hash BLOB NOT NULL UNIQUE CHECK (length(code_hash) = 32),
    -- How many numbers it still lets in.
    uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
    -- Whether it also starts a number over that has an account.
    recovers INTEGER NOT NULL CHECK (recovers IN (0, 1)),
    -- The last day on which it is good, in days since 1970-01-01 UTC.
    expires INTEGER NOT NULL,
    -- The day on which it was made.
    created INTEGER NOT NULL
) STRICT;
-- For the sweeper.
CREATE INDEX invites_expiry ON invites (expires);

-- In place of a number, sealed_number may hold an e-mail address. All that follows lives for minutes, with its session.

-- The code that was sent last, as HMAC under a key that is derived from the session's id, which only the client knows, and the
-- pepper. NULL before one was sent, after the right one was given, and after too many wrong ones. Written by the server.
ALTER TABLE verification_sessions ADD COLUMN code_hash BLOB CHECK (length(code_hash) = 32);
-- Codes that were sent. Written by the server, for the limit.
ALTER TABLE verification_sessions ADD COLUMN codes_sent INTEGER NOT NULL DEFAULT 0;
-- From when on another code may be sent, in milliseconds since 1970-01-01 UTC. Written by the server.
ALTER TABLE verification_sessions ADD COLUMN next_code INTEGER;
-- Whether the client has done the work that was asked for. Written by the server.
ALTER TABLE verification_sessions ADD COLUMN worked INTEGER NOT NULL DEFAULT 0 CHECK (worked IN (0, 1));
-- Whether it was verified by an invite that starts no account over. Written by the server.
ALTER TABLE verification_sessions ADD COLUMN new_only INTEGER NOT NULL DEFAULT 0 CHECK (new_only IN (0, 1));
