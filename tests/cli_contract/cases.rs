//! The contract as tables: command lines and what comes of them.

/// One command line and what comes of it.
pub struct Case {
    /// What it shows, beginning with the messages and rules that it is about.
    pub name: &'static str,
    pub args: &'static [&'static str],
    pub input: &'static str,
    pub status: i32,
    /// Standard output, whole; or, beginning with `~`, a part of it.
    pub out: &'static str,
    /// The same for standard error.
    pub err: &'static str,
    /// Changing calls.
    pub changes: &'static [&'static str],
}

pub const OK: Case = Case { name: "", args: &[], input: "", status: 0, out: "", err: "", changes: &[] };
pub const WRONG: Case = Case { status: 2, ..OK };
pub const FAILS: Case = Case { status: 1, ..OK };

pub const LISTS: &[Case] = &[
    Case {
        name: "R26 R32 R33 what is half described or unreadable does not break a list",
        args: &["list", "--installed", "--machine-readable"],
        out: "installed|busy|0:1-1|stable\ninstalled|epoch|0:9.0-1|stable\ninstalled|gone|0:1-1|stable\n\
              installed|gw|0:17-1|stable\ninstalled|half|:-|\ninstalled|owned|0:1-1|stable\ninstalled|plain|0:4.3.0-1|stable\n\
              installed|tied|0:1-1|stable\ninstalled|ws|0:17-1|stable\n",
        err: "Warning: no right to read the features of: hidden; counted as not managed\n",
        ..OK
    },
    Case {
        name: "R23 of equal builds the one that is not testing; the newest by rpm's order",
        args: &["list", "--available", "--machine-readable"],
        out: "available|plain|0:4.3.0-2|stable\navailable|tied|0:1-1|stable\navailable|epoch|2:1.0-1|other\n\
              available|odd|0:1.0^git-1|other\navailable|gw|0:18-1|stable\n",
        ..OK
    },
    Case {
        name: "R7 with specifications: by name, then by build",
        args: &["list", "--available", "--all-versions", "--machine-readable", "plain", "odd", "epoch"],
        out: "available|epoch|0:9.0-1|other\navailable|epoch|2:1.0-1|other\navailable|odd|0:1.0~rc1-1|other\n\
              available|odd|0:1.0-1|other\navailable|odd|0:1.0^git-1|other\navailable|plain|0:4.3.0-1|stable\n\
              available|plain|0:4.3.0-2|stable\n",
        ..OK
    },
    Case {
        name: "upgrades show the newer build",
        args: &["list", "--upgrades", "--machine-readable-json", "epoch"],
        out: "{\"upgradable\": [{\"name\": \"epoch\", \"evr\": \"2:1.0-1\", \"reponame\": \"other\"}]}\n",
        err: "Warning: no right to read the features of: hidden; counted as not managed\n",
        ..OK
    },
    Case {
        name: "R8 R10 R11 info has sizes, one form of time, and no separator inside a field",
        args: &["info", "--available", "--machine-readable", "tied"],
        out: "available|tied|0|1|1|stable|10|2024-01-02 03:04:00||GPL||Tied|From main\n",
        ..OK
    },
    Case {
        name: "info for people",
        args: &["info", "--installed", "plain"],
        out: "Installed Templates\n\
              Name          :  plain\nEpoch         :  0\nVersion       :  4.3.0\nRelease       :  1\n\
              Size          :  1.0 GiB\nRepository    :  stable\nBuildtime     :  2024-01-02 03:04:05\n\
              Install time  :  2024-03-04 05:06:07\nURL           :  http://www.qubes-os.org\nLicense       :  GPLv3+\n\
              Summary       :  Installed plain\nDescription   :  One\n              :  two\n                  \n",
        err: "Warning: no right to read the features of: hidden; counted as not managed\n",
        ..OK
    },
    Case {
        name: "M18 R6 nothing to list; no usage with it",
        args: &["list", "--installed", "nope"],
        err: "~qvm-template: error: No matching templates to list\n",
        ..WRONG
    },
    Case {
        name: "M18 did you mean",
        args: &["list", "--installed", "plan"],
        err: "~qvm-template: error: No matching templates to list\nhelp: did you mean 'plain'?\n",
        ..WRONG
    },
    Case {
        name: "search by weight",
        args: &["search", "plain"],
        out: "=== Name & Summary Matched: plain ===\nplain : A plain template\n",
        err: "Warning: no right to read the features of: hidden; counted as not managed\n",
        ..OK
    },
    Case {
        name: "R24 the name stands in a title once",
        args: &["search", "plain", "pla"],
        out: "=== Name & Summary Matched: pla, plain ===\nplain : A plain template\n",
        err: "Warning: no right to read the features of: hidden; counted as not managed\n",
        ..OK
    },
    Case { name: "search finds nothing", args: &["search", "zzz"], err: "~hidden", ..OK },
    Case {
        name: "R2 repolist applies the options",
        args: &["--enablerepo=*testing", "repolist", "--disablerepo=other"],
        out: "stable          Stable 4.3  enabled\nstable-testing  Testing     enabled\n",
        ..OK
    },
    Case {
        name: "R2 repolist takes names",
        args: &["repolist", "--all", "stable*"],
        out: "stable          Stable 4.3  enabled\nstable-testing  Testing     disabled\n",
        ..OK
    },
    Case {
        name: "R4 no repository file is an error before anybody is asked",
        args: &["--repo-files=/nope", "list"],
        err: "~no repository file matches '/nope'",
        ..FAILS
    },
    Case { name: "R29 nothing to clean is clean", args: &["clean"], ..OK },
];

