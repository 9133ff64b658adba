//! What a person sees: commands on a terminal of a given width.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::pty::{Winsize, openpty};

use super::place::{Place, REPLY};
use crate::support::programs::{QVM_TEMPLATE, SANDBOX};

/// A terminal.
#[derive(Clone, Copy)]
pub struct Terminal<'a> {
    pub columns: u16,
    /// `NAME=VALUE`, beside the usual.
    pub environment: &'a [&'a str],
}

pub const WIDE: Terminal<'_> = Terminal { columns: 80, environment: &["NO_COLOR=1"] };

/// What was on the terminal in the end.
#[derive(Debug)]
pub struct Seen {
    pub status: i32,
    /// All that was written, with the escape sequences.
    pub raw: String,
}

impl Terminal<'_> {
    /// Runs `qvm-template` in the management qube, all its streams on the terminal, and types `input`.
    pub fn run(self, place: &Place, arguments: &[&str], input: &str) -> Result<Seen> {
        let size = Winsize { ws_row: 24, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).context("opening a terminal")?;
        let mut command = Command::new(SANDBOX);
        command.arg("exec").arg(place.root()).args(["--cwd", "/home/user"]);
        for variable in ["TZ=UTC", "HOME=/home/user", "TERM=xterm-256color"].iter().chain(self.environment) {
            command.args(["--env", variable]);
        }
        command.args(["--", QVM_TEMPLATE]).args(arguments);
        let slave = pty.slave;
        command.stdin(slave.try_clone()?).stdout(slave.try_clone()?).stderr(slave);
        let mut child = command.spawn().context("starting a command on a terminal")?;
        // The terminal must have no end of ours left, or reading never ends.
        drop(command);
        let mut master = File::from(pty.master);
        master.write_all(input.as_bytes())?;
        let mut raw = Vec::new();
        let mut buffer = [0; 4096];
        // The other end gone is an error of input and output here.
        while let Ok(length @ 1..) = master.read(&mut buffer) {
            raw.extend_from_slice(&buffer[..length]);
        }
        let status = child.wait()?.code().unwrap_or(-1);
        Ok(Seen { status, raw: String::from_utf8(raw).context("what is on the terminal is text")? })
    }
}

#[test]
fn a_listing_is_shown_again_with_its_age() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let asked = |place: &Place| -> Result<bool> {
        let path = place.path("sys-net", "tmp/request");
        let there = path.exists();
        if there {
            std::fs::remove_file(path)?;
        }
        Ok(there)
    };
    let list = ["list", "--available"];
    let first = WIDE.run(&place, &list, "")?;
    ensure!(first.status == 0 && !first.raw.contains("as of") && asked(&place)?, "{first:?}");
    let again = WIDE.run(&place, &list, "")?;
    ensure!(
        again.raw.contains("Repositories as of ") && again.raw.contains("; --refresh asks them again"),
        "{again:?}"
    );
    let table = |seen: &Seen| seen.raw.split_once("Available Templates").map(|(_, table)| table.to_owned());
    ensure!(!asked(&place)? && table(&again) == table(&first), "{again:?}\n{first:?}");
    // The question, not the command, is what an answer is found by.
    let searched = WIDE.run(&place, &["search", "gateway"], "")?;
    ensure!(searched.raw.contains("as of") && !asked(&place)?, "{searched:?}");
    for (what, line) in [
        ("other options", &["list", "--available", "--enablerepo=stable-testing"][..]),
        ("another release", &["list", "--available", "--releasever=9"]),
        ("a specification", &["list", "--available", "gw"]),
        ("an order to refresh", &["list", "--available", "--refresh"]),
        ("an installation, which decides by what is there now", &["install", "plain", "gw"]),
    ] {
        ensure!(
            !WIDE.run(&place, line, "")?.raw.contains("as of") && asked(&place)?,
            "{what} must be asked for"
        );
    }
    // Whoever is no person at a terminal gets what there is now, and it is what a person sees next.
    place.put("sys-net", "etc/reply", &REPLY.replace("|4.3.0|2|", "|4.3.0|3|"), false)?;
    ensure!(
        WIDE.run(&place, &list, "")?.raw.contains("0:4.3.0-2") && !asked(&place)?,
        "for a while the old one"
    );
    for form in ["--machine-readable", "--machine-readable-json", "--json", "--all-versions"] {
        ensure!(
            place.output(&["list", "--available", form])?.contains("4.3.0-3") || form == "--json",
            "{form}"
        );
        ensure!(asked(&place)?, "{form} must be asked for");
    }
    ensure!(
        WIDE.run(&place, &list, "")?.raw.contains("0:4.3.0-3") && !asked(&place)?,
        "the newest answer counts"
    );
    // Another repository file makes another question.
    place.put("mgmt", "etc/qubes/repo-templates/new.repo", "[new]\nname = New\n", false)?;
    ensure!(
        !WIDE.run(&place, &list, "")?.raw.contains("as of") && asked(&place)?,
        "a new repository must be asked"
    );
    Ok(())
}

