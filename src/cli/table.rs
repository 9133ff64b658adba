//! The commands and options: one table from which parsing, help, man pages and completions are made.
//!
//! Options marked as new are ours and not the original's. They must be written out, so that no abbreviation that people have in
//! their fingers becomes ambiguous.

mod fleet;
mod lifecycle;
mod wanted;

use fleet::{ON_HANGUP, PLAN};

/// A command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Command {
    Install,
    Reinstall,
    Downgrade,
    Upgrade,
    Download,
    List,
    Info,
    Search,
    Remove,
    Purge,
    Clean,
    Repolist,
    MigrateFromRpmdb,
    Renew,
    Switch,
    Retire,
    Adopt,
    RefreshMetadata,
    Trust,
    Recover,
    Finalize,
    Grants,
    CheckPolicy,
    Status,
    Cancel,
    Ensure,
    Default,
    Config,
    Docs,
}

/// An option.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Opt {
    RepoFiles,
    Keyring,
    UpdateVm,
    EnableRepo,
    DisableRepo,
    RepoId,
    Releasever,
    Refresh,
    CacheDir,
    KeepCache,
    Yes,
    Verbose,
    Quiet,
    ForceRoot,
    Version,
    Help,
    Json,
    Progress,
    Color,
    Pool,
    Name,
    AllowPv,
    SkipStart,
    DownloadDir,
    Retries,
    NoGpgCheck,
    AllowOlder,
    AllowRepositoryChange,
    AllowSignerChange,
    RequireMaxAge,
    MaxImageSize,
    Newest,
    DryRun,
    FailFast,
    From,
    To,
    Undo,
    Shutdown,
    Restart,
    Absent,
    Finalized,
    Build,
    MinBuild,
    Any,
    Repository,
    Signer,
    Overwrite,
    Template,
    Dispvm,
    ManagementDispvm,
    All,
    Installed,
    Available,
    Extras,
    Upgrades,
    AllVersions,
    MachineReadable,
    MachineReadableJson,
    Disassoc,
    Force,
    Enabled,
    Disabled,
    Via,
    Plan,
    OnHangup,
    Job,
    Follow,
    File,
    Tag,
    For,
}

/// What there is to know about an option.
#[derive(Debug)]
pub struct OptDef {
    /// Which one.
    pub opt: Opt,
    /// Its name, without the two dashes.
    pub long: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// What its value is called; an option without one takes no value.
    pub value: Option<&'static str>,
    /// Whether the original has it, so that it may be abbreviated.
    pub original: bool,
    /// Shown in help and completions.
    pub visible: bool,
    /// Options of one group exclude each other.
    pub group: u8,
    /// One line of help.
    pub help: &'static str,
}

/// What there is to know about a command.
#[derive(Debug)]
pub struct CommandDef {
    /// Which one.
    pub command: Command,
    /// Its name.
    pub name: &'static str,
    /// Whether the original has it.
    pub original: bool,
    /// Shown in help and completions.
    pub visible: bool,
    /// Its own options, beside the global ones.
    pub options: &'static [&'static OptDef],
    /// What its positional arguments are called; none are taken when this is empty.
    pub positional: &'static str,
    /// One line of help.
    pub about: &'static str,
    /// More help.
    pub details: &'static str,
}

impl OptDef {
    const fn flag(opt: Opt, long: &'static str, help: &'static str) -> Self {
        Self { opt, long, short: None, value: None, original: true, visible: true, group: 0, help }
    }

    const fn value(opt: Opt, long: &'static str, value: &'static str, help: &'static str) -> Self {
        Self { value: Some(value), ..Self::flag(opt, long, help) }
    }

    const fn letter(self, short: char) -> Self {
        Self { short: Some(short), ..self }
    }

    const fn ours(self) -> Self {
        Self { original: false, ..self }
    }

    const fn hidden(self) -> Self {
        Self { visible: false, ..self }
    }

    const fn group(self, group: u8) -> Self {
        Self { group, ..self }
    }

    /// The option as error messages name it.
    #[must_use]
    pub fn display(&self) -> String {
        self.short.map_or_else(
            || format!("--{}", self.long),
            |letter| {
                // The original declared help the other way round than the rest.
                if self.opt == Opt::Help {
                    format!("-{letter}/--{}", self.long)
                } else {
                    format!("--{}/-{letter}", self.long)
                }
            },
        )
    }
}

