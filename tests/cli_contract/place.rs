//! A sandbox with a rich population, in which one command line runs.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::support::programs::{QVM_TEMPLATE, SANDBOX, folder, success};

/// A sandbox that is forgotten in the end.
pub struct Place {
    _folder: tempfile::TempDir,
    root: PathBuf,
}

/// What a command line came to.
#[derive(Debug)]
pub struct Outcome {
    /// Exit status.
    pub status: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
    /// Changing Admin API calls in order: method without `admin.`, destination, argument.
    pub changes: Vec<String>,
    /// Calls that policy refused.
    pub denied: Vec<String>,
}

/// What qubes.TemplateSearch answers, if nothing else is said.
pub const REPLY: &str = "\
qubes-template-plain|0|4.3.0|1|stable|1048576|2024-01-02 03:04|GPLv3+|http://www.qubes-os.org|A plain template|First line
second line|
qubes-template-plain|0|4.3.0|2|stable|2097152|2024-02-02 03:04|GPLv3+|http://www.qubes-os.org|A plain template|First line
second line|
qubes-template-tied|0|1|1|stable-testing|10|2024-01-02 03:04|GPL|(none)|Tied|From testing|
qubes-template-tied|0|1|1|stable|10|2024-01-02 03:04|GPL|(none)|Tied|From main|
qubes-template-epoch|0|9.0|1|other|10|2024-01-02 03:04|GPL|u|Epochs|x|
qubes-template-epoch|2|1.0|1|other|10|2024-01-02 03:04|GPL|u|Epochs|x|
qubes-template-odd|0|1.0~rc1|1|other|10|2024-01-02 03:04|GPL|u|Tildes|x|
qubes-template-odd|0|1.0|1|other|10|2024-01-02 03:04|GPL|u|Tildes|x|
qubes-template-odd|0|1.0^git|1|other|10|2024-01-02 03:04|GPL|u|Carets|x|
qubes-template-gw|0|18|1|stable|10|2024-01-02 03:04|GPL|u|Gateway|x|
";

const REPO_FILE: &str = "[stable]\nname = Stable $releasever\nenabled = 1\n[stable-testing]\nname = Testing\nenabled = 0\n\
                         [other]\nname = Other\nenabled = 1\n";

/// The sandbox does what a management qube with all rights may do.
const POLICY: &str = "qubes.TemplateSearch * mgmt sys-net allow\nqubes.TemplateDownload * mgmt sys-net allow\n\
                      * * mgmt @adminvm allow target=dom0\n* * mgmt @anyvm allow target=dom0\n";

impl Place {
    /// A sandbox whose UpdateVM answers every search with `reply`, `errors` and `status`.
    pub fn new(reply: &str, errors: &str, status: i32) -> Result<Self> {
        let folder = folder()?;
        let root = folder.path().join("s");
        let population = folder.path().join("population.json");
        fs::write(&population, population_text().to_string())?;
        let arguments = [Path::new("import"), root.as_path(), population.as_path()];
        success(folder.path(), SANDBOX, arguments).context("making a sandbox")?;
        let own = Self { _folder: folder, root };
        own.put("dom0", "etc/qubes/policy.d/30-test.policy", POLICY, false)?;
        let service =
            format!("#!/bin/sh\ncat > /tmp/request\ncat /etc/reply\ncat /etc/errors >&2\nexit {status}\n");
        own.put("sys-net", "etc/qubes-rpc/qubes.TemplateSearch", &service, true)?;
        own.put("sys-net", "etc/reply", reply, false)?;
        own.put("sys-net", "etc/errors", errors, false)?;
        own.put("mgmt", "etc/qubes/repo-templates/test.repo", REPO_FILE, false)?;
        own.put("mgmt", "etc/os-release", "ID=qubes\nVERSION_ID=4.3\n", false)?;
        fs::create_dir_all(own.path("mgmt", "home/user"))?;
        Ok(own)
    }

    /// Puts a file into a qube.
    pub fn put(&self, qube: &str, path: &str, text: &str, executable: bool) -> Result<()> {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.path(qube, path);
        fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        // The sandbox puts some of its own programs there as links.
        let _ = fs::remove_file(&path);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(if executable { 0o755 } else { 0o644 }))?;
        Ok(())
    }

    /// Where the sandbox is.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a file of a qube is.
    pub fn path(&self, qube: &str, path: &str) -> PathBuf {
        self.root.join("qubes").join(qube).join("root").join(path)
    }

    /// What was sent to the search service last, up to the repository files.
    pub fn request(&self) -> Option<String> {
        let text = fs::read_to_string(self.path("sys-net", "tmp/request")).ok()?;
        text.split_once("---\n").map(|(head, _)| head.to_owned())
    }

    /// Runs `qvm-template` in the management qube.
    pub fn run(&self, arguments: &[&str], input: &str) -> Result<Outcome> {
        self.exec(&[&[QVM_TEMPLATE], arguments].concat(), input)
    }

    /// Runs a command there.
    pub fn exec(&self, command: &[&str], input: &str) -> Result<Outcome> {
        let log = self.root.join("log.jsonl");
        let before = fs::read_to_string(&log).unwrap_or_default().lines().count();
        let mut child = Command::new(SANDBOX)
            .arg("exec")
            .arg(&self.root)
            .args(["--cwd", "/home/user", "--env", "TZ=UTC", "--env", "HOME=/home/user", "--"])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting a command in the sandbox")?;
        let mut stdin = child.stdin.take().context("there is a pipe")?;
        // The command may end without reading its input.
        let _ = stdin.write_all(input.as_bytes());
        drop(stdin);
        let output = child.wait_with_output()?;
        let mut outcome = Outcome {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).context("standard output is text")?,
            err: String::from_utf8(output.stderr).context("standard error is text")?,
            changes: Vec::new(),
            denied: Vec::new(),
        };
        for line in fs::read_to_string(&log).unwrap_or_default().lines().skip(before) {
            let call: Value = serde_json::from_str(line).context("reading the log")?;
            outcome.note(&call);
        }
        Ok(outcome)
    }

    /// What a command that must succeed prints.
    pub fn output(&self, arguments: &[&str]) -> Result<String> {
        let outcome = self.run(arguments, "")?;
        ensure!(outcome.status == 0, "{arguments:?}: {outcome:?}");
        Ok(outcome.out)
    }
}

