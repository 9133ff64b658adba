//! What a command line means: every setting with its value and where that comes from.
//!
//! From weak to strong: the default, `/etc/qubes/qvm-template.toml`, the user's `~/.config/qubes/qvm-template.toml`, the command line.
//! Both files have the same flat keys; a key that is not known is an error, since a mistyped one would silently change nothing.

mod file;
mod limits;

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

pub(crate) use self::file::parse;
use self::file::{File, latest, toml_bool, toml_list, toml_number, toml_size, toml_text};
pub use self::limits::Limits;
use super::args::{Typed, integer, size};
use super::release;
use super::table::Opt;
use crate::admission::Demands;
use crate::repo::choice::RepoOption;
use crate::root_image;

/// Configuration of the whole system.
const SYSTEM_FILE: &str = "etc/qubes/qvm-template.toml";
/// The user's configuration, in the directory for configuration.
const USER_FILE: &str = "qubes/qvm-template.toml";
/// Where repository files are.
const REPO_FILES: &str = "/etc/qubes/repo-templates/*.repo";
/// Where repository keys are.
const KEY_DIR: &str = "/etc/qubes/repo-templates/keys";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody said anything.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// The command line.
    CommandLine,
}

/// A value and its origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting<T> {
    /// The value.
    pub value: T,
    /// Where it comes from.
    pub origin: Origin,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// When an answer to a search is shown again for a while ([`crate::query_cache`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// To a person at a terminal. Programs get a fresh one.
    Auto,
    /// Always but in the original's forms for machines: who reads those may know none of this.
    Always,
    /// Never.
    Never,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Bars on a terminal, one changing line of ASCII elsewhere.
    Auto,
    /// Not at all.
    None,
    /// One changing line of ASCII.
    Plain,
    /// Lines of JSON on this file descriptor.
    Json(i32),
}

/// What is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Patterns of repository files.
    pub repo_files: Setting<Vec<String>>,
    /// Key for local files and for repositories that name none.
    pub keyring: Setting<PathBuf>,
    /// The UpdateVM; `None` for the system's, empty for this qube.
    pub updatevm: Setting<Option<String>>,
    /// Release of Qubes OS whose templates are wanted.
    pub releasever: Setting<String>,
    /// Directory for packages that are kept.
    pub cachedir: Setting<PathBuf>,
    /// Whether packages are kept.
    pub keep_cache: Setting<bool>,
    /// Directory for what is remembered between runs; `None` for the default of [`crate::state`].
    pub state_dir: Setting<Option<PathBuf>>,
    /// Storage pool of new templates; `None` for dom0's choice.
    pub pool: Setting<Option<String>>,
    /// Attempts at each download.
    pub retries: Setting<u32>,
    /// Colour.
    pub color: Setting<Color>,
    /// Progress.
    pub progress: Setting<Progress>,
    /// Templates that may be older than a build seen before.
    pub allow_older: Setting<Vec<String>>,
    /// Templates that may come from another repository than before.
    pub allow_repository_change: Setting<Vec<String>>,
    /// Templates that may be signed by another certificate than before.
    pub allow_signer_change: Setting<Vec<String>>,
    /// Most days since a package was built; `None` for any age.
    pub require_max_age: Setting<Option<u32>>,
    /// Most bytes of an image.
    pub max_image_size: Setting<u64>,
    /// Whether answers to searches are shown again for a while.
    pub query_cache: Setting<Reuse>,
    /// How long is waited, and how much is taken.
    pub limits: Limits,
    /// Repository options in command-line order.
    pub repo_options: Vec<RepoOption>,
    /// Whether the cache directory is the default one, which is ours alone.
    pub own_cachedir: bool,
}

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// The root of the file system.
    pub root: PathBuf,
    /// The user's home.
    pub home: PathBuf,
    /// `XDG_CACHE_HOME`
    pub cache: Option<PathBuf>,
    /// `XDG_CONFIG_HOME`
    pub config: Option<PathBuf>,
}

impl Environment {
    /// That of this process.
    #[must_use]
    pub fn of_process() -> Self {
        let directory =
            |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = directory("HOME").or_else(|| {
            let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
            user.map(|user| user.dir)
        });
        Self {
            root: PathBuf::from("/"),
            home: home.unwrap_or_else(|| PathBuf::from("/")),
            cache: directory("XDG_CACHE_HOME"),
            config: directory("XDG_CONFIG_HOME"),
        }
    }

    fn files(&self) -> [PathBuf; 2] {
        let user = self.config.clone().unwrap_or_else(|| self.home.join(".config"));
        [self.root.join(SYSTEM_FILE), user.join(USER_FILE)]
    }

    fn expand(&self, path: &str) -> PathBuf {
        path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| self.home.join(rest))
    }
}

