//! Where a case is played: a folder with the emulated dom0 and the files of the qube that the tool runs in.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};
use qvm_template::sandbox::qubesd::Qubesd;
use qvm_template::sandbox::view::View;
use serde_json::Value;

use super::super::recording;
use super::super::support::packages::Packages;
use super::super::support::programs;
use super::case::{Case, FileBefore};
use super::desk::{Book, Desk};
use super::{front, reply};

/// Where a case's files are.
const HOME: &str = "/home/user";
/// Longest time that a case may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What all cases have in common.
#[derive(Debug)]
pub struct World {
    recordings: PathBuf,
    packages: Arc<Packages>,
    program: PathBuf,
    populations: BTreeMap<String, Value>,
}

/// What came of a case.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status.
    pub rc: i32,
    /// What was printed.
    pub stdout: String,
    /// What was printed.
    pub stderr: String,
    /// What was asked.
    pub book: Book,
    /// Files in the user's folder afterwards.
    pub files_after: Vec<String>,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "-- status {}, {} reads\n-- stdout\n{}-- stderr\n{}",
            self.rc, self.book.reads, self.stdout, self.stderr
        )?;
        for call in self.book.requests.iter().chain(&self.book.calls) {
            writeln!(f, "-- {call}")?;
        }
        writeln!(f, "-- files {:?}", self.files_after)
    }
}

