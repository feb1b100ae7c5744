"""Which test holds imagefs to which case of hostile or broken input; each must be there.

The cases are from flaws of other programs.  Not listed is what cannot meet imagefs: it extracts nothing into a tree and
runs no helper for decompression, and a store on NFS, where locks may not hold, is the user's to avoid.
"""

import ast
from pathlib import Path

import pytest

CASES: dict[str, tuple[str, ...]] = {
    # credentials and network
    "a foreign layer's host asks for credentials": ("test_the_host_of_a_foreign_layer_gets_no_credentials",),
    "a blob is redirected to another host": ("test_a_redirect_to_another_host_takes_no_secret_along",),
    "the host of a redirect sends a challenge": ("test_the_challenge_of_another_host_is_never_answered",),
    "https leads to http, or to this machine": (
        "test_redirects_that_are_refused",
        "test_a_registry_elsewhere_may_not_send_us_to_this_machine",
        "test_https_is_never_left_for_http",
    ),
    "a name resolves to this machine or a metadata service": (
        "test_a_redirect_to_a_name_of_this_machine_is_refused",
        "test_a_realm_with_a_name_of_this_machine_is_refused",
        "test_a_foreign_layer_is_not_fetched_from_a_name_of_this_machine",
    ),
    "a name of this machine resolves elsewhere": (
        "test_a_name_of_this_machine_that_resolves_elsewhere_gets_no_password_in_plain_http",
        "test_a_password_stays_from_a_realm_elsewhere_whatever_its_name",
    ),
    "a name resolves to another address after it was judged": (
        "test_a_name_is_resolved_once_so_that_it_cannot_move_after_it_was_judged",
    ),
    "a realm that is no token server": (
        "test_realms_that_are_refused",
        "test_a_token_server_may_not_send_us_to_the_metadata_service",
    ),
    "a realm on another host": (
        "test_a_password_goes_to_another_host_only_over_https",
        "test_a_password_is_not_sent_in_plain_http_to_a_token_server_elsewhere",
    ),
    "a credential helper that is missing": ("test_a_missing_helper_means_no_credential_and_never_anothers",),
    "a credential helper with a path as name, or that misbehaves": (
        "test_names_of_helpers_are_no_paths",
        "test_a_helper_that_does_not_do_its_work_is_an_error",
        "test_a_helper_that_hangs_is_stopped",
    ),
    "endless redirects, errors, tokens, manifests": (
        "test_redirects_are_followed_up_to_ten",
        "test_an_endless_error_body_is_not_read_to_its_end",
        "test_a_token_server_that_talks_nonsense_is_an_error",
        "test_a_manifest_too_large_is_refused_without_reading_it_all",
    ),
    "secrets in logs": ("test_neither_logs_nor_errors_hold_a_secret",),
    "a registry repeats a login": ("test_what_a_registry_repeats_of_a_login_is_not_told_on",),
    "tags without end": ("test_a_tag_list_without_end_is_refused_at_a_limit",),
    "netrc and proxies": ("test_netrc_adds_no_credentials", "test_a_proxy_is_used_but_never_for_this_machine"),
    "a mirror is given the registry's credentials": ("test_no_host_gets_the_credentials_of_another",),
    "a token expires on the way": ("test_a_token_that_expires_on_the_way_is_renewed_once",),
    "a transfer that crawls": (
        "test_a_transfer_that_crawls_is_a_stall",
        "test_a_body_that_drips_is_a_stall_whatever_came_before",
    ),
    "endless or trickling heads, chunk sizes and trailers": (
        "test_a_head_that_trickles_ends_in_time",
        "test_a_flood_of_informational_answers_is_cut_off",
        "test_framing_without_content_ends_in_time",
        "test_an_interrupt_ends_a_pull_wherever_it_waits",
    ),
    "too many requests, with and without a sensible wait": (
        "test_the_wait_a_registry_asks_for_is_kept",
        "test_a_wait_longer_than_a_minute_is_not_waited_for",
        "test_a_spent_pull_limit_is_said_and_not_waited_for",
    ),
    # what is printed
    "text of images and registries that deceives a terminal": (
        "test_no_character_that_deceives_a_terminal_comes_out",
        "test_no_function_lets_a_character_through_that_deceives",
        "test_lines_of_a_log_file_are_escaped",
        "test_completion_offers_no_name_that_deceives",
    ),
    "names that forge lines of a patch or a listing": (
        "test_the_headers_of_a_unified_diff_are_quoted_and_its_lines_are_exact",
        "test_values_of_templates_forge_no_line_and_templates_may_break_lines",
    ),
    # numbers and derived files
    "inode numbers made to collide": (
        "test_another_key_changes_every_number_and_no_digest",
        "test_numbers_are_equal_within_a_store_and_depend_on_its_secret",
    ),
    "a layer tar that was replaced": (
        "test_a_replaced_tar_is_not_scanned_in_place_of_the_layer",
        "test_repair_makes_nothing_from_a_replaced_tar",
    ),
    "the index or tree of another layer": ("test_the_index_or_tree_of_another_layer_is_never_believed",),
    # manifests, digests, references
    "a document that is manifest and index": ("test_documents_that_break_the_rules_are_refused",),
    "a document that is not what was announced": ("test_the_document_must_be_what_it_was_announced_as",),
    "other bytes than asked for": (
        "test_other_bytes_than_asked_for_by_digest_are_refused",
        "test_other_bytes_than_announced_for_a_tag_are_refused",
    ),
    "digests that are paths": (
        "test_impossible_digests_are_refused_wherever_they_stand",
        "test_text_that_is_no_digest_is_refused_with_its_reason",
        "test_a_digest_that_is_a_path_is_refused",
    ),
    "tags that are paths": (
        "test_names_that_are_no_tags_are_skipped_with_a_warning",
        "test_tags_of_registries_are_never_paths",
    ),
    "sizes that lie": (
        "test_impossible_sizes_are_refused",
        "test_verified_never_passes_on_more_than_was_promised",
        "test_a_blob_of_unannounced_size_is_cut_off_at_the_first_byte_too_many",
    ),
    "layers and diff_ids that disagree": (
        "test_layers_and_diff_ids_must_be_as_many",
        "test_a_wrong_diff_id_keeps_nothing",
    ),
    "bytes behind the end of the tar": (
        "test_after_two_zero_blocks_anything_may_follow",
        "test_a_wrong_diff_id_keeps_nothing",
    ),
    "indexes without end": ("test_indexes_nested_too_deeply_are_refused", "test_an_index_of_many_indexes_is_refused"),
    "JSON that parsers disagree about": (
        "test_documents_that_parsers_could_disagree_about_are_refused",
        "test_nesting_up_to_the_bound_is_understood",
        "test_any_bytes_give_a_manifest_or_one_of_two_errors",
    ),
    "odd configs": (
        "test_configs_that_break_the_rules_are_refused",
        "test_times_are_read_to_the_nanosecond_or_not_at_all",
    ),
    "what is no image": (
        "test_the_first_manifest_format_is_refused_with_advice",
        "test_what_is_no_image_is_named",
        "test_an_artifact_is_refused_with_its_kind",
    ),
    "attestations in an index": ("test_attestations_and_unknown_things_are_passed_over",),
    "variants of platforms": ("test_the_best_offer_is_selected", "test_no_matching_platform_lists_what_there_is"),
    "references with more than meets the eye": ("test_what_is_wrong_with_a_reference_is_said",),
    "an archive takes over a local tag": ("test_a_tag_that_moves_is_announced",),
    "tag and digest that disagree": ("test_of_tag_and_digest_the_digest_decides_and_that_is_said",),
    "sha512": ("test_a_sha512_blob_is_verified_with_sha512", "test_an_image_may_have_no_layers_and_sha512_digests"),
    # layers
    "names that lead out of the image": (
        "test_names_are_made_clean_and_stay_inside_the_root",
        "test_nothing_leads_out_of_the_root",
    ),
    "absolute symlinks are kept": ("test_symlink_targets_are_kept_verbatim",),
    "a file below a symlink of a lower layer": ("test_a_symlinked_parent_is_followed_inside_the_image",),
    "a root that is no directory": ("test_the_root_is_a_directory_and_nothing_else",),
    "hard links to anywhere": (
        "test_a_hard_link_that_cannot_be_made_is_refused",
        "test_a_hard_link_to_the_root_is_refused",
        "test_a_hard_link_to_its_own_name_is_refused_even_where_a_marker_hides_what_was_there",
    ),
    "symlinks in circles": ("test_a_symlink_loop_among_parents_is_refused",),
    "whiteouts of all kinds": (
        "test_whiteouts_of_nothing_are_refused",
        "test_a_whiteout_never_hides_its_own_layer",
        "test_only_the_last_component_makes_a_marker",
        "test_a_whiteout_is_one_whatever_its_type",
    ),
    "a member of negative size": (
        "test_sizes_that_cannot_be_end_in_an_error",
        "test_pax_sizes_that_cannot_be_end_in_an_error",
    ),
    "garbage after the first member": ("test_garbage_between_members_is_an_error_and_not_the_end",),
    "extended headers that are bombs": (
        "test_extended_headers_are_at_most_a_mebibyte",
        "test_a_layer_has_a_bounded_amount_of_text",
    ),
    "compression bombs, cut streams, junk": (
        "test_a_bomb_takes_bounded_memory_and_stops_when_told",
        "test_a_bomb_comes_out_in_pieces_and_only_as_asked_for",
        "test_zstd_windows_are_bounded",
        "test_a_stream_cut_off_anywhere_is_refused",
        "test_junk_after_gzip_is_refused",
        "test_junk_after_zstd_is_refused",
        "test_thousands_of_small_members_are_one_stream",
    ),
    "too much of everything, and names that hurt terminals": (
        "test_a_layer_has_a_bounded_number_of_members",
        "test_components_have_at_most_255_bytes",
        "test_paths_may_be_deep_but_not_without_end",
        "test_attributes_that_no_kernel_keeps_are_refused",
        "test_what_changed_is_told_in_the_order_of_diff_r",
    ),
    "a few bytes that become gigabytes of memory": (
        "test_a_path_has_a_bounded_depth",
        "test_an_image_implies_a_bounded_number_of_directories",
        "test_symlinks_among_parents_make_no_tree_deeper_than_a_path_may_be",
        "test_an_image_has_a_bounded_number_of_entries",
        "test_documents_have_a_bounded_number_of_bytes_together",
        "test_items_of_a_docker_archive_with_the_same_content_are_one_image",
    ),
    "a few bytes that fill the disk": (
        "test_a_bomb_is_refused_before_it_has_filled_the_disk",
        "test_a_layer_of_zeros_is_stored_as_a_hole",
        "test_the_reserve_stays_free",
        "test_a_spool_is_bounded_by_what_an_archive_may_expand_to",
    ),
    "exabytes of holes": (
        "test_a_copy_has_the_holes_of_the_file",
        "test_an_export_has_the_holes_of_the_file",
        "test_cp_and_tar_skip_holes",
    ),
    "old and sparse formats": (
        "test_the_header_of_v7_has_no_prefix_and_no_device",
        "test_base_256_fields_are_read_with_their_sign",
        "test_sparse_maps_that_cannot_be_are_refused",
        "test_gnu_sparse_headers_that_cannot_be_are_refused",
    ),
    "devices and set-user-ID programs": ("test_the_mount_is_read_only_nosuid_nodev",),
    "a bad layer holds no lock": ("test_one_bad_layer_leaves_nothing",),
    "a layout with a symlink for a blob": (
        "test_a_blob_that_is_a_symbolic_link_is_refused",
        "test_a_blob_that_is_a_pipe_keeps_nobody_waiting",
    ),
    "an archive with links in circles, or between layers": (
        "test_links_without_end_or_out_of_the_archive_are_refused",
        "test_layers_may_be_links_to_each_other_inside_the_archive",
    ),
    # the store
    "death at every operation, and loss of power": (
        "test_whoever_dies_at_any_moment_leaves_what_is_visible_whole",
        "test_what_was_said_to_be_there_outlives_a_loss_of_power",
    ),
    "damage of every kind": (
        "test_a_flipped_bit_anywhere_is_named_and_never_shown",
        "test_what_is_missing_is_named_and_what_can_be_is_made_again",
        "test_what_is_surplus_is_named_and_only_ours_goes",
        "test_what_came_from_a_registry_is_pulled_again",
    ),
    "many processes at once": ("test_nothing_is_lost_between_processes",),
    "removal while others pull": (
        "test_nothing_is_swept_while_somebody_writes_and_then_it_is",
        "test_while_another_process_writes_space_is_freed_later",
    ),
    "files in the store that are not ours": (
        "test_files_that_are_not_ours_are_left_alone",
        "test_what_is_not_ours_and_what_others_are_writing_stays",
    ),
    "who holds a lock dies": (
        "test_records_of_dead_mounts_are_removed",
        "test_what_a_live_writer_is_at_is_not_taken_for_stale",
    ),
    "a mount record that names another process": (
        "test_a_dead_holder_is_told_at_once_and_nobody_else_gets_its_signal",
        "test_a_record_names_only_processes_of_its_own_user",
        "test_a_record_that_names_no_process_is_passed_over",
    ),
    "a mount point that is swapped": (
        "test_a_folder_swapped_for_a_symlink_after_the_check_is_not_followed",
        "test_symlinks_on_the_way_are_not_followed",
        "test_another_mount_at_the_same_place_is_left_alone",
    ),
    "a damaged layer is mended while it is mounted": ("test_a_mended_layer_reaches_a_live_mount",),
    "a parser of hostile bytes is taken over": (
        "test_whoever_parses_for_a_mount_of_root_has_no_privileges",
        "test_libfuse_keeps_only_what_it_unmounts_with",
        "test_the_process_that_scans_has_no_privileges",
        "test_only_the_folder_is_reachable",
        "test_root_becomes_the_owner_of_the_folder_and_keeps_no_capability",
    ),
    "the disk of a mounted store fails": (
        "test_ten_deaths_and_a_takeover_after_the_disk_turned_read_only",
        "test_a_mount_ends_without_a_traceback_after_the_disk_turned_read_only",
    ),
    "the disk is full, read-only, over quota": (
        "test_a_full_disk_is_named_and_keeps_what_was_there",
        "test_a_catalog_that_cannot_grow_is_named",
        "test_a_write_that_is_refused_leaves_nothing",
        "test_a_read_only_store_is_still_of_use",
        "test_a_full_disk_can_be_emptied",
        "test_a_disk_that_becomes_read_only_by_itself_is_taken_as_such",
        "test_the_first_error_of_a_failing_disk_is_the_one_reported",
    ),
    "the catalog is damaged or deleted": (
        "test_no_damage_of_the_catalog_is_an_internal_error",
        "test_a_rebuilt_catalog_has_every_image_and_no_wrong_name",
        "test_a_deleted_catalog_is_refused_and_made_again",
    ),
    "a folder in place of a file of the store": ("test_a_folder_in_place_of_a_file_is_replaced",),
    "power is lost between two steps": (
        "test_a_new_image_is_durable_before_the_catalog_names_it",
        "test_what_is_made_again_is_durable_before_it_takes_the_place_of_the_old",
    ),
    "the user interrupts": ("test_an_interrupt_ends_a_pull_that_waits_for_the_network",),
    "a store of a newer format": ("test_a_newer_format_is_refused",),
    "images come and go in a live mount": (
        "test_new_moved_and_removed_tags_show_within_a_second",
        "test_a_removed_images_open_file_stays_readable",
    ),
}


def known_tests() -> set[str]:
    found = set()
    for path in Path(__file__).parent.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


KNOWN = known_tests()


@pytest.mark.parametrize("case", CASES)
def test_every_case_has_its_tests(case: str) -> None:
    assert set(CASES[case]) <= KNOWN
