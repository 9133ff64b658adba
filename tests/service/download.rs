//! Downloads: one package, whole, of one file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use super::nginx::Nginx;
use super::{UpdateVm, programs, repo, rpm, small_repository};
use crate::support::web::{Fault, Files, Kind, Web};

/// All files below a folder, by their path.
pub fn files(folder: &Path) -> Result<Arc<Files>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(&next)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(format!("/{}", path.strip_prefix(folder)?.display()), fs::read(&path)?);
            }
        }
    }
    Ok(Arc::new(found))
}

/// What goes wrong with packages.
pub fn fault(kind: Kind, times: Option<u64>) -> Fault {
    Fault { path: "*.rpm".into(), kind, times }
}

#[test]
fn sends_the_one_package_that_is_meant() -> Result<()> {
    let root = programs::folder()?;
    let folder = root.path().join("r");
    small_repository(&folder)?;
    let nginx = Nginx::start(root.path(), "")?;
    let update_vm = UpdateVm::new()?;
    for base in [format!("{}/r/", nginx.url), format!("file://{}", folder.display())] {
        let repos = repo("r", &base);
        for (spec, begin) in [
            ("qubes-template-demo", "qubes-template-demo-4.10~rc1"),
            ("qubes-template-demo-0:4.3-1", "qubes-template-demo-4.3"),
            ("qubes-template-demo-4.3", "qubes-template-demo-4.3"),
            ("qubes-template-big-2:1-1", "qubes-template-big"),
            ("qubes-template-b*", "qubes-template-big"),
        ] {
            let answer = update_vm.download(spec, &repos)?;
            assert_eq!((answer.rc, answer.err.as_str()), (0, ""), "{spec}");
            assert!(answer.out == fs::read(rpm(&folder, begin)?)?, "{spec}");
        }
        for (spec, why) in [
            ("qubes-template-none", "Error: No package qubes-template-none available\n"),
            ("qubes-template-demo-1:4.3-1", "Error: No package qubes-template-demo-1:4.3-1 available\n"),
            ("ordinary", "Error: No package ordinary available\n"),
            ("--help", "Error: No package --help available\n"),
            ("*", "Error: '*' means several packages: big, demo\n"),
        ] {
            let answer = update_vm.download(spec, &repos)?;
            assert_eq!((answer.rc, answer.out.len(), answer.err.as_str()), (1, 0, why), "{spec}");
        }
    }
    Ok(())
}

#[test]
fn goes_to_the_next_mirror_and_never_splices_two_files() -> Result<()> {
    let root = programs::folder()?;
    let folder = root.path().join("r");
    small_repository(&folder)?;
    let package = rpm(&folder, "qubes-template-big")?;
    let whole = fs::read(&package)?;
    let good = Nginx::start(&folder, "")?;
    let first = |kind: Kind, times| Web::start(files(&folder)?, vec![fault(kind, times)], false);
    let fetch = |first: &Web, second: &str| {
        UpdateVm::new()?.download("qubes-template-big", &repo("r", &format!("{} {second}", first.url)))
    };

    let gone = first(Kind::Status { code: 404 }, None)?;
    let answer = fetch(&gone, &good.url)?;
    assert_eq!((answer.rc, answer.out == whole, gone.log().len()), (0, true, 3), "{}", answer.err);
    assert!(answer.err.ends_with("HTTP status 404\n"), "{}", answer.err);

    // Broken off once, the first mirror is asked for the rest; broken off for good, the second one begins again, and
    // what has left already has to be the beginning of its file.
    let cut = first(Kind::Cut { at: 2_500_000 }, Some(1))?;
    let answer = fetch(&cut, &good.url)?;
    assert_eq!((answer.rc, answer.out == whole), (0, true), "{}", answer.err);
    assert!(
        cut.log().last().is_some_and(|line| line.ends_with("range=bytes=2500000- fault=-")),
        "{:?}",
        cut.log()
    );
    let cut = first(Kind::Cut { at: 2_500_000 }, None)?;
    let answer = fetch(&cut, &good.url)?;
    assert_eq!((answer.rc, answer.out == whole), (0, true), "{}", answer.err);
    assert!(good.log()?.iter().any(|line| line.contains("big")), "the second mirror was not asked");

    // A second mirror with another file of the same size: nothing of it leaves.
    let other = programs::folder()?;
    let mut altered = whole.clone();
    altered[1000] ^= 1;
    fs::write(other.path().join(package.file_name().unwrap_or_default()), &altered)?;
    let bad = Nginx::start(other.path(), "")?;
    let answer = fetch(&cut, &bad.url)?;
    assert_eq!(answer.rc, 1);
    assert!(answer.out.len() < 2_500_000 && whole.starts_with(&answer.out), "{} bytes", answer.out.len());
    assert!(answer.err.contains("the file begins in another way than the one begun with"), "{}", answer.err);
    Ok(())
}

#[test]
fn a_package_with_another_checksum_never_leaves_whole() -> Result<()> {
    let root = programs::folder()?;
    let folder = root.path().join("r");
    small_repository(&folder)?;
    let update_vm = UpdateVm::new()?;
    for (begin, at) in
        [("qubes-template-big", 5_usize), ("qubes-template-big", 3_000_000), ("qubes-template-demo-4.3", 200)]
    {
        let path = rpm(&folder, begin)?;
        let good = fs::read(&path)?;
        let mut altered = good.clone();
        altered[at] ^= 1;
        fs::write(&path, &altered)?;
        let spec = if begin.ends_with("big") { begin } else { "qubes-template-demo-4.3" };
        let answer = update_vm.download(spec, &repo("r", &folder.display().to_string()))?;
        assert_eq!(answer.rc, 1, "{}", answer.err);
        assert!(
            answer.out.len() + (1 << 20) <= good.len() || answer.out.is_empty(),
            "{} of {} bytes left",
            answer.out.len(),
            good.len()
        );
        assert!(
            answer.err.contains("the checksum is not the one that the repository names"),
            "{}",
            answer.err
        );
        fs::write(&path, &good)?;
        // Where nothing has left yet, another mirror still helps.
        if good.len() <= 1 << 20 {
            let bad = Web::start(files(&folder)?, vec![fault(Kind::Corrupt { at }, None)], false)?;
            let clean = Nginx::start(&folder, "")?;
            let answer =
                UpdateVm::new()?.download(spec, &repo("r", &format!("{} {}", bad.url, clean.url)))?;
            assert_eq!((answer.rc, answer.out == good), (0, true), "{}", answer.err);
            assert!(bad.log().last().is_some_and(|line| line.ends_with("fault=corrupt")), "{:?}", bad.log());
        }
    }
    Ok(())
}

#[test]
fn a_server_without_ranges_is_asked_for_everything_again() -> Result<()> {
    let root = programs::folder()?;
    small_repository(root.path())?;
    let whole = fs::read(rpm(root.path(), "qubes-template-big")?)?;
    for kind in [Kind::IgnoreRange, Kind::Range416] {
        let web = Web::start(
            files(root.path())?,
            vec![fault(Kind::Cut { at: 2_900_000 }, Some(1)), fault(kind, None)],
            false,
        )?;
        let answer = UpdateVm::new()?.download("qubes-template-big", &repo("r", &web.url))?;
        assert_eq!((answer.rc, answer.out == whole), (0, true), "{}", answer.err);
    }
    Ok(())
}
