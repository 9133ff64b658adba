//! Reading a policy from its directories.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use thiserror::Error;

use super::python::{decode_error, lines, stripped, words};
use super::rule::{Rule, odd_characters, service_and_argument};

/// Why a policy cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoadError {
    /// A line is no policy.
    #[error("{place}: {message}")]
    Syntax {
        /// File and line.
        place: String,
        /// What is wrong with it.
        message: String,
    },
    /// A file name is none for a policy, or a file cannot be read.
    #[error("{0}")]
    Refused(String),
    /// A file is not UTF-8.
    #[error("{0}")]
    Encoding(String),
}

/// Where a policy is read from. Paths are those that dom0 sees; `root` is where dom0's root is.
#[derive(Clone, Debug)]
pub struct Directories {
    /// Where `/` is.
    pub root: PathBuf,
    /// The directories; of two files with one name, that of the earlier directory counts.
    pub paths: Vec<PathBuf>,
}

impl Directories {
    /// The two directories of a real system, for a dom0 whose files are below `root`.
    #[must_use]
    pub fn of_dom0(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            paths: vec!["/run/qubes/policy.d".into(), "/etc/qubes/policy.d".into()],
        }
    }

    fn real(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}

/// All rules, in their order.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
}

impl Policy {
    /// Reads all of it.
    pub fn load(directories: &Directories) -> Result<Self, LoadError> {
        let mut files: Vec<PathBuf> = Vec::new();
        for directory in &directories.paths {
            for file in policy_files(directories, directory)? {
                if !files.iter().any(|known| known.file_name() == file.file_name()) {
                    files.push(file);
                }
            }
        }
        files.sort_by(|one, other| one.file_name().cmp(&other.file_name()));
        let mut policy = Self::default();
        for file in files {
            let base = file.parent().unwrap_or(&file).to_owned();
            Loader { directories, base: &base, policy: &mut policy, depth: 0 }.file(&file)?;
        }
        Ok(policy)
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }
}

/// Includes deeper than this are a circle.
const MAX_DEPTH: usize = 100;

/// Where rules of the old format are.
const LEGACY: &str = "/etc/qubes-rpc/policy";

type Columns = (Option<String>, Option<String>);

struct Loader<'a> {
    directories: &'a Directories,
    /// What included paths are relative to.
    base: &'a Path,
    policy: &'a mut Policy,
    depth: usize,
}