pub const LINES: &[Case] = &[
    Case { name: "M24 no command", err: "~qvm-template: error: A command needs to be specified.\n", ..WRONG },
    Case {
        name: "M1 a line feed in an option",
        args: &["--enablerepo=a\nb", "list"],
        err: "qvm-template: error: Malformed --enablerepo: argument should not contain '\\n'.\n",
        ..WRONG
    },
    Case {
        name: "M1 a line feed in a name",
        args: &["install", "a\nb"],
        err: "qvm-template: error: Malformed template name: argument should not contain '\\n'.\n",
        ..WRONG
    },
    Case {
        name: "M2 is never reached: the prefix stands before it",
        args: &["install", "--", "---"],
        err: "~qvm-template: error: Template '---' not found.\n",
        ..WRONG
    },
    Case {
        name: "R1 quiet and verbose count in both places",
        args: &["-q", "list", "-v", "--available", "gw"],
        out: "Available Templates\ngw  0:18-1  stable\n",
        ..OK
    },
    Case {
        name: "1.1 a global option with its value behind the command",
        args: &["list", "--enablerepo", "stable-testing", "--available", "gw"],
        out: "Available Templates\ngw  0:18-1  stable\n",
        ..OK
    },
    Case {
        name: "1.1 a name behind an option",
        args: &["list", "gw", "--available", "--yes", "odd", "--machine-readable"],
        out: "available|gw|0:18-1|stable\navailable|odd|0:1.0^git-1|other\n",
        ..OK
    },
    Case {
        name: "an abbreviation",
        args: &["list", "--avail", "gw"],
        out: "Available Templates\ngw  0:18-1  stable\n",
        ..OK
    },
    Case {
        name: "an ambiguous abbreviation",
        args: &["list", "--machine"],
        err: "~qvm-template list: error: ambiguous option: --machine could match --machine-readable, \
              --machine-readable-json\n",
        ..WRONG
    },
    Case {
        name: "a mistyped option is guessed",
        args: &["list", "--instaled"],
        err: "~help: did you mean `--installed`?\nqvm-template: error: unrecognized arguments: --instaled\n",
        ..WRONG
    },
];

