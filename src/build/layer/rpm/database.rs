//! The database of rpm in a tree: a private copy of it, asked and changed by `rpm` itself.
//!
//! The copy lies in a temporary folder; `rpm` gets no root directory, no rights and no script to run (`--justdb
//! --noscripts --notriggers`), and nothing of it touches the machine. With `SOURCE_DATE_EPOCH` the time of installation
//! is the one of the source, and the same input gives the same database, byte for byte (measured with rpm 4.18).
//!
//! Only databases of SQLite (rpm 4.16 and later: `rpmdb.sqlite`) can be changed.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::build::layer::input::Spool;
use crate::build::tree::content::Content;
use crate::build::tree::{Kind, NodeId, Tree};

/// Where a database can be, the newest place first.
const PLACES: [&str; 3] = ["usr/lib/sysimage/rpm", "var/lib/rpm", "usr/share/rpm"];
const FILE: &str = "rpmdb.sqlite";
const OTHERS: [&str; 3] = ["Packages", "Packages.db", "data.mdb"];
/// Most bytes that `rpm` may answer: names and digests of a million files.
const MAX_ANSWER: u64 = 512 << 20;
const MAX_DATABASE: u64 = 2 << 30;

/// Dependencies that neither the base nor the packages fulfil.
#[derive(Debug, thiserror::Error)]
#[error("the base lacks what the packages need:{}\nhelp: add packages that have it; `compose --missing` prints this list alone", list(.0))]
pub struct Missing(pub Vec<String>);

fn list(lines: &[String]) -> String {
    lines.iter().map(|line| format!("\n  {line}")).collect()
}

/// A private copy of a tree's database.
#[derive(Debug)]
pub(super) struct Database {
    folder: tempfile::TempDir,
    /// The file in the tree.
    node: NodeId,
    time: i64,
}

/// A package that is in the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Known {
    pub(super) name: String,
    pub(super) arch: String,
    pub(super) nevra: String,
}

impl Database {
    /// Copies the database out of a tree.
    pub(super) fn of(tree: &Tree, folder: &Path, limit: u64, time: i64) -> Result<Self> {
        let Some(node) = place(tree) else {
            let other = PLACES.iter().any(|place| {
                OTHERS.iter().any(|name| tree.find_following(format!("{place}/{name}").as_bytes()).is_some())
            });
            if other {
                bail!("the tree's rpm database is not one of SQLite, which alone can be written here");
            }
            bail!(
                "the tree has no rpm database to register packages in, and packages that nothing knows of would never be updated"
            );
        };
        let folder = tempfile::Builder::new()
            .prefix("rpm-")
            .tempdir_in(folder)
            .context("making a temporary folder for rpm's database")?;
        for made in ["db", "home", "packages"] {
            std::fs::create_dir(folder.path().join(made)).context("making a temporary folder")?;
        }
        let database = Self { folder, node, time };
        let Kind::File(content) = &tree.node(node).kind else { bail!("the tree's rpm database is no file") };
        ensure!(content.size() <= MAX_DATABASE.min(limit), "the tree's rpm database is too large");
        copy(tree, content, &database.db().join(FILE))?;
        // what was not yet moved into the database proper
        for place in PLACES {
            if let Some(log) = tree.find_following(format!("{place}/{FILE}-wal").as_bytes())
                && let Kind::File(content) = &tree.node(log).kind
                && content.size() > 0
            {
                ensure!(content.size() <= MAX_DATABASE, "the tree's rpm database is too large");
                copy(tree, content, &database.db().join(format!("{FILE}-wal")))?;
            }
        }
        Ok(database)
    }

    fn db(&self) -> PathBuf {
        self.folder.path().join("db")
    }

    /// Where the packages are put for `rpm` to read them.
    pub(super) fn packages(&self) -> PathBuf {
        self.folder.path().join("packages")
    }

    /// All packages in it.
    pub(super) fn known(&self) -> Result<Vec<Known>> {
        let answer = self.ask("%{NAME}\t%{ARCH}\t%{NEVRA}\n")?;
        let lines = answer.lines().filter_map(|line| {
            let mut fields = line.split('\t').map(str::to_owned);
            Some(Known { name: fields.next()?, arch: fields.next()?, nevra: fields.next()? })
        });
        Ok(lines.collect())
    }

    /// Something about every package, in the order of their names.
    pub(super) fn ask(&self, format: &str) -> Result<String> {
        let (status, out, said) = self.run(&["-qa", "--qf", format])?;
        ensure!(status, "rpm cannot read the tree's database: {}", said.trim().escape_debug());
        Ok(out)
    }

    /// Registers packages. The files must be in [`Database::packages`].
    pub(super) fn register(&self, files: &[PathBuf]) -> Result<()> {
        let mut arguments = vec![
            "-i",
            "--justdb",
            "--noscripts",
            "--notriggers",
            "--noplugins",
            "--nosignature",
            "--ignoresize",
            "--ignorearch",
            "--ignoreos",
            "--",
        ];
        let files: Vec<&str> =
            files.iter().map(|file| file.to_str().context("a folder's name")).collect::<Result<_>>()?;
        arguments.extend(files);
        let (status, _, said) = self.run(&arguments)?;
        let lines: Vec<String> =
            said.lines().filter_map(|line| line.strip_prefix('\t')).map(str::to_owned).collect();
        if said.contains("error: Failed dependencies:") && !lines.is_empty() {
            let mut lines: Vec<String> = lines.iter().map(|line| line.escape_debug().to_string()).collect();
            lines.sort();
            lines.dedup();
            return Err(Missing(lines).into());
        }
        let wrong: Vec<&str> = said.lines().filter(|line| !line.starts_with("rpm: ")).collect();
        ensure!(status, "rpm does not register the packages: {}", wrong.join("; ").escape_debug());
        Ok(())
    }