impl World {
    /// Reads what all cases share.
    pub fn new(recordings: &Path, packages: Packages) -> Result<Self> {
        let mut populations = BTreeMap::new();
        for entry in fs::read_dir(recordings.join("populations")).context("listing the populations")? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let value =
                serde_json::from_slice(&text).with_context(|| format!("understanding {}", path.display()))?;
            populations.insert(name, value);
        }
        let program = std::env::current_exe().context("finding this program")?;
        Ok(Self { recordings: recordings.to_owned(), packages: Arc::new(packages), program, populations })
    }

    /// The packages.
    pub fn packages(&self) -> &Packages {
        &self.packages
    }

    /// Plays a case.
    pub fn play(&self, case: &Case) -> Result<Outcome> {
        let folder = tempfile::Builder::new().prefix("qt-cli-").tempdir().context("making a folder")?;
        let files = folder.path().join("files");
        let stage = folder.path().join("stage");
        fs::create_dir_all(&stage)?;
        self.lay_out(case, &files)?;
        let population = self
            .populations
            .get(&case.population)
            .with_context(|| format!("there is no population {}", case.population))?;
        let system = qvm_template::sandbox::population::read(&serde_json::to_vec(population)?)
            .context("reading the population")?;
        let dom0 = Qubesd::create(&folder.path().join("dom0"), system).context("setting up dom0")?;
        let desk = Desk::open(
            &files.join(front::SOCKET.trim_start_matches('/')),
            &self.recordings,
            &self.packages,
            case,
            dom0,
            population,
        )?;
        let lock = case.locked.then(|| hold_lock(&files)).transpose()?;
        let played = self.run(case, &files, &stage, folder.path());
        drop(lock);
        let book = desk.close()?;
        let (rc, stdout, stderr) = played?;
        ensure!(book.faults.is_empty(), "at the desk: {}", book.faults.join("; "));
        let mut files_after = Vec::new();
        list(&files.join(HOME.trim_start_matches('/')), HOME, &mut files_after)?;
        // What is remembered between runs; the original remembers nothing.
        files_after.retain(|path| !path.starts_with(&format!("{HOME}/.local/state/qvm-template/")));
        files_after.sort();
        Ok(Outcome { rc, stdout, stderr, book, files_after })
    }

    fn run(&self, case: &Case, files: &Path, stage: &Path, folder: &Path) -> Result<(i32, String, String)> {
        let host = |path: &str| (PathBuf::from("/usr/bin").join(path), self.program.clone());
        let mut links = vec![host(front::CLIENT), host(front::RUNUSER)];
        links.push((Path::new("/usr/sbin").join(front::RUNUSER), self.program.clone()));
        if case.appmenus {
            links.push(host(front::APPMENUS));
        }
        let tools = ["qvm-template", "qvm-template-postprocess"];
        links.extend(
            tools.map(|tool| (Path::new("/usr/bin").join(tool), PathBuf::from(programs::QVM_TEMPLATE))),
        );
        let view = View {
            qube: "mgmt".to_owned(),
            files: Some(files.to_owned()),
            programs: links,
            binds: Vec::new(),
            uid: case.uid,
            space: None,
            directory: Some(HOME.into()),
            stage: stage.to_owned(),
        };
        let tool = case.tool.as_deref().unwrap_or("qvm-template");
        let (out, err) = (folder.join("stdout"), folder.join("stderr"));
        let mut child = Command::new(&self.program)
            .arg(front::ENTER)
            .arg(serde_json::to_string(&view)?)
            .arg(Path::new("/usr/bin").join(tool))
            .args(&case.args)
            .env_clear()
            .envs([
                ("TZ", "UTC"),
                ("COLUMNS", "80"),
                ("LC_ALL", "C.UTF-8"),
                ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            ])
            .envs(&case.env)
            .stdin(Stdio::piped())
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .context("starting the tool")?;
        if let Some(mut input) = child.stdin.take() {
            // A tool that ends without reading is none of our business.
            let _ = input.write_all(case.stdin.as_deref().unwrap_or_default().as_bytes());
        }
        let begin = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begin.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                bail!("no end after {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let read = |path: &Path| fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Ok((status.code().unwrap_or(-1), read(&out)?, read(&err)?))
    }

    fn lay_out(&self, case: &Case, files: &Path) -> Result<()> {
        let at = |path: &str| files.join(path.trim_start_matches('/'));
        for path in
            ["/home/user", "/run/qubes", "/var/tmp", "/tmp", "/etc/qubes-rpc", "/etc/rpm", "/usr/share/qubes"]
        {
            fs::create_dir_all(at(path))?;
        }
        let os = "NAME=\"Qubes OS\"\nID=qubes\nVERSION_ID=4.3\nPRETTY_NAME=\"Qubes OS 4.3\"\n";
        fs::write(at("/etc/os-release"), os)?;
        let repos = at("/etc/qubes/repo-templates");
        fs::create_dir_all(repos.join("keys"))?;
        for name in &case.repo_files {
            let from = self.recordings.join("etc/qubes/repo-templates").join(name);
            fs::copy(&from, repos.join(name)).with_context(|| format!("copying {}", from.display()))?;
        }
        for (name, certificate) in &self.packages.certificates {
            fs::write(repos.join("keys").join(name), certificate)?;
        }
        if case.local_service {
            for service in front::SERVICES {
                let host = Path::new(qvm_template::sandbox::view::HOST);
                let program = host.join(self.program.strip_prefix("/").unwrap_or(&self.program));
                symlink(program, at("/etc/qubes-rpc").join(service))?;
            }
        }
        if !case.qubes_group {
            fs::write(at("/etc/group"), "root:x:0:\nuser:x:1000:\n")?;
        }
        for (path, before) in &case.files {
            self.put(&at(path), before).with_context(|| format!("putting {path} in its place"))?;
        }
        if let Some(labels) = &case.rpmdb {
            fs::write(at("/etc/rpm/macros.case"), "%_dbpath /var/lib/rpm\n")?;
            self.rpm_database(&at("/var/lib/rpm"), labels)?;
        }
        Ok(())
    }

    fn put(&self, path: &Path, before: &FileBefore) -> Result<()> {
        if before.dir.is_some() {
            return fs::create_dir_all(path).context("making a folder");
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let content = match (&before.text, &before.package) {
            (Some(text), _) => recording::bytes(text)?.unwrap_or_default(),
            (None, Some(label)) => {
                let package =
                    self.packages.find(label).with_context(|| format!("there is no package {label}"))?;
                let mut bytes = fs::read(&package.path)?;
                if let Some(at) = before.flip {
                    reply::flip(&mut bytes, at)?;
                }
                bytes
            }
            (None, None) => Vec::new(),
        };
        fs::write(path, content).context("writing a file")
    }

    fn rpm_database(&self, folder: &Path, labels: &[String]) -> Result<()> {
        fs::create_dir_all(folder)?;
        let dbpath = format!("--dbpath={}", folder.display());
        programs::success(folder, "rpm", [dbpath.as_str(), "--initdb"])?;
        for label in labels {
            let package =
                self.packages.find(label).with_context(|| format!("there is no package {label}"))?;
            let path = package.path.display().to_string();
            let words = [
                dbpath.as_str(),
                "-i",
                "--justdb",
                "--nodeps",
                "--noscripts",
                "--nosignature",
                "--ignoresize",
                &path,
            ];
            programs::success(folder, "rpm", words)?;
        }
        Ok(())
    }
}

/// Holds the lock as another process would.
fn hold_lock(files: &Path) -> Result<Flock<File>> {
    let file = File::create(files.join("run/qubes/qvm-template.lock")).context("making a lock file")?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| error).context("holding the lock")
}

fn list(folder: &Path, inside: &str, into: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        let inside = format!("{inside}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            list(&entry.path(), &inside, into)?;
        } else {
            into.push(inside);
        }
    }
    Ok(())
}
