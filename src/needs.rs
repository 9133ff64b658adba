//! What each command needs of dom0's policy: one table, from which `check-policy` makes rules to paste.
//!
//! `qrexec-policy/30-qvm-template.policy` is the same for a management qube named mgmt, with a reason at each rule; tests
//! hold the two, and the calls that commands make in the sandbox, against each other.

/// What a call is about, and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum About {
    /// The whole system: dom0.
    System,
    /// A qube that the management qube made: dom0 answers.
    Own,
    /// The same, and the qube itself answers.
    InOwn,
    /// The UpdateVM, about which dom0 answers.
    UpdateVm,
    /// The UpdateVM itself.
    InUpdateVm,
}

/// A rule that commands need.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// The service.
    pub service: &'static str,
    /// The argument as policy writes it: `+` for none, `*` for any.
    pub argument: &'static str,
    /// What it is about.
    pub about: About,
    /// The commands.
    pub commands: &'static [&'static str],
    /// When they need it; always where this is empty.
    pub when: &'static str,
}

const LOOK: &[&str] = &["list", "info", "search"];
const FAMILY: &[&str] = &["install", "reinstall", "upgrade", "downgrade", "renew"];
const CHANGE: &[&str] = &["install", "reinstall", "upgrade", "downgrade", "renew", "recover"];
const START: &[&str] = &["install", "reinstall", "upgrade", "downgrade", "renew", "finalize", "recover"];
const REPLACE: &[&str] = &["reinstall", "upgrade", "downgrade", "renew", "recover"];
const BACK: &[&str] = &["reinstall", "upgrade", "downgrade", "renew", "recover", "finalize"];
const READ: &[&str] =
    &["list", "info", "search", "reinstall", "upgrade", "downgrade", "renew", "recover", "finalize"];
const REMOVE: &[&str] = &["remove", "purge"];
const USE: &[&str] = &["remove", "purge", "switch", "retire"];
const QUERY: &[&str] =
    &["list", "info", "search", "download", "install", "reinstall", "upgrade", "downgrade", "renew"];
const FETCH: &[&str] = &["download", "install", "reinstall", "upgrade", "downgrade", "renew"];
const QUBES: &[&str] = &[
    "list",
    "info",
    "search",
    "install",
    "reinstall",
    "upgrade",
    "downgrade",
    "renew",
    "finalize",
    "recover",
    "remove",
    "purge",
    "switch",
    "retire",
];

const RESOLVE: &str = "unless --updatevm or the configuration names the UpdateVM";
const OTHER_QUBE: &str = "where another qube asks the repositories";
const SETTINGS: &str = "where template.conf asks for another kernel or mode of virtualisation";
const FAILED: &str = "to go back after a failure";
const FIRST: &str = "without --skip-start";
const EXTRA: &str = "an extra: without it there is less of a way back";
const USERS: &str =
    "to see who uses a template: after dom0 refused, --dry-run, --disassoc, purge, switch, retire";
const MOVE: &str = "to turn users of a template over: --disassoc, purge, switch, retire";

const fn need(
    service: &'static str,
    argument: &'static str,
    about: About,
    commands: &'static [&'static str],
    when: &'static str,
) -> Need {
    Need { service, argument, about, commands, when }
}

