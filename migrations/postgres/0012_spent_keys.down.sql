DROP TABLE spent_keys;
DELETE FROM settings WHERE name IN ('database_id', 'generation', 'restore_epoch', 'database_place');