impl Settings {
    /// Puts the settings together.
    ///
    /// # Errors
    /// When a configuration file cannot be read or has something in it that is not known, or a value is not possible.
    pub fn gather(typed: &Typed, environment: &Environment) -> anyhow::Result<Self> {
        let mut files = Vec::new();
        for path in environment.files() {
            files.extend(File::read(path)?);
        }
        let text = |key: &str| latest(&files, key, toml_text);
        let typed_text = |opt: Opt| typed.last(opt).map(str::to_owned);
        let releasever = Setting::new(typed_text(Opt::Releasever), text("releasever")?, || {
            release::detect(&environment.root)
        });
        let keyring = Setting::new(typed_text(Opt::Keyring), text("keyring")?, || {
            format!("{KEY_DIR}/RPM-GPG-KEY-qubes-{}-primary", releasever.value)
        });
        let cachedir = Setting::new(typed_text(Opt::CacheDir), text("cachedir")?, || {
            let base = environment.cache.clone().unwrap_or_else(|| environment.home.join(".cache"));
            base.join("qvm-template").to_string_lossy().into_owned()
        });
        let flag = |opt: Opt| typed.has(opt).then_some(true);
        let list = |opt: Opt| {
            let list: Vec<String> = typed.values(opt).map(str::to_owned).collect();
            Some(list).filter(|list| !list.is_empty())
        };
        let names = |opt: Opt, key: &str| {
            anyhow::Ok(Setting::new(list(opt), latest(&files, key, toml_list)?, Vec::new))
        };
        let days = typed.last(Opt::RequireMaxAge).and_then(integer).map(attempts);
        let most = typed.last(Opt::MaxImageSize).and_then(size);
        let retries = typed.last(Opt::Retries).and_then(integer).map(attempts);
        Ok(Self {
            repo_files: Setting::new(list(Opt::RepoFiles), latest(&files, "repo-files", toml_list)?, || {
                vec![REPO_FILES.to_owned()]
            }),
            updatevm: Setting::new(typed_text(Opt::UpdateVm), text("updatevm")?, String::new).optional(),
            state_dir: Setting::new(None, text("state-dir")?, String::new)
                .optional()
                .map(|path| path.map(|path| environment.expand(&path))),
            pool: Setting::new(typed_text(Opt::Pool), text("pool")?, String::new).optional(),
            keep_cache: Setting::new(flag(Opt::KeepCache), latest(&files, "keep-cache", toml_bool)?, || {
                false
            }),
            retries: Setting::new(retries, latest(&files, "retries", toml_number)?, || 5),
            allow_older: names(Opt::AllowOlder, "allow-older")?,
            allow_repository_change: names(Opt::AllowRepositoryChange, "allow-repository-change")?,
            allow_signer_change: names(Opt::AllowSignerChange, "allow-signer-change")?,
            require_max_age: Setting::new(days, latest(&files, "require-max-age", toml_number)?, || u32::MAX)
                .map(|days| Some(days).filter(|days| *days != u32::MAX)),
            max_image_size: Setting::new(most, latest(&files, "max-image-size", toml_size)?, || {
                root_image::Limits::default().image_size
            }),
            color: Setting::new(typed_text(Opt::Color), text("color")?, || "auto".to_owned())
                .read(|word| color(word))?,
            progress: Setting::new(typed_text(Opt::Progress), text("progress")?, || "auto".to_owned())
                .read(|word| progress(word))?,
            query_cache: Setting::new(None, text("query-cache")?, || "auto".to_owned())
                .read(|word| reuse(word))?,
            limits: Limits::gather(&files)?,
            own_cachedir: cachedir.origin == Origin::Default,
            cachedir: cachedir.map(|path| environment.expand(&path)),
            keyring: keyring.map(|path| environment.expand(&path)),
            repo_options: repo_options(typed),
            releasever,
        })
    }

    /// What is demanded of packages beyond the policy.
    #[must_use]
    pub fn demands(&self) -> Demands {
        Demands {
            allow_older: self.allow_older.value.clone(),
            allow_repository_change: self.allow_repository_change.value.clone(),
            allow_signer_change: self.allow_signer_change.value.clone(),
            max_age: self.require_max_age.value,
            signer: None,
            max_image_size: self.max_image_size.value,
            state_dir: self.state_dir.value.clone(),
            unattended: false,
        }
    }