/// All of them, in the order of the policy file.
pub static NEEDS: &[Need] = &[
    need("admin.vm.List", "+", About::System, QUBES, ""),
    need("admin.vm.List", "+", About::Own, QUBES, ""),
    need("admin.property.Get", "+updatevm", About::System, QUERY, RESOLVE),
    need("admin.vm.feature.Get", "*", About::Own, READ, ""),
    need("admin.vm.feature.Get", "*", About::Own, QUBES, "for some templates, and to go back"),
    need("admin.vm.volume.List", "+", About::Own, LOOK, "with sizes, as info shows them"),
    need(
        "admin.vm.volume.Info",
        "*",
        About::Own,
        QUBES,
        "with sizes, as info shows them; and for a way back",
    ),
    need("admin.vm.List", "+", About::UpdateVm, QUERY, OTHER_QUBE),
    need("qubes.TemplateSearch", "+", About::InUpdateVm, QUERY, OTHER_QUBE),
    need("qubes.TemplateDownload", "+", About::InUpdateVm, FETCH, OTHER_QUBE),
    need("admin.vm.Create.TemplateVM", "+", About::System, &["install"], ""),
    need("admin.vm.CreateInPool.TemplateVM", "+", About::System, &["install"], "with --pool"),
    need("admin.vm.volume.ImportWithSize", "+root", About::Own, FAMILY, ""),
    need("admin.vm.volume.Clear", "+private", About::Own, REPLACE, ""),
    need("admin.vm.volume.ListSnapshots", "*", About::Own, BACK, FAILED),
    need("admin.vm.volume.Revert", "*", About::Own, BACK, FAILED),
    need("admin.pool.Info", "*", About::System, BACK, EXTRA),
    need("admin.vm.volume.Set.revisions_to_keep", "*", About::Own, BACK, EXTRA),
    need("admin.vm.feature.List", "+", About::Own, START, EXTRA),
    need("admin.vm.CurrentState", "+", About::Own, START, "for a template that is there already"),
    need("admin.vm.feature.Set", "*", About::Own, START, ""),
    need(
        "admin.vm.feature.Remove",
        "*",
        About::Own,
        START,
        "for features that only the old build has; and to go back",
    ),
    need("admin.vm.property.Get", "+virt_mode", About::Own, CHANGE, SETTINGS),
    need("admin.vm.property.Get", "+kernel", About::Own, CHANGE, SETTINGS),
    need("admin.vm.property.Set", "+virt_mode", About::Own, CHANGE, SETTINGS),
    need("admin.vm.property.Set", "+kernel", About::Own, CHANGE, SETTINGS),
    need("admin.vm.property.Set", "+installed_by_rpm", About::Own, CHANGE, ""),
    need("admin.vm.property.Get", "+netvm", About::Own, START, FIRST),
    need("admin.vm.property.Set", "+netvm", About::Own, START, FIRST),
    need("admin.vm.property.Reset", "+netvm", About::Own, START, FIRST),
    need("admin.vm.Start", "+", About::Own, START, FIRST),
    need("qubes.PostInstall", "+", About::InOwn, START, FIRST),
    need("admin.vm.Shutdown", "+wait", About::Own, START, FIRST),
    need("admin.vm.Kill", "+", About::Own, START, "for a template that does not shut down"),
    need("admin.vm.Remove", "+", About::Own, REMOVE, ""),
    need("admin.vm.Remove", "+", About::Own, &["retire"], "when nothing uses the template any more"),
    need(
        "admin.vm.Remove",
        "+",
        About::Own,
        &["install", "recover"],
        "to leave nothing behind after a failure",
    ),
    need("admin.property.Get", "+default_template", About::System, USE, USERS),
    need("admin.property.Get", "+default_dispvm", About::System, USE, USERS),
    need("admin.property.Get", "+management_dispvm", About::System, USE, USERS),
    need("admin.property.Get", "+default_netvm", About::System, USE, USERS),
    need("admin.property.Get", "+default_guivm", About::System, USE, USERS),
    need("admin.property.Get", "+default_audiovm", About::System, USE, USERS),
    need("admin.property.Get", "+clockvm", About::System, USE, USERS),
    need("admin.property.Get", "+updatevm", About::System, USE, USERS),
    need("admin.vm.property.Get", "+template", About::Own, USE, USERS),
    need("admin.vm.property.Get", "+netvm", About::Own, USE, USERS),
    need("admin.vm.property.Get", "+default_dispvm", About::Own, USE, USERS),
    need("admin.vm.property.Get", "+default_dispvm", About::System, USE, USERS),
    need("admin.vm.property.Get", "+management_dispvm", About::Own, USE, USERS),
    need("admin.vm.property.Get", "+guivm", About::Own, USE, USERS),
    need("admin.vm.property.Get", "+audiovm", About::Own, USE, USERS),
    need("admin.vm.List", "+", About::UpdateVm, USE, USERS),
    need("admin.vm.property.Get", "*", About::UpdateVm, USE, USERS),
    need("admin.vm.property.Get", "+installed_by_rpm", About::Own, USE, USERS),
    need("admin.vm.property.Get", "+template_for_dispvms", About::Own, USE, USERS),
    need("admin.vm.property.Get", "+is_preload", About::Own, USE, USERS),
    need("admin.vm.property.Set", "+template", About::Own, USE, MOVE),
    need("admin.property.Set", "+default_template", About::System, USE, MOVE),
    need("admin.property.Set", "+default_dispvm", About::System, USE, MOVE),
    need("admin.property.Set", "+management_dispvm", About::System, USE, MOVE),
    need("admin.vm.property.Set", "+default_dispvm", About::Own, USE, MOVE),
    need("admin.vm.property.Set", "+default_dispvm", About::System, USE, MOVE),
    need("admin.vm.property.Set", "+management_dispvm", About::Own, USE, MOVE),
    need("admin.vm.property.Reset", "+management_dispvm", About::Own, USE, MOVE),
    need("admin.property.Set", "+default_netvm", About::System, USE, MOVE),
    need("admin.property.Set", "+default_guivm", About::System, USE, MOVE),
    need("admin.property.Set", "+default_audiovm", About::System, USE, MOVE),
    need("admin.property.Set", "+clockvm", About::System, USE, MOVE),
    need("admin.property.Set", "+updatevm", About::System, USE, MOVE),
    need("admin.vm.property.Set", "+guivm", About::Own, USE, MOVE),
    need("admin.vm.property.Reset", "+guivm", About::Own, USE, MOVE),
    need("admin.vm.property.Set", "+audiovm", About::Own, USE, MOVE),
    need("admin.vm.property.Reset", "+audiovm", About::Own, USE, MOVE),
    // What --disassoc and purge do beside that.
    need("admin.vm.Create.TemplateVM", "+", About::System, USE, MOVE),
    need("admin.vm.feature.Set", "*", About::Own, USE, MOVE),
    need("admin.vm.CurrentState", "+", About::Own, USE, MOVE),
    need("admin.vm.Shutdown", "+wait", About::Own, USE, MOVE),
    need("admin.vm.Kill", "+", About::Own, USE, MOVE),
    need("admin.vm.property.Set", "+netvm", About::Own, USE, MOVE),
];

