//! One package for each way in which a package can be wrong, made from good ones by surgery.

use std::fs;
use std::path::Path;
use std::process::Command;

use super::surgery::{BIN, Entry, INT32, Rpm, STRING, STRING_ARRAY, digest, pipe, text};

/// Tags of signatures: over the header (RSA, others), over header and payload (RSA, others).
const RSA: u32 = 268;
const DSA: u32 = 267;
const RSA_BOTH: u32 = 1002;
const DSA_BOTH: u32 = 1005;
const SHA1: u32 = 269;
const SHA256: u32 = 273;
const SIZE: u32 = 1000;
const MD5: u32 = 1004;

/// Signs with keys of the fixtures, by gpg.
pub struct Signer<'a> {
    pub home: &'a Path,
}

impl Signer<'_> {
    pub fn sign(&self, key: &str, bytes: &[u8], options: &[&str]) -> Vec<u8> {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", "", "--homedir"]);
        gpg.arg(self.home).args([
            "--allow-weak-digest-algos",
            "--ignore-time-conflict",
            "--digest-algo",
            "SHA256",
        ]);
        gpg.args(options).arg("--local-user").arg(self.fingerprint(key));
        pipe(gpg.arg("--detach-sign"), bytes)
    }

    fn fingerprint(&self, key: &str) -> String {
        let mut gpg = Command::new("gpg");
        gpg.args(["--batch", "--with-colons", "--homedir"]).arg(self.home);
        gpg.args(["--list-keys", &format!("={key} <{key}@example.org>")]);
        let listing = String::from_utf8(pipe(&mut gpg, b"")).unwrap();
        let line = listing.lines().find(|l| l.starts_with("fpr:")).unwrap();
        line.split(':').nth(9).unwrap().to_owned()
    }

    /// `rpm` with a new signature over its header in `tag`, and right digests.
    fn resign(&self, rpm: Rpm, tag: u32, key: &str, options: &[&str]) -> Rpm {
        let mut rpm = rpm.unsigned();
        let signature = self.sign(key, &rpm.header.bytes(), options);
        rpm.signature.insert(tag, BIN, &signature);
        rpm.fix_digests()
    }
}

