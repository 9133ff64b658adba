//! Searches: what dnf would print, from every kind of repository.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::nginx::Nginx;
use super::{Spec, UpdateVm, createrepo, peer, programs, repo, rpmbuild, small_repository};

/// What dnf prints for a spec, in the words of the stock service.
fn dnf(folder: &Path, repos: &str, spec: &str) -> Result<String> {
    let program = peer("dnf", "dnf");
    let at = folder.join("dnf");
    fs::create_dir_all(&at)?;
    fs::write(at.join("template.repo"), repos)?;
    let format = "--qf=%{name}|%{epoch}|%{version}|%{release}|%{reponame}|%{downloadsize}|%{buildtime}|%{license}|%{url}|%{summary}|%{description}|";
    let set = |key: &str, value: &str| format!("--setopt={key}={value}");
    let shown = at.display().to_string();
    programs::success(
        &at,
        &program,
        [
            "-y",
            "--quiet",
            "--releasever=4.3",
            &set("reposdir", &shown),
            &set("cachedir", &format!("{shown}/cache")),
            &set("logdir", &shown),
            &set("persistdir", &shown),
            "repoquery",
            format,
            spec,
        ],
    )
}

#[test]
fn answers_as_dnf_does_for_the_same_repository() -> Result<()> {
    let root = programs::folder()?;
    let folder = root.path().join("r4.3/one");
    small_repository(&folder)?;
    rpmbuild(
        &folder,
        &Spec {
            name: "qubes-template-odd",
            more: "%global x 1",
            description: "Größe & <b>\n\n  two",
            ..Spec::default()
        },
    )?;
    createrepo(&folder, &["--xz"])?;
    let nginx = Nginx::start(root.path(), "")?;
    let update_vm = UpdateVm::new()?;
    let repos = repo("one", &format!("{}/r$releasever/one", nginx.url));
    let folder = repo("one", &format!("file://{}/r${{releasever}}/one/", root.path().display()));
    for spec in [
        "qubes-template-*",
        "qubes-template-demo",
        "qubes-template-demo.noarch",
        "qubes-template-demo-4.3",
        "qubes-template-demo-4.10~rc1-1",
        "qubes-template-demo-0:4.3-1",
        "qubes-template-demo-0:4.3-1.noarch",
        "qubes-template-big-1-1",
        "qubes-template-[bo]*",
        "qubes-template-none",
        "qubes-template-demo-4.*",
        "qubes-template-demo-*-1",
    ] {
        let theirs = dnf(root.path(), &repos, spec)?;
        let ours = update_vm.search(spec, &repos)?;
        assert_eq!((ours.text(), ours.rc, ours.err.as_str()), (theirs, 0, ""), "{spec}");
        assert_eq!(update_vm.search(spec, &folder)?.text(), ours.text(), "{spec}");
    }
    Ok(())
}

#[test]
fn reads_every_packing_of_the_list() -> Result<()> {
    let root = programs::folder()?;
    let update_vm = UpdateVm::new()?;
    let folder = root.path().join("gz");
    small_repository(&folder)?;
    let wanted = update_vm.search("*", &repo("r", &folder.display().to_string()))?;
    assert_eq!(wanted.names(), ["big 2 1 1 r", "demo 0 4.10~rc1 1 r", "demo 0 4.3 1 r"]);
    for (name, program, package, end) in
        [("xz", "xz", "xz-utils", "xz"), ("zstd", "zstd", "zstd", "zst"), ("plain", "", "", "")]
    {
        let other = root.path().join(name);
        fs::create_dir_all(other.join("repodata"))?;
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_file() {
                fs::copy(&path, other.join(path.file_name().context("no name")?))?;
            }
        }
        repack(&folder, &other, program, package, end)?;
        let found = update_vm.search("*", &repo("r", &other.display().to_string()))?;
        assert_eq!((found.text(), found.err), (wanted.text(), String::new()), "{name}");
    }
    Ok(())
}

