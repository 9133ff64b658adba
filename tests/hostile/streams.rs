//! Replies that act on a terminal (A11), and replies without measure (A12).

use anyhow::{Result, ensure};

use super::{INSTALL, World, demo, record};

/// Nothing that acts on a terminal or misleads a reader.
fn harmless(text: &str) -> bool {
    !text.chars().any(|c| (c.is_control() && c != '\n') || matches!(c, '\u{202e}' | '\u{200b}' | '\u{2066}'))
}

#[test]
fn a11_escape_sequences_and_tricks_of_direction() -> Result<()> {
    let world = World::new()?;
    let tricks = "\x1b[2J\x1b]0;title\x07\u{202e}gnp\u{200b}\u{2066}\u{9b}31m\r";
    let mut reply = String::new();
    for (name, repo) in [("demo", "first"), ("x\x1b[31m", "first"), ("y", "fi\x1brst")] {
        reply += &format!(
            "qubes-template-{name}|0|1.0|1|{repo}|5|2025-01-01 00:00|GPL{tricks}|u{tricks}|s{tricks}|d{tricks}|\n"
        );
    }
    world.reply(&reply)?;
    for command in [
        &["list", "--available"][..],
        &["info", "--available", "demo"],
        &["info", "--machine-readable-json", "--available", "demo"],
        &["list", "--json"],
        &["search", "--all", "d"],
    ] {
        let said = world.must(command)?;
        ensure!(harmless(&said.out) && harmless(&said.err), "{command:?}: {:?} {:?}", said.out, said.err);
        ensure!(said.out.contains("demo"), "{command:?}: {}", said.out);
    }
    // The service's own words are shown line by line, and never raw.
    let script = format!("cat > /dev/null; printf '{}' >&2; exit 1", tricks.escape_default());
    let script = script.replace("\\u{", "\\\\u{");
    world.sandbox.service("sys-net", "qubes.TemplateSearch", &format!("{script}\n"))?;
    let said = world.tool(&["list", "--available"])?;
    ensure!(said.status == 1 && harmless(&said.err) && said.err.contains("[Qrexec] "), "{:?}", said.err);
    let raw = "cat > /dev/null; printf '\\033[2J\\033]0;t\\007\\302\\233x\\n\\342\\200\\256y' >&2; exit 1";
    world.sandbox.service("sys-net", "qubes.TemplateSearch", raw)?;
    let said = world.tool(&["list", "--available"])?;
    ensure!(said.status == 1 && harmless(&said.err) && said.err.contains("[Qrexec] _"), "{:?}", said.err);
    Ok(())
}

#[test]
fn a11_values_without_measure_are_cut() -> Result<()> {
    let world = World::new()?;
    let long = "x".repeat(1 << 20);
    let line = format!("qubes-template-demo|0|1.0|1|first|5|2025-01-01 00:00|GPL|u|{long}|{long}|\n");
    let odd = format!("qubes-template-{long}|0|1.0|1|first|5|2025-01-01 00:00|GPL|u|s|d|\n");
    world.reply([line, odd].concat())?;
    let said = world.must(&["info", "--available", "--machine-readable-json"])?;
    ensure!(said.out.len() < 100_000 && said.err.len() < 1000, "{} {}", said.out.len(), said.err.len());
    Ok(())
}

#[test]
fn records_in_every_form_survive_each_other() -> Result<()> {
    let world = World::new()?;
    let reply = "qubes-template-dnf4|0|1.0|1|first|5|2025-01-01 00:00|GPL|u|s|\nleading line\n|\n\
                 qubes-template-dnf5|0|1.0|1|first|5|1735689600|GPL-2.0-or-later AND MIT|u|s|d||\n\
                 qubes-template-pipe|0|1.0|1|first|5|2025-01-01 00:00|GPL|u|s|a | b\nc|d|\n\
                 qubes-template-utf|0|1.0|1|first|5|2025-01-01 00:00|GPL|u|\u{e4}\u{65e5}|d|\n\
                 qubes-template-bad|0|1.0|1|first|many|2025-01-01 00:00|GPL|u|s|d|\n\
                 qubes-template-last|0|1.0|1|first|5|2025-01-01 00:00|GPL|u|s|d|\n";
    world.reply(reply)?;
    let said = world.must(&["list", "--available", "--machine-readable"])?;
    let names: Vec<&str> = said.out.lines().filter_map(|line| line.split('|').nth(1)).collect();
    ensure!(names == ["dnf4", "dnf5", "pipe", "utf", "last"], "{names:?} {}", said.err);
    ensure!(said.err.contains("is skipped: the size is not a number"), "{}", said.err);
    Ok(())
}