/// The options that every command takes, before and after its name.
pub static GLOBAL: &[OptDef] = &[
    OptDef::value(Opt::RepoFiles, "repo-files", "PATTERN", "Repository files, as a pattern; may be repeated"),
    OptDef::value(
        Opt::Keyring,
        "keyring",
        "FILE",
        "Key for packages of repositories that name none and for local files",
    ),
    OptDef::value(Opt::UpdateVm, "updatevm", "NAME", "Qube that asks the repositories; empty: this one"),
    OptDef::value(
        Opt::EnableRepo,
        "enablerepo",
        "ID",
        "Enable a repository, by name or pattern; may be repeated",
    ),
    OptDef::value(Opt::DisableRepo, "disablerepo", "ID", "Disable a repository; may be repeated"),
    OptDef::value(Opt::RepoId, "repoid", "ID", "Use only these repositories; may be repeated"),
    OptDef::value(Opt::Releasever, "releasever", "VERSION", "Release of Qubes OS to look for"),
    OptDef::flag(Opt::Refresh, "refresh", "Ask the repositories anew, with fresh metadata"),
    OptDef::value(Opt::CacheDir, "cachedir", "DIR", "Directory for packages that are kept"),
    OptDef::flag(Opt::KeepCache, "keep-cache", "Keep downloaded packages after they are installed"),
    OptDef::flag(Opt::Yes, "yes", "Take every question as answered with yes"),
    OptDef::flag(Opt::Verbose, "verbose", "Say more; may be repeated").letter('v'),
    OptDef::flag(Opt::Quiet, "quiet", "Say less; may be repeated").letter('q'),
    OptDef::flag(Opt::ForceRoot, "force-root", "Accepted and without effect").hidden(),
    OptDef::value(
        Opt::Progress,
        "progress",
        "MODE",
        "Progress on stderr: auto, none, plain, json or json:FD",
    )
    .ours(),
    OptDef::value(Opt::Color, "color", "WHEN", "Colour: auto, always or never").ours(),
    OptDef::flag(Opt::Json, "json", "Print results and errors as JSON, in a versioned form").ours(),
    OptDef::value(Opt::Via, "via", "QUBE", "Let the management qube QUBE do it, over its services").ours(),
    OptDef::flag(Opt::Version, "version", "Print the version and exit"),
    OptDef::flag(Opt::Help, "help", "Print help and exit").letter('h'),
];

static POOL: OptDef = OptDef::value(Opt::Pool, "pool", "POOL", "Storage pool for a new template's volumes");
static ALLOW_PV: OptDef = OptDef::flag(
    Opt::AllowPv,
    "allow-pv",
    "Let a template ask for the less isolated virtualisation mode `pv`",
);
static SKIP_START: OptDef =
    OptDef::flag(Opt::SkipStart, "skip-start", "Do not start the template to let it announce its features");
static DOWNLOAD_DIR: OptDef =
    OptDef::value(Opt::DownloadDir, "downloaddir", "DIR", "Directory for downloads [default: .]");
static DOWNLOAD_DIR_IGNORED: OptDef =
    OptDef::value(Opt::DownloadDir, "downloaddir", "DIR", "Accepted and without effect here").hidden();
static RETRIES: OptDef =
    OptDef::value(Opt::Retries, "retries", "N", "Attempts at each download [default: 5]");
static NO_GPG_CHECK: OptDef = OptDef::flag(
    Opt::NoGpgCheck,
    "nogpgcheck",
    "Take local files without a signature; never applies to downloads",
);
static ALLOW_OLDER: OptDef = OptDef::value(
    Opt::AllowOlder,
    "allow-older",
    "NAME",
    "Take a build of NAME that is older than one seen before; may be repeated",
)
.ours();
static ALLOW_REPOSITORY_CHANGE: OptDef = OptDef::value(
    Opt::AllowRepositoryChange,
    "allow-repository-change",
    "NAME",
    "Take NAME from another repository than before; may be repeated",
)
.ours();
static ALLOW_SIGNER_CHANGE: OptDef = OptDef::value(
    Opt::AllowSignerChange,
    "allow-signer-change",
    "NAME",
    "Take NAME although another certificate signed it before; may be repeated",
)
.ours();
static REQUIRE_MAX_AGE: OptDef = OptDef::value(
    Opt::RequireMaxAge,
    "require-max-age",
    "DAYS",
    "Refuse packages that were built longer ago",
)
.ours();
static MAX_IMAGE_SIZE: OptDef = OptDef::value(
    Opt::MaxImageSize,
    "max-image-size",
    "SIZE",
    "Refuse larger images, as in `40G` [default: 256G]",
)
.ours();
static NEWEST: OptDef =
    OptDef::flag(Opt::Newest, "newest", "Install the newest build, not the one that is installed").ours();