pub const INSTALLS: &[Case] = &[
    Case { name: "nothing named", args: &["install"], ..OK },
    Case {
        name: "M3 not offered",
        args: &["install", "nope"],
        err: "~qvm-template: error: Template 'nope' not found.\n",
        ..WRONG
    },
    Case {
        name: "M3 did you mean: of what was searched for in this call",
        args: &["install", "gw", "plian"],
        err: "~qvm-template: error: Template 'plian' not found.\nhelp: did you mean 'plain'?\n",
        ..WRONG
    },
    Case {
        name: "M4 R59 the installed build has left the repositories",
        args: &["reinstall", "gw"],
        err: "~Same version of template 'gw' not found.",
        ..WRONG
    },
    Case {
        name: "M5 not installed",
        args: &["upgrade", "odd"],
        err: "~qvm-template: error: Template 'odd' not already installed.\n",
        ..WRONG
    },
    Case { name: "M6 not managed", args: &["reinstall", "bare"], err: "~'bare'", ..WRONG },
    Case {
        name: "M7 nothing older",
        args: &["downgrade", "tied"],
        err: "Template 'tied' of lowest version already installed, skipping...\n",
        ..OK
    },
    Case {
        name: "M8 nothing newer",
        args: &["upgrade", "tied"],
        err: "Template 'tied' of highest version already installed, skipping...\n",
        ..OK
    },
    Case {
        name: "M9 no such file",
        args: &["install", "/nope.rpm"],
        err: "~qvm-template: error: RPM file '/nope.rpm' not found.\n",
        ..WRONG
    },
    Case {
        name: "M15 there already",
        args: &["install", "plain"],
        err: "Template 'plain' already installed, skipping... (You may want to use the {reinstall,upgrade,downgrade} \
              operations.)\n",
        ..OK
    },
    Case {
        name: "a refusal of the person",
        args: &["upgrade", "epoch"],
        input: "n\n",
        out: "This will override changes made in the following VMs:\n  epoch\nAre you sure? [y/N] command cancelled.\n",
        ..FAILS
    },
    Case {
        name: "only y and Y are yes",
        args: &["upgrade", "epoch"],
        input: "yes\n",
        out: "~command cancelled.\n",
        ..FAILS
    },
    Case {
        name: "an end of input is an error",
        args: &["upgrade", "epoch"],
        out: "~[y/N] ",
        err: "ERROR: EOF when reading a line\n",
        ..FAILS
    },
    Case {
        name: "M23 only for root",
        args: &["migrate-from-rpmdb"],
        err: "qvm-template: error: This command needs to be run as root\n",
        ..WRONG
    },
];

