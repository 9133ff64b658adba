//! The demonstration: one signed template, from its making to dom0's volume, in a new sandbox.
//!
//! ```text
//! keys, root file system, disk image     -> package -> repository        (the builder)
//! repository in sys-net                  -> mgmt                         (the UpdateVM's services, over qrexec)
//! verification in mgmt                   -> admin.vm.volume.ImportWithSize (qvm-template)
//! volume in dom0                         == disk image, by SHA-256
//! ```
//!
//! Everything is done by the programs that a user would run; only making the file system and reading the log are
//! calls of this crate. The sandbox stays, so that one can look around in it.

mod template;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use super::server::log;
use template::TEMPLATE;

/// Where things of the demonstration are.
struct Demo<'a> {
    place: PathBuf,
    out: &'a mut dyn Write,
    started: Instant,
}

/// Release that the management qube of the demonstration says it is.
const RELEASEVER: &str = "4.3";

/// Runs the demonstration in `place`, which must not exist.
///
/// # Errors
/// Whatever fails first; the sandbox stays for a look at it.
pub fn run(place: &Path, out: &mut dyn Write) -> Result<()> {
    fs::create_dir(place).with_context(|| format!("making {}", place.display()))?;
    let place = place.canonicalize().with_context(|| format!("finding {}", place.display()))?;
    let mut demo = Demo { place, out, started: Instant::now() };
    demo.say("Making a Qubes system: dom0, mgmt without network, sys-net")?;
    demo.program("qubes-sandbox", &["new", &demo.path("qubes")])?;
    let digest = demo.make_template()?;
    demo.publish()?;
    demo.say("mgmt asks the UpdateVM what there is, and installs it")?;
    demo.in_mgmt(&["qvm-template", "list", "--available"])?;
    demo.in_mgmt(&["qvm-template", "install", TEMPLATE])?;
    demo.in_mgmt(&["qvm-template", "list", "--installed"])?;
    demo.compare(&digest)?;
    demo.account()
}

