//! A sandbox with tenants: `desk` and `rival` (tags of roles as a test wishes), packages in a repository, grants.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::support::programs::{BUILD, folder, success};
use crate::support::sandbox::{Said, Sandbox};

/// The template of the role files.
pub const NAMED: &str = "debian-13-xfce";
const KEY: &str = "/etc/qubes/repo-templates/keys/RPM-GPG-KEY-test";
/// Templates with their versions, each with an image of so many MiB.
const PACKAGES: [(&str, &str, u64); 6] = [
    (NAMED, "1.0", 4),
    (NAMED, "2.0", 4),
    ("rival-own", "1.0", 4),
    ("big", "1.0", 64),
    // Its version makes `NAME-VERSION` the name of another template.
    ("debian", "13", 4),
    ("hidden", "1.0", 4),
];

struct Packages(tempfile::TempDir);

impl Packages {
    fn get() -> Result<&'static Self> {
        static MADE: OnceLock<Result<Packages, String>> = OnceLock::new();
        let made = MADE.get_or_init(|| Self::make().map_err(|error| format!("{error:#}")));
        made.as_ref().map_err(|error| anyhow::anyhow!("{error}"))
    }

    /// Two repositories: `test`, and `other` with the template `hidden`.
    fn make() -> Result<Self> {
        let own = Self(folder()?);
        let place = own.0.path();
        let keygen = ["keygen", "--algorithm", "ed25519", "--secret", "s", "--public", "p", "--seed", "d"];
        success(place, BUILD, keygen)?;
        for (name, version, size) in PACKAGES {
            let repo = if name == "hidden" { "other" } else { "test" };
            fs::create_dir_all(place.join(repo))?;
            let image = place.join("image");
            fs::write(&image, format!("{name} {version}"))?;
            fs::File::options().write(true).open(&image)?.set_len(size << 20)?;
            let conf =
                "[conf]\ngui = \"1\"\nqrexec = \"1\"\n[menus]\ntemplate = []\nqubes = []\nnetwork = []\n";
            let recipe = format!("name = \"{name}\"\nversion = \"{version}\"\nrelease = \"1\"\n{conf}");
            fs::write(place.join("recipe.toml"), recipe)?;
            let pack = ["pack", "--recipe", "recipe.toml", "--level", "3", "-o", repo, "image", "--key", "s"];
            success(place, BUILD, pack)?;
        }
        for repo in ["test", "other"] {
            success(place, "createrepo_c", ["-q", repo])?;
        }
        Ok(own)
    }
}

/// The system, whose server lives as long as the value.
pub struct World {
    /// Its sandbox.
    pub sandbox: Sandbox,
    lease: Option<Child>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
    }
}

