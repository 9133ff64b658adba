//! `.repo` files, read as tolerantly as dnf reads them and a little more.
//!
//! A line that cannot be understood is skipped with a warning and never takes the rest with it. A section that comes
//! again is merged into the first one, the later value of a key winning, as dnf merges them; `%` is plain text;
//! indented lines continue the value above; `#` and `;` begin comments at the start of a line only. Section `[main]`
//! is not a repository.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::variables::Variables;
use crate::template::RepoId;
use crate::untrusted::displayable;

/// Largest `.repo` file read, in bytes.
pub const MAX_FILE: u64 = 1 << 20;

/// One repository, with its values as they were written: variables are not replaced yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repo {
    /// Section name.
    pub id: RepoId,
    /// `name`, for people.
    pub name: Option<String>,
    /// `enabled`; true where the file does not say.
    pub enabled: bool,
    /// `baseurl`, in order.
    pub baseurl: Vec<String>,
    /// `mirrorlist`
    pub mirrorlist: Option<String>,
    /// `metalink`
    pub metalink: Option<String>,
    /// `gpgkey`, in order.
    pub gpgkey: Vec<String>,
    /// `sslcacert`
    pub sslcacert: Option<String>,
    /// `sslclientcert`
    pub sslclientcert: Option<String>,
    /// `sslclientkey`
    pub sslclientkey: Option<String>,
    /// `sslverify`; true where the file does not say.
    pub sslverify: bool,
    /// `proxy`; `Some("")` where the file asks for none.
    pub proxy: Option<String>,
    /// Every key of the section in lower case, continuation lines joined by line feeds.
    pub options: BTreeMap<String, String>,
}

/// What [`parse`] made of a text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParsedFile {
    /// Repositories in order of first appearance.
    pub repos: Vec<Repo>,
    /// What was skipped or merged, one line each, fit to be shown.
    pub warnings: Vec<String>,
}

/// A `.repo` file as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepoFile {
    /// Where it was.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
}

/// What [`load`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The files, in the order of the patterns, and sorted within a pattern. No path comes twice.
    pub files: Vec<RepoFile>,
    /// Patterns without a match.
    pub unmatched: Vec<String>,
}

impl Loaded {
    /// The repository text of a request: every file followed by a line feed.
    #[must_use]
    pub fn request_text(&self) -> String {
        self.files.iter().flat_map(|file| [file.text.as_str(), "\n"]).collect()
    }

    /// The repositories of all files together.
    #[must_use]
    pub fn parse(&self) -> ParsedFile {
        parse(&self.request_text())
    }
}

/// Reads the files that `patterns` (`--repo-files`) name.
///
/// # Errors
/// A pattern that is malformed, or a file that cannot be read, is too large or is not UTF-8.
pub fn load<S: AsRef<str>>(patterns: &[S]) -> anyhow::Result<Loaded> {
    let mut loaded = Loaded::default();
    for pattern in patterns.iter().map(AsRef::as_ref) {
        let found = glob::glob(pattern)
            .with_context(|| format!("reading the pattern '{}'", displayable(pattern, false)))?;
        let mut paths = found.collect::<Result<Vec<_>, _>>().context("looking for repository files")?;
        paths.sort();
        if paths.is_empty() {
            loaded.unmatched.push(pattern.to_owned());
        }
        for path in paths {
            if !loaded.files.iter().any(|file| file.path == path) {
                let text = read(&path).with_context(|| format!("reading {}", path.display()))?;
                loaded.files.push(RepoFile { path, text });
            }
        }
    }
    Ok(loaded)
}

fn read(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE {
        bail!("larger than {MAX_FILE} bytes");
    }
    Ok(text)
}

