//! What every backend promises, each promise a sentence and a test.
//!
//! The properties are written once, against the traits; a macro per trait makes each of them a test of a backend, so that
//! a failure reads `storage::postgres::queue::tests::acknowledging_twice_is_harmless`.

pub(crate) mod accounts;
pub(crate) mod fixtures;
pub(crate) mod keys;
pub(crate) mod queue;

/// Makes tests of the named properties, on databases that `$open` provides.
macro_rules! suite {
    ($open:path, $module:ident: $($property:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $property() {
            let Some(database) = $open($crate::storage::conformance::$module::LIMITS).await else { return };
            $crate::storage::conformance::$module::$property(&database).await;
        }
    )+};
}

macro_rules! account_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, accounts:
            answers_a_ping
            pins_the_first_pepper
            finds_what_was_registered
            finds_nobody_where_there_is_nobody
            a_taken_number_is_answered_with_its_account
            registering_again_keeps_both_ids
            registering_again_drops_the_rest
            registering_again_with_the_same_account_is_not_a_new_one
            the_same_number_at_once_makes_one_account
            registering_again_under_fire_ends_with_one_device
            updates_the_device_and_the_account
            an_update_without_recovery_keeps_the_old_one
            an_update_of_a_device_that_is_gone_changes_nothing
            the_last_day_only_moves_forward
            deleting_leaves_nothing
            deleting_twice_is_harmless
            a_session_is_found_until_it_expires
            tries_are_counted_under_concurrency
            verified_once_is_verified
            a_closed_session_is_gone
            expired_sessions_are_dropped_and_counted
            a_dropped_registration_is_whole_or_absent
        }
    };
}

macro_rules! key_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, keys:
            publishing_replaces_whole_sets
            publishing_leaves_what_is_absent
            publishing_replaces_signed_keys_one_by_one
            publishing_for_a_device_that_is_gone_answers_false
            concurrent_uploads_do_not_mix
            one_time_keys_are_handed_out_in_upload_order
            one_time_keys_are_handed_out_once_under_concurrency
            every_device_gives_a_bundle
            an_exhausted_device_still_gives_bundles
            the_last_resort_key_is_never_consumed
            nobody_has_no_bundles
            a_device_without_signed_keys_is_left_out
            the_namespaces_are_separate
            counts_are_per_device
        }
    };
}

macro_rules! envelope_queue_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, queue:
            keeps_order
            numbers_have_no_gaps
            nothing_is_lost_to_a_concurrent_drain
            acknowledging_twice_is_harmless
            acknowledging_another_mailboxes_number_is_harmless
            acknowledged_means_gone
            numbers_are_never_used_twice
            a_full_queue_is_an_answer
            bytes_are_limited_too
            all_copies_of_a_delivery_or_none
            acknowledging_makes_room
            an_unknown_mailbox_is_an_answer
            an_empty_batch_is_harmless
            expiry_leaves_the_young
            expiry_makes_room
            one_device_never_sees_anothers
            large_content_stays_intact
            a_page_is_limited_by_envelopes
            a_page_is_limited_by_bytes
            the_first_of_a_page_is_always_returned
            heads_are_those_that_exist
            a_large_batch_is_one_batch
            batches_in_opposite_order_do_not_block_each_other
            a_dropped_commit_is_whole_or_absent
            deleting_an_account_under_fire_leaves_nothing
        }
    };
}

pub(crate) use {account_store_suite, envelope_queue_suite, key_store_suite, suite};
