//! `build`, `build --check`, `verify-build`: what a package says it is made of, and making it again.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use super::command::{fails, make, program};
use super::run;

const RECIPE: &str = "name = 'example'\nsource_date = 1650000000\n[image]\nsize = '300M'\n[payload]\nlevel = 1\n\
    [[layers]]\nkind = 'dir'\npath = 'root'\nwhiteouts = 'none'\nowner = '0:0'\n\
    [[edits]]\nwrite = '/etc/motd'\nsource = 'motd'\n";

/// A folder with a recipe, what it names and a key.
fn inputs(recipe: &str) -> tempfile::TempDir {
    let place = tempfile::tempdir().unwrap();
    make(
        place.path(),
        "mkdir -p root/etc/many; for n in 1 2 3 10 B a; do echo $n > root/etc/many/$n; done; echo hello > motd",
    );
    std::fs::write(place.path().join("recipe.toml"), recipe).unwrap();
    run(program()
        .args(["keygen", "--seed", "x", "--algorithm", "ed25519", "--secret", "key", "--public", "public"])
        .current_dir(place.path()));
    place
}

fn found(folder: &Path, end: &str) -> PathBuf {
    let mut files = std::fs::read_dir(folder.join("rpm")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.to_string_lossy().ends_with(end)).unwrap()
}

/// Calls `verify-build` in `folder`; what it printed.
fn verify(folder: &Path, arguments: &[&str], status: i32) -> String {
    let output = program().arg("verify-build").args(arguments).current_dir(folder).output().unwrap();
    assert_eq!(output.status.code(), Some(status), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_package_says_what_it_is_made_of_and_can_be_made_again() {
    let place = inputs(RECIPE);
    let at = place.path();
    for (out, key) in [("plain", &[][..]), ("signed", &["--key", "key"])] {
        run(program().args(["build", "recipe.toml", "-o", out]).args(key).current_dir(at));
        let (package, manifest) = (found(&at.join(out), ".rpm"), found(&at.join(out), ".manifest.json"));
        let (package, manifest) = (package.to_str().unwrap(), manifest.to_str().unwrap());

        // a folder is named by the archive that anybody can make of it
        run(program()
            .args(["compose", "--layer", "dir,owner=0:0:root", "--format", "tar", "-o", "root.tar"])
            .env("SOURCE_DATE_EPOCH", "1650000000")
            .current_dir(at));
        let digest = qvm_template::build::layer::sha256(&at.join("root.tar")).unwrap();
        let inside = run(program().args(["inspect", "--json", package]));
        let inside: serde_json::Value = serde_json::from_str(&inside).unwrap();
        let inside = &inside["manifest"];
        assert_eq!(inside["layers"][0]["digest"], format!("sha256:{digest}"));
        assert_eq!(inside["files"][0]["file"], "motd");
        assert!(
            inside["recipe"].is_null()
                && inside["recipe_sha256"].is_string()
                && inside["outputs"] == serde_json::json!([])
        );
        let beside: serde_json::Value = serde_json::from_slice(&std::fs::read(manifest).unwrap()).unwrap();
        assert_eq!(beside["recipe"], RECIPE);
        assert_eq!(beside["signer"].is_string(), out == "signed");

        // the manifest needs nothing but the inputs, the package the recipe too
        let elsewhere = tempfile::tempdir().unwrap();
        let inputs = ["--inputs", at.to_str().unwrap()];
        assert!(verify(elsewhere.path(), &[&[manifest], &inputs[..]].concat(), 0).starts_with("equal: "));
        assert!(verify(at, &[package, "recipe.toml"], 0).starts_with("equal: "));
        let said = fails(program().args(["verify-build", package]).current_dir(at));
        assert!(said.contains("does not have the recipe") && said.contains("help:"), "{said}");
        let said = verify(at, &[package, "recipe.toml"], 0);
        assert_eq!(said.contains("not compared: the package, which is signed"), out == "signed", "{said}");
        if out == "signed" {
            let said = verify(at, &[package, "recipe.toml", "--key", "key"], 0);
            assert!(!said.contains("not compared"), "{said}");
        }
    }
    // what is not equal is named: the input, and the path in the image
    std::fs::write(at.join("root/etc/many/10"), "else").unwrap();
    std::fs::write(at.join("motd"), "bye").unwrap();
    for out in ["plain", "signed"] {
        let package = found(&at.join(out), ".rpm");
        let said = verify(at, &[package.to_str().unwrap(), "recipe.toml"], 1);
        for wanted in ["layer root: dir sha256:", "file motd: ", "image: ", "/etc/many/10 ", "/etc/motd "] {
            assert!(said.lines().any(|line| line.starts_with(wanted)), "{wanted}: {said}");
        }
    }
    // leftovers of a build would be in the way of the next one
    let names: Vec<_> = std::fs::read_dir(at).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.len() == 8, "{names:?}");
}

#[test]
fn a_build_that_is_not_the_same_twice_is_found_out() {
    let place = inputs(RECIPE);
    let at = place.path();
    let check = |words: &[&str]| {
        let output = program()
            .args(["build", "--check", "recipe.toml", "-o", "out"])
            .args(words)
            .current_dir(at)
            .output()
            .unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        )
    };
    let (status, said, talk) = check(&["--key", "key"]);
    assert_eq!(status, Some(0), "{talk}");
    assert!(said.lines().count() >= 7 && said.lines().all(|line| line.starts_with("equal: ")), "{said}");
    assert!(said.contains("repomd.xml.asc") && talk.contains("directories turned around"), "{said}{talk}");
    assert_eq!(std::fs::read_dir(at.join("out")).unwrap().count(), 0);

    // something in the input that is another thing every moment
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0_u64.. {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let link = at.join("root/now");
                std::os::unix::fs::symlink(number.to_string(), at.join("new")).unwrap();
                std::fs::rename(at.join("new"), link).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
        });
        while !at.join("root/now").is_symlink() {
            std::thread::yield_now();
        }
        let (status, said, talk) = check(&[]);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(status, Some(1), "{said}{talk}");
        assert!(said.contains("/now target: "), "{said}");
        assert!(talk.contains("two builds differ in") && talk.contains(".rpm"), "{talk}");
    });
    let wrong = run(Command::new("find").arg(at.join("out")).args(["-mindepth", "1"]));
    assert_eq!(wrong, "", "something was left");
}