/// Reads a `.repo` text. Never fails; what cannot be used is in the warnings.
#[must_use]
pub fn parse(text: &str) -> ParsedFile {
    let mut warnings = Vec::new();
    let mut sections: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    // The section that lines belong to; `None` before the first one and below one that is not usable.
    let mut current: Option<usize> = None;
    let mut seen_section = false;
    let mut key: Option<String> = None;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        let line = line.trim_end();
        let bare = line.trim_start();
        if bare.is_empty() || bare.starts_with(['#', ';']) {
            continue;
        }
        let indented = bare.len() < line.len();
        if indented && let (Some(section), Some(key)) = (current, &key) {
            let value = sections[section].1.entry(key.clone()).or_default();
            value.push('\n');
            value.push_str(bare);
            continue;
        }
        if let Some(rest) = bare.strip_prefix('[') {
            (key, current) = (None, None);
            seen_section = true;
            match rest.split_once(']') {
                Some((id, after)) if !id.is_empty() && after.trim_start().is_empty_or_comment() => {
                    current = Some(match sections.iter().position(|(known, _)| known == id) {
                        Some(index) => {
                            warnings.push(format!(
                                "line {number}: repository '{}' comes again",
                                displayable(id, false)
                            ));
                            index
                        }
                        None => {
                            sections.push((id.to_owned(), BTreeMap::new()));
                            sections.len() - 1
                        }
                    });
                }
                _ => warnings
                    .push(format!("line {number}: not a section name, the lines below it are skipped")),
            }
            continue;
        }
        match bare.split_once(['=', ':']) {
            Some((name, value)) if !name.trim().is_empty() => {
                let name = name.trim().to_ascii_lowercase();
                if let Some(section) = current {
                    sections[section].1.insert(name.clone(), value.trim().to_owned());
                } else if !seen_section {
                    warnings.push(format!("line {number}: stands before the first section"));
                }
                key = Some(name);
            }
            _ => {
                key = None;
                warnings.push(format!("line {number}: neither a section, a setting nor a comment"));
            }
        }
    }
    let mut repos = Vec::new();
    for (id, options) in sections.into_iter().filter(|(id, _)| id != "main") {
        match RepoId::new(&id).filter(|id| id.as_str() != RepoId::COMMAND_LINE) {
            Some(id) => repos.push(Repo::from_options(id, options, &mut warnings)),
            None => {
                warnings.push(format!("'{}' cannot be the name of a repository", displayable(&id, false)))
            }
        }
    }
    ParsedFile { repos, warnings }
}

trait EmptyOrComment {
    fn is_empty_or_comment(&self) -> bool;
}

impl EmptyOrComment for str {
    fn is_empty_or_comment(&self) -> bool {
        self.is_empty() || self.starts_with(['#', ';'])
    }
}

impl Repo {
    fn from_options(id: RepoId, options: BTreeMap<String, String>, warnings: &mut Vec<String>) -> Self {
        let text = |key: &str| options.get(key).map(|value| unquoted(value).to_owned());
        let set = |key: &str| text(key).filter(|value| !value.is_empty());
        let list = |key: &str| text(key).map(|value| words(&value)).unwrap_or_default();
        let mut flag = |key: &str| {
            options.get(key).and_then(|value| {
                let read = boolean(unquoted(value));
                if read.is_none() {
                    warnings.push(format!("repository '{id}': {key} is neither 1 nor 0"));
                }
                read
            })
        };
        Self {
            enabled: flag("enabled").unwrap_or(true),
            sslverify: flag("sslverify").unwrap_or(true),
            name: set("name"),
            baseurl: list("baseurl"),
            mirrorlist: set("mirrorlist"),
            metalink: set("metalink"),
            gpgkey: list("gpgkey"),
            sslcacert: set("sslcacert"),
            sslclientcert: set("sslclientcert"),
            sslclientkey: set("sslclientkey"),
            proxy: text("proxy")
                .map(|proxy| if matches!(proxy.as_str(), "_none_" | "none") { String::new() } else { proxy }),
            id,
            options,
        }
    }

    /// The value of a further key, `None` where it is absent or empty.
    #[must_use]
    pub fn option(&self, key: &str) -> Option<&str> {
        self.options.get(key).map(|value| unquoted(value)).filter(|value| !value.is_empty())
    }