/// The names that stand in rules.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The management qube.
    pub qube: &'a str,
    /// The UpdateVM.
    pub updatevm: &'a str,
}

impl Need {
    /// The target of its rule.
    #[must_use]
    pub fn target(&self, names: Names<'_>) -> String {
        match self.about {
            About::System => "@adminvm".to_owned(),
            About::Own | About::InOwn => format!("@tag:created-by-{}", names.qube),
            About::UpdateVm | About::InUpdateVm => names.updatevm.to_owned(),
        }
    }

    /// Its rule, without line feed; the columns stand one below the other.
    #[must_use]
    pub fn rule(&self, names: Names<'_>) -> String {
        let target = self.target(names);
        let action = match self.about {
            About::InOwn | About::InUpdateVm => "allow",
            _ => "allow target=dom0",
        };
        let Self { service, argument, .. } = self;
        format!("{service:<37} {argument:<19} {} {target:<24} {action}", names.qube)
    }

    /// Whether it covers a call; the argument is without its `+`.
    #[must_use]
    pub fn covers(&self, service: &str, argument: &str, about: About) -> bool {
        self.service == service
            && self.about == about
            && (self.argument == "*" || self.argument.strip_prefix('+') == Some(argument))
    }

    /// Whether the command cannot do without it.
    #[must_use]
    pub fn is_required(&self) -> bool {
        self.when.is_empty()
    }
}

/// What a command needs; of all commands for none.
pub fn of(command: Option<&str>) -> impl Iterator<Item = &'static Need> {
    NEEDS.iter().filter(move |need| command.is_none_or(|command| need.commands.contains(&command)))
}

/// Policy for these needs, ready to paste: a rule at a time, under the reason for it.
#[must_use]
pub fn policy<'a>(needs: impl Iterator<Item = &'a Need>, names: Names<'_>) -> String {
    let mut groups: Vec<(&str, Vec<String>)> = Vec::new();
    for need in needs {
        let rule = need.rule(names);
        if groups.iter().any(|(_, rules)| rules.contains(&rule)) {
            continue;
        }
        match groups.iter_mut().find(|(when, _)| *when == need.when) {
            Some((_, rules)) => rules.push(rule),
            None => groups.push((need.when, vec![rule])),
        }
    }
    groups.sort_by_key(|(when, _)| !when.is_empty());
    let mut text = String::new();
    for (when, rules) in groups {
        let when = if when.is_empty() { "always" } else { when };
        text.push_str(&format!("# Needed {when}.\n{}\n", rules.join("\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../qrexec-policy/30-qvm-template.policy");

    fn words(line: &str) -> String {
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_table_and_the_policy_file_say_the_same() {
        let names = Names { qube: "mgmt", updatevm: "sys-net" };
        let mut file: Vec<String> =
            FILE.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(words).collect();
        let mut table: Vec<String> = NEEDS.iter().map(|need| words(&need.rule(names))).collect();
        for rules in [&mut file, &mut table] {
            rules.sort();
            rules.dedup();
        }
        let lacks = |one: &[String], other: &[String]| -> Vec<String> {
            one.iter().filter(|rule| !other.contains(rule)).cloned().collect()
        };
        assert_eq!(lacks(&file, &table), [""; 0], "in the file, and not in the table of src/needs.rs");
        assert_eq!(lacks(&table, &file), [""; 0], "in the table, and not in the file");
    }

    #[test]
    fn commands_are_those_of_the_command_line() {
        for need in NEEDS {
            for command in need.commands {
                assert!(crate::cli::table::Command::by_name(command).is_some(), "{command}");
            }
        }
        assert_eq!(of(Some("clean")).count(), 0);
        let names = Names { qube: "m", updatevm: "u" };
        let text = policy(of(Some("install")), names);
        assert_eq!(text.matches("admin.vm.Remove ").count(), 1);
        assert!(text.starts_with("# Needed always.\nadmin.vm.List "), "{text}");
        assert!(text.contains("@tag:created-by-m") && !text.contains("mgmt"), "{text}");
    }
}