#[test]
fn the_configuration_decides_about_old_answers() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let configure = |text: &str| place.put("mgmt", "etc/qubes/qvm-template.toml", text, false);
    let json = |place: &Place| -> Result<serde_json::Value> {
        Ok(serde_json::from_str(&place.output(&["--json", "list", "--available"])?)?)
    };
    configure("query-cache = 'always'\n")?;
    ensure!(json(&place)?["result"]["query_age"].is_null(), "the first answer is new");
    let again = json(&place)?;
    ensure!(again["result"]["query_age"].is_u64(), "{again}");
    let machine = place.run(&["list", "--available", "--machine-readable"], "")?;
    ensure!(!machine.err.contains("as of"), "the original's callers know of no age: {machine:?}");
    ensure!(place.run(&["list", "--available"], "")?.err.contains("as of"));
    // A damaged answer is asked for again.
    let cache = place.path("mgmt", "home/user/.cache/qvm-template");
    for entry in cache.read_dir()? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?.replace("Gateway", "Gatewax");
        std::fs::write(path, text)?;
    }
    ensure!(!place.run(&["list", "--available"], "")?.err.contains("as of"));
    place.output(&["clean"])?;
    ensure!(!cache.exists(), "`clean` takes answers too");
    configure("query-cache = 'never'\n")?;
    place.output(&["list", "--available"])?;
    ensure!(!cache.exists(), "nothing is kept");
    configure("query-cache = 'always'\n[limits]\nquery-age = '1s'\n")?;
    place.output(&["list", "--available"])?;
    std::thread::sleep(Duration::from_millis(1100));
    ensure!(!place.run(&["list", "--available"], "")?.err.contains("as of"), "an answer grows old");
    Ok(())
}

#[test]
fn limits_hold() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let configure = |text: &str| place.put("mgmt", "etc/qubes/qvm-template.toml", text, false);
    configure("[limits]\nreply-size = 100\n")?;
    let outcome = place.run(&["list", "--available"], "")?;
    ensure!(outcome.status == 1 && outcome.err.contains("larger than 100 bytes"), "{outcome:?}");
    let service = "#!/bin/sh\ncat > /dev/null\nsleep 60\n";
    place.put("sys-net", "etc/qubes-rpc/qubes.TemplateSearch", service, true)?;
    configure("[limits]\nsearch-time = 1\n")?;
    let outcome = place.run(&["list", "--available"], "")?;
    ensure!(outcome.status == 1 && outcome.err.contains("qubes.TemplateSearch"), "{outcome:?}");
    let shown = place.output(&["config"])?;
    ensure!(
        shown.contains("limits.search-time") && shown.contains("(/etc/qubes/qvm-template.toml)"),
        "{shown}"
    );
    Ok(())
}

/// A name that no repository has is worth one more question where a person waits, and only there.
#[test]
fn a_person_is_offered_the_name_that_was_meant() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    // This service answers a question for one template as dnf does: with that one only.
    let service = "#!/bin/sh\nread -r line\nwhile case $line in --*) true;; *) false;; esac; do read -r line; done\n\
                   cat > /dev/null\nif [ \"$line\" = '*' ]; then cat /etc/reply; fi\n";
    place.put("sys-net", "etc/qubes-rpc/qubes.TemplateSearch", service, true)?;
    let quiet = place.run(&["install", "tide"], "")?;
    assert_eq!((quiet.status, quiet.err.as_str()), (2, "qvm-template: error: Template 'tide' not found.\n"));
    let seen = WIDE.run(&place, &["install", "tide"], "")?;
    ensure!(seen.status == 2 && seen.raw.contains("help: did you mean 'tied'?"), "{seen:?}");
    let seen = WIDE.run(&place, &["info", "--available", "odd-1.0~rc7"], "")?;
    ensure!(seen.status == 2 && seen.raw.contains("help: did you mean 'odd'?"), "{seen:?}");
    Ok(())
}