static DRY_RUN: OptDef =
    OptDef::flag(Opt::DryRun, "dry-run", "Check everything, show what would be done, and change nothing")
        .ours();
static FAIL_FAST: OptDef =
    OptDef::flag(Opt::FailFast, "fail-fast", "Stop at the first template that fails").ours();
static ALL: OptDef = OptDef::flag(Opt::All, "all", "What is installed and what is available (default)");
static INSTALLED: OptDef = OptDef::flag(Opt::Installed, "installed", "What is installed");
static AVAILABLE: OptDef = OptDef::flag(Opt::Available, "available", "What the enabled repositories have");
static EXTRAS: OptDef = OptDef::flag(Opt::Extras, "extras", "What is installed and in no enabled repository");
static UPGRADES: OptDef = OptDef::flag(Opt::Upgrades, "upgrades", "Newer builds of what is installed");
static ALL_VERSIONS: OptDef =
    OptDef::flag(Opt::AllVersions, "all-versions", "Every build, not only the newest");
static MACHINE: OptDef =
    OptDef::flag(Opt::MachineReadable, "machine-readable", "One line each, fields separated by `|`").group(1);
static MACHINE_JSON: OptDef =
    OptDef::flag(Opt::MachineReadableJson, "machine-readable-json", "One line of JSON").group(1);
static SEARCH_ALL: OptDef =
    OptDef::flag(Opt::All, "all", "Look at descriptions and addresses too; one word found is enough");
static DISASSOC: OptDef = OptDef::flag(
    Opt::Disassoc,
    "disassoc",
    "First turn what uses the templates over to a dummy or to nothing",
);
static FORCE: OptDef = OptDef::flag(Opt::Force, "force", "Remove qubes that are no templates too").ours();
static REPO_ALL: OptDef = OptDef::flag(Opt::All, "all", "Enabled and disabled repositories").group(2);
static ENABLED: OptDef = OptDef::flag(Opt::Enabled, "enabled", "Enabled repositories (default)").group(2);
static DISABLED: OptDef = OptDef::flag(Opt::Disabled, "disabled", "Disabled repositories").group(2);

static CHANGE: &[&OptDef] = &[
    &ALLOW_PV,
    &SKIP_START,
    &DOWNLOAD_DIR_IGNORED,
    &RETRIES,
    &NO_GPG_CHECK,
    &ALLOW_OLDER,
    &ALLOW_REPOSITORY_CHANGE,
    &ALLOW_SIGNER_CHANGE,
    &REQUIRE_MAX_AGE,
    &MAX_IMAGE_SIZE,
    &DRY_RUN,
    &FAIL_FAST,
    &PLAN,
    &ON_HANGUP,
];
static LISTING: &[&OptDef] =
    &[&ALL, &INSTALLED, &AVAILABLE, &EXTRAS, &UPGRADES, &ALL_VERSIONS, &MACHINE, &MACHINE_JSON];

const SPEC: &str = "TEMPLATESPEC";
const SPEC_HELP: &str = "A TEMPLATESPEC is a name, a name with a version (NAME-VERSION, NAME-VERSION-RELEASE or \
     NAME-EPOCH:VERSION-RELEASE), or a shell pattern of either. An argument that ends in `.rpm` is a local package.";