pub const REMOVALS: &[Case] = &[
    Case {
        name: "a template that nothing uses",
        args: &["--yes", "remove", "--", "gone"],
        changes: &["vm.Remove gone"],
        ..OK
    },
    Case {
        name: "no such qube",
        args: &["remove", "nope"],
        err: "qvm-template: error: no such domain: 'nope'\n",
        ..WRONG
    },
    Case {
        name: "did you mean: a template, not a qube of another class",
        args: &["remove", "plian"],
        err: "qvm-template: error: no such domain: 'plian'\nhelp: did you mean 'plain'?\n",
        ..WRONG
    },
    Case {
        name: "a qube of another class is not proposed",
        args: &["remove", "wrk"],
        err: "qvm-template: error: no such domain: 'wrk'\n",
        ..WRONG
    },
    Case {
        name: "R27 no template",
        args: &["--yes", "remove", "vault"],
        err: "qvm-template: error: 'vault' is no template but of class StandaloneVM; use --force to remove it\n",
        ..WRONG
    },
    Case {
        name: "R27 no template, forced",
        args: &["--yes", "remove", "--force", "vault"],
        changes: &["vm.Remove vault"],
        ..OK
    },
    Case {
        name: "R27 dom0 never goes",
        args: &["--yes", "remove", "--force", "dom0"],
        err: "qvm-template: error: Domain 'dom0' cannot be removed.\n",
        ..WRONG
    },
    Case {
        name: "R38 named twice",
        args: &["--yes", "remove", "gone", "gone"],
        err: "qvm-template: error: 'gone' is named twice\n",
        ..WRONG
    },
    Case {
        name: "in use; the users come sorted",
        args: &["--yes", "remove", "plain"],
        err: "VM plain cannot be removed. It is in use as:\n - template for live\n - template for work\n\
              qvm-template: error: Domain is in use: 'plain';  see 'journalctl -u qubesd -e' in dom0 for details\n",
        changes: &["vm.Remove plain"],
        ..FAILS
    },
    Case {
        name: "R57 owned by rpm",
        args: &["--yes", "remove", "owned"],
        err: "qvm-template: error: VM installed by package manager: owned\n\
              help: run 'qvm-template migrate-from-rpmdb' in dom0 first\n",
        changes: &["vm.Remove owned"],
        ..FAILS
    },
    Case {
        name: "R57 a purge finds that out before it changes anything",
        args: &["--yes", "purge", "owned"],
        err: "qvm-template: error: VM installed by package manager: owned\n\
              help: run 'qvm-template migrate-from-rpmdb' in dom0 first\n",
        ..FAILS
    },
    Case {
        name: "M21 R51 running users are shut down first",
        args: &["--yes", "remove", "--disassoc", "plain"],
        err: "Shutting down 'live'...\nProperty 'template' of 'live' set to 'dummy'.\n\
              Property 'template' of 'work' set to 'dummy'.\n",
        changes: &[
            "vm.Shutdown live wait",
            "vm.Create.TemplateVM dom0",
            "vm.feature.Set dummy template-dummy",
            "vm.property.Set live template",
            "vm.property.Set work template",
            "vm.Kill plain",
            "vm.Remove plain",
        ],
        ..OK
    },
    Case {
        name: "R50 R52 a network that goes leaves none behind, and no dummy that nobody got",
        args: &["--yes", "remove", "--disassoc", "sys-gw"],
        err: "Property 'netvm' of 'anon' set to ''.\n",
        changes: &["vm.property.Set anon netvm", "vm.Kill sys-gw", "vm.Remove sys-gw"],
        ..OK
    },
    Case {
        name: "R50 a disposable cannot lose its template",
        args: &["--yes", "remove", "--disassoc", "dvm"],
        err: "qvm-template: error: 'disp' is a disposable of 'dvm'; shut it down, or use purge\n",
        ..FAILS
    },
    Case {
        name: "R50 R51 R53 the Whonix pair purges",
        args: &["--yes", "purge", "gw"],
        err: "Property 'template' of 'sys-gw' set to 'dummy'.\n",
        changes: &[
            "vm.Kill sys-gw",
            "vm.Create.TemplateVM dom0",
            "vm.feature.Set dummy template-dummy",
            "vm.property.Set sys-gw template",
            "vm.Kill anon",
            "vm.Kill dummy",
            "vm.Kill gw",
            "vm.Kill sys-gw",
            "vm.Remove gw",
            "vm.Remove anon",
            "vm.Remove sys-gw",
            "vm.Remove dummy",
        ],
        ..OK
    },
    Case {
        name: "M22 globals and disposables",
        args: &["--yes", "purge", "tied"],
        err: "Global property 'default_template' set to ''.\nProperty 'template' of 'dvm' set to 'dummy'.\n\
              Global property 'default_dispvm' set to ''.\n",
        changes: &[
            "vm.Kill disp",
            "vm.Create.TemplateVM dom0",
            "vm.feature.Set dummy template-dummy",
            "property.Set dom0 default_template",
            "vm.property.Set dvm template",
            "property.Set dom0 default_dispvm",
            "vm.Kill dummy",
            "vm.Kill dvm",
            "vm.Kill tied",
            "vm.Remove tied",
            "vm.Remove disp",
            "vm.Remove dvm",
            "vm.Remove dummy",
        ],
        ..OK
    },
    Case {
        name: "purge asks three times",
        args: &["purge", "gone"],
        input: "y\ny\nn\n",
        out: "~(confirmation 3 of 3)...\n  gone\nAre you sure? [y/N] command cancelled.\n",
        ..FAILS
    },
    Case { name: "a purge of nothing makes no dummy", args: &["--yes", "purge"], err: "~TEMPLATE", ..WRONG },
];
