//! What a package would run, and whether an image can do without.
//!
//! No script is ever run. What runs on removal is left to the rpm of the template. Everything that would run while
//! the package is installed is judged by its interpreter and its text:
//!
//! | class | what |
//! |---|---|
//! | safe | nothing runs |
//! | deferred | nothing but work that the template does by itself when it starts, because its `/usr` is newer than its `/etc` and `/var`: `ldconfig`, `systemd-sysusers`, `systemd-tmpfiles`, `systemd-hwdb`, the journal's catalogue; or that only a running system has to do (`systemctl daemon-reload`) |
//! | refuse | everything else: named with tag and interpreter |
//!
//! A script without text is one whose interpreter is the whole work (`%post -p /sbin/ldconfig`).

use std::collections::BTreeSet;

use anyhow::Result;

use crate::verify::Ordinary;

/// Work that a template does when it starts, and the unit that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::build::layer) enum Work {
    Libraries,
    Users,
    Files,
    Hardware,
    Catalogue,
}

impl Work {
    /// The unit.
    pub(in crate::build::layer) fn unit(self) -> &'static str {
        match self {
            Self::Libraries => "ldconfig.service",
            Self::Users => "systemd-sysusers.service",
            Self::Files => "systemd-tmpfiles-setup.service",
            Self::Hardware => "systemd-hwdb-update.service",
            Self::Catalogue => "systemd-journal-catalog-update.service",
        }
    }

    /// The work that files in such a place ask for.
    pub(in crate::build::layer) fn of_path(path: &str) -> Option<Self> {
        let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| !rest.is_empty());
        if below("usr/lib/sysusers.d/") {
            Some(Self::Users)
        } else if below("usr/lib/tmpfiles.d/") {
            Some(Self::Files)
        } else if below("usr/lib/udev/hwdb.d/") {
            Some(Self::Hardware)
        } else if below("usr/lib/systemd/catalog/") {
            Some(Self::Catalogue)
        } else {
            None
        }
    }
}

/// Programs of scripts, as tag of the text, tag of the interpreter, name.
const AT_INSTALLATION: [(u32, u32, &str); 4] =
    [(1023, 1085, "PREIN"), (1024, 1086, "POSTIN"), (1151, 1153, "PRETRANS"), (1152, 1154, "POSTTRANS")];

/// Tags of a kind of trigger: names, flags, indexes, texts, interpreters; its name.
const TRIGGERS: [([u32; 5], &str); 3] = [
    ([1066, 1068, 1069, 1065, 1092], "TRIGGER"),
    ([5069, 5072, 5070, 5066, 5067], "FILETRIGGER"),
    ([5079, 5082, 5080, 5076, 5077], "TRANSFILETRIGGER"),
];

/// Senses of a trigger that fire on removal: `%triggerun`, `%triggerpostun`.
const ON_REMOVAL: u64 = 1 << 17 | 1 << 18;
const BEFORE: u64 = 1 << 25;

/// What a package would run when it is installed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Work left to the template.
    pub(super) work: BTreeSet<Work>,
    /// Whether one of them can not be left out.
    pub(super) refused: bool,
    /// Every script, as tag and interpreter.
    pub(super) scripts: Vec<String>,
}

impl Verdict {
    fn note(&mut self, tag: String, interpreter: &str, text: &str) {
        match judge(interpreter, text) {
            Some(work) => self.work.extend(work),
            None => self.refused = true,
        }
        self.scripts.push(tag);
    }
}

/// Looks at every script and trigger of a package.
pub(super) fn look(package: &Ordinary) -> Result<Verdict> {
    let mut verdict = Verdict::default();
    for (text_tag, interpreter_tag, name) in AT_INSTALLATION {
        if !package.has(text_tag) && !package.has(interpreter_tag) {
            continue;
        }
        let text = package.text(text_tag)?.unwrap_or_default();
        let words = package.texts(interpreter_tag)?;
        let shown = if text.is_empty() { format!("{name}PROG") } else { name.to_owned() };
        let interpreter = if words.is_empty() { "/bin/sh".to_owned() } else { words.join(" ") };
        verdict.note(format!("{shown} {}", interpreter.escape_debug()), &interpreter, text);
    }
    for ([names, flags, indexes, texts, interpreters], kind) in TRIGGERS {
        let (names, flags) = (package.texts(names)?, package.numbers(flags)?);
        let (indexes, texts) = (package.numbers(indexes)?, package.texts(texts)?);
        let interpreters = package.texts(interpreters)?;
        let mut seen = BTreeSet::new();
        for (at, watched) in names.iter().enumerate() {
            let flags = flags.get(at).copied().unwrap_or(0);
            let script = indexes.get(at).and_then(|index| usize::try_from(*index).ok()).unwrap_or(usize::MAX);
            if flags & ON_REMOVAL != 0 || !seen.insert((script, flags & BEFORE)) {
                continue;
            }
            let sense = if flags & BEFORE != 0 { "PREIN" } else { "IN" };
            let interpreter = interpreters.get(script).copied().unwrap_or("/bin/sh");
            let shown =
                format!("{kind}{sense} {} (for {})", interpreter.escape_debug(), watched.escape_debug());
            verdict.note(shown, interpreter, texts.get(script).copied().unwrap_or_default());
        }
        if names.is_empty() && !texts.is_empty() {
            verdict.refused = true;
            verdict.scripts.push(format!("{kind}SCRIPTS for nothing"));
        }
    }
    Ok(verdict)
}

