//! Debian packages as a layer: their files on the tree, themselves in the tree's own dpkg, and no script run.
//!
//! As with RPM packages ([`super::rpm`]), with what dpkg does differently:
//!
//! * A package has no signature; what is trusted is the `sha256` that the recipe names, which for a folder is that of
//!   the list of digests.
//! * `preinst`, `postinst` and `config` are refused unless they do nothing but what the template's own units do when it
//!   starts. `prerm` and `postrm` run on removal only and are left to the template's dpkg.
//! * Triggers that the package or its files activate stay noted in the state of dpkg (`Triggers-Pending`), as after
//!   `dpkg --no-triggers`, and the next call of dpkg runs them. Only those that nothing waits for are accepted:
//!   `ldconfig` where all libraries lie where the loader looks anyhow, and the index of manual pages.
//! * Records go to `/var/lib/dpkg/status` and `/var/lib/dpkg/info` as dpkg writes them: `.list`, `.md5sums` (made when
//!   the package has none), `.conffiles`, and whatever else the package says about itself.
//! * An existing configuration file stays, and the package's own stands beside it as `.dpkg-dist`.
//! * Owners are numbers below 100, which Debian gives out once and for all.

mod archive;
mod status;
mod version;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use md5::{Digest as _, Md5};

use super::input::Spool;
use super::rpm::scripts::{self, Work};
use super::rpm::{Layered, Missing, catch_up, digest, files, unit};
use super::{Entry, What, Whiteouts, apply, sha256};
use crate::build::tree::content::{Content, Source, Sources};
use crate::build::tree::{Kind, Meta, NodeId, Tree, shown};
use crate::io::hash::hex;
use status::{Offers, Record, Status};
use version::relations;

const INFO: &str = "var/lib/dpkg/info";
const TRIGGERS: &str = "var/lib/dpkg/triggers";
const MAX_TEXT: u64 = 16 << 20;
/// Triggers whose work is of no consequence until dpkg runs the next time.
const CALM: [&str; 3] = ["/usr/share/man", "/usr/local/share/man", "man-db"];

/// What a layer of packages brought.
#[derive(Debug)]
pub struct Outcome {
    /// The packages, in the order of their files' names.
    pub packages: Vec<Layered>,
    /// What identifies them together.
    pub digest: String,
    /// What a person should know.
    pub warnings: Vec<String>,
}

struct Package {
    record: Record,
    sha256: String,
    /// What it says about itself, by name.
    about: BTreeMap<String, (Meta, Content)>,
    data: Vec<Entry>,
    conffiles: BTreeSet<Vec<u8>>,
    work: BTreeSet<Work>,
    /// Names of triggers that wait for dpkg.
    triggers: BTreeSet<String>,
}

/// Puts a package, or those of a folder, on a tree.
///
/// # Errors
/// [`Missing`] when dependencies are not fulfilled; whatever else the head of the module names.
pub fn put(path: &Path, tree: &mut Tree, spool: &mut Spool, time: i64) -> Result<Outcome> {
    let mut status = Status::of(tree)?;
    let mut packages = Vec::new();
    for file in files(path, "deb")? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let package = open(&file, &mut tree.sources, spool);
        packages.push(package.with_context(|| format!("reading package {}", name.escape_debug()))?);
    }
    check(&packages, &status)?;
    let mut warnings = Vec::new();
    let mut entries = Vec::new();
    let mut brought: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    for package in &mut packages {
        let context = package.record.shown();
        entries.extend(bring(package, tree, &mut brought, &mut warnings).with_context(|| context.clone())?);
        activate(package, tree, &mut status).with_context(|| context)?;
    }
    for package in &packages {
        entries.extend(about(package, tree, time)?);
        status.insert(record(package, &tree.sources)?);
    }
    warnings.extend(apply(tree, entries, Whiteouts::None, time)?);
    status.put_back(tree, time)?;
    catch_up(tree)?;
    let layered = packages.iter().map(|package| layered(package, tree)).collect::<Result<Vec<_>>>()?;
    Ok(Outcome { digest: digest(&layered), packages: layered, warnings })
}