    /// Every setting with its value and its origin, for people.
    #[must_use]
    pub fn rows(&self) -> Vec<[String; 3]> {
        fn row<T>(key: &str, setting: &Setting<T>, show: impl Fn(&T) -> String) -> [String; 3] {
            [key.to_owned(), show(&setting.value), setting.origin.to_string()]
        }
        let option = |missing: &'static str| {
            move |value: &Option<String>| {
                value.clone().map_or_else(|| missing.to_owned(), |value| format!("'{value}'"))
            }
        };
        let mut rows = vec![
            row("repo-files", &self.repo_files, |patterns| patterns.join(" ")),
            row("keyring", &self.keyring, |path| path.display().to_string()),
            row("updatevm", &self.updatevm, option("(the system's)")),
            row("releasever", &self.releasever, String::clone),
            row("cachedir", &self.cachedir, |path| path.display().to_string()),
            row("keep-cache", &self.keep_cache, bool::to_string),
            row("state-dir", &self.state_dir, |path| {
                path.as_ref().map_or_else(|| "(the user's)".to_owned(), |path| path.display().to_string())
            }),
            row("pool", &self.pool, option("(dom0's choice)")),
            row("retries", &self.retries, u32::to_string),
            row("allow-older", &self.allow_older, |names| names.join(" ")),
            row("allow-repository-change", &self.allow_repository_change, |names| names.join(" ")),
            row("allow-signer-change", &self.allow_signer_change, |names| names.join(" ")),
            row("require-max-age", &self.require_max_age, |days| {
                days.map_or_else(|| "(any)".to_owned(), |days| format!("{days} days"))
            }),
            row("max-image-size", &self.max_image_size, |bytes| super::format::size(*bytes)),
            row("color", &self.color, |color| format!("{color:?}").to_lowercase()),
            row("progress", &self.progress, Progress::to_string),
            row("query-cache", &self.query_cache, |reuse| format!("{reuse:?}").to_lowercase()),
        ];
        rows.extend(self.limits.rows());
        rows
    }
}

/// Repository options in the order in which they were typed.
#[must_use]
pub fn repo_options(typed: &Typed) -> Vec<RepoOption> {
    let option = |(opt, value): &(Opt, Option<String>)| {
        let value = value.clone()?;
        match opt {
            Opt::EnableRepo => Some(RepoOption::Enable(value)),
            Opt::DisableRepo => Some(RepoOption::Disable(value)),
            Opt::RepoId => Some(RepoOption::Only(value)),
            _ => None,
        }
    };
    typed.options.iter().filter_map(option).collect()
}

impl<T> Setting<T> {
    fn new(typed: Option<T>, file: Option<(T, PathBuf)>, default: impl FnOnce() -> T) -> Self {
        match (typed, file) {
            (Some(value), _) => Self { value, origin: Origin::CommandLine },
            (None, Some((value, path))) => Self { value, origin: Origin::File(path) },
            (None, None) => Self { value: default(), origin: Origin::Default },
        }
    }

    fn map<U>(self, change: impl FnOnce(T) -> U) -> Setting<U> {
        Setting { value: change(self.value), origin: self.origin }
    }

    fn read<U>(self, read: impl FnOnce(&T) -> anyhow::Result<U>) -> anyhow::Result<Setting<U>> {
        let value = read(&self.value).with_context(|| format!("reading a setting from {}", self.origin))?;
        Ok(Setting { value, origin: self.origin })
    }
}

impl Setting<String> {
    /// A default counts as nothing, anything that was said counts, also when it is empty.
    fn optional(self) -> Setting<Option<String>> {
        let said = self.origin != Origin::Default;
        self.map(|value| said.then_some(value))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::CommandLine => f.write_str("command line"),
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::None => f.write_str("none"),
            Self::Plain => f.write_str("plain"),
            Self::Json(fd) => write!(f, "json:{fd}"),
        }
    }
}

/// Fewer than none is none.
fn attempts(number: i64) -> u32 {
    u32::try_from(number.max(0)).unwrap_or(u32::MAX)
}

fn color(word: &str) -> anyhow::Result<Color> {
    match word {
        "auto" => Ok(Color::Auto),
        "always" => Ok(Color::Always),
        "never" => Ok(Color::Never),
        _ => bail!("`color` is `auto`, `always` or `never`, not `{word}`"),
    }
}

fn reuse(word: &str) -> anyhow::Result<Reuse> {
    match word {
        "auto" => Ok(Reuse::Auto),
        "always" => Ok(Reuse::Always),
        "never" => Ok(Reuse::Never),
        _ => bail!("`query-cache` is `auto`, `always` or `never`, not `{word}`"),
    }
}

fn progress(word: &str) -> anyhow::Result<Progress> {
    match word {
        "auto" => Ok(Progress::Auto),
        "none" => Ok(Progress::None),
        "plain" => Ok(Progress::Plain),
        "json" => Ok(Progress::Json(2)),
        _ => match word.strip_prefix("json:").and_then(|fd| fd.parse().ok()).filter(|fd| *fd > 0) {
            Some(fd) => Ok(Progress::Json(fd)),
            None => bail!("`progress` is `auto`, `none`, `plain`, `json` or `json:FD`, not `{word}`"),
        },
    }
}

