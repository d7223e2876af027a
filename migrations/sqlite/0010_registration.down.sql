-- Takes back 0010_registration.up.sql with all that is stored. Sessions go too: an older release would take one that an invite
-- verified for proof of the number. Whoever was in the middle of one begins again.
DELETE FROM verification_sessions;
ALTER TABLE verification_sessions DROP COLUMN new_only;
ALTER TABLE verification_sessions DROP COLUMN worked;
ALTER TABLE verification_sessions DROP COLUMN next_code;
ALTER TABLE verification_sessions DROP COLUMN codes_sent;
ALTER TABLE verification_sessions DROP COLUMN code_hash;
DROP TABLE invites;
