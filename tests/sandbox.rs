//! The sandbox through its own program: what a command in a qube sees, what is written down, what can go wrong on order.

use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::support::programs::{self, SANDBOX};
use crate::support::sandbox::{Said, Sandbox};

const LIST: &str = "qrexec-client-vm dom0 admin.vm.List </dev/null";

#[test]
fn a_command_sees_its_qube() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let said = sandbox.shell(
        "id -un; id -u; hostname; echo $HOME; ls -d /etc/qubes-rpc /run/qubes; command -v qrexec-client-vm",
    )?;
    let lines: Vec<&str> = said.out.lines().collect();
    let expected =
        ["user", "1000", "mgmt", "/home/user", "/etc/qubes-rpc", "/run/qubes", "/usr/bin/qrexec-client-vm"];
    assert_eq!(lines, expected, "{}", said.err);
    let root = sandbox.exec(&["--user", "root", "--env", "A=b c"], &["sh", "-c", "id -u; echo $HOME $A"])?;
    assert_eq!(root.out, "0\n/root b c\n");
    assert!(!sandbox.shell("test -e /run/qubesd.sock || test -e /etc/qubes-release")?.out.contains('/'));
    let dom0 = sandbox
        .exec(&["--qube", "dom0"], &["sh", "-c", "cat /etc/qubes-release; test -S /var/run/qubesd.sock"])?;
    assert_eq!((dom0.status, dom0.out.as_str()), (0, "Qubes release 4.3 (R4.3)\n"));
    Ok(())
}

#[test]
fn files_belong_to_their_qube_and_stay() -> Result<()> {
    let sandbox = Sandbox::new()?;
    for place in ["/home/user", "/tmp", "/var/tmp", "/etc/qubes"] {
        sandbox.shell(&format!("echo mine > {place}/file"))?;
        let other = sandbox.exec(&["--qube", "sys-net"], &["cat", &format!("{place}/file")])?;
        assert_ne!(other.status, 0, "{place} is shared");
        assert_eq!(sandbox.shell(&format!("cat {place}/file"))?.out, "mine\n", "{place} is forgotten");
    }
    // What is no qube's own is the host's, and cannot be changed from here for good.
    sandbox.shell("echo mine > /etc/qubes-sandbox-test")?;
    assert!(!std::path::Path::new("/etc/qubes-sandbox-test").exists());
    assert_ne!(sandbox.shell("cat /etc/qubes-sandbox-test")?.status, 0);
    Ok(())
}

#[test]
fn the_status_is_the_commands_own() -> Result<()> {
    let sandbox = Sandbox::new()?;
    assert_eq!(sandbox.shell("exit 7")?.status, 7);
    assert_eq!(sandbox.shell("kill -KILL $$")?.status, 137);
    assert_eq!(sandbox.exec(&[], &["no-such-program"])?.status, 127);
    assert_eq!(sandbox.exec(&["--qube", "nobody"], &["true"])?.status, 125);
    Ok(())
}

#[test]
fn a_signal_reaches_the_command() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let script = "trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let mut child = sandbox.command(&[], &["sh", "-c", script]).stdout(Stdio::piped()).spawn()?;
    let mut out = std::io::BufReader::new(child.stdout.take().context("its output")?);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut out, &mut line)?;
    let number = i32::try_from(child.id())?;
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(number), nix::sys::signal::Signal::SIGTERM)?;
    std::io::BufRead::read_line(&mut out, &mut line)?;
    assert_eq!((child.wait()?.code(), line.as_str()), (Some(3), "ready\ncaught\n"));
    Ok(())
}

#[test]
fn two_sandboxes_do_not_meet() -> Result<()> {
    let (one, other) = (Sandbox::new()?, Sandbox::new()?);
    thread::scope(|scope| -> Result<()> {
        let busy = scope.spawn(|| other.shell(&format!("sleep 0.5; {LIST}")));
        let created = one.feed(
            &[],
            &["qrexec-client-vm", "dom0", "admin.vm.Create.TemplateVM"],
            b"name=here label=black",
        )?;
        assert_eq!((created.status, created.out.as_str()), (0, "0\0"));
        let here = one.shell(LIST)?;
        assert!(here.out.contains("here class=TemplateVM"), "{here:?}");
        let there = busy.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        assert!(there.out.starts_with("0\0dom0 ") && !there.out.contains("here"), "{}", there.out);
        Ok(())
    })?;
    assert_eq!(other.log()?.len(), 1);
    Ok(())
}

