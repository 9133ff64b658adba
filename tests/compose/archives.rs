//! Directories and archives as layers: against the kernel's overlay, and GNU tar in every format.

use std::collections::BTreeMap;
use std::process::Command;

use qvm_template::build::layer::input::Spool;
use qvm_template::build::layer::{self, Form, Layer, Whiteouts};
use qvm_template::build::tree::Tree;

use super::layers::{read, without_times};
use super::listing::{Dice, lines, mounted_lines};
use super::{have, run};

#[test]
fn case_004_a_an_upper_directory_gives_what_the_kernels_overlay_shows() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    for name in ["lower", "upper", "work", "merged"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    let script = |at: &str, text: &str| {
        run(Command::new("sh").args(["-ec", text]).current_dir(path(at)));
    };
    script(
        "lower",
        "mkdir -p a/b/c d e f/g; echo 1 > a/1; echo 2 > a/b/2; echo 3 > a/b/c/3; echo d > d/file; echo e > e/file; \
         echo g > f/g/file; ln a/1 a/link; ln -s a sym; echo x > top; mkfifo pipe; chmod 4755 top",
    );
    let options = format!(
        "lowerdir={},upperdir={},workdir={}",
        path("lower").display(),
        path("upper").display(),
        path("work").display()
    );
    let mount =
        Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(path("merged")).output();
    if !mount.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: this test mounts an overlay, which this machine does not allow: {mount:?}");
        return;
    }
    let expected = std::panic::catch_unwind(|| {
        script(
            "merged",
            "rm a/b/2; rm -r d; mkdir d; echo new > d/new; rm top; mkdir top; echo in > top/in; rm sym; echo f > sym; \
             chmod 700 e; echo more >> a/1; rm pipe; mv f moved || true; rm -r a/b/c; touch a/b/c; ln a/1 a/second",
        );
        mounted_lines(&path("merged"))
    });
    run(Command::new("umount").arg(path("merged")));
    let mut tree = Tree::new();
    let mut spool = Spool::new(place.path(), 1 << 20).unwrap();
    layer::put(&Layer::new(Form::Dir, path("lower")), &mut tree, &mut spool, 1).unwrap();
    let upper = Layer { whiteouts: Whiteouts::Overlayfs, ..Layer::new(Form::Dir, path("upper")) };
    layer::put(&upper, &mut tree, &mut spool, 1).unwrap();
    // the kernel's files are younger than the images of these tests may be, and a hard link that was broken up stays so
    let plain = |found: &BTreeMap<String, String>| -> BTreeMap<String, String> {
        let cut = |line: &str| line.split(" = ").next().unwrap_or_default().to_owned();
        without_times(found).into_iter().map(|(path, line)| (path, cut(&line))).collect()
    };
    assert_eq!(plain(&lines(&tree)), plain(&expected.unwrap()));
}

#[test]
fn archives_of_every_kind_give_one_tree() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let script = "mkdir -p a/b; echo x > a/file; ln a/file a/hard; ln -s ../file a/sym; mkfifo pipe; mknod null c 1 3 || true; \
        long=$(printf 'n%.0s' $(seq 200)); mkdir $long; echo y > $long/$long; ln -s $long $long/link; \
        truncate -s 5M holes; printf data | dd of=holes bs=1 seek=3000000 conv=notrunc status=none; \
        printf 'data' > \"$(printf 'caf\\303\\251 \\377')\"; chmod 6755 a/file; touch -d @1234567890 a/file; \
        setfattr -n user.note -v value a/file 2>/dev/null || true; touch -d @-5 old; find . -depth -exec touch -h -d @1500000000 {} +";
    run(Command::new("sh").args(["-ec", script]).current_dir(&root));
    let expected = lines(&read(&Layer::new(Form::Dir, root.clone())).unwrap());
    let mut forms: Vec<(&str, Vec<&str>)> = vec![
        ("gnu", vec!["--format=gnu"]),
        ("posix", vec!["--format=posix"]),
        ("sparse", vec!["--format=gnu", "--sparse"]),
        ("sparse00", vec!["--format=posix", "--sparse", "--sparse-version=0.0"]),
        ("sparse01", vec!["--format=posix", "--sparse", "--sparse-version=0.1"]),
        ("sparse10", vec!["--format=posix", "--sparse", "--sparse-version=1.0"]),
        ("gz", vec!["--format=posix", "--gzip"]),
    ];
    if have("xz", "xz-utils") {
        forms.push(("xz", vec!["--format=posix", "--sparse", "--xz"]));
    }
    if have("zstd", "zstd") {
        forms.push(("zst", vec!["--format=gnu", "--sparse", "--zstd"]));
    }
    for (name, options) in forms {
        let file = place.path().join(name);
        let mut tar = Command::new("tar");
        tar.args(&options).args(["--numeric-owner", "--sort=name", "-cf"]).arg(&file);
        let posix = options.contains(&"--format=posix");
        if posix {
            tar.args(["--xattrs", "--xattrs-include=*"]);
        }
        run(tar.arg("-C").arg(&root).arg("."));
        let found = lines(&read(&Layer::new(Form::Tar, file.clone())).unwrap());
        for (path, line) in &expected {
            let line = if posix { line.clone() } else { line.replace(" user.note=value", "") };
            assert_eq!(found.get(path), Some(&line), "`{path}` in the archive `{name}`");
        }
        assert_eq!(found.len(), expected.len());
        // a cut or damaged archive is an error, never a panic and never half a tree
        let whole = std::fs::read(&file).unwrap();
        for cut in [1, 511, 512, 1024, whole.len() / 2] {
            let cut = cut.min(whole.len() - 1);
            std::fs::write(&file, &whole[..cut]).unwrap();
            assert!(read(&Layer::new(Form::Tar, file.clone())).is_err(), "`{name}` cut to {cut} bytes");
        }
        let mut dice = Dice(5);
        for _ in 0..60 {
            let mut damaged = whole.clone();
            for _ in 0..4 {
                let at = usize::try_from(dice.roll(damaged.len() as u64)).unwrap();
                damaged[at] = u8::try_from(dice.roll(256)).unwrap();
            }
            std::fs::write(&file, &damaged).unwrap();
            drop(read(&Layer::new(Form::Tar, file.clone())));
        }
    }
}