/// On a narrow terminal no line is wider than that, but for a word that is; without colour no escape sequence colours.
#[test]
fn everything_fits_and_colour_can_be_off() -> Result<()> {
    let place = Place::new(REPLY, "", 0)?;
    let lines: [(&[&str], &str); 13] = [
        (&["list"], ""),
        (&["list", "--all", "--extras", "--upgrades"], ""),
        (&["info", "plain"], ""),
        (&["search", "template"], ""),
        (&["repolist", "--all"], ""),
        (&["config"], ""),
        (&["--help"], ""),
        (&["install", "--help"], ""),
        (&["install", "plain"], ""),
        (&["reinstall", "gw"], ""),
        (&["upgrade", "epoch"], "n\n"),
        (&["purge", "gw"], "y\ny\nn\n"),
        (&["purge", "--dry-run", "tied"], ""),
    ];
    for columns in [40, 80] {
        for (environment, colored) in
            [(&["NO_COLOR=1"][..], false), (&["NO_COLOR="], true), (&["TERM=dumb"], false)]
        {
            // What colours anything is a list.
            for (line, input) in
                lines.into_iter().filter(|(line, _)| environment == ["NO_COLOR=1"] || line[0] == "list")
            {
                let seen = Terminal { columns, environment }.run(&place, line, input)?;
                let what = format!("{line:?} at {columns} columns, {environment:?}: {seen:#?}");
                // Here the answers are typed before they are asked for, so that no line ends behind the question.
                let plain = settled(&seen.raw.replace("[y/N] ", "[y/N]\r\n"));
                for row in plain.lines() {
                    let fits = row.chars().count() <= usize::from(columns);
                    ensure!(fits || !row.trim().contains(' '), "too wide: {row:?}\n{what}");
                    ensure!(row.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{row:?}\n{what}");
                }
                let coloured = seen.raw.split('\u{1b}').skip(1).any(|rest| {
                    rest.find(|c: char| c.is_ascii_alphabetic())
                        .is_some_and(|end| rest[end..].starts_with('m'))
                });
                ensure!(colored || !coloured, "{what}");
                ensure!(!colored || coloured || line[0] != "list", "{what}");
                ensure!(environment != ["TERM=dumb"] || !seen.raw.contains('\u{1b}'), "{what}");
                // What shows progress leaves nothing behind.
                ensure!(!plain.contains("query "), "{what}");
            }
        }
    }
    Ok(())
}

/// What is left on a terminal: lines without what was erased or written over.
fn settled(raw: &str) -> String {
    let mut lines: Vec<Vec<char>> = vec![Vec::new()];
    let mut at = 0;
    let mut rest = raw.chars().peekable();
    let mut row = 0;
    while let Some(c) = rest.next() {
        match c {
            '\r' => at = 0,
            '\n' => {
                row += 1;
                if row == lines.len() {
                    lines.push(Vec::new());
                }
            }
            '\u{1b}' => {
                let mut number = String::new();
                let end = rest.find(|c| {
                    number.push(*c);
                    c.is_ascii_alphabetic()
                });
                let count = number.trim_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(1);
                match end {
                    Some('K') => lines[row].clear(),
                    Some('A') => row = row.saturating_sub(count),
                    _ => {}
                }
            }
            c => {
                let line = &mut lines[row];
                line.resize(line.len().max(at), ' ');
                if at < line.len() {
                    line[at] = c;
                } else {
                    line.push(c);
                }
                at += 1;
            }
        }
    }
    let text = |line: &Vec<char>| line.iter().collect::<String>().trim_end().to_owned();
    lines.iter().map(text).collect::<Vec<_>>().join("\n")
}
