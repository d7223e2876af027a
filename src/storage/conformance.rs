macro_rules! account_store_suite {
    ($x:path) => {};
}
macro_rules! key_store_suite {
    ($x:path) => {};
}
macro_rules! envelope_queue_suite {
    ($x:path) => {};
}
pub(crate) use {account_store_suite, envelope_queue_suite, key_store_suite};
