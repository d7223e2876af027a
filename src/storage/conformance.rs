//! What every backend promises, each promise a sentence and a test.
//!
//! The properties are written once, against the traits; a macro per trait makes each of them a test of a backend, so that
//! a failure reads `storage::postgres::queue::tests::acknowledging_twice_is_harmless`.

pub(crate) mod account_data;
pub(crate) mod accounts;
pub(crate) mod admin;
pub(crate) mod age;
pub(crate) mod attachments;
pub(crate) mod claims;
pub(crate) mod devices;
pub(crate) mod export;
pub(crate) mod fixtures;
pub(crate) mod invites;
pub(crate) mod key_allowance;
pub(crate) mod keys;
pub(crate) mod profiles;
pub(crate) mod queue;
pub(crate) mod sessions;
pub(crate) mod tokens;
pub(crate) mod usernames;

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
            pins_the_first_trust_root
            finds_what_was_registered
            finds_nobody_where_there_is_nobody
            finds_many_at_once
            a_registration_checked_against_an_older_state_changes_nothing
            a_lock_set_meanwhile_is_not_passed_over
            registering_again_keeps_both_ids
            registering_again_drops_the_rest
            registering_again_with_the_same_account_is_not_a_new_one
            the_same_number_at_once_makes_one_account
            registering_again_under_fire_ends_with_one_device
            updates_the_device_and_the_account
            an_update_without_recovery_keeps_the_old_one
            an_update_of_a_device_that_is_gone_changes_nothing
            a_replaced_device_changes_nothing
            the_last_day_only_moves_forward
            deleting_leaves_nothing
            deleting_twice_is_harmless
            a_dropped_registration_is_whole_or_absent
        }
        $crate::storage::conformance::suite! { $open, sessions:
            a_session_is_found_until_it_expires
            tries_are_counted_under_concurrency
            verified_once_is_verified
            t03_the_right_code_is_right_once_under_concurrency
            t01_a_code_goes_with_the_last_try
            a_new_code_replaces_the_one_before
            codes_are_sent_now_and_then_and_only_so_many
            work_is_done_once_and_stays_done
            a_registration_uses_its_session_up
            a_session_that_proves_nothing_registers_nobody
            a_registration_that_must_look_again_keeps_its_session
            one_session_registers_once_under_concurrency
            expired_sessions_are_dropped_and_counted
        }
    };
}

macro_rules! admin_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, admin:
            a_suspended_account_is_found_as_that_until_it_is_resumed
            t24_acts_on_nobody_are_written_down_as_well
            a_suspended_number_is_not_registered_over
            a_glance_tells_state_devices_and_day
            erasing_does_what_the_owners_own_deletion_does
            an_invite_and_its_entry_come_together
            sums_are_of_everybody
            t24_acts_at_once_make_one_chain
            t24_what_is_changed_past_the_server_is_found
            the_oldest_entries_go_and_the_chain_goes_on
            what_was_about_one_thing_is_found_among_the_rest
        }
    };
}

macro_rules! device_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, devices:
            an_offer_is_found_until_it_expires_or_is_taken_up
            an_offer_by_a_device_that_is_gone_is_not_made
            an_account_has_few_open_offers_and_the_newest_stay
            a_linked_device_is_whole
            an_offer_is_taken_up_once_under_concurrency
            links_at_once_never_pass_the_limit_nor_share_an_id
            an_offer_of_another_account_links_nothing
            registering_again_withdraws_offers_and_drops_linked_devices
            removing_a_device_under_fire_leaves_nothing
            only_linked_devices_are_removed_and_only_by_who_is_still_there
            what_a_replaced_device_asks_for_does_not_happen
            changes_touch_what_they_name
            blocks_are_kept_until_they_are_taken_back
            a_full_list_of_blocks_takes_no_more
            of_blocks_at_once_none_is_lost
            a_replaced_device_blocks_nobody
            registering_again_blocks_nobody
            idle_linked_devices_go_in_batches_and_primaries_stay
            devices_that_are_connected_are_seen
            expired_offers_are_dropped_and_counted
        }
    };
}

