//! Where each message and rule of the contract is held that no case of the tables here is named after.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::cases::{INSTALLS, LINES, LISTS, REMOVALS};

/// A message or rule, and places that hold it: a recorded command line (`cli ID`, replayed by tests/conformance) or a test
/// (`FILE FUNCTION`).
const ELSEWHERE: &[(&str, &[&str])] = &[
    ("M10", &["tests/cli_contract/callers.rs a_package_of_no_template_is_refused_by_its_name"]),
    (
        "M11",
        &["cli reply-fail", "cli reply-fail-silent", "tests/cli_contract.rs an_update_vm_that_fails_says_so"],
    ),
    ("M12", &["cli reply-garbage", "tests/cli_contract.rs an_update_vm_that_fails_says_so"]),
    ("M13", &["cli install-same-size-other-name", "cli install-other-package"]),
    ("M14", &["cli download-exists", "cli install-cached"]),
    ("M16", &["cli downgrade-local"]),
    ("M17", &["cli upgrade-local-older"]),
    ("M19", &["cli install-nogpgcheck", "cli download-nogpgcheck"]),
    ("M20", &["cli install-locked"]),
    ("M25", &["tests/hostile/bombs.rs a7_bombs_end_within_memory_and_disk"]),
    ("R3", &["cli install-downloaddir"]),
    ("R5", &["cli reply-missing-service", "cli no-updatevm-list", "cli updatevm-unknown"]),
    ("R9", &["src/untrusted.rs nothing_that_acts_on_a_terminal_survives"]),
    (
        "R12",
        &[
            "cli reply-huge",
            "cli reply-huge-url",
            "src/qrexec.rs both_outputs_are_drained_while_input_is_fed",
        ],
    ),
    ("R13", &["cli install-claimed-disabled-repo", "cli install-other-version"]),
    (
        "R14",
        &["cli reply-odd-caret", "src/repo/wire/reply_tests.rs a_bad_record_is_skipped_and_hides_nothing"],
    ),
    ("R15", &["tests/cli_contract.rs one_search_for_several", "cli refresh-fails"]),
    ("R16", &["tests/cli_contract.rs one_search_for_several", "cli install-two"]),
    ("R17", &["cli install-short", "cli install-same-size-other-version"]),
    ("R18", &["cli install-retry", "src/update_vm.rs only_passing_failures_are_tried_again"]),
    ("R19", &["src/repo/file.rs merges_a_section_that_comes_again_as_dnf_does"]),
    (
        "R20",
        &[
            "src/repo/keys.rs only_files_of_the_key_directory_are_read",
            "src/repo/keys.rs a_repository_may_name_several_keys",
        ],
    ),
    ("R21", &["cli install-cached-rotten", "cli install-cached-empty"]),
    ("R22", &["tests/trust.rs never_more_lenient_than_rpmkeys_or_rpmcanon"]),
    ("R25", &["cli upgrade-glob", "cli reinstall-glob", "cli downgrade-glob"]),
    ("R28", &["cli migrate-nothing", "src/migrate.rs a_failure_leaves_no_marker"]),
    ("R30", &["cli install-local-in-cache"]),
    (
        "R31",
        &[
            "src/lock.rs one_change_of_a_template_at_a_time_and_the_files_stay",
            "src/lock.rs racing_with_a_holder_that_removes_the_file",
        ],
    ),
    ("R34", &["cli install-utf8", "cli install-escape-local"]),
    (
        "R35",
        &["cli install-feature-fails", "src/transaction/tests.rs an_existing_template_gets_back_all_it_had"],
    ),
    ("R36", &["cli install-plus", "cli install-long"]),
    ("R37", &["cli upgrade-running"]),
    ("R39", &["cli install-start-fails", "src/post_install.rs a_start_that_fails_leaves_no_trace"]),
    ("R40", &["cli install-shutdown-fails", "src/post_install.rs what_does_not_go_down_is_killed"]),
    ("R41", &["src/qrexec.rs limits_end_the_program_and_all_it_started"]),
    ("R42", &["cli upgrade-start", "src/post_install.rs netvm_is_off_meanwhile_and_what_it_was_afterwards"]),
    ("R43", &["cli upgrade-stale", "src/settings.rs what_only_the_former_version_set_goes"]),
    ("R44", &["cli pp-conf-ip-odd", "src/template/conf.rs addresses_are_dotted_quads"]),
    ("R45", &["cli install-no-appmenus", "cli install-root-no-group"]),
    ("R46", &["tests/install.rs a_management_qube_needs_room_for_the_package_and_one_mebibyte"]),
    ("R47", &["cli install-import-fails"]),
    ("R48", &["tests/install.rs an_import_whose_stream_dies_leaves_nothing_or_the_old_content"]),
    ("R49", &["src/spool.rs a_copy_does_not_follow_later_changes"]),
    ("R52", &["tests/cli_contract.rs a_refusal_is_undone", "cli purge-dummy-exists"]),
    ("R54", &["cli disassoc-kill-fails"]),
    ("R55", &["cli remove-server-percent"]),
    ("R56", &["cli install-import-status"]),
    ("R58", &["cli install-name-of-appvm", "cli install-name-unmanaged"]),
    ("R60", &["tests/install.rs a_signal_ends_in_the_old_state"]),
    ("R61", &["src/admin/mod.rs bounded_keeps_order_and_limit"]),
];

/// Every message M1 to M25 and every rule R1 to R61 names a case of the tables or places elsewhere, never neither; and the
/// places are there.
#[test]
fn every_message_and_rule_has_a_place() -> Result<()> {
    let tables = [LISTS, LINES, INSTALLS, REMOVALS].into_iter().flatten();
    let here: BTreeSet<&str> = tables.flat_map(|case| case.name.split(' ')).collect();
    let elsewhere: BTreeMap<&str, &[&str]> = ELSEWHERE.iter().copied().collect();
    ensure!(elsewhere.len() == ELSEWHERE.len(), "one entry a rule");
    let wanted: Vec<String> =
        (1..=25).map(|n| format!("M{n}")).chain((1..=61).map(|n| format!("R{n}"))).collect();
    for name in &wanted {
        ensure!(here.contains(name.as_str()) || elsewhere.contains_key(name.as_str()), "{name} has no place");
    }
    ensure!(elsewhere.keys().all(|name| wanted.iter().any(|wanted| wanted == name)), "names of rules only");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let recorded = std::fs::read_to_string(root.join("tests/recordings/cli.jsonl"))?;
    let mut ids: BTreeSet<String> = BTreeSet::new();
    for line in recorded.lines() {
        let case: Value = serde_json::from_str(line).context("reading the recordings")?;
        ids.extend(case["id"].as_str().map(str::to_owned));
    }
    for (name, places) in ELSEWHERE {
        ensure!(!places.is_empty(), "{name} names no place");
        for place in *places {
            let (file, test) = place.split_once(' ').with_context(|| format!("{name}: {place}"))?;
            if file == "cli" {
                ensure!(ids.contains(test), "{name}: no command line {test} was recorded");
                continue;
            }
            let text = std::fs::read_to_string(root.join(file)).with_context(|| format!("{name}: {file}"))?;
            let is_test = text.split("#[test]").chain(text.split("#[tokio::test")).skip(1);
            let function = format!("fn {test}(");
            ensure!(
                is_test.clone().any(|after| after.contains(&function)),
                "{name}: {file} has no test {test}"
            );
        }
    }
    Ok(())
}