#[test]
fn a12_floods_end_at_their_caps() -> Result<()> {
    let world = World::new()?;
    let endless = "cat > /dev/null; exec cat /dev/zero";
    world.sandbox.service("sys-net", "qubes.TemplateSearch", endless)?;
    world.refuses(&INSTALL, "the search reply is larger than 33554432 bytes")?;
    let noisy = "cat > /dev/null; head -c 200000000 /dev/zero >&2; exit 1";
    world.sandbox.service("sys-net", "qubes.TemplateSearch", noisy)?;
    let said = world.tool(&INSTALL)?;
    ensure!(said.status == 1 && said.err.len() < 200_000, "{} {}", said.status, said.err.len());
    world.sandbox.service("sys-net", "qubes.TemplateSearch", "cat > /dev/null; cat /srv/reply")?;
    world.reply(record("demo", "1.0", "first", 5).repeat(50_001))?;
    world.refuses(&INSTALL, "the search reply has more than 50000 records")?;
    // Downloads: more than announced, less, nothing, and more than there is room for.
    let good = demo("1.0").bytes()?;
    world.offer("1.0", "first", &good)?;
    world.package([&good[..], b"x"].concat())?;
    world.refuses(&INSTALL, "bytes that the repository announced were sent")?;
    world.package(&good[..good.len() - 1])?;
    world.refuses(&INSTALL, "the download ended after ")?;
    world.sandbox.service("sys-net", "qubes.TemplateDownload", endless)?;
    world.refuses(&INSTALL, "bytes that the repository announced were sent")?;
    let quiet = "cat > /dev/null; head -c 200000000 /dev/zero >&2; cat /srv/package";
    world.sandbox.service("sys-net", "qubes.TemplateDownload", quiet)?;
    world.refuses(&INSTALL, "the download ended after ")?;
    world.reply(record("demo", "1.0", "first", 1 << 40))?;
    world.refuses(&INSTALL, "bytes free, the package needs 1099511627776")?;
    world.package(&good)?;
    world.offer("1.0", "first", &good)?;
    world.must(&INSTALL)?;
    Ok(())
}

#[test]
fn a12_drips_and_silence_end_in_time() -> Result<()> {
    let world = World::new()?;
    let place = world.sandbox.files("mgmt").join("etc/qubes/qvm-template.toml");
    std::fs::write(&place, "[limits]\nstall-time = 1\n")?;
    let drip = "cat > /dev/null; while sleep 0.1; do printf q; done";
    let silence = "cat > /dev/null; printf q; exec sleep 60";
    for (script, told) in [(drip, " bytes were sent in 1 s"), (silence, "nothing was sent for 1 s")] {
        world.sandbox.service("sys-net", "qubes.TemplateSearch", script)?;
        let begin = std::time::Instant::now();
        world.refuses(&INSTALL, told)?;
        world.sandbox.service("sys-net", "qubes.TemplateSearch", "cat > /dev/null; cat /srv/reply")?;
        world.sandbox.service("sys-net", "qubes.TemplateDownload", script)?;
        world.reply(record("demo", "1.0", "first", 1 << 20))?;
        world.refuses(&INSTALL, told)?;
        ensure!(begin.elapsed().as_secs() < 30, "{script}: {:?}", begin.elapsed());
    }
    Ok(())
}