impl World {
    /// A system in which `desk` and `rival` have the tag of a role, with that role's policy and these grants.
    pub fn new(role: &str, grants: &str) -> Result<Self> {
        let packages = Packages::get()?;
        let sandbox = Sandbox::new()?;
        let qube = |name: &str, tags: &[&str]| -> Result<()> {
            let mut line = vec![name, "--class", "StandaloneVM", "--property", "netvm="];
            tags.iter().for_each(|tag| line.extend(["--tag", *tag]));
            sandbox.tool(["qube"], &line).map(drop)
        };
        let tag = format!("template-{role}");
        qube("desk", &[&tag])?;
        qube("rival", &[&tag])?;
        qube("stranger", &[])?;
        sandbox.tool(["qube"], &["mgmt", "--tag", "template-manager"])?;
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(role_file(role)))?;
        fs::write(sandbox.files("dom0").join("etc/qubes/policy.d/31-role.policy"), text)?;
        for repo in ["test", "other"] {
            copy(&packages.0.path().join(repo), &sandbox.files("sys-net").join("srv").join(repo))?;
        }
        let configuration = sandbox.files("mgmt").join("etc/qubes/repo-templates");
        fs::create_dir_all(configuration.join("keys"))?;
        fs::copy(packages.0.path().join("p"), configuration.join("keys/RPM-GPG-KEY-test"))?;
        let repo = |name: &str| {
            format!("[{name}]\nname={name}\nbaseurl=file:///srv/{name}\nenabled=1\ngpgkey=file://{KEY}\n")
        };
        fs::write(configuration.join("test.repo"), format!("{}\n{}", repo("test"), repo("other")))?;
        let world = Self { sandbox, lease: None };
        world.grant(grants)?;
        Ok(world)
    }

    /// Replaces the file of grants.
    pub fn grant(&self, grants: &str) -> Result<()> {
        let path = self.sandbox.files("mgmt").join("etc/qubes/qvm-template-grants.toml");
        fs::create_dir_all(path.parent().context("a folder")?)?;
        let new = path.with_extension("new");
        fs::write(&new, grants)?;
        fs::rename(&new, &path).context("replacing the grants")
    }

    /// Keeps the server alive from now on, so that services outlive their callers.
    pub fn keep(mut self) -> Result<Self> {
        let lease = self.sandbox.command(&["--qube", "sys-net"], &["sleep", "600"]).spawn();
        self.lease = Some(lease.context("keeping the server")?);
        Ok(self)
    }

    /// Ends what [`World::keep`] began.
    pub fn stop(&mut self) {
        if let Some(mut lease) = self.lease.take() {
            let _ = lease.kill();
            let _ = lease.wait();
        }
    }

    /// Calls a service as a qube, with this request.
    pub fn call(&self, qube: &str, service: &str, request: &str) -> Result<Answer> {
        let line = ["qrexec-client-vm", "mgmt", service];
        let said = self.sandbox.feed(&["--qube", qube], &line, request.as_bytes())?;
        Answer::of(&said)
    }

    /// The same, started and left alone.
    pub fn start(&self, qube: &str, service: &str, request: &str) -> Result<Child> {
        use std::io::Write as _;
        let mut command: Command =
            self.sandbox.command(&["--qube", qube], &["qrexec-client-vm", "mgmt", service]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().context("calling")?;
        child.stdin.take().context("its input")?.write_all(request.as_bytes())?;
        Ok(child)
    }

    /// Runs `qvm-template` in a qube.
    pub fn tool(&self, qube: &str, arguments: &[&str]) -> Result<Said> {
        let line: Vec<&str> = ["qvm-template"].iter().chain(arguments).copied().collect();
        self.sandbox.exec(&["--qube", qube], &line)
    }

    /// Orders something to go wrong: `KIND ARGUMENT...`.
    pub fn fault(&self, arguments: &[&str]) -> Result<()> {
        self.sandbox.tool(["fault"], arguments).map(drop)
    }

    /// The last installation, once it has ended: its state.
    pub fn settled_job(&self) -> Result<String> {
        let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
        loop {
            let status = self.call("desk", "template.Status", "")?;
            let jobs = status.result["jobs"].as_array().cloned().unwrap_or_default();
            let installs = jobs.iter().filter(|job| job["verb"] == "install");
            let last = installs.max_by_key(|job| (job["started"].as_u64(), job["ended"].is_null()));
            let state = last.and_then(|job| job["state"].as_str()).unwrap_or("none").to_owned();
            if state != "running" {
                return Ok(state);
            }
            ensure!(std::time::Instant::now() < end, "the job does not end: {status:?}");
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
    }

    /// A qube, or null.
    pub fn qube(&self, name: &str) -> Result<Value> {
        Ok(self.sandbox.show()?["qubes"][name].clone())
    }

    /// Calls of the management qube that policy refused.
    pub fn denied(&self) -> Result<Vec<String>> {
        let log = self.sandbox.log()?;
        let refused = log.iter().filter(|entry| !entry.allowed && entry.source == "mgmt");
        Ok(refused.map(|entry| format!("{}+{:?} {}", entry.service, entry.arg, entry.target)).collect())
    }

    /// Where the management qube's state is.
    pub fn state(&self) -> PathBuf {
        self.sandbox.files("mgmt").join("home/user/.local/state/qvm-template")
    }

    /// The audit log.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(self.state().join("audit.jsonl"))?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }
}

/// The file of a role.
pub fn role_file(role: &str) -> PathBuf {
    Path::new("qrexec-policy").join(format!("31-qvm-template-{role}.policy"))
}

/// What a service answered.
#[derive(Debug)]
pub struct Answer {
    /// Exit status.
    pub status: i32,
    /// All lines but the last.
    pub progress: Vec<Value>,
    /// The last line.
    pub result: Value,
}

impl Answer {
    fn of(said: &Said) -> Result<Self> {
        if said.status == 126 && said.out.is_empty() {
            return Ok(Self { status: 126, progress: Vec::new(), result: Value::Null });
        }
        let mut lines = said
            .out
            .lines()
            .map(|line| serde_json::from_str(line).with_context(|| format!("reading {line}")))
            .collect::<Result<Vec<Value>>>()?;
        ensure!(!lines.is_empty(), "no answer: {} {}", said.status, said.err);
        let result = lines.pop().context("a result")?;
        ensure!(result.get("result").is_some(), "no result: {result} {}", said.err);
        ensure!(lines.iter().all(|line| line.get("result").is_none()), "two results: {lines:?}");
        assert_eq!(result["exit"], said.status, "{result}");
        Ok(Self { status: said.status, progress: lines, result })
    }

    /// The cause of a refusal, `done` and the like otherwise.
    pub fn word(&self) -> &str {
        if self.status == 126 {
            return "policy";
        }
        self.result["error"]["cause"].as_str().or_else(|| self.result["result"].as_str()).unwrap_or("?")
    }
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}