#[test]
fn commands_side_by_side_share_one_system() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let names: Vec<String> = (0..8).map(|n| format!("t{n}")).collect();
    thread::scope(|scope| {
        let create = |name: &str| {
            let payload = format!("name={name} label=black");
            sandbox.feed(&[], &["qrexec-client-vm", "dom0", "admin.vm.Create.TemplateVM"], payload.as_bytes())
        };
        let running: Vec<_> = names.iter().map(|name| scope.spawn(move || create(name))).collect();
        for one in running {
            let said = one.join().expect("a thread panicked").expect("a command ran");
            assert_eq!((said.status, said.out.as_str()), (0, "0\0"), "{}", said.err);
        }
    });
    let list = sandbox.shell(LIST)?.out;
    assert!(names.iter().all(|name| list.contains(&format!("{name} class=TemplateVM"))), "{list}");
    assert_eq!(sandbox.log()?.len(), 9);
    Ok(())
}

#[test]
fn calls_are_written_down() -> Result<()> {
    let sandbox = Sandbox::new()?;
    sandbox.service("sys-net", "test.Reply", "cat >/dev/null; printf 0123456789; exit 4")?;
    sandbox.allow("test.Reply +x mgmt sys-net allow")?;
    sandbox.shell(
        "printf abc | qrexec-client-vm sys-net test.Reply+x; qrexec-client-vm sys-net test.Reply </dev/null",
    )?;
    sandbox.shell("qrexec-client-vm dom0 admin.vm.tag.Get+x </dev/null")?;
    assert_eq!(sandbox.ask("admin.vm.Remove+", "nobody", "")?.chars().next(), Some('2'));
    let log = sandbox.log()?;
    let brief: Vec<_> = log
        .iter()
        .map(|entry| {
            (
                entry.service.as_str(),
                entry.arg.as_deref(),
                entry.allowed,
                entry.bytes_in,
                entry.bytes_out,
                entry.exit,
            )
        })
        .collect();
    assert_eq!(brief[0], ("test.Reply", Some("x"), true, 3, 10, Some(4)));
    assert_eq!(brief[1], ("test.Reply", None, false, 0, 0, Some(126)));
    assert_eq!(brief[2], ("admin.vm.tag.Get", Some("x"), false, 0, 0, Some(126)));
    assert_eq!(
        (log[0].payload.as_str(), log[0].source.as_str(), log[0].target.as_str()),
        ("abc", "mgmt", "sys-net")
    );
    assert_eq!(log[1].decision, ["test.Reply: mgmt -> sys-net: denied: no matching rule found"]);
    assert_eq!(log[3].error.as_ref().map(|(class, _)| class.as_str()), Some("QubesVMNotFoundError"));
    let shown = sandbox.tool(["log"], &[])?;
    assert_eq!(shown.lines().filter(|line| line.contains("DENIED")).count(), 2, "{shown}");
    assert_eq!(sandbox.tool(["log", "--json"], &[])?.lines().count(), 4);
    Ok(())
}

#[test]
fn a_rule_taken_away_refuses_its_call() -> Result<()> {
    let sandbox = Sandbox::new()?;
    assert_eq!(sandbox.shell(LIST)?.status, 0);
    let path = sandbox.files("dom0").join("etc/qubes/policy.d/30-qvm-template.policy");
    let text = fs::read_to_string(&path)?;
    let without: Vec<&str> = text
        .lines()
        .filter(|line| !(line.starts_with("admin.vm.List ") && line.contains("@adminvm")))
        .collect();
    fs::write(&path, without.join("\n"))?;
    let refused = sandbox.shell(LIST)?;
    assert_eq!((refused.status, refused.err.as_str()), (126, "Request refused\n"));
    fs::write(&path, format!("{text}\nnonsense\n"))?;
    assert_eq!(sandbox.shell(LIST)?.status, 126);
    let log = sandbox.log()?;
    let last = &log.last().context("a call")?.decision[0];
    assert!(last.contains("error loading policy: /etc/qubes/policy.d/30-qvm-template.policy:"), "{last}");
    Ok(())
}

