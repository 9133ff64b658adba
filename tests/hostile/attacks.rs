//! The attacks that a template manager has to survive, the faults of the original that open it to some of them, and the
//! tests that prove each; a row whose test is gone fails.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// A file and tests in it.
type Place = (&'static str, &'static [&'static str]);

/// What is attacked, or what the original gets wrong; and where a test proves that it fails: a file and tests in it.
const ATTACKS: &[(&str, &[Place])] = &[
    (
        "A1 an old, validly signed build in place of the newest",
        &[
            ("tests/hostile/offers.rs", &["a1_an_old_signed_build_in_place_of_the_newest"]),
            ("tests/hostile/memory.rs", &["a3_a_build_that_is_older_than_one_seen_before"]),
            ("tests/trust.rs", &["only_what_was_asked_for_is_accepted"]),
        ],
    ),
    (
        "A2 the reply chooses the key by naming another repository",
        &[
            ("tests/hostile/offers.rs", &["a2_only_the_keys_of_the_repository_that_an_offer_names"]),
            ("tests/hostile/memory.rs", &["a_template_stays_with_its_repository_and_its_signer"]),
        ],
    ),
    (
        "A3 new builds are kept back",
        &[(
            "tests/hostile/memory.rs",
            &["a3_a_build_that_is_older_than_one_seen_before", "a3_age_is_judged_by_the_signed_header"],
        )],
    ),
    (
        "A4 the signature stands in the wrong header, is stripped, or one among several (CVE-2021-20271, -3421, -3445)",
        &[
            ("tests/trust.rs", &["never_more_lenient_than_rpmkeys_or_rpmcanon"]),
            (
                "tests/hostile/corpus.rs",
                &["every_refused_package_ends_in_its_own_message_and_changes_nothing"],
            ),
        ],
    ),
    (
        "A5 a signed header without a payload digest, or with a weak one (rpm #1672, #7321)",
        &[(
            "tests/trust.rs",
            &["never_more_lenient_than_rpmkeys_or_rpmcanon", "without_signatures_digests_still_count"],
        )],
    ),
    (
        "A6 the package changes between the verdict and its use (CVE-2013-6435)",
        &[(
            "tests/trust.rs",
            &["a_byte_changed_after_the_verdict_ends_the_import", "any_single_changed_byte_is_refused"],
        )],
    ),
    (
        "A7 bombs: header index, decompression, sparse maps, parts (CVE-2021-20266, CVE-2012-0061, CVE-2026-2625)",
        &[
            ("tests/hostile/bombs.rs", &["a7_bombs_end_within_memory_and_disk"]),
            ("tests/trust/payloads.rs", &["every_attack_by_payload_ends_in_its_own_rejection"]),
            ("src/verify/header.rs", &["refuses_every_other_form", "measures_before_it_stores"]),
            ("src/root_image/sparse.rs", &["a_bomb_ends_at_the_cap", "refuses_maps_that_lie"]),
            ("src/payload/decoder.rs", &["a_window_beyond_the_cap_is_refused"]),
        ],
    ),
    (
        "A8 keys that are not bound, expired, revoked, weak; signatures of other kinds (CVE-2021-3521, CVE-2012-6088)",
        &[
            ("tests/trust/certificates.rs", &["a_key_must_be_bound_flagged_and_alive"]),
            ("tests/trust.rs", &["keys_count_only_in_their_time"]),
            ("tests/hostile/list.rs", &["what_cannot_be_used_is_said_and_hides_nothing"]),
        ],
    ),
    (
        "A9 the wrong package under the right key",
        &[
            ("tests/hostile/offers.rs", &["a9_the_wrong_package_under_the_right_key"]),
            ("tests/trust/payloads.rs", &["every_attack_by_payload_ends_in_its_own_rejection"]),
        ],
    ),
    (
        "A10 template.conf asks for privileges",
        &[
            ("tests/hostile/first_start.rs", &["a10_a_package_gets_only_what_a_template_may_wish"]),
            (
                "src/template/conf.rs",
                &["only_listed_values_pass", "para_virtualisation_needs_leave", "addresses_are_dotted_quads"],
            ),
        ],
    ),
    (
        "A11 escape sequences and tricks of direction in replies, errors and packages",
        &[(
            "tests/hostile/streams.rs",
            &["a11_escape_sequences_and_tricks_of_direction", "a11_values_without_measure_are_cut"],
        )],
    ),
    (
        "A12 floods, drips, silence, errors without an end",
        &[
            (
                "tests/hostile/streams.rs",
                &["a12_floods_end_at_their_caps", "a12_drips_and_silence_end_in_time"],
            ),
            ("src/qrexec.rs", &["limits_end_the_program_and_all_it_started"]),
        ],
    ),
    (
        "A13 callers of our services",
        &[(
            "tests/delegate/hostile.rs",
            &["odd_names_and_requests_are_refused_and_change_nothing", "quotas_hold"],
        )],
    ),
    (
        "A14 the services of the UpdateVM as a target",
        &[
            (
                "tests/service/hostile.rs",
                &["names_that_lead_out_of_the_repository_are_refused", "streams_without_an_end_come_to_one"],
            ),
            ("src/repo/wire/request.rs", &["nothing_breaks_out_of_its_line"]),
        ],
    ),
    (
        "A15 deputies that are confused by names",
        &[(
            "tests/delegate/hostile.rs",
            &["what_is_anothers_is_as_if_it_were_not_there", "who_has_no_rule_or_no_grant_gets_nothing"],
        )],
    ),
    (
        "A16 half states",
        &[(
            "tests/install.rs",
            &[
                "an_import_whose_stream_dies_leaves_nothing_or_the_old_content",
                "without_any_one_rule_nothing_happens_by_halves",
                "a_signal_ends_in_the_old_state",
            ],
        )],
    ),
    (
        "A17 the private volume of the former template (QSB-050)",
        &[(
            "tests/hostile/first_start.rs",
            &["a17_a18_the_old_private_volume_is_gone_and_the_network_off_before_the_first_start"],
        )],
    ),
    (
        "A18 the first start runs what was installed",
        &[
            (
                "tests/hostile/first_start.rs",
                &["a17_a18_the_old_private_volume_is_gone_and_the_network_off_before_the_first_start"],
            ),
            (
                "src/post_install.rs",
                &["netvm_is_off_meanwhile_and_what_it_was_afterwards", "what_does_not_go_down_is_killed"],
            ),
        ],
    ),
    (
        "R13 the UpdateVM chooses key and build",
        &[(
            "tests/hostile/offers.rs",
            &[
                "a1_an_old_signed_build_in_place_of_the_newest",
                "a2_only_the_keys_of_the_repository_that_an_offer_names",
            ],
        )],
    ),
    (
        "R14 one odd record of a search hides all others",
        &[
            ("tests/hostile/streams.rs", &["records_in_every_form_survive_each_other"]),
            (
                "src/repo/wire/reply_tests.rs",
                &[
                    "odd_texts_survive",
                    "a_bad_record_is_skipped_and_hides_nothing",
                    "a_forged_record_claims_only_what_was_asked",
                ],
            ),
        ],
    ),
    (
        "R19 repository files that stop every command",
        &[(
            "src/repo/file.rs",
            &["merges_a_section_that_comes_again_as_dnf_does", "skips_what_it_cannot_read"],
        )],
    ),
    (
        "R20 keys by $releasever and ${releasever}, several keys, outside of the key directory",
        &[
            (
                "src/repo/keys.rs",
                &["only_files_of_the_key_directory_are_read", "a_repository_may_name_several_keys"],
            ),
            ("src/repo/variables.rs", &["replaces_what_it_knows"]),
        ],
    ),
    (
        "R21 a rotten file in the cache fails for ever",
        &[("tests/hostile/offers.rs", &["r21_a_rotten_package_in_the_cache_is_replaced"])],
    ),
    (
        "R22 the language decides about a signature",
        &[("tests/hostile/offers.rs", &["r22_the_language_decides_nothing"])],
    ),
    (
        "R48 a short stream is noticed after the import",
        &[
            ("tests/install.rs", &["an_import_whose_stream_dies_leaves_nothing_or_the_old_content"]),
            ("tests/trust.rs", &["a_byte_changed_after_the_verdict_ends_the_import"]),
            ("src/root_image/chunking.rs", &["a_plain_archive", "the_parts_of_a_payload"]),
        ],
    ),
    (
        "R49 a local package is opened twice",
        &[
            ("tests/trust.rs", &["a_byte_changed_after_the_verdict_ends_the_import"]),
            ("tests/install.rs", &["from_a_local_file_without_any_repository"]),
        ],
    ),
];

#[test]
fn every_attack_has_its_test() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (attack, places) in ATTACKS {
        ensure!(!places.is_empty(), "{attack}");
        for (file, tests) in *places {
            let text = fs::read_to_string(root.join(file)).with_context(|| format!("{attack}: {file}"))?;
            for test in *tests {
                ensure!(text.contains(&format!("fn {test}(")), "{attack}: no test {test} in {file}");
            }
        }
    }
    let numbers = ATTACKS.iter().filter_map(|(name, _)| name.split(' ').next());
    let wanted = (1..=18)
        .map(|n| format!("A{n}"))
        .chain(["R13", "R14", "R19", "R20", "R21", "R22", "R48", "R49"].map(str::to_owned));
    ensure!(numbers.eq(wanted), "an attack is missing or told twice");
    Ok(())
}