fn open(path: &Path, sources: &mut Sources, spool: &mut Spool) -> Result<Package> {
    let file = Arc::new(File::open(path).context("opening it")?);
    let archive = archive::Package::open(file)?;
    let mut about = BTreeMap::new();
    for entry in archive.control(sources, spool)? {
        let name = String::from_utf8(plain(&entry.path)).context("a name in it is no text")?;
        match entry.what {
            What::Directory if name.is_empty() => {}
            What::File(content) if !name.contains('/') && content.size() <= MAX_TEXT => {
                about.insert(name, (entry.meta, content));
            }
            _ => bail!("what it says about itself has `{}`, which is no small file", name.escape_debug()),
        }
    }
    let read = |name: &str| -> Result<String> {
        let Some((_, content)) = about.get(name) else { return Ok(String::new()) };
        let text = String::from_utf8(sources.read_all(content, MAX_TEXT)?);
        text.with_context(|| format!("its `{name}` is no text"))
    };
    let record = Record::parse(&read("control")?).context("reading its `control`")?;
    let good = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._:~".contains(&b))
    };
    for field in ["Package", "Version", "Architecture"] {
        ensure!(
            good(record.get(field)) && !record.get(field).starts_with('-'),
            "its `{field}` is missing or impossible"
        );
    }
    let conffiles = read("conffiles")?;
    ensure!(
        !conffiles.contains("remove-on-upgrade"),
        "it removes configuration files, which is not supported"
    );
    let mut work = BTreeSet::new();
    for name in ["preinst", "postinst", "config"] {
        let text = read(name)?;
        let Some(first) = text.lines().next() else { continue };
        let interpreter = first.strip_prefix("#!").unwrap_or("/bin/sh").trim();
        let calm = interpreter.strip_suffix(" -e").unwrap_or(interpreter);
        let judged = scripts::judge(calm, &text);
        work.extend(judged.with_context(|| {
            format!(
                "{} runs `{name}` ({}), which an image cannot do without, and none is run here\n\
                 help: install it with the package manager inside the template",
                record.shown(),
                interpreter.escape_debug()
            )
        })?);
    }
    let mut triggers = BTreeSet::new();
    for line in
        read("triggers")?.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'))
    {
        match line.split_once(char::is_whitespace) {
            Some((kind, name)) if kind.starts_with("activate") => {
                triggers.insert(name.trim().to_owned());
            }
            _ => bail!("it wants to run when others are installed (`{}`)", line.escape_debug()),
        }
    }
    let data = archive.data(sources, spool)?;
    let conffiles =
        conffiles.lines().map(|line| plain(line.trim().as_bytes())).filter(|line| !line.is_empty());
    Ok(Package { conffiles: conffiles.collect(), sha256: sha256(path)?, record, about, data, work, triggers })
}

/// A path without `./` or `/` at its start and `/` at its end.
fn plain(path: &[u8]) -> Vec<u8> {
    let path =
        path.strip_prefix(b".").filter(|rest| rest.is_empty() || rest.starts_with(b"/")).unwrap_or(path);
    let start = path.iter().position(|b| *b != b'/').unwrap_or(path.len());
    let end = path.iter().rposition(|b| *b != b'/').map_or(start, |at| at + 1);
    path[start..end].to_vec()
}

