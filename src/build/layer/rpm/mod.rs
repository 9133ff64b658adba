//! RPM packages as a layer: their files on the tree, themselves in the tree's own database, and no script run.
//!
//! A layer is one package, or a folder of packages that belong together. What happens, in this order:
//!
//! 1. Each package is copied into a spool and judged: digests, and the signature where certificates are given.
//! 2. What it would run is looked at ([`scripts`]): a package whose scripts cannot be left out is refused by tag and
//!    interpreter, before anything of it is unpacked.
//! 3. `rpm` registers them in a private copy of the tree's database, which also checks their dependencies and conflicts
//!    against it ([`database`]).
//! 4. The payload is read into the spool and compared with the signed header ([`payload`]).
//! 5. Files that are in the way are treated as rpm treats them: those of other packages refuse, `%config(noreplace)`
//!    stands beside as `.rpmnew`, other configuration is kept as `.rpmorig`, everything else is replaced.
//! 6. Owners are looked up in the tree ([`mod@users`]); unknown ones refuse, where rpm would take root and keep the set-id bit.
//! 7. File triggers of the tree's packages that the files would fire are judged like scripts.
//! 8. `/etc/.updated` and `/var/.updated` go, so that the template's own units catch up when it starts.
//!
//! A package that is already there is refused: a layer adds, and an update belongs to the template's package manager.

mod capability;
mod database;
mod package;
mod payload;
pub(super) mod scripts;
mod users;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

pub use database::Missing;
pub use payload::fuzz_payload;

use super::input::Spool;
use super::template::Trust;
use super::{Entry, What, Whiteouts, apply, sha256};
use crate::build::tree::content::Content;
use crate::build::tree::{Device, Kind, Meta, Missing as Parents, NodeId, Tree, shown};
use crate::spool::Spooled;
use crate::verify::Ordinary;
use database::{Database, words};
use package::Facts;
use scripts::{Verdict, Work};
use users::Users;

const MAX_PACKAGES: usize = 4096;
/// Largest file of `sysusers.d` that is read.
const MAX_SYSUSERS: u64 = 1 << 20;

/// A package that was put on a tree.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Layered {
    /// What it is called, with version and architecture.
    pub package: String,
    /// SHA-256 of its file.
    pub sha256: String,
    /// `safe`, or `deferred` when something is left to the template's first start.
    pub class: String,
    /// What is left to the template: the units that do it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deferred: Vec<String>,
    /// Fingerprint of the certificate it was signed with, where that was checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
}

/// What a layer of packages brought.
#[derive(Debug)]
pub struct Outcome {
    /// The packages, in the order of their files' names.
    pub packages: Vec<Layered>,
    /// What identifies them together.
    pub digest: String,
    /// The program that wrote the database.
    pub tool: String,
    /// What a person should know.
    pub warnings: Vec<String>,
}

struct Package {
    opened: Ordinary,
    facts: Facts,
    verdict: Verdict,
    file: PathBuf,
    sha256: String,
    contents: Vec<Content>,
}

/// Puts a package, or those of a folder, on a tree.
///
/// # Errors
/// [`Missing`] when dependencies are not fulfilled; whatever else the head of the module names. The tree may then have
/// changed and is of no use any more.
pub fn put(
    path: &Path,
    trust: Option<&Trust>,
    tree: &mut Tree,
    spool: &mut Spool,
    time: i64,
) -> Result<Outcome> {
    let database = Database::of(tree, spool.folder(), spool.left(), time)?;
    let mut packages = Vec::new();
    for (number, file) in files(path, "rpm")?.iter().enumerate() {
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let opened = open(file, trust, number, &database, spool);
        packages.push(opened.with_context(|| format!("reading package {}", name.escape_debug()))?);
    }
    refuse_known(&packages, &database)?;
    refuse_scripts(&packages)?;
    database.register(&packages.iter().map(|package| package.file.clone()).collect::<Vec<_>>())?;
    let tool = database.program()?;
    for package in &mut packages {
        let algorithm = package::algorithm(&package.opened)?;
        let payload = package.opened.payload();
        package.contents = payload::contents(payload, &package.facts, algorithm, &mut tree.sources, spool)
            .with_context(|| format!("unpacking {}", package.facts.nevra()))?;
    }
    let users = users(&packages, tree)?;
    fired(&mut packages, &database)?;
    let mut warnings = Vec::new();
    let entries = entries(&packages, tree, &users, &database, &mut warnings)?;
    if trust.is_none() {
        warnings.push("nobody checked who signed the packages: the layer names no `keys`".to_owned());
    }
    let label = |id: NodeId| tree.node(id).meta.xattrs().any(|(name, _)| name == b"security.selinux");
    if tree.find_following(b"usr/bin").is_some_and(label) {
        warnings
            .push("the packages' files have no SELinux labels: the template has to relabel them".to_owned());
    }
    warnings.extend(apply(tree, entries, Whiteouts::None, time)?);
    database.put_back(tree, spool)?;
    catch_up(tree)?;
    let layered = packages.iter().map(|package| layered(package, tree)).collect::<Result<Vec<_>>>()?;
    Ok(Outcome { digest: digest(&layered), packages: layered, tool, warnings })
}