/// All commands, the original's first and in its order.
pub static COMMANDS: &[CommandDef] = &[
    CommandDef {
        options: &[
            &POOL,
            &lifecycle::NAME,
            &ALLOW_PV,
            &SKIP_START,
            &DOWNLOAD_DIR_IGNORED,
            &RETRIES,
            &NO_GPG_CHECK,
            &ALLOW_OLDER,
            &ALLOW_REPOSITORY_CHANGE,
            &ALLOW_SIGNER_CHANGE,
            &REQUIRE_MAX_AGE,
            &MAX_IMAGE_SIZE,
            &DRY_RUN,
            &FAIL_FAST,
            &PLAN,
            &ON_HANGUP,
        ],
        details: "Downloads templates, verifies them and installs those that are not there yet.\n\nExamples:\n  \
                  qvm-template install fedora-43-xfce\n  qvm-template install --pool ssd debian-13-minimal\n  \
                  qvm-template install ./qubes-template-acme-1.0-1.noarch.rpm",
        ..CommandDef::new(Command::Install, "install", SPEC, "Install template packages")
    },
    CommandDef {
        options: &[
            &ALLOW_PV,
            &SKIP_START,
            &DOWNLOAD_DIR_IGNORED,
            &RETRIES,
            &NO_GPG_CHECK,
            &NEWEST,
            &ALLOW_OLDER,
            &ALLOW_REPOSITORY_CHANGE,
            &ALLOW_SIGNER_CHANGE,
            &REQUIRE_MAX_AGE,
            &MAX_IMAGE_SIZE,
            &DRY_RUN,
            &FAIL_FAST,
            &PLAN,
            &ON_HANGUP,
        ],
        details: "Installs the same build again over what is there. All changes inside the templates are lost.",
        ..CommandDef::new(Command::Reinstall, "reinstall", SPEC, "Reinstall template packages")
    },
    CommandDef {
        options: CHANGE,
        details: "Installs the newest build that is older than the installed one. All changes inside the templates are lost.",
        ..CommandDef::new(Command::Downgrade, "downgrade", SPEC, "Downgrade template packages")
    },
    CommandDef {
        options: CHANGE,
        details: "Installs the newest build where it is newer than the installed one. All changes inside the templates are lost.\n\n\
                  Examples:\n  qvm-template upgrade fedora-43-xfce\n  qvm-template upgrade '*'",
        ..CommandDef::new(Command::Upgrade, "upgrade", SPEC, "Upgrade template packages")
    },
    CommandDef {
        options: &[
            &DOWNLOAD_DIR,
            &RETRIES,
            &NO_GPG_CHECK,
            &ALLOW_OLDER,
            &ALLOW_REPOSITORY_CHANGE,
            &ALLOW_SIGNER_CHANGE,
            &REQUIRE_MAX_AGE,
        ],
        details: "Downloads template packages, verifies them and leaves them in a directory.",
        ..CommandDef::new(Command::Download, "download", SPEC, "Download template packages")
    },
    CommandDef {
        options: LISTING,
        details: "Examples:\n  qvm-template list --installed\n  qvm-template list --available 'fedora-*'",
        ..CommandDef::new(Command::List, "list", SPEC, "List templates")
    },
    CommandDef {
        options: LISTING,
        details: "Shows everything that is known about templates.",
        ..CommandDef::new(Command::Info, "info", SPEC, "Display details about templates")
    },
    CommandDef {
        options: &[&SEARCH_ALL],
        details: "Looks for words in names and summaries; every word must be found. Words may be shell patterns.",
        ..CommandDef::new(
            Command::Search,
            "search",
            "PATTERN",
            "Search template details for the given strings",
        )
    },
    CommandDef {
        options: &[&DISASSOC, &FORCE, &DRY_RUN, &PLAN, &ON_HANGUP],
        details: "Removes templates that nothing uses; with --disassoc also those that something uses.",
        ..CommandDef::new(Command::Remove, "remove", "TEMPLATE", "Remove templates from the system")
    },
    CommandDef {
        options: &[&FORCE, &DRY_RUN],
        details: "Removes templates and every qube that depends on them, directly or not.",
        ..CommandDef::new(
            Command::Purge,
            "purge",
            "TEMPLATE",
            "Remove templates and all qubes that depend on them",
        )
    },
    CommandDef {
        details: "Deletes the packages that are kept in the cache directory, and nothing else.",
        ..CommandDef::new(Command::Clean, "clean", "", "Remove cached data")
    },
    CommandDef {
        options: &[&REPO_ALL, &ENABLED, &DISABLED],
        details: "Shows the template repositories that are configured here.",
        ..CommandDef::new(Command::Repolist, "repolist", "REPO", "Show configured repositories")
    },
    CommandDef {
        details: "For dom0 and its administrator: takes over templates that rpm installed.",
        ..CommandDef::new(
            Command::MigrateFromRpmdb,
            "migrate-from-rpmdb",
            "",
            "Take over templates from the RPM database",
        )
    },
    CommandDef {
        options: &[
            &ALLOW_PV,
            &SKIP_START,
            &RETRIES,
            &NO_GPG_CHECK,
            &ALLOW_OLDER,
            &ALLOW_REPOSITORY_CHANGE,
            &ALLOW_SIGNER_CHANGE,
            &REQUIRE_MAX_AGE,
            &MAX_IMAGE_SIZE,
            &DRY_RUN,
            &FAIL_FAST,
        ],
        original: false,
        details: "Brings installed templates to the newest build, whether or not they have it already: the same as \
                  `reinstall --newest`. All changes inside the templates are lost.",
        ..CommandDef::new(Command::Renew, "renew", SPEC, "Install the newest build anew")
    },
    wanted::ENSURE,
    wanted::DEFAULT,
    CommandDef {
        original: false,
        details: "`trust list` shows for each enabled repository which certificates may sign its templates (fingerprint, user id, \
                  expiry), and whether they could today; and the same for local files. Nobody is asked.",
        ..CommandDef::new(Command::Trust, "trust", "ACTION", "Show whose signatures count")
    },
    lifecycle::SWITCH,
    lifecycle::RETIRE,
    lifecycle::ADOPT,
    lifecycle::REFRESH_METADATA,
    lifecycle::RECOVER,
    lifecycle::FINALIZE,
    fleet::GRANTS,
    fleet::CHECK_POLICY,
    fleet::STATUS,
    fleet::CANCEL,
    CommandDef {
        original: false,
        details: "Prints every setting with its value and where that comes from: the command line, the user's \
                  `~/.config/qubes/qvm-template.toml`, `/etc/qubes/qvm-template.toml` or the default. Limits stand in \
                  a table `[limits]` there; times are seconds or as in `20m`, sizes bytes or as in `32M`. What is \
                  remembered between runs lies in `state-dir`: /var/lib/qvm-template for root, else \
                  `~/.local/state/qvm-template`.",
        ..CommandDef::new(Command::Config, "config", "", "Show the effective settings")
    },
    CommandDef {
        original: false,
        visible: false,
        details: "Writes man pages (`man DIR`) or a completion script (`bash`, `zsh`, `fish`).",
        ..CommandDef::new(Command::Docs, "docs", "KIND", "Write man pages and completions")
    },
];