/// The work that a script means, or `None` when it has to run.
pub(in crate::build::layer) fn judge(interpreter: &str, text: &str) -> Option<BTreeSet<Work>> {
    match interpreter {
        "/sbin/ldconfig" | "/usr/sbin/ldconfig" if text.trim().is_empty() => {
            Some(BTreeSet::from([Work::Libraries]))
        }
        "/bin/sh" | "/usr/bin/sh" | "/bin/bash" | "/usr/bin/bash" => {
            let mut all = BTreeSet::new();
            for line in text.lines() {
                all.extend(command(line)?);
            }
            Some(all)
        }
        _ => None,
    }
}

/// The work of one line of a shell script. Only commands that are known word for word are understood.
fn command(line: &str) -> Option<Option<Work>> {
    let mut line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Some(None);
    }
    for calm in ["|| :", "|| true", "||:"] {
        line = line.strip_suffix(calm).unwrap_or(line).trim_end();
    }
    let is_noise =
        |word: &&str| matches!(*word, ">/dev/null" | "1>/dev/null" | "2>/dev/null" | "&>/dev/null" | "2>&1");
    let words: Vec<&str> = line.split_ascii_whitespace().filter(|word| !is_noise(word)).collect();
    if line.bytes().any(|b| b"`$;()<{}*?'\"\\!~".contains(&b))
        || words.iter().any(|word| word.contains(['>', '&', '|']))
    {
        return None;
    }
    let (program, arguments) = words.split_first()?;
    let name = program.strip_prefix("/usr").unwrap_or(program);
    let name = ["/sbin/", "/bin/", "/lib/systemd/"]
        .iter()
        .find_map(|place| name.strip_prefix(place))
        .unwrap_or(name);
    let plain = |word: &&str| !word.starts_with('-') && !word.contains("..");
    match (name, arguments) {
        (":" | "true", _) | ("exit", ["0"]) | ("set", ["-e" | "-eu"]) => Some(None),
        ("systemctl", ["daemon-reload"]) => Some(None),
        (
            "systemd-update-helper",
            ["system-reload" | "system-reload-restart" | "user-reload" | "user-reload-restart"],
        ) => Some(None),
        ("ldconfig", [] | ["-X"]) => Some(Some(Work::Libraries)),
        ("systemd-sysusers", arguments) if arguments.iter().all(plain) => Some(Some(Work::Users)),
        ("systemd-tmpfiles", ["--create", arguments @ ..]) if arguments.iter().all(plain) => {
            Some(Some(Work::Files))
        }
        ("systemd-hwdb", ["update"]) | ("udevadm", ["hwdb", "--update"]) => Some(Some(Work::Hardware)),
        ("journalctl", ["--update-catalog"]) => Some(Some(Work::Catalogue)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_work_can_wait() {
        let works = |interpreter: &str, text: &str| judge(interpreter, text).map(Vec::from_iter);
        assert_eq!(works("/sbin/ldconfig", ""), Some(vec![Work::Libraries]));
        assert_eq!(works("/bin/sh", "# note\n/sbin/ldconfig || :\n:\nexit 0\n"), Some(vec![Work::Libraries]));
        assert_eq!(
            works(
                "/bin/sh",
                "systemd-sysusers foo.conf >/dev/null 2>&1 || :\n/usr/bin/systemd-tmpfiles --create foo.conf\n"
            ),
            Some(vec![Work::Users, Work::Files])
        );
        assert_eq!(works("/bin/sh", "systemctl daemon-reload || :"), Some(vec![]));
        for (interpreter, text) in [
            ("<lua>", ""),
            ("/sbin/ldconfig", "something"),
            ("/usr/bin/python3", ""),
            ("/bin/sh -x", ""),
            ("/bin/sh", "useradd x"),
            ("/bin/sh", "ldconfig; rm -r /"),
            ("/bin/sh", "ldconfig && touch /x"),
            ("/bin/sh", "ldconfig | tee /x"),
            ("/bin/sh", "ldconfig > /x"),
            ("/bin/sh", "systemd-tmpfiles --create --root=/x"),
            ("/bin/sh", "ldconfig $(touch /x)"),
            ("/bin/sh", ": > /etc/x"),
            ("/bin/sh", "systemctl preset a.service"),
        ] {
            assert_eq!(works(interpreter, text), None, "{interpreter} {text}");
        }
    }

    #[test]
    fn places_that_ask_for_work() {
        assert_eq!(Work::of_path("usr/lib/sysusers.d/a.conf"), Some(Work::Users));
        assert_eq!(Work::of_path("usr/lib/sysusers.d"), None);
        assert_eq!(Work::of_path("usr/share/doc/x"), None);
    }
}
