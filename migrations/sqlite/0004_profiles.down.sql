-- Takes back 0004_profiles.up.sql with all that is stored.
DROP TABLE profiles;
