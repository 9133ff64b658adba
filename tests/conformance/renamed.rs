//! Makes another folder of recordings out of one: other names, builds, sizes and order, and nothing else.
//!
//! A harness, a sandbox or a tool that is keyed on a value of the recordings at hand fails on it. Names keep their
//! length and their first letters, so that tables, abbreviations and orders stay what they are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// Words and what stands in their place, each as long as before.
const WORDS: [(&str, &str); 37] = [
    ("Debian", "Debxan"),
    ("DEBIAN", "DEBXAN"),
    ("Fedora-", "Fedxra-"),
    ("debian", "debxan"),
    ("fedora-", "fedxra-"),
    ("whonix", "whoxix"),
    ("acme", "acxe"),
    ("gentoo", "genxoo"),
    ("archlinux", "arcxlinux"),
    ("ubuntu", "ubuxtu"),
    ("community", "comxunity"),
    ("qubes-templates-itl", "qubes-templates-ixl"),
    ("sys-firewall", "sys-firewaxl"),
    ("sys-net", "sys-nxt"),
    ("personal", "perxonal"),
    ("vault", "vauxt"),
    ("work", "woxk"),
    ("alone", "aloxe"),
    ("default-dvm", "default-dvx"),
    ("other-dvm", "othxr-dvm"),
    ("default-mgmt-dvm", "default-mgmt-dvx"),
    ("base-tpl", "base-tpx"),
    ("local-tpl", "local-tpx"),
    ("spare-tpl", "spaxe-tpl"),
    ("tpl-mine", "tpl-mixe"),
    ("app-mine", "app-mixe"),
    ("net-a", "net-x"),
    ("app-a", "app-0"),
    ("lab", "lax"),
    ("old-rpm", "old-rpx"),
    ("my-clone", "my-cloxe"),
    ("vm-pool", "vm-poox"),
    ("varlibqubes", "varlibqubex"),
    ("pool2", "poox2"),
    ("newone", "newoxe"),
    ("4.3.0", "4.7.0"),
    ("4.3.1", "4.7.1"),
];
/// The year of releases and times, and another one.
const YEARS: (&str, &str) = ("2025", "2027");
/// A package that is left out, with the cases that speak of it.
const LEFT_OUT: &str = "opensuse";
/// By how much images grow.
const IMAGE_STEP: u64 = 4096;

/// Numbers that have changed.
#[derive(Debug, Default)]
struct Numbers {
    sizes: BTreeMap<u64, u64>,
    images: BTreeMap<u64, u64>,
}

/// Writes the other folder to `into`; what is kept of our own outcomes goes along as `instead.jsonl`.
pub fn make(from: &Path, kept: &Path, into: &Path) -> Result<()> {
    let packages: Value = serde_json::from_slice(&fs::read(from.join("packages.json"))?)?;
    let numbers = Numbers::of(&packages);
    let mut packages: Vec<Value> = packages.as_array().context("a list of packages")?.clone();
    packages.retain(|package| !package["name"].as_str().unwrap_or_default().contains(LEFT_OUT));
    // Of two packages of one build the first one counts.
    packages
        .sort_by_key(|package| std::cmp::Reverse(package["name"].as_str().unwrap_or_default().to_owned()));
    put(into, "packages.json", &serde_json::to_vec_pretty(&numbers.value(&Value::Array(packages), ""))?)?;

    let mut digests = BTreeMap::new();
    for name in ["admin-api", "policy", "qrexec-client", "updatevm", "cli"] {
        let text = fs::read_to_string(from.join(format!("{name}.jsonl")))?;
        let mut lines = Vec::new();
        for line in text.lines() {
            let mut value: Value = serde_json::from_str(line)?;
            if name == "updatevm" && line.contains(LEFT_OUT) {
                continue;
            }
            value = numbers.value(&value, "");
            for key in ["population", "repo_reply"] {
                if let Some(named) = value.get_mut(key) {
                    rename_files(named);
                }
            }
            if name == "cli" {
                digests.insert(value["id"].as_str().unwrap_or_default().to_owned(), digest(&value));
            }
            lines.push(value.to_string());
        }
        put(into, &format!("{name}.jsonl"), (lines.join("\n") + "\n").as_bytes())?;
    }
    let mut lines = Vec::new();
    for line in fs::read_to_string(kept)?.lines() {
        let before: Value = serde_json::from_str(line)?;
        let mut value = numbers.value(&before, "");
        for list in ["calls", "requests"] {
            // These are JSON themselves.
            let inner = before[list]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(|text| Ok(Value::from(numbers.value(&serde_json::from_str(text)?, "").to_string())));
            value[list] = inner.collect::<Result<Vec<Value>>>()?.into();
        }
        if let Some(digest) = digests.get(value["id"].as_str().unwrap_or_default()) {
            value["recorded"] = Value::from(digest.as_str());
        }
        lines.push(value.to_string());
    }
    put(into, "instead.jsonl", (lines.join("\n") + "\n").as_bytes())?;
    for entry in fs::read_dir(from.join("populations"))? {
        let path = entry?.path();
        let value: Value = serde_json::from_slice(&fs::read(&path)?)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        put(into, &format!("populations/x{name}"), numbers.value(&value, "").to_string().as_bytes())?;
    }
    for entry in fs::read_dir(from.join("repo_replies"))? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // What is no text stays as it is but for its words.
        let text = numbers.text(&bytes.iter().map(|byte| char::from(*byte)).collect::<String>());
        // The description of a long reply names the file of its record.
        let text = if name.ends_with(".json") { text.replace("as in ", "as in x") } else { text };
        let bytes: Vec<u8> = text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect();
        put(into, &format!("repo_replies/x{name}"), &bytes)?;
    }
    let repos = Path::new("etc/qubes/repo-templates");
    for (folder, is_key) in [(repos.to_owned(), false), (repos.join("keys"), true)] {
        for entry in fs::read_dir(from.join(&folder))? {
            let path = entry?.path();
            if path.is_dir() {
                continue;
            }
            let name = numbers.text(&path.file_name().unwrap_or_default().to_string_lossy());
            let bytes = fs::read(&path)?;
            let bytes = if is_key { bytes } else { numbers.text(&String::from_utf8(bytes)?).into_bytes() };
            put(into, &folder.join(name).to_string_lossy(), &bytes)?;
        }
    }
    Ok(())
}

