//! Damaged layers of every form: an error or another tree, never a panic and never a name outside.

use std::process::Command;

use qvm_template::fuzzing;

use super::command::make;
use super::listing::Dice;

/// What makes a file, and the reader for it.
type Form = (&'static str, fn(&[u8]));

#[test]
fn readers_of_layers_survive_whatever_is_changed() {
    let place = tempfile::tempdir().unwrap();
    make(
        place.path(),
        "mkdir -p t/usr/bin t/etc; echo x > t/usr/bin/x; ln t/usr/bin/x t/usr/bin/y; ln -s usr/bin t/bin; : > t/etc/.wh.gone; \
         head -c 9000 /dev/zero > t/etc/z; mkdir -p d/DEBIAN; echo x > d/x; mkdir -p r/usr/d; printf hello > r/usr/b; : > r/usr/a; ln -s a r/usr/l; \
         printf 'Package: a\\nVersion: 1\\nArchitecture: all\\nMaintainer: x\\nDescription: x\\n' > d/DEBIAN/control",
    );
    let forms: [Form; 7] = [
        ("(printf 1; tar --format=posix -cC t .) > out", fuzzing::build_tar),
        ("(printf 0; tar --format=gnu -cC t . | gzip) > out", fuzzing::build_tar),
        ("tar -cC t . > out", fuzzing::build_oci),
        ("rm -f out; mksquashfs t out -quiet -no-progress", fuzzing::build_squashfs),
        (
            "rm -f out; mke2fs -q -t ext4 -b 1024 -O ^metadata_csum,^has_journal,^resize_inode -d t out 128k",
            fuzzing::build_image,
        ),
        ("dpkg-deb --root-owner-group -b d out", fuzzing::build_deb),
        (
            "(printf '\\0'; (cd r; printf '%s\\n' usr/a usr/b usr/l usr/d | cpio -o --quiet -H newc) | gzip) > out",
            fuzzing::build_rpm,
        ),
    ];
    let mut dice = Dice(5);
    for (script, reader) in forms {
        let made = Command::new("sh").args(["-ec", script]).current_dir(place.path()).output().unwrap();
        if !made.status.success() {
            eprintln!("SKIPPED: this part of the test needs `{script}`: {made:?}");
            continue;
        }
        let whole = std::fs::read(place.path().join("out")).unwrap();
        reader(&whole);
        for round in 0..60 {
            let mut bytes = whole.clone();
            for _ in 0..=round % 4 {
                let at = usize::try_from(dice.roll(bytes.len() as u64)).unwrap();
                bytes[at] = bytes[at].wrapping_add(u8::try_from(1 + dice.roll(255)).unwrap());
            }
            if round % 5 == 0 {
                bytes.truncate(usize::try_from(dice.roll(bytes.len() as u64)).unwrap());
            }
            reader(&bytes);
        }
    }
}