macro_rules! invite_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, invites:
            an_invite_is_listed_until_it_is_revoked_or_over
            the_code_of_an_invite_verifies_a_session_and_uses_it_up
            an_invite_verifies_only_what_is_open
            an_invite_for_so_many_verifies_so_many_under_concurrency
            a_session_that_tries_one_code_many_times_at_once_uses_it_up_once
            there_are_only_so_many_invites
            a_session_that_an_invite_verified_registers
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
            a_replaced_device_publishes_nothing
            concurrent_uploads_do_not_mix
            one_time_keys_are_handed_out_in_upload_order
            b13_one_time_keys_are_handed_out_once_under_concurrency
            every_device_gives_a_bundle
            an_exhausted_device_still_gives_bundles
            the_last_resort_key_is_never_consumed
            nobody_has_no_bundles
            a_device_without_signed_keys_is_left_out
            the_namespaces_are_separate
            counts_are_per_device
            t13_a_key_that_was_handed_out_is_left_out_of_an_upload
            t13_another_key_under_a_spent_id_spoils_the_upload
            t13_a_key_uploaded_while_it_is_handed_out_is_handed_out_once
            spent_ids_go_with_their_device_and_account
            spent_ids_are_forgotten_after_their_days
        }
        $crate::storage::conformance::suite! { $open, key_allowance:
            what_was_taken_says_how_many_are_left
            t15_a_reserve_of_each_kind_stays_for_those_who_may_take_it
            a_device_that_is_to_give_nothing_keeps_its_keys
            t15_t17_takers_at_once_leave_the_reserve_alone
        }
        $crate::storage::conformance::suite! { $open, claims:
            a_device_that_is_asked_many_times_in_a_batch_gives_its_keys_in_order_and_runs_dry
            whoever_is_not_there_takes_nothing_from_the_others_of_a_batch
            a_batch_may_ask_for_all_devices_for_one_and_for_another_identity
            t15_the_reserve_is_looked_at_for_each_claim_of_a_batch
            any_batch_is_as_its_claims_one_after_the_other
            b13_batches_at_once_hand_out_every_key_once
            t15_batches_at_once_with_and_without_access_leave_the_reserve_to_the_latter
            what_is_damaged_fails_for_whoever_asks_for_it_alone
            gaps_between_places_keep_no_key_back
            a_large_batch_of_claims_is_one_batch
        }
    };
}

macro_rules! age_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, age:
            a_database_counts_looks_at_it
            t19_all_that_is_used_once_is_invalid_in_a_database_that_was_put_back
            t19_keys_of_a_database_that_was_put_back_cannot_be_uploaded_again
            numbers_given_out_since_are_given_to_nothing_else
            t19_of_many_nodes_that_notice_it_one_makes_it_invalid
            a_database_from_before_there_were_marks_is_noticed_by_whoever_saw_one
        }
    };
}

macro_rules! profile_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, profiles:
            a_profile_is_found_under_its_version_alone
            writing_a_version_again_replaces_all_of_it
            a_picture_is_kept_replaced_and_cleared
            a_picture_that_no_version_has_any_more_is_told_of
            the_versions_written_last_are_kept
            concurrent_writers_leave_no_more_than_the_limit
            accounts_do_not_share_the_limit
            a_device_that_is_gone_or_replaced_writes_nothing
            registering_again_drops_the_profiles
            deleting_the_account_drops_the_profiles
        }
    };
}