/// The digest by which `instead.jsonl` knows a case.
pub fn digest(line: &Value) -> String {
    Sha256::digest(line.to_string()).iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

fn put(into: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = into.join(name);
    fs::create_dir_all(path.parent().context("a file has a folder")?)?;
    fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
}

/// The files of populations and replies have other names too.
fn rename_files(named: &mut Value) {
    match named {
        Value::String(name) => name.insert(0, 'x'),
        Value::Array(names) => names.iter_mut().for_each(rename_files),
        _ => {}
    }
}

impl Numbers {
    fn of(packages: &Value) -> Self {
        let mut numbers = Self::default();
        for package in packages.as_array().into_iter().flatten() {
            if let Some(size) = package["size"].as_u64() {
                let tenths = |size: u64| [size * 10 / 1024, (size * 10 + 512) / 1024];
                let other = if tenths(size) == tenths(size + 4) { size + 4 } else { size - 4 };
                numbers.sizes.insert(size, other);
            }
            if let Some(size) = package["image_size"].as_u64() {
                numbers.images.insert(size, size + IMAGE_STEP);
            }
        }
        numbers
    }

    fn value(&self, value: &Value, key: &str) -> Value {
        match value {
            Value::String(text) if key == "id" || key == "recorded" => Value::String(text.clone()),
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(list) => list.iter().map(|value| self.value(value, key)).collect(),
            Value::Object(object) => {
                let entries = object.iter().map(|(key, value)| (self.text(key), self.value(value, key)));
                Value::Object(entries.collect::<Map<_, _>>())
            }
            Value::Number(number) => {
                let changed = number.as_u64().and_then(|number| match key {
                    "size" | "stdout_size" => self.sizes.get(&number),
                    "image_size" | "data_size" => self.images.get(&number),
                    _ => None,
                });
                changed.map_or_else(|| value.clone(), |number| Value::from(*number))
            }
            other => other.clone(),
        }
    }

    /// A text with other words and numbers.
    fn text(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        let mut before = None;
        while let Some(first) = rest.chars().next() {
            let begins = before.is_none_or(|c: char| !c.is_ascii_alphanumeric());
            let word = WORDS.iter().filter(|_| begins).find(|(word, _)| {
                // Which repository files a case finds, its description says by their names.
                let after = rest.strip_prefix(word).filter(|after| !after.starts_with(".repo"));
                let after = after.map(|after| after.chars().next());
                let ends = |next: Option<char>| next.is_none_or(|c| !c.is_ascii_alphanumeric());
                after.is_some_and(|next| word.ends_with('-') || ends(next))
            });
            let digits = if begins { rest.bytes().take_while(u8::is_ascii_digit).count() } else { 0 };
            let taken = if let Some((word, other)) = word {
                out.push_str(other);
                word.len()
            } else if digits > 0 {
                out.push_str(&self.digits(&rest[..digits]));
                digits
            } else {
                out.push(first);
                first.len_utf8()
            };
            before = rest[..taken].chars().last();
            rest = &rest[taken..];
        }
        out
    }

    fn digits(&self, digits: &str) -> String {
        if matches!(digits.len(), 4 | 8 | 12 | 14)
            && let Some(rest) = digits.strip_prefix(YEARS.0)
        {
            return format!("{}{rest}", YEARS.1);
        }
        let number = digits.parse().ok().filter(|_| digits.len() > 4);
        let changed =
            number.and_then(|number: u64| self.images.get(&number).or_else(|| self.sizes.get(&number)));
        changed.map_or_else(|| digits.to_owned(), ToString::to_string)
    }
}