    /// This repository with the variables in every value replaced.
    #[must_use]
    pub fn expanded(&self, variables: &Variables) -> Self {
        let options =
            self.options.iter().map(|(key, value)| (key.clone(), variables.expand(value))).collect();
        Self::from_options(self.id.clone(), options, &mut Vec::new())
    }
}

/// The words of a list value: separated by commas or white space.
#[must_use]
pub fn words(value: &str) -> Vec<String> {
    value
        .split(|c: char| c == ',' || c.is_whitespace())
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

fn boolean(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Some(true),
        "0" | "false" | "no" | "off" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(text: &str) -> Repo {
        let parsed = parse(text);
        assert_eq!(parsed.repos.len(), 1, "{parsed:?}");
        parsed.repos.into_iter().next().unwrap()
    }

    #[test]
    fn reads_an_ordinary_file() {
        let repo = one(
            "# a comment\n[a]\nname = A $releasever 100% ; not a comment\nbaseurl=http://x/$releasever,\n\thttp://y\n\
                        ENABLED = 0\ngpgkey = file:///k1\n  file:///k2\nsslverify=off\nproxy=_none_\n",
        );
        assert_eq!(repo.name.as_deref(), Some("A $releasever 100% ; not a comment"));
        assert_eq!(repo.baseurl, ["http://x/$releasever", "http://y"]);
        assert_eq!(repo.gpgkey, ["file:///k1", "file:///k2"]);
        assert_eq!(repo.options["gpgkey"], "file:///k1\nfile:///k2");
        assert!(!repo.enabled && !repo.sslverify);
        assert_eq!(repo.proxy.as_deref(), Some(""));
        assert_eq!(repo.expanded(&Variables::new("4.3")).baseurl[0], "http://x/4.3");
    }

    #[test]
    fn merges_a_section_that_comes_again_as_dnf_does() {
        let parsed = parse("[a]\nname=1\nenabled=0\n[b]\n[a]\nname=2\n");
        assert_eq!(parsed.repos.len(), 2);
        assert_eq!(parsed.repos[0].name.as_deref(), Some("2"));
        assert!(!parsed.repos[0].enabled);
        assert_eq!(parsed.warnings, ["line 5: repository 'a' comes again"]);
    }

    #[test]
    fn skips_what_it_cannot_read() {
        let parsed = parse(
            "hello\nk=v\n[a] x\nname=lost\n[b\n[]\n[c d]\n[@commandline]\n[e]\nnonsense\n=x\nname: e\nenabled=maybe\n[main]\nx=1\n",
        );
        assert_eq!(parsed.repos.len(), 1);
        assert_eq!(parsed.repos[0].name.as_deref(), Some("e"));
        assert!(parsed.repos[0].enabled);
        assert_eq!(parsed.warnings.len(), 10, "{:#?}", parsed.warnings);
        assert!(parse("not an ini file\n").repos.is_empty());
        assert!(parse("").warnings.is_empty());
    }

    #[test]
    fn comments_and_blank_lines_do_not_end_a_value() {
        let repo = one("[a]\r\nbaseurl = http://x\r\n\r\n# between\r\n  http://y\r\nname=\"quoted\"\r\n");
        assert_eq!(repo.baseurl, ["http://x", "http://y"]);
        assert_eq!(repo.name.as_deref(), Some("quoted"));
    }

    #[test]
    fn loads_patterns_in_order_and_each_file_once() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("b.repo", "[b]"), ("a.repo", "[a]"), ("c.txt", "[c]")] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let loaded = load(&[at("c.txt"), at("*.repo"), at("a.repo"), at("none")]).unwrap();
        assert_eq!(loaded.request_text(), "[c]\n[a]\n[b]\n");
        assert_eq!(loaded.unmatched, [at("none")]);
        assert_eq!(loaded.parse().repos.len(), 3);
    }

    proptest! {
        #[test]
        fn takes_any_text(text in "(\\PC|[\\[\\]=:#; \t\r\n]){0,200}") {
            for repo in parse(&text).repos {
                prop_assert!(RepoId::new(repo.id.as_str()).is_some());
            }
        }
    }
}