impl Loader<'_> {
    fn file(&mut self, path: &Path) -> Result<(), LoadError> {
        let name: Arc<str> = path.to_string_lossy().into();
        for (number, line) in self.read(path)?.iter().enumerate().map(|(at, line)| (at + 1, stripped(line))) {
            let at = |message: String| syntax(&name, number, message);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !line.starts_with('!') {
                self.policy.rules.push(Rule::parse(line, &name, number).map_err(at)?);
                continue;
            }
            match words(line).as_slice() {
                ["!include", path] => {
                    let path = self.included(path).map_err(at)?;
                    self.nested(&path, at, |loader| loader.file(&path))?;
                }
                ["!include-dir", directory] => {
                    let directory = resolve(self.base, directory);
                    if !self.directories.real(&directory).is_dir() {
                        return Err(at(format!("not a directory: {}", directory.display())));
                    }
                    for path in policy_files(self.directories, &directory)? {
                        self.nested(&path, at, |loader| loader.file(&path))?;
                    }
                }
                ["!include-service", service, argument, path] => {
                    let columns = service_and_argument(service, argument).map_err(at)?;
                    let path = self.included(path).map_err(at)?;
                    self.nested(&path, at, |loader| loader.service_file(&path, &columns))?;
                }
                ["!compat-4.0"] => self.legacy()?,
                ["!include" | "!include-dir" | "!include-service" | "!compat-4.0", ..] => {
                    return Err(at("invalid number of params".to_owned()));
                }
                _ => return Err(at("invalid directive".to_owned())),
            }
        }
        Ok(())
    }

    fn service_file(&mut self, path: &Path, columns: &Columns) -> Result<(), LoadError> {
        let name: Arc<str> = path.to_string_lossy().into();
        for (number, line) in self.read(path)?.iter().enumerate().map(|(at, line)| (at + 1, stripped(line))) {
            let at = |message: String| syntax(&name, number, message);
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let line = line.replace("$include:", "!include ").replace('$', "@").replace(',', " ");
            if !line.starts_with('!') {
                let place = (&name, Some(number));
                self.policy.rules.push(Rule::parse_for_service(&line, columns.clone(), place).map_err(at)?);
                continue;
            }
            match words(&line).as_slice() {
                ["!include", path] => {
                    let path = self.included(path).map_err(at)?;
                    self.nested(&path, at, |loader| loader.service_file(&path, columns))?;
                }
                ["!include", ..] => return Err(at("invalid number of params".to_owned())),
                _ => return Err(at("invalid directive".to_owned())),
            }
        }
        Ok(())
    }

    /// Rules of the old format: one file a service, or a service with an argument, which then ends in a refusal.
    fn legacy(&mut self) -> Result<(), LoadError> {
        let Ok(entries) = fs::read_dir(self.directories.real(Path::new(LEGACY))) else { return Ok(()) };
        let mut files = BTreeSet::new();
        for entry in entries.flatten().filter(|entry| entry.path().is_file()) {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let ignored = [".rpmsave", ".rpmnew", ".swp"].iter().any(|suffix| name.ends_with(suffix));
            if ignored || name.starts_with('.') || !odd_characters(&name, "+-._").is_empty() {
                continue;
            }
            let (service, argument) = name.split_at(name.find('+').unwrap_or(name.len()));
            // Files without an argument come after those with one.
            files.insert((service.to_owned(), argument.is_empty(), argument.to_owned()));
        }
        for (service, _, argument) in files {
            let path = Path::new(LEGACY).join(format!("{service}{argument}"));
            let name: Arc<str> = path.to_string_lossy().into();
            let columns = (Some(service), Some(argument).filter(|argument| !argument.is_empty()));
            let base = PathBuf::from(LEGACY);
            let mut loader =
                Loader { base: &base, depth: self.depth, directories: self.directories, policy: self.policy };
            loader.service_file(&path, &columns)?;
            if columns.1.is_some() {
                for line in ["@anyvm @anyvm deny", "@anyvm @adminvm deny"] {
                    let rule = Rule::parse_for_service(line, columns.clone(), (&name, None));
                    self.policy.rules.push(rule.map_err(LoadError::Refused)?);
                }
            }
        }
        Ok(())
    }

    fn nested(
        &mut self,
        path: &Path,
        at: impl Fn(String) -> LoadError,
        load: impl FnOnce(&mut Loader) -> Result<(), LoadError>,
    ) -> Result<(), LoadError> {
        if self.depth >= MAX_DEPTH {
            return Err(at(format!("circular include: {}", path.display())));
        }
        let depth = self.depth + 1;
        load(&mut Loader { base: self.base, directories: self.directories, policy: self.policy, depth })
    }

    fn included(&self, path: &str) -> Result<PathBuf, String> {
        let path = resolve(self.base, path);
        if self.directories.real(&path).is_file() {
            Ok(path)
        } else {
            Err(format!("not a file: {}", path.display()))
        }
    }

    fn read(&self, path: &Path) -> Result<Vec<String>, LoadError> {
        let bytes = fs::read(self.directories.real(path)).map_err(|error| unreadable(path, &error))?;
        match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(lines(text)),
            Err(error) => Err(LoadError::Encoding(decode_error(&bytes, error))),
        }
    }
}

/// The files of a directory that are policy, sorted by name.
fn policy_files(directories: &Directories, directory: &Path) -> Result<Vec<PathBuf>, LoadError> {
    let entries = match fs::read_dir(directories.real(directory)) {
        Ok(entries) => entries,
        // dom0 makes the directory of the running system at boot; a sandbox has it when somebody puts a file there.
        Err(error) if error.kind() == io::ErrorKind::NotFound && directory.starts_with("/run") => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(unreadable(directory, &error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let name = entry.map_err(|error| unreadable(directory, &error))?.file_name();
        let path = directory.join(&name);
        let name = name.to_string_lossy();
        if name.ends_with(".policy") && !name.starts_with('.') && directories.real(&path).is_file() {
            files.push(path);
        }
    }
    files.sort();
    let odd = files.iter().find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c))
    });
    match odd {
        Some(path) => Err(LoadError::Refused(format!("invalid filename: {}", path.display()))),
        None => Ok(files),
    }
}

/// A path relative to a directory, without `.` and `..`.
fn resolve(base: &Path, path: &str) -> PathBuf {
    let mut resolved = PathBuf::new();
    for component in base.join(path).components() {
        match component {
            Component::ParentDir => {
                resolved.pop();
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    resolved
}

fn syntax(file: &str, line: usize, message: String) -> LoadError {
    LoadError::Syntax { place: format!("{file}:{line}"), message }
}

fn unreadable(path: &Path, error: &io::Error) -> LoadError {
    let path = path.display();
    let code = error.raw_os_error().unwrap_or(0);
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    LoadError::Refused(format!("failed to load {path} file: [Errno {code}] {text}: '{path}'"))
}