/// Whether the packages suit what is there: architecture, versions, dependencies, conflicts.
fn check(packages: &[Package], status: &Status) -> Result<()> {
    let there: Vec<&Record> = status.records.iter().filter(|record| record.installed()).collect();
    let arch = status.arch();
    for package in packages {
        let record = &package.record;
        let known = |known: &&&Record| {
            known.get("Package") == record.get("Package")
                && known.get("Architecture") == record.get("Architecture")
        };
        if let Some(known) = there.iter().find(known) {
            bail!("{} cannot be added: {} is already in the tree", record.shown(), known.shown());
        }
        let own = record.get("Architecture");
        ensure!(
            own == "all" || arch.is_none_or(|arch| arch == own),
            "{} is for another machine than the packages in the tree",
            record.shown()
        );
    }
    let new = || packages.iter().map(|package| &package.record);
    let offers = Offers::of(there.iter().copied().chain(new()))?;
    let mut missing = Vec::new();
    for record in new() {
        for field in ["Pre-Depends", "Depends"] {
            for group in relations(record.get(field))? {
                let mut found = false;
                for relation in &group {
                    found |= offers.find(relation, None)?.is_some();
                }
                if !found {
                    let group: Vec<String> = group.iter().map(ToString::to_string).collect();
                    missing.push(format!("{} is needed by {}", group.join(" | "), record.shown()));
                }
            }
        }
    }
    if !missing.is_empty() {
        missing.sort();
        missing.dedup();
        return Err(Missing(missing).into());
    }
    let news = Offers::of(new())?;
    for (records, against) in [(new().collect::<Vec<_>>(), &offers), (there, &news)] {
        for record in records {
            for relation in
                relations(&format!("{},{}", record.get("Conflicts"), record.get("Breaks")))?.iter().flatten()
            {
                if let Some(other) = against.find(relation, Some(record))? {
                    bail!("{} does not go together with {} ({relation})", record.shown(), other.shown());
                }
            }
        }
    }
    Ok(())
}

