//! The names of all cases, once: the macro makes a test of each.

/// One named test per case of the contract, in a module `$name`. `$constructor` is an async function of the calling module
/// that takes the test's name (`&'static str`) and gives an `Option` of a
/// [`StorageFixture`](crate::storage::StorageFixture): `None` when a part is missing, which it has reported. The calling
/// crate needs `tokio`.
#[macro_export]
macro_rules! storage_conformance {
    ($name:ident, $constructor:ident) => {
        $crate::storage_conformance! { @cases $name, $constructor,
            installation {
                migrating_brings_the_schema_up_to_date,
                migrating_twice_changes_nothing,
                of_two_migrations_at_once_one_finds_nothing_to_do,
                a_database_that_is_newer_is_refused_and_left_as_it_is,
                asking_for_the_schema_status_changes_nothing,
                reopening_keeps_data,
                a_health_check_writes_and_leaves_nothing,
                the_installation_id_is_the_first_candidate,
                of_many_candidates_at_once_all_get_the_same_installation_id,
                the_time_is_that_of_the_database,
                the_first_mark_is_now_and_a_later_one_is_beyond,
                of_a_hundred_marks_at_once_each_is_another,
                after_closing_calls_fail_as_unavailable,
            }
            keys {
                a_data_key_keeps_every_field,
                a_taken_data_key_identifier_is_refused,
                a_data_key_of_an_unknown_tenant_is_a_conflict,
                the_installation_has_data_keys_without_being_a_tenant,
                an_active_data_key_replaces_the_former_active_one,
                a_refused_data_key_leaves_the_former_active_one,
                data_keys_are_listed_newest_first,
                data_keys_are_counted_by_the_key_that_wraps_them,
                of_many_data_keys_with_one_identifier_one_gets_through,
                of_many_active_data_keys_at_once_one_stays_active,
                a_hundred_counts_of_seals_lose_none,
                seals_of_an_absent_data_key_are_none,
                a_check_record_is_created_once,
                a_check_record_is_created_only_on_what_was_seen,
                of_many_check_records_at_once_one_gets_through,
                of_many_first_check_records_for_different_keys_one_gets_through,
                check_records_are_listed_in_order_of_their_keys,
            }
            keks {
                a_kek_is_noted_once_and_opens_only,
                a_kek_becomes_active_where_the_former_one_still_is,
                of_many_activations_at_once_one_gets_through,
                an_unknown_or_retired_kek_is_not_activated,
                a_kek_that_something_uses_is_not_retired,
                an_unused_kek_is_retired_and_stays_so,
                it_is_noted_since_when_a_kek_wraps_nothing,
                a_data_key_of_another_kek_than_the_active_one_is_refused,
                data_keys_are_rewrapped_where_they_are_as_they_were_read,
                data_keys_are_replaced_by_those_that_follow,
                of_many_replacements_of_a_data_key_at_once_one_gets_through,
                states_of_data_keys_are_listed_in_pages,
            }
            sealed {
                every_sealed_field_is_read_and_swapped,
                sealed_fields_are_counted_by_their_data_keys,
                former_data_keys_are_in_use_until_all_is_sealed_anew,
                a_swap_on_a_ciphertext_that_changed_changes_nothing,
                fields_are_read_of_those_scopes_alone_that_were_named,
                data_keys_and_what_they_sealed_are_replaced_at_once,
                who_deletes_a_tenant_and_who_replaces_its_data_key_wait_for_one_another,
                a_replaced_data_key_that_nothing_needs_is_removed,
                what_is_sealed_under_a_data_key_that_is_gone_is_refused,
                of_a_removal_and_what_is_stored_at_once_one_wins,
                of_a_removal_and_a_refresh_at_once_one_wins,
                a_copy_for_an_attempt_keeps_its_data_key,
            }
            key_jobs {
                a_job_keeps_every_field,
                a_job_that_is_in_the_way_is_returned,
                of_many_jobs_at_once_one_begins,
                a_job_goes_through_its_states_once,
                jobs_are_listed_in_order_of_their_identifiers,
                data_keys_are_handed_out_once_then_again,
                of_a_hundred_claims_at_once_each_gets_others,
                a_settled_data_key_counts_once,
                a_job_goes_through_the_data_keys_that_it_is_about,
                a_finding_is_kept_as_it_was_first_reported,
                a_job_that_is_over_is_forgotten_after_a_while,
                storage_in_the_background_is_the_same,
            }
            tenants {
                a_tenant_keeps_every_field,
                extreme_times_and_large_texts_are_kept,
                a_new_tenant_has_version_one,
                a_taken_tenant_identifier_is_refused,
                an_absent_tenant_is_none,
                tenants_differ_by_case,
                tenants_are_listed_in_order_of_their_identifiers,
                pages_neither_repeat_nor_hide_when_rows_come_and_go,
                a_page_has_at_least_one_row_and_at_most_a_thousand,
                a_cursor_that_no_page_gave_is_no_error,
                an_update_writes_name_labels_state_and_time,
                a_stale_version_is_a_conflict_and_changes_nothing,
                of_a_hundred_updates_of_one_version_one_wins,
                a_hundred_compare_and_swaps_lose_none,
                deleting_a_tenant_twice_is_no_error,
                deleting_a_tenant_takes_all_that_belongs_to_it,
                a_tenant_with_a_grant_is_deleted_only_by_force,
                of_a_tenants_deletion_and_a_consent_at_once_one_wins,
            }
            oauth_clients {
                a_client_keeps_every_field,
                a_taken_client_identifier_is_refused,
                an_absent_client_is_none,
                clients_are_listed_in_order_of_their_identifiers,
                an_update_of_a_client_writes_what_may_change,
                a_stale_version_of_a_client_is_a_conflict,
                client_id_changes_only_while_no_connection_exists,
                a_client_with_a_connection_in_whatever_state_cannot_be_deleted,
                deleting_a_client_takes_its_secrets_links_and_attempts,
                of_a_deletion_and_a_consent_at_once_one_wins,
            }
            client_secrets {
                a_secret_keeps_every_field,
                the_first_secret_is_active_and_later_ones_are_enabled,
                a_taken_secret_version_is_refused,
                a_secret_of_an_unknown_client_is_none,
                secrets_are_listed_newest_first,
                activating_a_secret_enables_the_former_active_one,
                activating_twice_changes_nothing,
                a_retired_secret_cannot_be_activated,
                an_absent_secret_is_none,
                a_retired_secret_loses_its_bytes,
                retiring_twice_changes_nothing,
                the_active_secret_cannot_be_retired,
                of_many_first_secrets_at_once_one_is_active,
                of_many_activations_at_once_one_secret_is_active,
            }
            consents {
                a_new_connection_is_active_with_epoch_and_fences_one,
                a_connection_keeps_every_field_of_its_consent,
                a_static_connection_has_no_client_and_no_refresh_token,
                a_second_connection_to_the_same_grant_is_refused,
                a_second_static_connection_to_the_same_account_is_refused,
                a_grant_to_another_client_or_of_another_kind_is_another_connection,
                re_consent_replaces_tokens_and_moves_epoch_and_fences,
                re_consent_heals_a_suspect_connection,
                re_consent_revives_a_revoked_connection,
                re_consent_drops_lease_attempts_and_spares,
                a_consent_on_a_stale_epoch_is_a_conflict,
                a_consent_on_a_stale_fence_is_a_conflict,
                a_consent_on_a_connection_that_is_gone_is_a_conflict,
                a_consent_for_an_unknown_tenant_or_client_is_a_conflict,
                a_consent_uses_up_its_link_and_settles_its_pending_grant,
                a_link_is_used_up_once,
                a_link_that_was_taken_back_brings_nothing,
                of_two_consents_by_one_link_at_once_one_wins,
                a_consent_takes_revocations_of_its_grant_off_the_queue,
                a_refused_consent_leaves_link_and_pending_grant,
                an_account_of_another_tenant_is_refused_where_it_is_exclusive,
                an_account_is_shared_where_it_is_not_exclusive,
                an_account_is_free_again_when_the_other_tenant_disconnected,
                of_many_tenants_at_once_one_gets_an_exclusive_account,
                of_many_consents_on_one_epoch_one_wins,
            }
            connections {
                an_absent_connection_is_none,
                a_connection_is_found_by_its_grant,
                connections_of_a_tenant_are_listed_in_order,
                revoked_connections_of_a_tenant_are_left_out,
                connections_of_all_tenants_are_listed_in_pages,
                pages_of_connections_are_stable_when_rows_come_and_go,
                every_filter_narrows_the_listing,
                an_account_is_found_at_every_tenant,
                connections_are_counted_by_provider_and_state,
                a_change_of_state_is_written,
                a_state_that_stays_keeps_its_time,
                a_stale_change_of_state_is_a_conflict,
                a_lease_makes_an_earlier_reading_stale,
                a_revoked_connection_changes_state_only_by_consent,
                of_a_hundred_changes_of_state_one_wins,
                a_connection_is_deleted_only_when_it_is_revoked,
                deleting_a_connection_twice_is_no_error,
            }
            disconnects {
                disconnecting_removes_tokens_and_bumps_the_epoch,
                disconnecting_drops_lease_attempts_and_spares,
                while_a_lease_holds_a_disconnect_is_a_conflict,
                disconnecting_queues_the_refresh_token,
                disconnecting_twice_changes_nothing,
                disconnecting_a_stale_version_is_a_conflict,
                disconnecting_an_absent_connection_is_none,
                a_static_connection_has_nothing_to_revoke,
                a_shared_grant_is_not_revoked_until_the_last_one_goes,
                of_two_disconnects_of_a_shared_grant_at_once_one_queues_it,
                due_revocations_are_listed_oldest_first,
                a_postponed_revocation_counts_its_tries,
                a_finished_revocation_is_gone,
                a_queued_revocation_outlives_its_connection,
            }
            leases {
                an_attempt_keeps_every_field,
                an_attempt_takes_the_lease_and_the_next_fence,
                while_a_lease_holds_nobody_else_begins,
                a_lease_lapses_by_the_databases_clock,
                attempts_of_former_holders_stand,
                an_attempt_on_a_stale_fence_does_not_begin,
                an_attempt_on_a_stale_grant_does_not_begin,
                an_attempt_on_a_stale_epoch_does_not_begin,
                an_attempt_on_a_revoked_connection_does_not_begin,
                an_attempt_without_a_refresh_token_does_not_begin,
                an_attempt_on_an_absent_connection_does_not_begin,
                a_suspect_connection_is_refreshed,
                of_a_hundred_attempts_at_once_one_begins,
                a_resolved_attempt_goes_and_releases_the_lease,
                an_unresolved_attempt_stays_and_releases_the_lease,
                ending_an_attempt_leaves_a_lease_of_a_later_one,
                ending_an_absent_attempt_is_false,
                leases_of_an_owner_are_released_and_its_attempts_stay,
                attempts_are_listed_newest_first,
                unresolved_attempts_are_those_without_a_lease_oldest_first,
            }
            refreshes {
                a_commit_stores_tokens_and_ends_the_attempt,
                a_commit_keeps_every_field_of_its_tokens,
                a_commit_heals_a_suspect_connection,
                a_commit_of_an_active_connection_keeps_its_time_of_state,
                a_lost_lease_still_commits,
                a_commit_leaves_the_lease_of_a_later_attempt,
                a_commit_ahead_of_the_lease_fence_takes_it_along,
                distrusted_grants_are_suspect_and_no_fence_comes_again,
                a_late_commit_of_an_older_attempt_is_rejected_and_kept_as_a_spare,
                a_rejected_commit_that_did_not_rotate_leaves_no_spare,
                a_commit_keeps_a_token_that_it_did_not_spend,
                a_commit_that_spent_the_stored_token_leaves_no_spare,
                at_most_the_newest_three_spares_are_kept,
                a_commit_from_before_a_consent_is_rejected_without_a_spare,
                a_commit_from_before_a_disconnect_is_rejected_without_a_spare,
                a_token_that_a_disconnect_overtook_is_queued_for_revocation,
                a_token_of_a_shared_grant_is_not_queued_by_a_late_commit,
                of_a_disconnect_and_a_commit_at_once_the_new_token_is_queued,
                a_commit_to_a_connection_that_is_gone_says_so,
                repeating_a_commit_changes_nothing,
                repeating_a_rejected_commit_changes_nothing,
                a_removed_spare_is_gone,
                of_a_hundred_commits_at_once_the_newest_stands,
                a_hundred_refreshes_in_turn_lose_none,
            }
            connect_flow {
                a_link_keeps_every_field,
                a_taken_link_is_refused,
                a_link_is_found_by_its_secret_though_used_or_expired,
                an_absent_link_is_none,
                links_are_listed_in_order_of_their_identifiers,
                deleting_a_link_twice_is_no_error,
                an_attempt_comes_back_with_every_field,
                a_taken_state_is_refused,
                at_most_twenty_attempts_of_a_link_are_open,
                of_a_hundred_attempts_of_a_link_at_once_twenty_start,
                an_unknown_state_is_unknown,
                another_browser_does_not_use_up_a_state,
                a_state_that_was_used_is_used,
                a_state_that_came_too_late_is_expired,
                the_first_condition_that_fails_is_the_answer,
                of_a_hundred_browsers_at_once_one_gets_the_state,
                expired_links_and_attempts_are_deleted,
                links_and_attempts_of_an_unknown_tenant_or_client_are_conflicts,
            }
            pending_grants {
                a_pending_grant_keeps_every_field,
                a_taken_pending_grant_is_refused,
                a_refused_grant_is_kept_but_not_listed,
                an_absent_grant_cannot_be_refused,
                pending_grants_of_all_tenants_are_listed_up_to_a_limit,
                a_pending_grant_of_an_unknown_tenant_is_a_conflict,
            }
            access {
                a_rule_keeps_every_field,
                every_kind_of_selector_is_kept,
                a_taken_rule_identifier_is_refused,
                an_absent_rule_is_none,
                rules_are_listed_in_order_of_their_identifiers,
                an_update_of_a_rule_writes_everything_but_its_origin,
                a_stale_version_of_a_rule_is_a_conflict,
                deleting_a_rule_twice_is_no_error,
                a_blocked_principal_keeps_every_field,
                blocking_twice_keeps_the_first_record,
                unblocking_twice_is_no_error,
                blocked_principals_are_listed_in_order,
                another_issuer_key_is_stored_beside_the_others,
                an_issuer_key_keeps_every_field,
                only_the_first_issuer_key_is_created,
                of_a_hundred_first_issuer_keys_one_gets_through,
            }
            changes {
                a_new_reader_sees_what_comes_later_and_nothing_else,
                what_is_read_is_read_by_others_too,
                every_change_of_a_tenant_is_logged,
                every_change_of_a_connection_is_logged,
                every_change_of_a_client_and_its_secrets_is_logged,
                every_change_of_rules_principals_and_issuer_keys_is_logged,
                every_change_of_keys_is_logged,
                a_call_that_changes_nothing_logs_nothing,
                leases_and_usual_refreshes_are_not_logged,
                a_refresh_that_heals_is_logged,
                a_change_that_was_rolled_back_never_comes,
                each_committed_change_comes_once_and_in_the_order_of_commits,
                a_reading_waits_for_no_open_transaction,
                of_a_hundred_writers_at_once_a_reader_misses_none,
                more_changes_than_a_reading_holds_are_lost,
                a_reader_behind_the_pruned_tail_is_told_so,
                pruning_leaves_what_is_young,
                pruning_does_not_disturb_a_reader_that_has_read,
                connection_marks_are_listed_in_pages,
            }
            replicas {
                a_replica_keeps_every_field,
                a_later_report_keeps_the_start_and_replaces_the_rest,
                live_replicas_are_counted_and_listed_in_order,
                a_replica_that_is_silent_is_not_live,
                a_removed_replica_is_gone,
                replicas_that_were_silent_for_long_are_forgotten,
                of_a_hundred_replicas_that_report_at_once_all_count,
            }
            budgets {
                calls_are_reserved_up_to_the_burst,
                fewer_calls_are_reserved_where_there_is_no_room_for_all,
                without_room_a_reservation_says_how_long_to_wait,
                room_comes_back_by_the_databases_clock,
                of_a_hundred_reservations_at_once_the_burst_gets_through,
                clients_have_room_of_their_own,
                an_absent_client_has_no_room,
                a_reservation_tells_the_pause,
                a_pause_keeps_every_field,
                a_pause_that_goes_on_has_the_next_number_and_ends_no_earlier,
                a_pause_of_an_absent_client_is_none,
                while_a_pause_lasts_no_probe_is_claimed,
                of_a_hundred_probes_at_once_one_is_claimed,
                a_claimed_probe_lapses_by_the_databases_clock,
                a_released_probe_is_claimed_again,
                a_pause_that_goes_on_has_a_probe_of_its_own,
                an_ended_pause_is_gone,
                pauses_are_listed_in_order_of_their_clients,
                deleting_a_client_takes_its_budget,
            }
            checks {
                connections_without_a_plan_are_due_first_then_the_longest_due,
                a_check_is_due_by_the_databases_clock,
                only_active_connections_by_oauth_are_due,
                a_check_on_a_stale_plan_is_not_claimed,
                many_checks_are_claimed_at_once_and_each_tells_whether,
                of_a_hundred_claims_of_a_check_at_once_one_wins,
                a_plan_leaves_the_connection_as_it_is,
                checks_of_absent_connections_change_nothing,
            }
            isolation {
                a_tenant_cannot_read_the_rows_of_another,
                a_tenant_cannot_list_the_rows_of_another,
                a_tenant_cannot_change_the_rows_of_another,
                a_tenant_cannot_delete_the_rows_of_another,
            }
            atomicity {
                a_consent_that_is_dropped_midway_leaves_nothing_half_written,
                a_disconnect_that_is_dropped_midway_leaves_nothing_half_written,
                an_attempt_that_is_dropped_midway_leaves_nothing_half_written,
                a_commit_that_is_dropped_midway_leaves_nothing_half_written,
                a_data_key_that_is_dropped_midway_leaves_one_active,
                a_migration_that_is_dropped_midway_can_be_repeated,
            }
        }
    };
    (@cases $name:ident, $constructor:ident, $($group:ident { $($case:ident,)+ })+) => {
        mod $name {
            $(
                mod $group {
                    $(
                        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                        async fn $case() {
                            let test = concat!(module_path!(), "::", stringify!($case));
                            if let Some(fixture) = super::super::$constructor(test).await {
                                $crate::storage::cases::$group::$case(&fixture).await;
                            }
                        }
                    )+
                }
            )+
        }
    };
}

#[cfg(test)]
mod tests {
    /// A case that is not in the list would never run.
    #[test]
    fn every_case_is_in_the_list() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/storage/cases");
        let list = include_str!("list.rs");
        let mut cases = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            for line in source.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
                let name = line.split('(').next().unwrap();
                assert!(list.contains(&format!("\n                {name},\n")), "{name} is not in the list");
                cases += 1;
            }
        }
        assert!(cases > 200, "only {cases} cases were found: is the folder right?");
    }
}