    /// Puts the database back into the tree.
    pub(super) fn put_back(self, tree: &mut Tree, spool: &mut Spool) -> Result<()> {
        let log = self.db().join(format!("{FILE}-wal"));
        ensure!(
            std::fs::metadata(&log).map_or(0, |found| found.len()) == 0,
            "rpm left changes beside its database"
        );
        let context = "taking rpm's database back";
        let mut file = std::fs::File::open(self.db().join(FILE)).context(context)?;
        let size = file.metadata().context(context)?.len();
        ensure!(size <= MAX_DATABASE, "the tree's rpm database is too large");
        let offset = spool.len();
        let mut buffer = vec![0; 1 << 18];
        loop {
            match file.read(&mut buffer).context(context)? {
                0 => break,
                count => spool.append(&buffer[..count])?,
            }
        }
        let source = spool.source(&mut tree.sources)?;
        tree.set_content(self.node, Content::whole(source, offset, size))?;
        tree.meta_mut(self.node).mtime = self.time;
        for place in PLACES {
            for left in ["-wal", "-shm"] {
                if let Some((parent, name)) = tree
                    .place(format!("{place}/{FILE}{left}").as_bytes(), crate::build::tree::Missing::Nothing)?
                {
                    tree.remove(parent, name);
                }
            }
        }
        Ok(())
    }

    /// What the program calls itself.
    pub(super) fn program(&self) -> Result<String> {
        Ok(self.run(&["--version"])?.1.trim().to_owned())
    }

    /// Runs rpm on the copy: whether it succeeded, what it answered and what it said besides.
    fn run(&self, arguments: &[&str]) -> Result<(bool, String, String)> {
        let child = Command::new("rpm")
            .arg("--dbpath")
            .arg(self.db())
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
            .env("HOME", self.folder.path().join("home"))
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .env("SOURCE_DATE_EPOCH", self.time.max(0).to_string())
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("packages are registered by `rpm`, which is not installed (Debian package rpm)")
            }
            Err(error) => return Err(error).context("starting rpm"),
        };
        let mut errors = child.stderr.take().context("what rpm says")?;
        let said = std::thread::spawn(move || {
            let mut said = Vec::new();
            let read = (&mut errors).take(1 << 20).read_to_end(&mut said);
            drop(std::io::copy(&mut errors, &mut std::io::sink()));
            read.map(|_| String::from_utf8_lossy(&said).into_owned())
        });
        let mut answers = child.stdout.take().context("what rpm answers")?;
        let mut out = Vec::new();
        (&mut answers).take(MAX_ANSWER + 1).read_to_end(&mut out).context("reading rpm's answer")?;
        drop(answers);
        let status = child.wait().context("waiting for rpm")?;
        let said = said
            .join()
            .map_err(|_| anyhow::anyhow!("reading what rpm says"))?
            .context("reading what rpm says")?;
        ensure!(out.len() as u64 <= MAX_ANSWER, "rpm's answer is too long");
        Ok((status.success(), String::from_utf8_lossy(&out).into_owned(), said))
    }
}

fn copy(tree: &Tree, content: &Content, to: &Path) -> Result<()> {
    use std::io::Write as _;
    let context = || format!("copying the tree's rpm database to {}", to.display());
    let mut file = std::fs::File::create(to).with_context(context)?;
    let mut reader = tree.sources.open(content);
    let mut buffer = vec![0; 1 << 18];
    let mut at = 0;
    while at < content.size() {
        let part = usize::try_from((content.size() - at).min(buffer.len() as u64))?;
        reader.read_at(&mut buffer[..part], at)?;
        file.write_all(&buffer[..part]).with_context(context)?;
        at += part as u64;
    }
    Ok(())
}

/// The database of a tree, if it has one that can be read.
pub(super) fn place(tree: &Tree) -> Option<NodeId> {
    PLACES.iter().find_map(|place| tree.find_following(format!("{place}/{FILE}").as_bytes()))
}

/// The words of an answer in which texts are written as the shell would (`:shescape`).
pub(super) fn words(answer: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut letters = answer.chars().peekable();
    while let Some(first) = letters.peek().copied() {
        if first.is_whitespace() {
            letters.next();
            continue;
        }
        let mut word = String::new();
        while let Some(letter) = letters.next_if(|letter| !letter.is_whitespace()) {
            match letter {
                '\'' => word.extend(letters.by_ref().take_while(|letter| *letter != '\'')),
                '\\' => word.extend(letters.next()),
                letter => word.push(letter),
            }
        }
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_the_shell_would_read() {
        assert_eq!(
            words("P 'a b'\nS '<lua>' 'it'\\''s\ntwo'  x''\n''"),
            ["P", "a b", "S", "<lua>", "it's\ntwo", "x", ""]
        );
        assert_eq!(words("'no end"), ["no end"]);
    }
}