impl CommandDef {
    const fn new(
        command: Command,
        name: &'static str,
        positional: &'static str,
        about: &'static str,
    ) -> Self {
        Self { command, name, original: true, visible: true, options: &[], positional, about, details: "" }
    }

    /// More help, with what applies to all commands of this kind.
    #[must_use]
    pub fn long_about(&self) -> String {
        let spec = if self.positional == SPEC { SPEC_HELP } else { "" };
        [self.details, spec].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("\n\n")
    }
}

impl Command {
    /// The table's entry.
    ///
    /// # Panics
    /// Never: every command is in the table, which a test makes sure of.
    #[must_use]
    pub fn def(self) -> &'static CommandDef {
        COMMANDS.iter().find(|def| def.command == self).expect("every command is in the table")
    }

    /// Whether it changes templates, so that `--json` tells what became of each.
    #[must_use]
    pub fn changes(self) -> bool {
        matches!(
            self,
            Self::Install
                | Self::Reinstall
                | Self::Downgrade
                | Self::Upgrade
                | Self::Renew
                | Self::Ensure
                | Self::Remove
                | Self::Purge
                | Self::Switch
                | Self::Retire
                | Self::Adopt
                | Self::RefreshMetadata
        )
    }

    /// The command of this name. Names are never abbreviated.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        COMMANDS.iter().find(|def| def.name == name).map(|def| def.command)
    }
}