/// The directory that a path of the command line means.
#[must_use]
pub fn directory(path: &str) -> PathBuf {
    Path::new(if path.is_empty() { "." } else { path }).to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::update_vm::Bounds;

    fn gather(line: &[&str], system: &str, user: &str) -> anyhow::Result<Settings> {
        let place = tempfile::tempdir().unwrap();
        let home = place.path().join("home");
        for (path, text) in
            [(place.path().join(SYSTEM_FILE), system), (home.join(".config").join(USER_FILE), user)]
        {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let args: Vec<String> = line.iter().map(|arg| (*arg).to_owned()).collect();
        let environment = Environment { root: place.path().to_owned(), home, ..Environment::default() };
        Settings::gather(&Typed::parse(&args).unwrap(), &environment)
    }

    #[test]
    fn the_stronger_place_wins() {
        let settings = gather(&["list"], "retries = 2\npool = 'a'\n", "retries = 3\n").unwrap();
        assert_eq!((settings.retries.value, settings.pool.value.as_deref()), (3, Some("a")));
        assert!(matches!(&settings.retries.origin, Origin::File(path) if path.ends_with(USER_FILE)));
        let settings = gather(&["install", "--retries=4"], "", "retries = 3\n").unwrap();
        assert_eq!(settings.retries, Setting { value: 4, origin: Origin::CommandLine });
        let settings =
            gather(&["list", "--repo-files=/x", "--repo-files=/y"], "repo-files = '/z'", "").unwrap();
        assert_eq!(settings.repo_files.value, ["/x", "/y"]);
    }

    #[test]
    fn defaults_are_the_originals() {
        let settings = gather(&["list"], "", "").unwrap();
        assert_eq!(settings.repo_files.value, [REPO_FILES]);
        assert!(settings.keyring.value.ends_with("RPM-GPG-KEY-qubes-4.1-primary"));
        assert_eq!((settings.updatevm.value, settings.retries.value), (None, 5));
        assert!(settings.own_cachedir && settings.cachedir.value.ends_with(".cache/qvm-template"));
        assert_eq!(gather(&["list", "--updatevm="], "", "").unwrap().updatevm.value.as_deref(), Some(""));
    }

    #[test]
    fn unknown_keys_and_values_are_errors() {
        let error = |system: &str| format!("{:#}", gather(&["list"], system, "").unwrap_err());
        assert!(error("reties = 1").ends_with("unknown key `reties`; did you mean `retries`?"));
        assert!(error("zzz = 1").contains("unknown key `zzz`; there are: repo-files"));
        assert!(error("retries = 'x'").ends_with("`retries` has a value of another kind"));
        assert!(error("color = 'blue'").contains("`color` is `auto`"));
        assert!(error("x =").contains("reading "));
    }

    #[test]
    fn limits_are_a_table_of_their_own() {
        let limits = gather(&["list"], "", "").unwrap().limits;
        assert_eq!(limits.bounds(), Bounds::default());
        assert_eq!(limits.query_age.value, Duration::from_secs(300));
        let system = "[limits]\nsearch-time = 7\nreply-size = '1M'\nlowest-rate = 0\n";
        let settings = gather(&["list"], system, "[limits]\nsearch-time = '2m'\nquery-age = 0").unwrap();
        let bounds =
            Bounds { search: Duration::from_secs(120), reply: 1 << 20, rate: 0, ..Bounds::default() };
        assert_eq!(settings.limits.bounds(), bounds);
        let rows = settings.rows();
        let row = |key: &str| {
            rows.iter().find(|row| row[0] == key).map(|[_, value, origin]| (value.as_str(), origin.as_str()))
        };
        let (value, origin) = row("limits.search-time").unwrap();
        assert!(value == "2m" && origin.ends_with(USER_FILE), "{value} {origin}");
        assert_eq!(row("limits.stall-time"), Some(("1m", "default")));
        assert!(row("limits.reply-size").unwrap().1.ends_with(SYSTEM_FILE));
        let error = |system: &str| format!("{:#}", gather(&["list"], system, "").unwrap_err());
        assert!(
            error("[limits]\nserch-time = 1")
                .ends_with("unknown key `limits.serch-time`; did you mean `limits.search-time`?")
        );
        assert!(
            error("[limits]\nsearch-time = 0").ends_with("`limits.search-time` must be more than nothing")
        );
        assert!(
            error("[limits]\nsearch-time = 'soon'")
                .ends_with("`limits.search-time` has a value of another kind")
        );
        assert!(error("limits = 1").ends_with("`limits` is a table: [limits]"));
    }

    #[test]
    fn a_tilde_is_the_home() {
        let settings = gather(&["list"], "cachedir = '~/c'\nstate-dir = '~/s'", "").unwrap();
        assert!(settings.cachedir.value.ends_with("home/c") && !settings.own_cachedir);
        assert!(settings.state_dir.value.unwrap().ends_with("home/s"));
    }
}