#[test]
fn questions_get_the_answer_that_was_set() -> Result<()> {
    let sandbox = Sandbox::new()?;
    sandbox.service("sys-net", "test.Ask", "echo $QREXEC_REMOTE_DOMAIN")?;
    sandbox.allow("test.Ask * mgmt sys-net ask")?;
    let call = "qrexec-client-vm sys-net test.Ask </dev/null";
    assert_eq!(sandbox.shell(call)?.status, 126);
    sandbox.tool(["answer"], &["allow"])?;
    assert_eq!(sandbox.shell(call)?.out, "mgmt\n");
    sandbox.tool(["answer"], &["allow", "--target", "dom0"])?;
    assert_eq!(sandbox.shell(call)?.status, 126);
    Ok(())
}

#[test]
fn faults_happen_on_order() -> Result<()> {
    let sandbox = Sandbox::new()?;
    sandbox.service("sys-net", "test.Count", "cat >/dev/null; printf 0123456789")?;
    sandbox.service("sys-net", "test.Echo", "cat")?;
    sandbox.allow("test.Count * mgmt sys-net allow\ntest.Echo * mgmt sys-net allow")?;
    let fault = |arguments: &[&str]| sandbox.tool(["fault"], arguments);
    let call = |service: &str| sandbox.shell(&format!("printf abcdef | qrexec-client-vm sys-net {service}"));

    fault(&["refuse", "test.Count", "--call", "2"])?;
    let statuses = [call("test.Count")?.status, call("test.Count")?.status, call("test.Count")?.status];
    assert_eq!(statuses, [0, 126, 0]);

    fault(&["cut", "test.Count", "out", "4", "--status", "1"])?;
    let cut = call("test.Count")?;
    assert_eq!((cut.status, cut.out.as_str()), (1, "0123"));
    fault(&["cut", "test.Echo", "in", "2"])?;
    assert_eq!(call("test.Echo")?.out, "ab");
    fault(&["flip", "test.Echo", "in", "0"])?;
    fault(&["flip", "test.Echo", "out", "5"])?;
    assert_eq!(call("test.Echo")?.out, "`bcdeg");
    fault(&["exit", "test.Echo", "9", "lost"])?;
    let exit = call("test.Echo")?;
    assert_eq!((exit.status, exit.out.as_str(), exit.err.as_str()), (9, "", "lost"));
    fault(&["stall", "test.Echo", "in", "3", "--seconds", "0.4"])?;
    let before = Instant::now();
    assert_eq!(call("test.Echo")?.out, "abcdef");
    assert!(before.elapsed() >= Duration::from_millis(400));

    fault(&["exception", "admin.vm.List", "QubesMemoryError", "no memory"])?;
    assert_eq!(sandbox.shell(LIST)?.out, "2\0QubesMemoryError\0\0no memory\0");
    fault(&["exception", "admin.vm.List", "QubesVMError", "socket too"])?;
    assert_eq!(sandbox.ask("admin.vm.List+", "dom0", "")?, "2\0QubesVMError\0\0socket too\0");
    assert_eq!(call("test.Echo")?.out, "abcdef");
    assert_eq!(fault(&["list"])?.lines().count(), 9);
    fault(&["clear"])?;
    assert_eq!(fault(&["list"])?, "");
    assert_eq!(sandbox.log()?.iter().filter(|entry| entry.fault.is_some()).count(), 8);
    Ok(())
}