#[test]
fn reads_the_repositories_of_the_builder() -> Result<()> {
    let root = programs::folder()?;
    small_repository(root.path())?;
    let update_vm = UpdateVm::new()?;
    let repos = repo("r", &root.path().display().to_string());
    let theirs = update_vm.search("*", &repos)?;
    fs::remove_dir_all(root.path().join("repodata"))?;
    programs::success(root.path(), programs::BUILD, ["repo", "."])?;
    let ours = update_vm.search("*", &format!("{repos}metadata_expire=0\n"))?;
    assert_eq!((ours.text(), ours.err.as_str()), (theirs.text(), ""));
    let whole = fs::read(super::rpm(root.path(), "qubes-template-big")?)?;
    let answer = UpdateVm::new()?.download("qubes-template-big-2:1-1", &repos)?;
    assert_eq!((answer.rc, answer.out == whole), (0, true), "{}", answer.err);
    Ok(())
}

/// Writes repodata with the list of packages packed in another way.
fn repack(from: &Path, to: &Path, program: &str, package: &str, end: &str) -> Result<()> {
    use std::io::Read as _;
    let list = fs::read_dir(from.join("repodata"))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.display().to_string().ends_with("primary.xml.gz"))
        .context("no list")?;
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(fs::File::open(list)?).read_to_end(&mut text)?;
    let plain = to.join("repodata/primary.xml");
    fs::write(&plain, text)?;
    let mut name = "primary.xml".to_owned();
    if !program.is_empty() {
        programs::success(to, &peer(program, package), ["-k", "repodata/primary.xml"])?;
        name = format!("primary.xml.{end}");
    }
    let bytes = fs::read(to.join("repodata").join(&name))?;
    fs::write(to.join("repodata/repomd.xml"), repomd(&format!("repodata/{name}"), &bytes))?;
    Ok(())
}

/// The index of a list of packages.
pub fn repomd(href: &str, list: &[u8]) -> String {
    use sha2::{Digest as _, Sha256};
    let sum: String = Sha256::digest(list).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "<repomd xmlns=\"http://linux.duke.edu/metadata/repo\"><data type=\"primary\"><checksum type=\"sha256\">{sum}</checksum>\
         <location href=\"{href}\"/></data></repomd>"
    )
}

#[test]
fn options_choose_repositories_in_order() -> Result<()> {
    let root = programs::folder()?;
    let folder = root.path().join("r");
    small_repository(&folder)?;
    let url = folder.display().to_string();
    let repos =
        format!("{}{}enabled=0\n{}enabled=0\n", repo("a", &url), repo("a-testing", &url), repo("b", &url));
    let update_vm = UpdateVm::new()?;
    let chosen = |options: &str| -> Result<(Vec<String>, i32, String)> {
        let answer = update_vm
            .call("qubes.TemplateSearch", &format!("{options}qubes-template-demo-4.3\n---\n{repos}"))?;
        let mut repos: Vec<String> =
            answer.names().iter().map(|name| name.rsplit(' ').next().unwrap_or("").to_owned()).collect();
        repos.sort();
        Ok((repos, answer.rc, answer.err))
    };
    for (options, wanted) in [
        ("", &["a"][..]),
        ("--enablerepo=*testing\n", &["a", "a-testing"]),
        ("--disablerepo=*\n--enablerepo=b\n", &["b"]),
        ("--enablerepo=b\n--disablerepo=*\n", &[]),
        ("--repoid=b,a-testing\n", &["a-testing", "b"]),
    ] {
        assert_eq!(
            chosen(options)?,
            (wanted.iter().map(|id| (*id).to_owned()).collect(), 0, String::new()),
            "{options:?}"
        );
    }
    assert_eq!(chosen("--enablerepo=none\n")?, (vec![], 1, "Error: Unknown repo: 'none'\n".into()));
    assert_eq!(chosen("--repoid=a\n--disablerepo=b\n")?.1, 1);
    Ok(())
}