/// Writes every case into `folder`, from the packages in `from`.
pub fn make(from: &Path, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let read = |name: &str| Rpm::read(&from.join(format!("{name}.rpm")));
    let home = from.join("gnupg");
    let signer = Signer { home: &home };
    let put = |name: &str, rpm: &Rpm| fs::write(folder.join(format!("{name}.rpm")), rpm.bytes()).unwrap();
    for name in [
        "good-rsa",
        "good-rsa-v3",
        "good-ed",
        "good-ed-v3",
        "unsigned",
        "wrongkey",
        "sha512sig",
        "sha1sig",
        "sha224sig",
        "weakrsa1024",
        "subkey-rsa",
        "subkey-ed",
        "revoked",
        "subrevoked",
        "expired",
        "other-template",
        "ordinary",
    ] {
        fs::copy(from.join(format!("{name}.rpm")), folder.join(format!("{name}.rpm"))).unwrap();
    }
    fs::copy(
        fs::read_dir(from.join("built"))
            .unwrap()
            .map(|e| e.unwrap().path())
            .find(|p| p.to_string_lossy().contains("src.rpm"))
            .unwrap(),
        folder.join("source.rpm"),
    )
    .unwrap();
    let (rsa, rsa_both, ed_both) = (read("good-rsa"), read("good-rsa-v3"), read("good-ed-v3"));
    let header = rsa.header.bytes();
    let change = |rpm: &Rpm, how: &dyn Fn(&mut Rpm)| {
        let mut rpm = rpm.clone();
        how(&mut rpm);
        rpm
    };

    digests(&put, &rsa, &change);
    headers(&put, &rsa, &change);
    truncations(&put, &rsa, &change);

    // Signatures in odd places and numbers.
    let by = |key, options: &[&str]| signer.sign(key, &header, options);
    let (good, ed, wrong) = (by("rsa", &[]), by("ed", &[]), by("wrong", &[]));
    let mut bad = good.clone();
    *bad.last_mut().unwrap() ^= 1;
    let with = |signatures: &[(u32, &[u8])]| {
        let mut rpm = rsa.clone().unsigned();
        signatures.iter().for_each(|(tag, bytes)| rpm.signature.insert(*tag, BIN, bytes));
        rpm
    };
    put("m-ref-rsa", &with(&[(RSA, &good)]));
    put("m-ref-ed", &with(&[(DSA, &ed)]));
    put("m-both-good", &with(&[(RSA, &good), (DSA, &ed)]));
    put("m-dup-rsatag-good-first", &with(&[(RSA, &good), (RSA, &wrong)]));
    put("m-dup-rsatag-wrong-first", &with(&[(RSA, &wrong), (RSA, &good)]));
    put("m-ed-in-rsatag", &with(&[(RSA, &ed)]));
    put("m-rsa-in-dsatag", &with(&[(DSA, &good)]));
    put("m-rsa-bad+dsa-good", &with(&[(RSA, &bad), (DSA, &ed)]));
    put("m-rsa-good+dsa-wrongkey", &with(&[(RSA, &good), (DSA, &wrong)]));
    put("m-rsa-wrongkey+dsa-good", &with(&[(RSA, &wrong), (DSA, &ed)]));
    put("m-rsa-bad", &with(&[(RSA, &bad)]));
    put("m-rsa-sha1", &with(&[(RSA, &by("rsa", &["--digest-algo", "SHA1"]))]));
    put("m-rsa-sha384", &with(&[(RSA, &by("rsa", &["--digest-algo", "SHA384"]))]));
    put("m-sig-trailing-junk", &with(&[(RSA, &[&good[..], b"junk"].concat())]));
    put("m-two-pkts-in-tag", &with(&[(RSA, &[&good[..], &good].concat())]));
    put("m-two-pkts-bad-first", &with(&[(RSA, &[&wrong[..], &good].concat())]));
    put("m-textsig", &with(&[(RSA, &by("rsa", &["--textmode"]))]));
    put(
        "m-sigexpired",
        &with(&[(RSA, &by("rsa", &["--default-sig-expire", "1d", "--faked-system-time=20250101T000000!"]))]),
    );
    put("future", &with(&[(RSA, &by("rsa", &["--faked-system-time=20600101T000000!"]))]));
    put("p256", &with(&[(DSA, &by("p256", &[]))]));
    put("dsa", &with(&[(DSA, &by("dsa", &[]))]));
    put("young", &with(&[(DSA, &by("young", &["--faked-system-time=20390101T000000!"]))]));
    put("m-notation", &with(&[(RSA, &by("rsa", &["--sig-notation", "!a@example.org=b"]))]));
    put(
        "m-list",
        &change(&with(&[(RSA, &good)]), &|r| {
            r.signature.set(278, STRING_ARRAY, &text(&base64(&good)));
        }),
    );
    put(
        "m-list-other",
        &change(&with(&[(RSA, &good)]), &|r| {
            r.signature.set(278, STRING_ARRAY, &text(&base64(&wrong)));
        }),
    );
    put(
        "m-list-only",
        &change(&rsa.clone().unsigned(), &|r| {
            r.signature.set(278, STRING_ARRAY, &text(&base64(&good)));
        }),
    );
    put("m-rsa-good+v3-good", &rsa_both);
    put(
        "m-rsa-good+v3-bad",
        &change(&rsa_both, &|r| *r.signature.get_mut(RSA_BOTH).data.last_mut().unwrap() ^= 1),
    );
    put("m-v3only", &change(&rsa_both, &|r| r.signature.remove(RSA)));
    put(
        "m-v3only-ed",
        &change(&ed_both, &|r| {
            assert!(r.signature.entries.iter().any(|e| e.tag == DSA_BOTH));
            r.signature.remove(DSA);
        }),
    );

    // Headers that were signed as they are.
    let resigned = |how: &dyn Fn(&mut Rpm)| signer.resign(change(&rsa, how), RSA, "rsa", &[]);
    let no_digest = |r: &mut Rpm| [5092, 5093, 5097].iter().for_each(|tag| r.header.remove(*tag));
    let evil = |r: &mut Rpm| *r.payload.last_mut().unwrap() ^= 1;
    put("n-nopaydigest-signed", &resigned(&no_digest));
    put("n-nopaydigest-signed-evilpayload", &change(&resigned(&no_digest), &evil));
    put(
        "n-nopaydigest-nomd5-evil",
        &change(&resigned(&no_digest), &|r| {
            evil(r);
            r.signature.remove(MD5);
            r.signature.remove(SIZE);
        }),
    );
    put(
        "n-nopaydigest-signed-v3",
        &change(&resigned(&no_digest), &|r| {
            let both = signer.sign("rsa", &[&r.header.bytes()[..], &r.payload].concat(), &[]);
            r.signature.insert(RSA_BOTH, BIN, &both);
        }),
    );
    for (name, number, program) in [("n-paydigest-md5", 1_u32, "md5sum"), ("n-paydigest-sha1", 2, "sha1sum")]
    {
        put(
            name,
            &resigned(&|r| {
                let weak = digest(program, &r.payload);
                r.header.set(5092, STRING_ARRAY, &text(&weak));
                r.header.set(5093, INT32, &number.to_be_bytes());
            }),
        );
    }
    put(
        "n-paydigest-two",
        &resigned(&|r| {
            let one = r.header.get(5092).data.clone();
            r.header.set(5092, STRING_ARRAY, &[&one[..], &one].concat());
        }),
    );
    put(
        "n-paydigest-sha512",
        &resigned(&|r| {
            let strong = digest("sha512sum", &r.payload);
            // The digest of the uncompressed payload has the same kind.
            r.header.remove(5097);
            r.header.set(5092, STRING_ARRAY, &text(&strong));
            r.header.set(5093, INT32, &10_u32.to_be_bytes());
        }),
    );
    put("p-arch", &resigned(&|r| r.header.set(1022, STRING, b"x86_64\0")));
    put("p-nosource", &resigned(&|r| r.header.remove(1044)));
    put("p-source-tag", &resigned(&|r| r.header.set(1106, INT32, &1_u32.to_be_bytes())));
    put(
        "p-name-of-no-qube",
        &change(
            &resigned(&|r| {
                r.header.set(1000, STRING, b"qubes-template-default\0");
            }),
            &|r| rename_lead(r, "qubes-template-default"),
        ),
    );
    put("p-tag-unknown", &resigned(&|r| r.header.set(0x1234, STRING, b"x\0")));
    put("p-tag-private", &resigned(&|r| r.header.set(0x9000, STRING, b"x\0")));
    drop(Command::new("gpgconf").arg("--homedir").arg(&home).args(["--kill", "gpg-agent"]).status());
}

