//! What a file of grants decides.

use super::*;

const FILE: &str = r#"
    version = 1
    [[grant]]
    caller = "help-desk"
    verbs = ["list", "install", "upgrade"]
    templates = ["debian-13-xfce", "fedora-4?-*"]
    repositories = ["qubes-templates-itl"]
    max-image-size = "10 GiB"
    max-templates = 3
    [[grant]]
    caller = "@tag:auditor"
    verbs = ["list", "info"]
    templates = ["*"]
    whose = "shared"
"#;

fn ask(
    grants: &Grants,
    caller: &str,
    tags: &[&str],
    verb: Verb,
    name: &str,
    owner: Owner,
) -> Result<usize, Refusal> {
    let name = TemplateName::new(name).unwrap();
    let tags: Vec<String> = tags.iter().map(|&t| t.to_owned()).collect();
    let wish =
        Wish { caller, caller_tags: &tags, verb, template: Some(&name), owner, repository: None, pool: None };
    grants.decide(&wish).map(|(number, _)| number)
}

#[test]
fn one_grant_must_cover_all_of_a_request() {
    let grants = Grants::parse(FILE).unwrap();
    let desk = |verb, name, owner| ask(&grants, "help-desk", &[], verb, name, owner);
    assert_eq!(desk(Verb::Install, "debian-13-xfce", Owner::Nobody), Ok(1));
    assert_eq!(desk(Verb::Upgrade, "fedora-42-minimal", Owner::Caller), Ok(1));
    let lacks = |line, what| Err(Refusal::Lacks { grant: 1, line, what });
    assert_eq!(desk(Verb::Remove, "debian-13-xfce", Owner::Caller), lacks(5, Missing::Verb));
    assert_eq!(desk(Verb::Install, "debian-13-xfce-2", Owner::Nobody), lacks(6, Missing::Template));
    assert_eq!(desk(Verb::Upgrade, "debian-13-xfce", Owner::Other), lacks(4, Missing::Owner));
    assert_eq!(desk(Verb::Upgrade, "debian-13-xfce", Owner::Unowned), lacks(4, Missing::Owner));
    assert_eq!(ask(&grants, "other", &[], Verb::List, "a", Owner::Caller), Err(Refusal::Caller));
    assert_eq!(ask(&grants, "x", &["auditor"], Verb::Info, "whonix", Owner::Unowned), Ok(2));
}

#[test]
fn repositories_and_pools_must_be_named() {
    let grants = Grants::parse(FILE).unwrap();
    let name = TemplateName::new("debian-13-xfce").unwrap();
    let testing = RepoId::new("qubes-templates-itl-testing").unwrap();
    let mut wish = Wish {
        caller: "help-desk",
        caller_tags: &[],
        verb: Verb::Install,
        template: Some(&name),
        owner: Owner::Nobody,
        repository: Some(&testing),
        pool: None,
    };
    assert_eq!(
        grants.decide(&wish).unwrap_err(),
        Refusal::Lacks { grant: 1, line: 7, what: Missing::Repository }
    );
    wish.repository = None;
    wish.pool = Some("vault");
    assert_eq!(grants.decide(&wish).unwrap_err(), Refusal::Lacks { grant: 1, line: 4, what: Missing::Pool });
}

#[test]
fn a_file_with_one_fault_grants_nothing() {
    for (from, to) in [
        ("version = 1", "version = 2"),
        ("\"install\"", "\"instal\""),
        ("max-templates", "max-template"),
        ("help-desk", "help desk"),
        ("fedora-4?-*", "fedora-[4]"),
        ("10 GiB", "10 GB"),
        ("10 GiB", "0"),
        ("qubes-templates-itl", "-x"),
    ] {
        assert!(Grants::parse(&FILE.replacen(from, to, 1)).is_err(), "{to}");
    }
    assert!(Grants::parse("version = 1").unwrap().all().is_empty());
}

#[test]
fn globs_are_stars_and_question_marks() {
    for (glob, name, expected) in [
        ("*", "a", true),
        ("a*c", "abbc", true),
        ("a*c", "abb", false),
        ("a*b*c", "axbxbxc", true),
        ("?", "", false),
        ("a?", "ab", true),
        ("a", "ab", false),
        ("a**", "a", true),
    ] {
        assert_eq!(matches(glob, name), expected, "{glob} {name}");
    }
}