macro_rules! attachment_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, attachments:
            an_upload_is_found_as_it_stands
            the_last_byte_completes_it
            a_length_that_comes_last_completes_it_too
            only_the_latest_turn_writes
            of_segments_at_one_place_one_is_taken
            a_budget_is_not_overdrawn_by_many_at_once
            an_upload_is_taken_from_the_budget_once
            what_the_budget_does_not_allow_changes_nothing
            however_small_its_segments_are_an_upload_pays_for_each
            the_first_realm_stays
            what_is_retired_is_gone_and_never_comes
            too_many_segments_are_an_answer
            an_open_upload_is_gone_when_its_time_has_come
            an_attachment_is_gone_on_its_day
            what_was_removed_is_cleared_and_forgotten
            expiry_goes_in_batches
            an_upload_goes_on_at_another_node
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
            b10_acknowledged_means_gone
            numbers_are_never_used_twice
            a_full_queue_is_an_answer
            t36_a_senders_share_is_counted_by_what_it_put_there_and_what_waits
            what_nobody_wants_is_not_stored
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
            another_key_seals_anew_what_is_queued
            a_key_is_replaced_by_its_own_device_and_from_the_right_one_only
            another_password_and_key_are_one_change
            no_envelope_is_left_to_an_old_key_under_fire
            who_registers_anew_brings_a_key
            deleting_an_account_under_fire_leaves_nothing
        }
    };
}

macro_rules! export_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, export:
            every_column_is_exported_or_about_no_account
            an_export_has_what_its_account_has_and_nothing_of_another
            values_are_shown_as_they_are_and_secrets_as_held
            long_tables_come_in_pages
            a_device_that_is_gone_or_replaced_is_shown_nothing
            t38_what_an_export_shows_is_gone_with_the_account
        }
    };
}

macro_rules! token_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, tokens:
            a_session_is_found_until_its_day
            only_the_device_that_is_there_with_its_password_opens_a_session
            a_device_has_few_sessions_and_those_that_last_longest_stay
            t04_a_refresh_token_is_taken_once_and_its_second_use_ends_the_session
            who_asks_again_in_the_same_words_is_no_thief
            what_is_over_or_anothers_is_not_rotated
            t05_of_many_at_once_one_rotates_and_the_rest_end_the_session
            a_primary_sees_and_ends_the_sessions_of_its_account_and_others_their_own
            t08_sessions_go_with_their_device_its_account_and_its_password
            sessions_whose_day_has_come_are_dropped_and_counted
            there_is_one_first_key_however_many_make_one
            t74_another_key_signs_and_the_others_stay_for_a_while_or_not_at_all
        }
    };
}

macro_rules! username_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, usernames:
            a_confirmed_name_is_found_with_its_link
            the_first_name_that_is_to_be_had_is_reserved
            a_reservation_replaces_the_one_before
            a_reservation_lives_for_minutes
            only_a_reserved_name_is_confirmed
            confirming_again_changes_nothing
            a_new_name_gives_up_the_old_one_and_its_link
            a_name_given_up_is_held_for_its_owner
            a_hold_ends_on_its_day
            names_of_a_deleted_account_are_held_for_nobody
            registering_again_keeps_the_name
            one_account_cannot_hold_any_number_of_names
            a_link_changes_its_handle_unless_it_is_kept
            a_name_asked_for_at_once_has_one_owner
            one_account_asking_at_once_has_one_reservation
            a_name_of_an_account_that_goes_meanwhile_is_nobodys
            a_replaced_device_changes_no_name
        }
    };
}

macro_rules! account_data_store_suite {
    ($open:path) => {
        $crate::storage::conformance::suite! { $open, account_data:
            a_value_is_found_as_it_was_written
            a_write_needs_the_version_it_replaces
            versions_never_repeat
            a_batch_takes_place_whole_or_not_at_all
            one_account_never_sees_anothers_entries
            changes_are_listed_since_a_revision
            a_list_comes_in_parts
            deletions_are_forgotten_in_their_order
            a_whole_list_in_parts_is_not_sent_back_to_its_beginning
            a_revision_that_never_was_starts_the_list_over
            keys_and_bytes_are_limited
            of_many_writers_one_wins_each_version
            many_writers_do_not_exceed_the_limits_together
            entries_go_with_their_account
            an_account_that_goes_meanwhile_leaves_no_entries
            a_replaced_device_writes_no_entry
        }
    };
}

pub(crate) use {
    account_data_store_suite, account_store_suite, admin_store_suite, age_store_suite, attachment_store_suite,
    device_store_suite, envelope_queue_suite, export_store_suite, invite_store_suite, key_store_suite,
    profile_store_suite, suite, token_store_suite, username_store_suite,
};