/// The files of a package, settled with what is there.
fn bring(
    package: &Package,
    tree: &Tree,
    brought: &mut BTreeMap<Vec<u8>, String>,
    warnings: &mut Vec<String>,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in &package.data {
        let path = plain(&entry.path);
        let context = || format!("its file `{}`", shown(&path));
        if path.is_empty() {
            continue;
        }
        ensure!(
            entry.meta.uid < 100 && entry.meta.gid < 100,
            "{}: its owner {}:{} is none that every Debian has",
            context(),
            entry.meta.uid,
            entry.meta.gid
        );
        let mut entry = Entry { path: path.clone(), ..entry.clone() };
        if entry.what == What::Directory {
            // dpkg leaves directories that are there as they are
            if tree.find_following(&path).is_some_and(|id| tree.node(id).entries().is_some()) {
                continue;
            }
        } else {
            if let Some(other) = brought.insert(path.clone(), package.record.shown()) {
                bail!("{}: {other} has a file of this name", context());
            }
            if let Some(there) = tree.find(&path) {
                settle(package, &mut entry, tree, there, warnings).with_context(context)?;
            }
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn settle(
    package: &Package,
    entry: &mut Entry,
    tree: &Tree,
    there: NodeId,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let node = tree.node(there);
    ensure!(node.entries().is_none(), "a directory is in its place");
    let path = entry.path.clone();
    for (name, what) in [("diversions", "diverted"), ("statoverride", "given another owner or mode")] {
        let listed = text_of(tree, &format!("var/lib/dpkg/{name}"))?;
        let full = format!("/{}", String::from_utf8_lossy(&path));
        ensure!(
            !listed.lines().any(|line| line == full || line.ends_with(&format!(" {full}"))),
            "it is {what} in the tree"
        );
    }
    if let Some(owner) = owner(tree, there)? {
        bail!("the package {} of the tree has a file of this name", owner.escape_debug());
    }
    if package.conffiles.contains(&path) {
        let same = match (&node.kind, &entry.what) {
            (Kind::File(a), What::File(b)) => crate::build::compare::same_content(&tree.sources, a, b)?,
            _ => false,
        };
        if !same {
            warnings.push(format!("`/{0}` is kept; the package's own is `/{0}.dpkg-dist`", shown(&path)));
            entry.path.extend_from_slice(b".dpkg-dist");
        }
        return Ok(());
    }
    warnings.push(format!("`/{}`, which no package had, is replaced", shown(&path)));
    Ok(())
}

/// The package of the tree that has a file.
fn owner(tree: &Tree, wanted: NodeId) -> Result<Option<String>> {
    let Some(info) = tree.find_following(INFO.as_bytes()) else { return Ok(None) };
    let mut folders: BTreeMap<String, Option<NodeId>> = BTreeMap::new();
    for name in tree.node(info).entries().into_iter().flat_map(|entries| entries.keys()) {
        let Some(package) = std::str::from_utf8(name).ok().and_then(|name| name.strip_suffix(".list")) else {
            continue;
        };
        for line in text_of(tree, &format!("{INFO}/{package}.list"))?.lines() {
            let Some((folder, name)) = line.rsplit_once('/') else { continue };
            let folder = folders
                .entry(folder.to_owned())
                .or_insert_with_key(|folder| tree.find_following(folder.as_bytes()));
            if folder.and_then(|folder| tree.child(folder, name.as_bytes())) == Some(wanted) {
                return Ok(Some(package.to_owned()));
            }
        }
    }
    Ok(None)
}

/// Notes which triggers wait, at those who do their work; refuses those that somebody counts on.
fn activate(package: &mut Package, tree: &Tree, status: &mut Status) -> Result<()> {
    let mut fired: BTreeSet<(String, String)> = BTreeSet::new();
    let interested = |line: &str| line.split(['/', ':']).next().unwrap_or_default().to_owned();
    for name in &package.triggers {
        let plain =
            name.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._".contains(&b)) && !name.starts_with('.');
        let list = if plain { text_of(tree, &format!("{TRIGGERS}/{name}"))? } else { String::new() };
        fired.extend(list.lines().map(|line| (name.clone(), interested(line))));
    }
    for line in text_of(tree, &format!("{TRIGGERS}/File"))?.lines() {
        let Some((watched, who)) = line.rsplit_once(' ') else { continue };
        let below = |entry: &Entry| {
            let path = plain(&entry.path);
            let rest = path.strip_prefix(watched.trim_start_matches('/').as_bytes());
            entry.what != What::Directory && rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        if package.data.iter().any(below) {
            fired.insert((watched.to_owned(), interested(who)));
        }
    }
    package.triggers.clear();
    for (name, who) in fired {
        ensure!(
            CALM.contains(&name.as_str()) || (name == "ldconfig" && package.data.iter().all(loader_finds)),
            "it fires the trigger `{}` of {}, whose work an image cannot do without\n\
             help: install it with the package manager inside the template",
            name.escape_debug(),
            who.escape_debug()
        );
        let Some(record) =
            status.records.iter_mut().find(|record| record.get("Package") == who && record.installed())
        else {
            continue;
        };
        let mut pending: BTreeSet<String> =
            record.get("Triggers-Pending").split_ascii_whitespace().map(str::to_owned).collect();
        pending.insert(name.clone());
        let state = record.get("Status").replace(" installed", " triggers-pending");
        record.set("Status", state);
        record.set("Triggers-Pending", Vec::from_iter(pending).join(" "));
        package.triggers.insert(name);
    }
    Ok(())
}

/// Whether the loader finds a library also when its cache does not know it.
fn loader_finds(entry: &Entry) -> bool {
    let path = plain(&entry.path);
    let Some((folder, name)) = path.iter().rposition(|b| *b == b'/').map(|at| (&path[..at], &path[at + 1..]))
    else {
        return true;
    };
    let library = name.starts_with(b"lib") && name.windows(3).any(|part| part == b".so");
    let folder = String::from_utf8_lossy(folder);
    let folder = folder.strip_prefix("usr/").unwrap_or(&folder);
    let place = folder == "lib"
        || folder.strip_prefix("lib/").is_some_and(|rest| rest.contains("-linux-") && !rest.contains('/'));
    !library
        || place
        || entry.what == What::Directory
        || folder.starts_with("lib/") && folder.matches('/').count() > 1
}

/// What stands about a package in dpkg's folder.
fn about(package: &Package, tree: &mut Tree, time: i64) -> Result<Vec<Entry>> {
    let record = &package.record;
    let name = match record.get("Multi-Arch") {
        "same" => format!("{}:{}", record.get("Package"), record.get("Architecture")),
        _ => record.get("Package").to_owned(),
    };
    let mut list = String::from("/.\n");
    let mut sums = String::new();
    for entry in &package.data {
        let path = String::from_utf8(plain(&entry.path)).context("a name in it is no text")?;
        ensure!(!path.contains('\n'), "a name in it has a line break");
        if path.is_empty() {
            continue;
        }
        list.push_str(&format!("/{path}\n"));
        if let What::File(content) = &entry.what
            && !package.conffiles.contains(path.as_bytes())
        {
            sums.push_str(&format!("{}  {path}\n", md5(&tree.sources, content)?));
        }
    }
    let mut small = |text: String| -> Result<Content> {
        let len = text.len() as u64;
        Ok(Content::whole(tree.sources.add(Source::Bytes(text.into_bytes()))?, 0, len))
    };
    let plain_file = Meta::root(0o644, time);
    let mut made = vec![("list".to_owned(), plain_file.clone(), small(list)?)];
    if !package.about.contains_key("md5sums") {
        made.push(("md5sums".to_owned(), plain_file, small(sums)?));
    }
    for (file, (meta, content)) in package.about.iter().filter(|(file, _)| *file != "control") {
        made.push((file.clone(), Meta { uid: 0, gid: 0, ..meta.clone() }, content.clone()));
    }
    Ok(made
        .into_iter()
        .map(|(file, meta, content)| Entry {
            path: format!("{INFO}/{name}.{file}").into_bytes(),
            meta,
            what: What::File(content),
        })
        .collect())
}

/// The record of a package in the state of dpkg.
fn record(package: &Package, sources: &Sources) -> Result<Record> {
    let mut record = package.record.clone();
    record.set("Status", "install ok installed".to_owned());
    if !package.conffiles.is_empty() {
        let mut value = String::new();
        for path in &package.conffiles {
            let content = package.data.iter().find_map(|entry| match &entry.what {
                What::File(content) if plain(&entry.path) == *path => Some(content),
                _ => None,
            });
            let content =
                content.with_context(|| format!("its configuration `{}` is not in it", shown(path)))?;
            value.push_str(&format!("\n /{} {}", String::from_utf8_lossy(path), md5(sources, content)?));
        }
        record.add("Conffiles", value);
    }
    Ok(record)
}

fn layered(package: &Package, tree: &Tree) -> Result<Layered> {
    let mut deferred = Vec::new();
    for work in &package.work {
        deferred.push(unit(tree, *work).with_context(|| {
            format!("{} needs {}, which the tree does not have", package.record.shown(), work.unit())
        })?);
    }
    let mut deferred: Vec<String> = deferred.into_iter().map(str::to_owned).collect();
    deferred.extend(package.triggers.iter().map(|name| format!("trigger {name} at the next call of dpkg")));
    Ok(Layered {
        package: package.record.shown(),
        sha256: package.sha256.clone(),
        class: if deferred.is_empty() { "safe" } else { "deferred" }.to_owned(),
        deferred,
        signer: None,
    })
}

fn text_of(tree: &Tree, path: &str) -> Result<String> {
    let Some(id) = tree.find_following(path.as_bytes()) else { return Ok(String::new()) };
    let Kind::File(content) = &tree.node(id).kind else { return Ok(String::new()) };
    let bytes = tree.sources.read_all(content, MAX_TEXT).with_context(|| format!("reading /{path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn md5(sources: &Sources, content: &Content) -> Result<String> {
    let (mut hash, mut reader) = (Md5::new(), sources.open(content));
    let (mut buffer, mut at) = (vec![0; 1 << 16], 0);
    while at < content.size() {
        let part = usize::try_from((content.size() - at).min(buffer.len() as u64))?;
        reader.read_at(&mut buffer[..part], at)?;
        hash.update(&buffer[..part]);
        at += part as u64;
    }
    Ok(hex(&hash.finalize()))
}