impl Demo<'_> {
    fn path(&self, name: &str) -> String {
        self.place.join(name).to_string_lossy().into_owned()
    }

    fn say(&mut self, text: &str) -> Result<()> {
        writeln!(self.out, "\n[{:5.1} s] {text}", self.started.elapsed().as_secs_f64()).context("writing")?;
        self.out.flush().context("writing")
    }

    /// Makes the image and the package; the image's SHA-256.
    fn make_template(&mut self) -> Result<String> {
        self.say("Making a disk image with an ext4 file system, 1 GiB")?;
        let image = PathBuf::from(self.path("root.img"));
        template::make_image(&image)?;
        let digest = sha256(&image)?;
        writeln!(self.out, "{digest}  root.img").context("writing")?;
        self.say("Making a signing key and a signed package")?;
        fs::write(self.path("recipe.toml"), template::RECIPE).context("writing the recipe")?;
        let (secret, public) = (self.path("key.secret"), self.path("key.public"));
        let words = ["keygen", "--algorithm", "ed25519", "--secret", &secret, "--public", &public];
        self.program("qubes-template-build", &words)?;
        let packages = self.path("repository/rpm");
        fs::create_dir_all(&packages).context("making the repository's folder")?;
        let (image, recipe) = (self.path("root.img"), self.path("recipe.toml"));
        let words =
            ["pack", &image, "--recipe", &recipe, "--key", &secret, "--level", "3", "--output", &packages];
        self.program("qubes-template-build", &words)?;
        Ok(digest)
    }

    /// Puts the repository into sys-net, and its description and key into mgmt.
    fn publish(&mut self) -> Result<()> {
        self.say(
            "Writing the repository's metadata; sys-net has the repository, mgmt its description and key",
        )?;
        let (repository, secret) = (self.path("repository"), self.path("key.secret"));
        self.program("qubes-template-build", &["repo", &repository, "--key", &secret])?;
        let served = self.place.join("qubes/qubes/sys-net/root/srv/templates");
        fs::create_dir_all(served.parent().unwrap_or(&served)).context("making /srv in sys-net")?;
        fs::rename(&repository, &served).context("moving the repository into sys-net")?;
        let mgmt = self.place.join("qubes/qubes/mgmt/root");
        let configuration = mgmt.join("etc/qubes/repo-templates");
        fs::create_dir_all(configuration.join("keys")).context("making mgmt's configuration")?;
        fs::write(configuration.join("demo.repo"), template::REPOSITORY)
            .context("describing the repository")?;
        fs::copy(self.path("key.public"), configuration.join("keys/RPM-GPG-KEY-demo"))
            .context("copying the key")?;
        fs::create_dir_all(mgmt.join("usr/share/qubes")).context("making mgmt's release file")?;
        fs::write(mgmt.join("usr/share/qubes/marker-vm"), format!("{RELEASEVER}\n"))
            .context("writing mgmt's release")
    }

    /// Compares what dom0 has with what was packed.
    fn compare(&mut self, source: &str) -> Result<()> {
        self.say("dom0's root volume beside the image that was packed")?;
        let shown = Command::new(sibling("qubes-sandbox")?)
            .args(["show", &self.path("qubes"), "--json", "--qube", TEMPLATE])
            .output()
            .context("looking at the sandbox")?;
        let shown: serde_json::Value =
            serde_json::from_slice(&shown.stdout).context("reading what `show` says")?;
        let volume =
            shown["qubes"][TEMPLATE]["volumes"]["root"]["sha256"].as_str().unwrap_or("no such volume");
        writeln!(self.out, "image   {source}\nvolume  {volume}").context("writing")?;
        ensure!(volume == source, "the volume is not the image");
        writeln!(self.out, "equal").context("writing")
    }

    /// Says what was asked of dom0 and of the UpdateVM.
    fn account(&mut self) -> Result<()> {
        let calls = log::read(&self.place.join("qubes"))?;
        let denied = calls.iter().filter(|call| !call.allowed).count();
        self.say(&format!("{} qrexec calls, {denied} denied by the policy", calls.len()))?;
        let place = self.path("qubes");
        writeln!(
            self.out,
            "The system is in {place}. Look around with\n\
             \x20 qubes-sandbox log {place}\n\
             \x20 qubes-sandbox show {place}\n\
             \x20 qubes-sandbox exec {place} -- qvm-template --help\n\
             and remove it with\n\
             \x20 rm -r {}",
            self.place.display()
        )
        .context("writing")?;
        ensure!(denied == 0, "the policy denied {denied} calls");
        Ok(())
    }

    fn in_mgmt(&mut self, command: &[&str]) -> Result<()> {
        writeln!(self.out, "[user@mgmt ~]$ {}", command.join(" ")).context("writing")?;
        self.out.flush().context("writing")?;
        let place = self.path("qubes");
        self.program("qubes-sandbox", &[&["exec", "--cwd", "/home/user", &place, "--"][..], command].concat())
    }

    fn program(&self, name: &str, arguments: &[&str]) -> Result<()> {
        let status = Command::new(sibling(name)?)
            .args(arguments)
            .status()
            .with_context(|| format!("running {name}"))?;
        if !status.success() {
            bail!("`{name} {}` ended with {status}", arguments.join(" "));
        }
        Ok(())
    }
}

/// A program that was built together with this one.
fn sibling(name: &str) -> Result<PathBuf> {
    let program = std::env::current_exe().context("finding this program")?.with_file_name(name);
    ensure!(
        program.exists(),
        "{} is not there: `cargo build` makes all programs, `cargo run` only one",
        program.display()
    );
    Ok(program)
}

fn sha256(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = fs::File::open(path).with_context(|| format!("opening {}", path.display()))?;
    std::io::copy(&mut file, &mut hasher).with_context(|| format!("reading {}", path.display()))?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
