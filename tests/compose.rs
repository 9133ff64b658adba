//! Composing images: what is written is what other programs read.

mod acceptance;
mod archives;
mod building;
mod command;
mod damage;
mod debian;
mod demo;
mod file_system;
mod layers;
mod listing;
mod packages;

use std::path::Path;
use std::process::Command;

use qvm_template::build::disk::{self, Disk, EfiFile};
use qvm_template::build::image::Image;

/// Whether `program` can be started; when not, says loudly which Debian package the test needs.
fn have(program: &str, package: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        eprintln!("SKIPPED: this part of the test needs `{program}` from the Debian package {package}");
    }
    found
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {text}", output.status);
    text
}

fn write_disk(path: &Path, size: u64, efi_files: Vec<EfiFile>) {
    let mut image = Image::create(path).unwrap();
    image.set_size(size).unwrap();
    disk::write(&mut image, &Disk { size, serial: 0x1234_5678, time: 1_700_000_000, efi_files }).unwrap();
    image.commit().unwrap();
}

#[test]
fn the_partition_table_is_the_one_that_sfdisk_writes() {
    if !have("sfdisk", "fdisk") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    for size in [10_u64 << 30, 300 << 20, 3 << 30] {
        let ours = place.path().join("ours.img");
        let theirs = place.path().join("theirs.img");
        write_disk(&ours, size, Vec::new());
        std::fs::File::create(&theirs).unwrap().set_len(size).unwrap();
        let description = "label: gpt\nlabel-id: f4796a2a-e377-45bd-b539-d6d49e569055\n\
            start=2048,size=409600,type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B,\
            uuid=fa4d6529-56da-47c7-ae88-e2dfecb72621,name=\"EFI System\"\n\
            start=411648,size=4096,type=21686148-6449-6E6F-744E-656564454649,\
            uuid=1e6c9db4-1e91-46c4-846a-2030dcb13b8c,name=\"BIOS boot partition\"\n\
            start=415744,type=0FC63DAF-8483-4772-8E79-3D69D8477DE4,\
            uuid=693244e6-3e07-47bf-ad79-acade4293fe7,name=\"Root filesystem\"\n";
        let script = place.path().join("script");
        std::fs::write(&script, description).unwrap();
        run(Command::new("sfdisk").arg("-q").arg(&theirs).stdin(std::fs::File::open(&script).unwrap()));
        for offset in [0, size - (1 << 20)] {
            assert!(
                bytes(&ours, offset, 1 << 20) == bytes(&theirs, offset, 1 << 20),
                "{size} bytes, at {offset}"
            );
        }
        assert!(run(Command::new("sfdisk").arg("-V").arg(&ours)).contains("No errors detected"));
    }
}

#[test]
fn the_efi_partition_passes_fsck_and_holds_its_files() {
    if !have("fsck.vfat", "dosfstools") {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let disk = place.path().join("disk.img");
    let large: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let files = [
        ("EFI/BOOT/BOOTX64.EFI", large.clone()),
        ("EFI/qubes/grub.cfg", b"set timeout=0\n".to_vec()),
        ("EFI/qubes/a rather long name.configuration", Vec::new()),
        ("loader/entries/\u{fc}ber.conf", vec![1; 16384]),
    ];
    let files = files.map(|(path, content)| EfiFile { path: path.to_owned(), content });
    write_disk(&disk, disk::SMALLEST, files.to_vec());
    let efi = place.path().join("efi.img");
    std::fs::write(&efi, bytes(&disk, 1 << 20, 200 << 20)).unwrap();
    let said = run(Command::new("fsck.vfat").args(["-n", "-v"]).arg(&efi));
    assert!(said.contains("4 files") || said.contains("/12794 clusters"), "{said}");
    assert!(!said.to_lowercase().contains("differ"), "{said}");
    if have("7z", "p7zip-full") {
        for file in &files {
            let output =
                Command::new("7z").args(["x", "-so", "-tfat"]).arg(&efi).arg(&file.path).output().unwrap();
            assert!(output.stdout == file.content, "{}", file.path);
        }
    }
}

fn bytes(path: &Path, offset: u64, count: usize) -> Vec<u8> {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; count];
    std::fs::File::open(path).unwrap().read_exact_at(&mut bytes, offset).unwrap();
    bytes
}