/// Packages in a tree's database: name, version, architecture, licence, source package. None where it has no database.
pub fn installed(tree: &Tree, folder: &Path, time: i64) -> Result<Vec<[String; 5]>> {
    if database::place(tree).is_none() {
        return Ok(Vec::new());
    }
    let database = Database::of(tree, folder, u64::MAX, time)?;
    let answer = database.ask("%{NAME}\t%{EVR}\t%{ARCH}\t%{LICENSE}\t%{SOURCERPM}\n")?;
    let fields = answer.lines().map(|line| line.split('\t').map(str::to_owned).collect::<Vec<_>>());
    // the keys that rpm keeps among the packages have no architecture
    Ok(fields
        .filter_map(|fields| fields.try_into().ok())
        .filter(|[_, _, arch, ..]: &[String; 5]| arch != "(none)")
        .collect())
}

/// The packages at a path: itself, or those in a folder in the order of their names.
pub(super) fn files(path: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).context("listing its packages")? {
        let file = entry.context("listing its packages")?.path();
        if file.extension().is_some_and(|found| found == extension) {
            files.push(file);
        }
    }
    ensure!(!files.is_empty(), "the folder has no file with the ending .{extension}");
    ensure!(files.len() <= MAX_PACKAGES, "the folder has more than {MAX_PACKAGES} packages");
    files.sort();
    Ok(files)
}

/// What identifies packages together: the SHA-256 of their digests, one a line.
pub(super) fn digest(packages: &[Layered]) -> String {
    if let [one] = packages {
        return format!("sha256:{}", one.sha256);
    }
    let lines: String = packages.iter().map(|package| format!("{}\n", package.sha256)).collect();
    format!("sha256:{:x}", Sha256::digest(lines))
}

fn open(
    path: &Path,
    trust: Option<&Trust>,
    number: usize,
    database: &Database,
    spool: &Spool,
) -> Result<Package> {
    let mut source = File::open(path).context("opening it")?;
    let spooled = Spooled::copy_of(&mut source, spool.folder(), spool.left()).context("copying it")?;
    let opened = Ordinary::open(spooled, trust.map(|trust| (&trust.keyring, trust.now)))?;
    let file = database.packages().join(format!("{number:04}.rpm"));
    opened.persist(&file).context("copying it")?;
    let facts = Facts::read(&opened)?;
    let verdict = scripts::look(&opened)?;
    Ok(Package { sha256: sha256(&file)?, opened, facts, verdict, file, contents: Vec::new() })
}

fn refuse_scripts(packages: &[Package]) -> Result<()> {
    let mut lines = String::new();
    for package in packages.iter().filter(|package| package.verdict.refused) {
        for script in &package.verdict.scripts {
            lines.push_str(&format!("\n  {}: {script}", package.facts.nevra()));
        }
    }
    ensure!(
        lines.is_empty(),
        "the packages run programs that an image cannot do without, and none is run here:{lines}\n\
         help: install them with the package manager inside the template"
    );
    Ok(())
}