impl Outcome {
    fn note(&mut self, call: &Value) {
        let word = |key: &str| call[key].as_str().unwrap_or_default();
        let (service, target, arg) = (word("service"), word("target"), word("arg"));
        if word("source") != "mgmt" {
            return;
        }
        if call["allowed"] == false {
            self.denied.push(format!("{service}+{arg} {target}"));
            return;
        }
        let reads = ["List", "Get", "Info", "ListSnapshots", "CurrentState", "UsageDetails"];
        let Some(method) = service.strip_prefix("admin.") else { return };
        // What we write down beside the original's features is no part of the contract.
        let ours = arg == "qvm-template-record";
        if !ours && !reads.iter().any(|read| method.ends_with(&format!(".{read}"))) {
            self.changes.push(format!("{method} {target} {arg}").trim_end().to_owned());
        }
    }
}

fn managed(name: &str, evr: [&str; 3], state: &str) -> Value {
    json!({
        "class": "TemplateVM", "label": "black", "state": state, "installed_by_rpm": false, "tags": [],
        "features": {
            "template-name": name, "template-epoch": evr[0], "template-version": evr[1], "template-release": evr[2],
            "template-reponame": "stable", "template-buildtime": "2024-01-02 03:04:05",
            "template-installtime": "2024-03-04 05:06:07", "template-license": "GPLv3+",
            "template-url": "http://www.qubes-os.org", "template-summary": format!("Installed {name}"),
            "template-description": "One|two",
        },
        "volumes": {"root": {"size": 10_737_418_240_u64, "usage": 1_073_741_824}},
    })
}

fn plain(class: &str, state: &str, more: &Value) -> Value {
    let mut qube = json!({
        "class": class, "label": "red", "state": state, "installed_by_rpm": false, "features": {}, "tags": [],
        "netvm": null,
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        qube[key] = value.clone();
    }
    qube
}

/// Templates managed, cloned, half described, installed by rpm, unreadable, running; qubes of all classes that use them.
fn population_text() -> Value {
    let mut copy = managed("plain", ["0", "4.3.0", "1"], "Halted");
    copy["features"]["template-name"] = json!("plain");
    let mut owned = managed("owned", ["0", "1", "1"], "Halted");
    owned["installed_by_rpm"] = json!(true);
    json!({
        "globals": {
            "default_dispvm": "dvm", "default_netvm": null, "default_guivm": "dom0", "default_audiovm": "dom0",
            "default_template": "tied", "clockvm": "sys-net", "updatevm": "sys-net", "management_dispvm": null,
        },
        "pools": ["vm-pool"],
        "deny": [{"method": "admin.vm.feature.Get", "dest": "hidden"}],
        "qubes": {
            "dom0": {"class": "AdminVM", "label": "black", "state": "Running", "features": {}, "tags": []},
            "mgmt": plain("StandaloneVM", "Running", &json!({})),
            "sys-net": plain("StandaloneVM", "Running", &json!({"properties": {"provides_network": true}})),
            "plain": managed("plain", ["0", "4.3.0", "1"], "Halted"),
            "tied": managed("tied", ["0", "1", "1"], "Halted"),
            "epoch": managed("epoch", ["0", "9.0", "1"], "Halted"),
            "gone": managed("gone", ["0", "1", "1"], "Halted"),
            "busy": managed("busy", ["0", "1", "1"], "Running"),
            "gw": managed("gw", ["0", "17", "1"], "Halted"),
            "ws": managed("ws", ["0", "17", "1"], "Halted"),
            "owned": owned,
            "copy": copy,
            "half": plain("TemplateVM", "Halted", &json!({"features": {"template-name": "half"}})),
            "hidden": plain("TemplateVM", "Halted", &json!({"features": {"template-name": "hidden"}})),
            "bare": plain("TemplateVM", "Halted", &json!({})),
            "work": plain("AppVM", "Halted", &json!({"template": "plain"})),
            "live": plain("AppVM", "Running", &json!({"template": "plain"})),
            "vault": plain("StandaloneVM", "Halted", &json!({})),
            "dvm": plain("AppVM", "Halted", &json!({"template": "tied", "properties": {"template_for_dispvms": true}})),
            "disp": plain("DispVM", "Running", &json!({"template": "dvm"})),
            "sys-gw": plain("AppVM", "Running", &json!({"template": "gw", "properties": {"provides_network": true}})),
            "anon": plain("AppVM", "Halted", &json!({"template": "ws", "netvm": "sys-gw"})),
        },
    })
}