#[test]
fn a_client_is_killed_on_order() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let create = "printf 'name=tpl label=black' | qrexec-client-vm dom0 admin.vm.Create.TemplateVM; echo $?";
    sandbox.tool(["fault"], &["kill", "admin.vm.Create.TemplateVM", "before", "--who", "client"])?;
    assert_eq!(sandbox.shell(create)?.out, "137\n");
    assert!(sandbox.show()?["qubes"]["tpl"].is_null(), "the call had no effect");
    assert_eq!(sandbox.shell(create)?.out, "0\x000\n");
    sandbox.tool(["fault"], &["kill", "admin.vm.Remove", "after"])?;
    let remove = "sh -c 'qrexec-client-vm tpl admin.vm.Remove </dev/null; echo not reached'; echo $?";
    let said = sandbox.shell(remove)?;
    // The program that made the call is not the one that was killed, and still says what it was told.
    assert!(said.out.contains("137\n") && !said.out.contains("reached"), "{} {}", said.out, said.err);
    assert!(sandbox.show()?["qubes"]["tpl"].is_null(), "the call had its effect");

    sandbox.ask("admin.vm.Create.TemplateVM+", "dom0", "name=tpl label=black")?;
    sandbox.ask("admin.vm.tag.Set+created-by-mgmt", "tpl", "")?;
    sandbox.tool(["fault"], &["kill", "admin.vm.volume.ImportWithSize", "in:100K", "--who", "client"])?;
    let import = "(echo 1000000; head -c 1000000 /dev/zero) | qrexec-client-vm tpl admin.vm.volume.ImportWithSize+root; echo $?";
    assert_eq!(sandbox.shell(import)?.out, "137\n");
    let root = &sandbox.show()?["qubes"]["tpl"]["volumes"]["root"];
    assert_eq!((root["commits"].as_u64(), root["size"].as_u64()), (Some(0), Some(10 << 30)));
    let entry = sandbox.log()?.pop().context("a call")?;
    assert_eq!((entry.bytes_in, entry.exit), (100 << 10, None));
    Ok(())
}

#[test]
fn a_limited_space_ends() -> Result<()> {
    let sandbox = Sandbox::new()?;
    sandbox.shell("echo kept > /home/user/note")?;
    let limited = |script: &str| sandbox.exec(&["--space", "2M"], &["sh", "-c", script]);
    assert_eq!(limited("cat ~/note; head -c 1500K /dev/zero > /var/tmp/a")?.out, "kept\n");
    let full = limited("head -c 1500K /dev/zero > /var/tmp/a && head -c 1500K /dev/zero > ~/b")?;
    assert_eq!(full.status, 1);
    assert!(full.err.contains("No space left on device"), "{}", full.err);
    assert_ne!(sandbox.shell("test -e /var/tmp/a || test -e ~/b")?.status, 0, "the space is forgotten");
    Ok(())
}