fn refuse_known(packages: &[Package], database: &Database) -> Result<()> {
    let known = database.known()?;
    for package in packages {
        let facts = &package.facts;
        if let Some(there) = known.iter().find(|there| there.name == facts.name && there.arch == facts.arch) {
            bail!("{} cannot be added: {} is already in the tree", facts.nevra(), there.nevra.escape_debug());
        }
        let fits = facts.arch == "noarch"
            || known.iter().all(|there| matches!(there.arch.as_str(), "noarch" | "(none)"))
            || known.iter().any(|there| there.arch == facts.arch);
        ensure!(fits, "{} is for another machine than everything in the tree", facts.nevra());
        if let Some(old) = facts.obsoletes.iter().find(|old| known.iter().any(|there| there.name == **old)) {
            bail!("{} takes the place of {}, which is in the tree", facts.nevra(), old.escape_debug());
        }
    }
    Ok(())
}

/// The users of the tree and of the packages' own `sysusers.d`.
fn users(packages: &[Package], tree: &Tree) -> Result<Users> {
    let mut users = Users::of(tree)?;
    for package in packages {
        for (file, content) in package.facts.files.iter().zip(&package.contents) {
            if file.path.starts_with(b"usr/lib/sysusers.d/") && file.path.ends_with(b".conf") && !file.ghost()
            {
                let content = if file.last == file.first { content } else { continue };
                let bytes = tree.sources.read_all(content, MAX_SYSUSERS)?;
                users.promise(&String::from_utf8_lossy(&bytes)).with_context(|| {
                    format!("reading `{}` of {}", shown(&file.path), package.facts.nevra())
                })?;
            }
        }
    }
    Ok(users)
}

/// Notes what the triggers of packages in the tree would do about the new packages and their files.
fn fired(packages: &mut [Package], database: &Database) -> Result<()> {
    for (kind, by_path) in [("FILETRIGGER", true), ("TRANSFILETRIGGER", true), ("TRIGGER", false)] {
        let format = format!(
            "P %{{NAME:shescape}}\n[N %{{{kind}NAME:shescape}} %{{{kind}INDEX}} %{{{kind}FLAGS}}\n]\
             [S %{{{kind}SCRIPTPROG:shescape}} %{{{kind}SCRIPTS:shescape}}\n]"
        );
        let answer = words(&database.ask(&format)?);
        for owner in triggers(&answer)? {
            for (watched, index, flags) in &owner.watched {
                if flags & (1 << 17 | 1 << 18) != 0 {
                    continue;
                }
                for package in packages.iter_mut() {
                    let fires = if by_path {
                        let wanted = watched.trim_start_matches('/').as_bytes();
                        package.facts.files.iter().any(|file| file.path.starts_with(wanted))
                    } else {
                        package.facts.name == *watched
                    };
                    if !fires {
                        continue;
                    }
                    let (interpreter, text) =
                        owner.scripts.get(*index).context("a trigger of the tree has no script")?;
                    match scripts::judge(interpreter, text) {
                        Some(work) => package.verdict.work.extend(work),
                        None => bail!(
                            "{} fires a trigger of {} that an image cannot do without: {kind}IN {} (for {})",
                            package.facts.nevra(),
                            owner.name.escape_debug(),
                            interpreter.escape_debug(),
                            watched.escape_debug()
                        ),
                    }
                }
            }
        }
    }
    Ok(())
}

struct Triggers {
    name: String,
    /// What is watched, the number of the script, flags.
    watched: Vec<(String, usize, u64)>,
    /// Interpreter and text.
    scripts: Vec<(String, String)>,
}

fn triggers(answer: &[String]) -> Result<Vec<Triggers>> {
    let mut all: Vec<Triggers> = Vec::new();
    let mut words = answer.iter();
    while let Some(word) = words.next() {
        let mut next = || words.next().cloned().context("rpm's answer about triggers ends in the middle");
        if word == "P" {
            all.push(Triggers { name: next()?, watched: Vec::new(), scripts: Vec::new() });
            continue;
        }
        let last = all.last_mut().context("rpm's answer about triggers is not understood")?;
        match word.as_str() {
            "N" => last.watched.push((next()?, next()?.parse()?, next()?.parse()?)),
            "S" => last.scripts.push((next()?, next()?)),
            _ => bail!("rpm's answer about triggers is not understood"),
        }
    }
    Ok(all)
}

