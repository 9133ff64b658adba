//! Tests of the search reply.

use proptest::prelude::*;

use super::*;

const GOOD: &str = "qubes-template-good|0|1|1|itl|5|2025-01-01 00:00|GPLv3+|http://x|Sum|Text\nmore|\n";

fn parse(text: &str) -> SearchReply {
    SearchReply::parse(text.as_bytes(), Limits::default()).unwrap()
}

fn names(reply: &SearchReply) -> String {
    reply.offers.iter().map(|offer| offer.name.as_str()).collect::<Vec<_>>().join(" ")
}

#[test]
fn both_forms_of_dnf_give_the_same() {
    let four = parse(GOOD);
    assert_eq!(four.offers[0].description, "Text\nmore");
    assert_eq!(four.offers[0].build_time.to_string(), "2025-01-01 00:00:00");
    assert_eq!(parse(&GOOD.replace("2025-01-01 00:00", "1735689600")), four);
    assert_eq!(parse(&GOOD.replace("2025-01-01 00:00", "2025-1-1 0:0")), four);
    assert_eq!(parse(&GOOD.replace("more|\n", "more||\n")), four);
    assert_eq!(parse(GOOD.strip_suffix("|\n").unwrap()), four);
    assert_eq!(parse(""), SearchReply::default());
}

#[test]
fn odd_texts_survive() {
    let odd = |from: &str, to: &str| {
        let reply = parse(&format!("{}{GOOD}", GOOD.replace("-good", "-odd").replace(from, to)));
        assert_eq!(names(&reply), "odd good", "{to:?}: {reply:?}");
        assert!(reply.skipped.is_empty(), "{to:?}: {reply:?}");
        reply.offers[0].clone()
    };
    assert_eq!(
        odd("Text\nmore", "left | right\nanother || line").description,
        "left | right\nanother || line"
    );
    assert_eq!(odd("Text\nmore", "\n\nlate").description, "\n\nlate");
    assert_eq!(odd("Text\nmore", "").description, "");
    assert_eq!(odd("Text\nmore", "a|\nb|\n|\nc").description, "a|\nb|\n|\nc");
    assert_eq!(odd("Sum", "left | right").summary, "left ");
    assert_eq!(odd("Sum", "Größe 模板").summary, "Größe 模板");
    assert_eq!(
        odd("GPLv3+", "GPL-2.0-or-later AND (MIT OR Apache-2.0)").license,
        "GPL-2.0-or-later AND (MIT OR Apache-2.0)"
    );
    assert_eq!(odd("0|1|1", "0|1.0^git|1").evr.to_string(), "0:1.0^git-1");
    assert_eq!(odd("http://x", "(none)").url, "");
    assert_eq!(odd("Sum", "a\x1b[31m\tb\u{202e}").summary, "a_[31m_b_");
    assert_eq!(odd("Sum", &"x".repeat(9000)).summary.len(), 4096);
}

#[test]
fn a_bad_record_is_skipped_and_hides_nothing() {
    for (from, to) in [
        ("|5|", "|five|"),
        ("|5|", "|-5|"),
        ("|5|", "|"),
        ("|5|", "|5|6|"),
        ("-good|", "-go/od|"),
        ("-good|", "-|"),
        ("-good|", "--good|"),
        ("|itl|", "|itl;x|"),
        ("|itl|", "|@commandline|"),
        ("GPLv3+", ""),
        ("|0|1|1|", "|zero|1|1|"),
        ("|0|1|1|", "|0||1|"),
        ("2025-01-01 00:00", "01/01/2025"),
        ("2025-01-01 00:00", "2025-13-45 00:00"),
        ("2025-01-01 00:00", "99999999999999"),
    ] {
        let bad = GOOD.replace(from, to);
        let last = GOOD.replace("-good", "-last");
        let reply = parse(&format!("{GOOD}{bad}{last}"));
        assert_eq!((names(&reply).as_str(), reply.skipped.len()), ("good last", 1), "{bad:?}: {reply:?}");
        assert_eq!(reply.offers[0].description, "Text\nmore", "{bad:?}");
        assert_eq!(SearchReply::parse(bad.as_bytes(), Limits::default()), Err(ReplyError::Format), "{bad:?}");
    }
    let glued = parse(&format!(
        "Last metadata expiration check: 0:00:01 ago.\n{GOOD}{}",
        GOOD.replace("-good", "-second")
    ));
    assert_eq!((names(&glued).as_str(), glued.skipped.len()), ("second", 1));
    assert_eq!(SearchReply::parse(b"this is not a reply\n", Limits::default()), Err(ReplyError::Format));
    assert_eq!(names(&parse(&format!("bash|0|5|1|fedora|5|2025-01-01 00:00|GPL|u|s|d|\n{GOOD}"))), "good");
    assert_eq!(parse("bash|0|5|1|fedora|5|2025-01-01 00:00|GPL|u|s|d|\n"), SearchReply::default());
}

