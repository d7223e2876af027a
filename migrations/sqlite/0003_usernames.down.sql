-- Takes back 0003_usernames.up.sql with all that is stored.
DROP TABLE username_links;
DROP TABLE usernames;