/// What the packages put on the tree.
fn entries(
    packages: &[Package],
    tree: &Tree,
    users: &Users,
    database: &Database,
    warnings: &mut Vec<String>,
) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    let mut brought: BTreeMap<Vec<u8>, (usize, usize)> = BTreeMap::new();
    let owners = owners(packages, tree, database)?;
    for (number, package) in packages.iter().enumerate() {
        for (at, file) in package.facts.files.iter().enumerate().filter(|(_, file)| !file.ghost()) {
            let context = || format!("`{}` of {}", shown(&file.path), package.facts.nevra());
            if let Some((other, other_at)) = brought.insert(file.path.clone(), (number, at)) {
                let (theirs, same) = (&packages[other].facts, &packages[other].facts.files[other_at]);
                ensure!(
                    (file.mode, &file.user, &file.group, &file.digest, &file.target, &file.capabilities)
                        == (
                            same.mode,
                            &same.user,
                            &same.group,
                            &same.digest,
                            &same.target,
                            &same.capabilities
                        ),
                    "{}: {} has another file of this name",
                    context(),
                    theirs.nevra()
                );
                continue;
            }
            let mut entry = entry(package, at, users).with_context(context)?;
            let there = tree.find(&file.path);
            if entry.what == What::Directory
                && let Some(there) = tree.find_following(&file.path)
            {
                entry.meta.xattrs.clone_from(&tree.node(there).meta.xattrs);
            }
            if let Some(there) = there
                && entry.what != What::Directory
            {
                let place = Place { tree, package, at, there, owner: owners.get(&there).map(String::as_str) };
                let suffix = place.settle(warnings).with_context(context)?;
                match suffix {
                    None => {}
                    Some(Beside::New) => entry.path.extend_from_slice(b".rpmnew"),
                    Some(Beside::Old) => entries.push(Entry {
                        path: [&file.path[..], b".rpmorig"].concat(),
                        meta: tree.node(there).meta.clone(),
                        what: What::Link(file.path.clone()),
                    }),
                }
            }
            entries.push(entry);
        }
    }
    Ok(entries)
}

fn entry(package: &Package, at: usize, users: &Users) -> Result<Entry> {
    let file = &package.facts.files[at];
    let mut meta = Meta {
        mode: file.mode & 0o7777,
        uid: users.user(&file.user)?,
        gid: users.group(&file.group)?,
        mtime: file.mtime,
        xattrs: None,
    };
    if let Some(value) = capability::attribute(&file.capabilities)? {
        meta.set_xattr(b"security.capability", &value);
    }
    let device = Device { major: u32::from(file.device >> 8), minor: u32::from(file.device & 0xff) };
    let what = match file.mode & 0o170_000 {
        0o040_000 => What::Directory,
        0o100_000 if file.first != at => What::Link(package.facts.files[file.first].path.clone()),
        0o100_000 => What::File(package.contents[file.last].clone()),
        0o120_000 => {
            meta.mode = 0o777;
            What::Symlink(file.target.as_bytes().into())
        }
        0o020_000 => What::Char(device),
        0o060_000 => What::Block(device),
        0o010_000 => What::Fifo,
        _ => bail!("it is of a kind that packages do not have"),
    };
    Ok(Entry { path: file.path.clone(), meta, what })
}

/// Packages of the tree that have a file where the new ones want one.
fn owners(packages: &[Package], tree: &Tree, database: &Database) -> Result<BTreeMap<NodeId, String>> {
    let mut wanted = BTreeSet::new();
    for file in packages.iter().flat_map(|package| &package.facts.files).filter(|file| !file.ghost()) {
        if let Some(there) = tree.find(&file.path)
            && tree.node(there).entries().is_none()
        {
            wanted.insert(there);
        }
    }
    let mut owners = BTreeMap::new();
    if wanted.is_empty() {
        return Ok(owners);
    }
    let new: BTreeSet<String> = packages.iter().map(|package| package.facts.nevra()).collect();
    let answer = database.ask("[%{=NEVRA}\t%{FILENAMES}\n]")?;
    let mut folders: BTreeMap<&str, Option<NodeId>> = BTreeMap::new();
    for line in answer.lines() {
        let Some((owner, path)) = line.split_once('\t').filter(|(owner, _)| !new.contains(*owner)) else {
            continue;
        };
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let folder = folders.entry(folder).or_insert_with(|| tree.find_following(folder.as_bytes()));
        if let Some(there) = folder.and_then(|folder| tree.child(folder, name.as_bytes()))
            && wanted.contains(&there)
        {
            owners.insert(there, owner.to_owned());
        }
    }
    Ok(owners)
}