#[test]
fn a_forged_record_claims_only_what_was_asked() {
    let forged = "qubes-template-odd|0|1|1|odd|5|2025-01-01 00:00|GPL|u|s|harmless|\nqubes-template-good|9|9|9|itl|1|2030-01-01 00:00|GPL|u|s|forged|\n";
    let asked = |id: &str| parse(forged).claiming(&[RepoId::new(id).unwrap()]);
    let (odd, foreign) = asked("odd");
    assert_eq!(names(&odd), "odd");
    assert_eq!(foreign.iter().map(|offer| offer.repo.as_str()).collect::<Vec<_>>(), ["itl"]);
}

#[test]
fn bounds_are_kept() {
    let limits = Limits { bytes: GOOD.len() * 3, records: 2 };
    assert!(SearchReply::parse(GOOD.repeat(2).as_bytes(), limits).is_ok());
    assert_eq!(SearchReply::parse(GOOD.repeat(3).as_bytes(), limits), Err(ReplyError::TooMany(2)));
    assert_eq!(
        SearchReply::parse(GOOD.repeat(4).as_bytes(), limits),
        Err(ReplyError::TooLarge(GOOD.len() * 3))
    );
    let reply = parse(&format!("{}{GOOD}", GOOD.replace("|5|", "|x|").repeat(50)));
    assert_eq!((reply.offers.len(), reply.skipped.len()), (1, MAX_WARNINGS + 1));
}

fn offer() -> impl Strategy<Value = Offer> {
    (
        ("[a-z0-9._+][a-z0-9._+-]{0,20}", 0_u32..3, "[0-9a-z.~^]{1,8}", "[0-9]{1,8}"),
        ("[a-z][a-z-]{0,8}", any::<u64>(), 0_i64..4_000_000_000),
        ("[ -~]{0,9}[A-Z][ -~]{0,9}", "[ -~]{0,20}", "[ -~ö]{0,20}", "[ -~ö\n]{0,60}"),
    )
        .prop_map(
            |(
                (name, epoch, version, release),
                (repo, download_size, built),
                (license, url, summary, description),
            )| Offer {
                name,
                evr: Evr::new(&epoch.to_string(), &version, &release).unwrap(),
                repo: RepoId::new(&repo).unwrap(),
                download_size,
                build_time: Timestamp(built / 60 * 60),
                license,
                url,
                summary,
                description,
            },
        )
}

proptest! {
    #[test]
    fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = SearchReply::parse(&bytes, Limits::default());
    }

    #[test]
    fn takes_anything_like_records(text in "((qubes-template-)?[a-z0|\n ]{0,6}\\|?\n?){0,40}") {
        let _ = SearchReply::parse(text.as_bytes(), Limits::default());
    }

    /// Whatever a repository puts into its texts, our service's reply has exactly the records it was made of.
    #[test]
    fn what_the_service_writes_the_client_reads(offers in prop::collection::vec(offer(), 0..6)) {
        let reply = parse(std::str::from_utf8(&SearchReply::write(&offers)).unwrap());
        prop_assert!(reply.skipped.is_empty(), "{:?}", reply.skipped);
        let clean = |text: &str| text.replace('|', "/");
        let mut want: Vec<Offer> = offers.into_iter().map(|o| Offer {
            license: clean(&o.license),
            url: if o.url == "(none)" { String::new() } else { clean(&o.url) },
            summary: clean(&o.summary),
            description: clean(o.description.trim_start_matches('\n')),
            ..o
        }).collect();
        let key = |o: &Offer| record(o);
        want.sort_by_key(key);
        want.dedup();
        prop_assert_eq!(reply.offers, want);
    }
}