type Change<'a> = &'a dyn Fn(&Rpm, &dyn Fn(&mut Rpm)) -> Rpm;

/// Wrong and missing digests and sizes in the signature header.
fn digests(put: &dyn Fn(&str, &Rpm), rsa: &Rpm, change: Change<'_>) {
    let flip = |tag| {
        change(rsa, &|r| {
            let byte = &mut r.signature.get_mut(tag).data[3];
            *byte = if *byte == b'0' { b'1' } else { b'0' };
        })
    };
    put("d-md5-wrong", &flip(MD5));
    put("d-size-wrong", &flip(SIZE));
    put("d-sha1-wrong", &flip(SHA1));
    put("d-sha256-wrong", &flip(SHA256));
    put("d-archive-size-wrong", &flip(1007));
    let keep =
        |rpm: &Rpm, tags: &[u32]| change(rpm, &|r| r.signature.entries.retain(|e| tags.contains(&e.tag)));
    put("d-no-digests-signed", &keep(rsa, &[RSA]));
    put("d-only-sha1-signed", &keep(rsa, &[RSA, SHA1]));
    put("d-only-md5", &keep(rsa, &[MD5]));
}

/// Leads and headers of the wrong form.
fn headers(put: &dyn Fn(&str, &Rpm), rsa: &Rpm, change: Change<'_>) {
    let extra = || Entry { tag: 1999, kind: STRING, count: 1, data: b"x\0".to_vec() };
    put("h-dribble-origsig", &change(rsa, &|r| r.header.dribbles.push(extra())));
    put("h-dribble-resigned-digests", &change(rsa, &|r| r.header.dribbles.push(extra())).fix_digests());
    put("s-sigdribble", &change(rsa, &|r| r.signature.dribbles.push(extra())));
    put("h-leadname", &change(rsa, &|r| r.lead[10] ^= 1));
    put("h-leadtype", &change(rsa, &|r| r.lead[6] = 0xff));
    put("h-magic3", &change(rsa, &|r| r.header.magic[2] ^= 1));
    put("h-reserved", &change(rsa, &|r| r.header.magic[5] = 1));
    put("h-sigreserved", &change(rsa, &|r| r.signature.magic[5] = 1));
    put("s-unknown-tag", &change(rsa, &|r| r.signature.insert(1050, STRING, b"x\0")));
    put("s-reserved-used", &change(rsa, &|r| r.signature.get_mut(1008).data[77] = 1));
    put(
        "s-many-entries",
        &change(rsa, &|r| (2000..2040).for_each(|t| r.signature.insert(t, STRING, b"x\0"))),
    );
    put(
        "h-many-entries",
        &change(rsa, &|r| (10_000..11_000).for_each(|t| r.header.insert(t, STRING, b"x\0"))),
    );
    put("h-large", &change(rsa, &|r| r.header.insert(20_000, BIN, &vec![7; 3 << 20])));
}

