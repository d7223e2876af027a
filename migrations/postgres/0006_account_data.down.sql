-- Takes back 0006_account_data.up.sql with all that is stored.
DROP TABLE account_data;
DROP TABLE account_data_counters;