#[test]
fn nothing_is_left_running() -> Result<()> {
    let sandbox = Sandbox::new()?;
    sandbox.service("sys-net", "test.Sleep", "echo started; (sleep 98761 &) ; sleep 98762")?;
    sandbox.allow("test.Sleep * mgmt sys-net allow")?;
    // A command with a process in the background that has left its session, and a service that would go on.
    let script = "(setsid sleep 98763 >/dev/null 2>&1 &); qrexec-client-vm sys-net test.Sleep </dev/null & \
                  sleep 0.5; exit 0";
    assert_eq!(sandbox.shell(script)?.out, "started\n");
    assert_eq!(running(&sandbox)?, Vec::<String>::new());
    // Killed from outside, it takes everything along as well.
    let mut child = sandbox.command(&[], &["sh", "-c", "sleep 98764 & sleep 98765"]).spawn()?;
    thread::sleep(Duration::from_millis(300));
    assert!(running(&sandbox)?.len() > 1);
    child.kill()?;
    child.wait()?;
    let patience = Instant::now() + Duration::from_secs(5);
    while !running(&sandbox)?.is_empty() && Instant::now() < patience {
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(running(&sandbox)?, Vec::<String>::new());
    Ok(())
}

/// The real agent closes the pipes of a service whose caller has gone, and waits for it (qubes-core-qrexec,
/// `libqrexec/process_io.c`); it kills nothing.
#[test]
fn a_service_finds_its_pipes_closed_when_its_caller_goes() -> Result<()> {
    let sandbox = Sandbox::new()?;
    for (name, script) in [
        ("Reads", "cat >/dev/null; echo 98771 read >> /home/user/ends"),
        ("Writes", "while echo 98772; do sleep 0.1; done 2>/dev/null; echo 98772 wrote >> /home/user/ends"),
        ("Works", "sleep 2; echo 98773 worked >> /home/user/ends; sleep 98773"),
    ] {
        let trap = "trap '' PIPE";
        sandbox.service("sys-net", &format!("test.{name}"), &format!("{trap}; {script}"))?;
        sandbox.allow("test.Reads * mgmt sys-net allow\ntest.Writes * mgmt sys-net allow\ntest.Works * mgmt sys-net allow")?;
    }
    let script = "mkfifo /tmp/quiet; exec 3<>/tmp/quiet; \
                  for s in Reads Writes Works; do qrexec-client-vm sys-net test.$s <&3 >/dev/null & p=\"$p $!\"; done; \
                  sleep 0.7; kill -9 $p; sleep 600";
    let child = Ended(sandbox.command(&[], &["sh", "-c", script]).spawn()?);
    let ends = sandbox.files("sys-net").join("home/user/ends");
    let patience = Instant::now() + Duration::from_secs(20);
    let ended = || fs::read_to_string(&ends).unwrap_or_default();
    while ended().lines().count() < 3 {
        anyhow::ensure!(Instant::now() < patience, "{:?} {:?}", ended(), running(&sandbox)?);
        thread::sleep(Duration::from_millis(20));
    }
    // Its caller went more than a second before.
    assert!(running(&sandbox)?.iter().any(|line| line.contains("98773")), "the service that works goes on");
    assert_eq!(sandbox.log()?.iter().map(|call| call.exit).collect::<Vec<_>>(), [None; 3]);
    drop(child);
    while !running(&sandbox)?.is_empty() {
        anyhow::ensure!(Instant::now() < patience, "left running: {:?}", running(&sandbox)?);
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[test]
fn dom0_has_its_own_ways() -> Result<()> {
    let sandbox = Sandbox::new()?;
    sandbox.service(
        "sys-net",
        "test.Who",
        "echo $QREXEC_REMOTE_DOMAIN $QREXEC_SERVICE_ARGUMENT $(id -un); cat; exit 5",
    )?;
    let dom0 = |script: &str| sandbox.exec(&["--qube", "dom0"], &["sh", "-c", script]);
    let client = "/usr/lib/qubes/qrexec-client -d sys-net";
    let said = dom0(&format!("echo in | {client} 'DEFAULT:QUBESRPC test.Who+a dom0'; echo $?"))?;
    assert_eq!(said.out, "dom0 a user\nin\n5\n", "{}", said.err);
    assert_eq!(dom0(&format!("{client} 'root:id -u; exit 3' </dev/null; echo $?"))?.out, "0\n3\n");
    assert_eq!(dom0("/usr/lib/qubes/qrexec-client -d nobody 'DEFAULT:true' </dev/null; echo $?")?.out, "1\n");
    assert_eq!(sandbox.ask("admin.vm.Create.TemplateVM+", "dom0", "name=tpl label=black")?, "0\0");
    let import = "printf '6\\nabcdef' | sudo env QREXEC_REMOTE_DOMAIN=dom0 QREXEC_REQUESTED_TARGET=tpl \
                  /etc/qubes-rpc/admin.vm.volume.ImportWithSize root | tr '\\0' .; printf 9 | sudo env \
                  QREXEC_REMOTE_DOMAIN=dom0 QREXEC_REQUESTED_TARGET=tpl /etc/qubes-rpc/admin.vm.volume.ImportWithSize root; echo $?";
    assert_eq!(dom0(import)?.out, "0.2\n");
    let root = &sandbox.show()?["qubes"]["tpl"]["volumes"]["root"];
    assert_eq!(root["sha256"], "bef57ec7f53a6d40beb640a780a639c83bc29ac8a9816f1fc6c5c6dcd93c4721");
    assert_eq!(sandbox.show()?["qubes"]["sys-net"]["volumes"]["root"]["sha256"], serde_json::Value::Null);
    Ok(())
}

#[test]
fn the_guest_answers_post_install() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let script = "printf 'name=tpl label=black' | qrexec-client-vm dom0 admin.vm.Create.TemplateVM >/dev/null; \
                  printf 1 | qrexec-client-vm tpl admin.vm.feature.Set+qrexec >/dev/null; \
                  qrexec-client-vm tpl admin.vm.Start </dev/null | tr '\\0' .; \
                  qrexec-client-vm tpl qubes.PostInstall </dev/null; echo $?; \
                  qrexec-client-vm tpl admin.vm.Shutdown+wait </dev/null | tr '\\0' .";
    assert_eq!(sandbox.shell(script)?.out, "0.0\n0.");
    let features = &sandbox.show()?["qubes"]["tpl"]["features"];
    assert_eq!((&features["os"], &features["qrexec"]), (&"Linux".into(), &"1".into()), "{features}");
    Ok(())
}

#[test]
fn a_system_can_be_carried() -> Result<()> {
    let (one, other) = (Sandbox::new()?, Sandbox::new()?);
    one.tool(["qube"], &["tpl", "--feature", "template-name=tpl", "--tag", "created-by-mgmt"])?;
    one.tool(["pool"], &["small", "--driver", "lvm_thin", "--size", "10M"])?;
    let written = one.tool(["export"], &[])?;
    let file = other.dir().join("population.json");
    fs::write(&file, &written)?;
    other.tool(["import"], &[file.to_str().context("a path")?])?;
    assert_eq!(other.tool(["export"], &[])?, written);
    assert!(other.shell(LIST)?.out.contains("tpl class=TemplateVM"));
    Ok(())
}

#[test]
fn a_command_is_recorded() -> Result<()> {
    let sandbox = Sandbox::new()?;
    // The qube has a /tmp of its own, and this repository may lie in the host's.
    let record = format!(
        "/.host{SANDBOX} record -o ~/r.jsonl -- sh -c 'printf x | qrexec-client-vm dom0 admin.vm.List | wc -c; exit 6'; echo $?"
    );
    let said = sandbox.shell(&record)?;
    let lines = fs::read_to_string(sandbox.files("mgmt").join("home/user/r.jsonl"))?;
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|line| Ok(serde_json::from_str(line)?)).collect::<Result<_>>()?;
    assert!(said.out.ends_with("\n6\n"), "{} {}", said.out, said.err);
    assert!(lines[0].get("head").is_some());
    assert_eq!(
        (&lines[1]["service"], &lines[1]["payload"], &lines[1]["rc"]),
        (&"admin.vm.List".into(), &"x".into(), &0.into())
    );
    assert!(
        lines[1]["stdout"].as_str().is_some_and(|out| out.starts_with("2\0ProtocolError")),
        "{}",
        lines[1]
    );
    Ok(())
}

#[test]
fn it_works_at_a_long_path() -> Result<()> {
    let place = programs::folder()?;
    let dir = place.path().join("d".repeat(120)).join("system");
    let dir = dir.to_str().context("a path")?;
    programs::success(place.path(), SANDBOX, ["new", dir])?;
    let out = programs::success(place.path(), SANDBOX, ["exec", dir, "--", "sh", "-c", LIST])?;
    assert!(out.starts_with("0\0dom0 "), "{out}");
    Ok(())
}

#[test]
fn nobody_needs_to_be_root() -> Result<()> {
    let place = programs::folder()?;
    let mut command = if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(place.path(), Some(65534), Some(65534))?;
        let mut command = std::process::Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c"]);
        command
    } else {
        let mut command = std::process::Command::new("sh");
        command.arg("-c");
        command
    };
    let script = format!("{SANDBOX} new d && {SANDBOX} exec d -- sh -c 'id -u; {LIST}'");
    let said = Said::of(&command.arg(script).current_dir(place.path()).stdin(Stdio::null()).output()?)?;
    assert!(said.out.contains("\n1000\n0\0dom0 "), "{} {}", said.out, said.err);
    Ok(())
}

/// Command lines of processes that belong to a sandbox: the server's, and those of its tests' marks.
/// A command that ends with the value, also when a test fails.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn running(sandbox: &Sandbox) -> Result<Vec<String>> {
    let mark = sandbox.dir().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
        if line.contains(&mark)
            || ["98761", "98762", "98763", "98764", "98765", "98773"].iter().any(|n| line.contains(n))
        {
            found.push(line.replace('\0', " "));
        }
    }
    Ok(found)
}