#[test]
fn packages_can_be_left_out() -> Result<()> {
    let root = programs::folder()?;
    small_repository(root.path())?;
    let update_vm = UpdateVm::new()?;
    for (more, wanted) in [
        ("excludepkgs=qubes-template-demo-4.3*\n", "big demo"),
        ("exclude=qubes-template-d*, x\n", "big"),
        ("includepkgs=qubes-template-demo\n", "demo demo"),
        ("includepkgs=qubes-template-demo\nexcludepkgs=*rc1*\n", "demo demo"),
        ("includepkgs=none\n", ""),
    ] {
        let found =
            update_vm.search("*", &format!("{}{more}", repo("r", &root.path().display().to_string())))?;
        let names: Vec<String> =
            found.names().iter().map(|name| name.split(' ').next().unwrap_or("").to_owned()).collect();
        assert_eq!(names.join(" "), wanted, "{more}");
    }
    Ok(())
}

#[test]
fn a_repository_that_fails_hides_no_other() -> Result<()> {
    let root = programs::folder()?;
    small_repository(&root.path().join("good"))?;
    let nginx = Nginx::start(root.path(), "")?;
    let update_vm = UpdateVm::new()?;
    let good = repo("good", &format!("{}/good", nginx.url));
    let broken = format!(
        "{}{}{}",
        repo("gone", &format!("{}/gone", nginx.url)),
        repo("ftp", "ftp://x/"),
        "[empty]\nname=x\n"
    );
    let answer = update_vm.search("qubes-template-big", &format!("{broken}{good}"))?;
    assert_eq!((answer.names(), answer.rc), (vec!["big 2 1 1 good".to_owned()], 0));
    let lines: Vec<&str> = answer.err.lines().collect();
    assert_eq!(
        lines,
        [
            format!("Error: repository 'gone' is left out: {}/gone: repomd.xml: HTTP status 404", nginx.url)
                .as_str(),
            "Error: repository 'ftp' is left out: reading baseurl: 'ftp://x/' is an address of an unknown kind",
            "Error: repository 'empty' is left out: neither baseurl, mirrorlist nor metalink is given",
        ]
    );
    let answer = update_vm.search("*", &broken)?;
    assert_eq!((answer.rc, answer.text().as_str()), (1, ""));
    assert!(answer.err.ends_with("Error: none of the 3 repositories could be read\n"), "{}", answer.err);
    Ok(())
}

