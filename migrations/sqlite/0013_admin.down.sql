-- Takes back 0013_admin.up.sql. Suspended accounts are resumed; the operator's log is lost.
DROP TABLE admin_log;
DELETE FROM settings WHERE name = 'admin_log';
DROP INDEX accounts_suspended;
ALTER TABLE accounts DROP COLUMN suspended;