/// Which of two files stands beside the other.
enum Beside {
    /// The package's, as `.rpmnew`.
    New,
    /// The one that was there, as `.rpmorig`.
    Old,
}

/// Where a package wants a file and something is.
struct Place<'a> {
    tree: &'a Tree,
    package: &'a Package,
    at: usize,
    there: NodeId,
    owner: Option<&'a str>,
}

impl Place<'_> {
    fn settle(&self, warnings: &mut Vec<String>) -> Result<Option<Beside>> {
        let file = &self.package.facts.files[self.at];
        let node = self.tree.node(self.there);
        let same = match (&node.kind, file.mode & 0o170_000) {
            (Kind::Directory(_), _) => bail!("a directory is in its place"),
            (Kind::File(content), 0o100_000) => crate::build::compare::same_content(
                &self.tree.sources,
                content,
                &self.package.contents[file.last],
            )?,
            (Kind::Symlink(target), 0o120_000) => **target == *file.target.as_bytes(),
            _ => false,
        };
        if same {
            return Ok(None);
        }
        if let Some(owner) = self.owner {
            bail!("the package {} of the tree has another file of this name", owner.escape_debug());
        }
        let path = shown(&file.path);
        Ok(if file.config() && file.keeps_old() {
            warnings.push(format!("`/{path}` is kept; the package's own is `/{path}.rpmnew`"));
            Some(Beside::New)
        } else if file.config() && matches!(node.kind, Kind::File(_)) {
            warnings.push(format!("`/{path}` is replaced; what was there is `/{path}.rpmorig`"));
            Some(Beside::Old)
        } else {
            warnings.push(format!("`/{path}`, which no package had, is replaced"));
            None
        })
    }
}

/// Removes the marks by which the template would believe that it has already caught up with its `/usr`.
pub(super) fn catch_up(tree: &mut Tree) -> Result<()> {
    for mark in [&b"etc/.updated"[..], b"var/.updated"] {
        if let Some((parent, name)) = tree.place(mark, Parents::Nothing)? {
            tree.remove(parent, name);
        }
    }
    Ok(())
}

/// Says what was done about a package; refuses work that nothing in the tree would do.
fn layered(package: &Package, tree: &Tree) -> Result<Layered> {
    let mut work = package.verdict.work.clone();
    for file in package.facts.files.iter().filter(|file| !file.ghost()) {
        if let Some(more) = std::str::from_utf8(&file.path).ok().and_then(Work::of_path)
            && (more == Work::Users || unit(tree, more).is_some())
        {
            work.insert(more);
        }
    }
    let mut deferred = Vec::new();
    for work in work {
        let unit = unit(tree, work).with_context(|| {
            format!(
                "{} needs what {} does when a template starts, and the tree has no such unit",
                package.facts.nevra(),
                work.unit()
            )
        })?;
        deferred.push(unit.to_owned());
    }
    Ok(Layered {
        package: package.facts.nevra(),
        sha256: package.sha256.clone(),
        class: if deferred.is_empty() { "safe" } else { "deferred" }.to_owned(),
        deferred,
        signer: package.opened.signer().map(|signer| signer.certificate.clone()),
    })
}

/// The unit that does some work, if the tree has it.
pub(super) fn unit(tree: &Tree, work: Work) -> Option<&'static str> {
    let name = work.unit();
    let there = ["usr/lib/systemd/system", "lib/systemd/system"]
        .iter()
        .any(|place| tree.find(format!("{place}/{name}").as_bytes()).is_some());
    there.then_some(name)
}