#[test]
fn mirrors_come_from_lists_and_are_tried_in_order() -> Result<()> {
    let root = programs::folder()?;
    small_repository(&root.path().join("good"))?;
    let nginx = Nginx::start(root.path(), "")?;
    let update_vm = UpdateVm::new()?;
    let url = &nginx.url;
    fs::write(root.path().join("list"), format!("# mirrors\n{url}/gone/\n{url}/good/\n"))?;
    let answer = update_vm.search("qubes-template-big", &format!("[m]\nmirrorlist={url}/list\n"))?;
    assert_eq!((answer.names(), answer.err.as_str()), (vec!["big 2 1 1 m".to_owned()], ""));

    // The first mirror of the metalink has an index that is none of those the metalink vouches for.
    let index = fs::read(root.path().join("good/repodata/repomd.xml"))?;
    fs::create_dir_all(root.path().join("stale/repodata"))?;
    fs::write(root.path().join("stale/repodata/repomd.xml"), [index.as_slice(), b"\n"].concat())?;
    let sum = {
        use sha2::{Digest as _, Sha256};
        Sha256::digest(&index).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let metalink = |sum: &str| {
        format!(
            "<?xml version=\"1.0\"?><metalink><files><file name=\"repomd.xml\"><verification><hash type=\"sha256\">{sum}</hash></verification>\
             <resources><url preference=\"100\">{url}/stale/repodata/repomd.xml</url><url preference=\"50\">{url}/good/repodata/repomd.xml</url>\
             </resources></file></files></metalink>"
        )
    };
    fs::write(root.path().join("metalink"), metalink(&sum))?;
    let answer = update_vm.search("qubes-template-big", &format!("[l]\nmetalink={url}/metalink?repo=x\n"))?;
    assert_eq!((answer.names(), answer.err.as_str()), (vec!["big 2 1 1 l".to_owned()], ""));
    fs::write(root.path().join("metalink"), metalink(&"0".repeat(64)))?;
    let answer = update_vm.search("*", &format!("[n]\nmetalink={url}/metalink?other\n"))?;
    assert_eq!(answer.rc, 1);
    assert!(answer.err.contains("the checksum is not one that the metalink names"), "{}", answer.err);
    Ok(())
}

#[test]
fn metadata_is_kept_as_long_as_the_repository_allows() -> Result<()> {
    let root = programs::folder()?;
    let folder = root.path().join("r");
    small_repository(&folder)?;
    let nginx = Nginx::start(root.path(), "")?;
    let update_vm = UpdateVm::new()?;
    let repos = repo("r", &format!("{}/r", nginx.url));
    let requests = |more: &str, refresh: &str| -> Result<Vec<String>> {
        let before = nginx.log()?.len();
        let answer = update_vm
            .call("qubes.TemplateSearch", &format!("{refresh}qubes-template-big\n---\n{repos}{more}"))?;
        assert_eq!((answer.names(), answer.err.as_str()), (vec!["big 2 1 1 r".to_owned()], ""));
        Ok(nginx
            .log()?
            .split_off(before)
            .iter()
            .map(|line| line.split('/').next_back().unwrap_or("").to_owned() + line)
            .collect())
    };
    assert_eq!(requests("", "")?.len(), 2);
    assert_eq!(requests("", "")?.len(), 0);
    // Asked again, the index names the list that is there already.
    assert_eq!(requests("", "--refresh\n")?.len(), 1);
    assert_eq!(requests("metadata_expire=0\n", "")?.len(), 1);
    for damage in [b"damage".as_slice(), b""] {
        for entry in fs::read_dir(update_vm.home.path().join("qubes-template-service"))? {
            fs::write(entry?.path().join("primary"), damage)?;
        }
        assert_eq!(requests("", "")?.len(), 2);
    }
    // A package that came later than what is kept can be fetched all the same.
    let later = rpmbuild(&folder, &Spec { name: "qubes-template-later", ..Spec::default() })?;
    createrepo(&folder, &[])?;
    assert!(update_vm.search("qubes-template-later", &repos)?.names().is_empty());
    let answer = update_vm.download("qubes-template-later", &repos)?;
    assert_eq!((answer.rc, answer.out == fs::read(later)?), (0, true), "{}", answer.err);
    Ok(())
}

/// Two thousand templates among ten times as many packages.
#[test]
fn a_large_repository_is_listed_quickly() -> Result<()> {
    let root = programs::folder()?;
    let element = |name: &str| {
        format!(
            "<package type=\"rpm\"><name>{name}</name><arch>noarch</arch><version epoch=\"0\" ver=\"1\" rel=\"1\"/><checksum type=\"sha256\" \
             pkgid=\"YES\">{}</checksum><summary>S</summary><description>D</description><packager></packager><url></url><time file=\"1\" build=\"1700000000\"/>\
             <size package=\"9\" installed=\"0\" archive=\"0\"/><location href=\"{name}.rpm\"/><format><rpm:license>GPL</rpm:license><rpm:provides>{}\
             </rpm:provides></format></package>\n",
            "0".repeat(64),
            "<rpm:entry name=\"something\" flags=\"EQ\" epoch=\"0\" ver=\"1\" rel=\"1\"/>".repeat(20)
        )
    };
    let templates = (0..2_000).map(|n| element(&format!("qubes-template-t{n:04}")));
    let others = (0..18_000).map(|n| element(&format!("other{n}")));
    let list: String = templates.chain(others).collect();
    let list = format!("<metadata xmlns=\"c\" xmlns:rpm=\"r\" packages=\"20000\">{list}</metadata>");
    fs::create_dir_all(root.path().join("repodata"))?;
    let packed = zstd::encode_all(list.as_bytes(), 3)?;
    fs::write(root.path().join("repodata/p.zst"), &packed)?;
    fs::write(root.path().join("repodata/repomd.xml"), repomd("repodata/p.zst", &packed))?;
    let begun = Instant::now();
    let answer = UpdateVm::new()?.search("*", &repo("r", &root.path().display().to_string()))?;
    let took = begun.elapsed();
    assert_eq!((answer.names().len(), answer.err.as_str()), (2_000, ""));
    assert!(took.as_secs() < 20, "{} MB of metadata took {took:?}", list.len() / 1_000_000);
    Ok(())
}