/// Changed, cut and lengthened packages.
fn truncations(put: &dyn Fn(&str, &Rpm), rsa: &Rpm, change: Change<'_>) {
    let summary = |r: &mut Rpm| r.header.get_mut(1004).data[0] ^= 1;
    put("t-header", &change(rsa, &summary));
    put("t-header-fixdigests", &change(rsa, &summary).fix_digests());
    let payload = |r: &mut Rpm| {
        let middle = r.payload.len() / 2;
        r.payload[middle] ^= 1;
    };
    put("t-payload", &change(rsa, &payload));
    put("t-payload-fixmd5", &change(rsa, &payload).fix_digests());
    put(
        "t-payload-nomd5nosize",
        &change(rsa, &|r| {
            payload(r);
            r.signature.remove(MD5);
            r.signature.remove(SIZE);
        }),
    );
    put("t-payload-fixall", &change(rsa, &payload).fix_payload_digest().fix_digests());
    put("t-trailing", &change(rsa, &|r| r.payload.push(0)));
    put("t-truncated", &change(rsa, &|r| r.payload.truncate(r.payload.len() - 1)));
    put("t-empty-payload", &change(rsa, &|r| r.payload.clear()));
    put(
        "a-uncompressed-payload-alt",
        &change(rsa, &|r| {
            r.payload = pipe(Command::new("zstd").arg("-dc"), &r.payload);
        })
        .fix_digests(),
    );
}

fn rename_lead(rpm: &mut Rpm, name: &str) {
    rpm.lead[10..76].fill(0);
    rpm.lead[10..10 + name.len()].copy_from_slice(name.as_bytes());
}

fn base64(bytes: &[u8]) -> String {
    String::from_utf8(pipe(Command::new("base64").arg("-w0"), bytes)).unwrap()
}
