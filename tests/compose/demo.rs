//! The demonstration in the README, word for word.

use std::path::Path;
use std::process::Command;

use super::acceptance::debian;
use super::command::make;
use super::run;

const README: &str = include_str!("../../README.md");
const SMALL: &str = "mkdir -p t/usr/bin t/etc; ln -s usr/bin t/bin; echo root:x:0:0::/: > t/etc/passwd; \
    head -c 3000000 /dev/urandom > t/usr/bin/tool; tar --numeric-owner -cf debian.tar -C t .; rm -r t";

#[test]
fn the_demonstration_of_the_readme_installs_what_was_composed() {
    let after = README.split("### From a Debian tree").nth(1).unwrap();
    let block = after.split("```sh\n").nth(1).unwrap().split("```").next().unwrap();
    let (first, script) = block.split_once('\n').unwrap();
    assert!(first.starts_with("mmdebstrap ") && first.ends_with(" debian.tar"), "{first}");
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    match debian() {
        Some(tar) => drop(std::fs::copy(tar, place.path().join("debian.tar")).unwrap()),
        None => make(place.path(), SMALL),
    }
    let programs = Path::new(env!("CARGO_BIN_EXE_qubes-template-build")).parent().unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let said = run(Command::new("sh").args(["-euc", script]).env("PATH", path).current_dir(place.path()));
    let built = said.lines().find_map(|line| line.strip_suffix("  root.img")).unwrap();
    let volume = said.lines().find(|line| line.contains("volume root: ")).unwrap();
    assert!(volume.ends_with(built), "{said}");
    assert!(said.contains(&format!("equal: {built}")), "{said}");
}
