//! Salt: the modules, states and the formula of `salt/`, used by Salt itself in the qubes of a sandbox.
//!
//! Salt comes from PyPI, in the versions of `tests/salt/requirements.txt`, into a virtual environment that stays in the
//! build's folder. The tests themselves are in `tests/salt/*.py` and run in the qube. Where PyPI cannot be reached they fail;
//! who wants to do without them says so: `QVM_TEMPLATE_TESTS_WITHOUT_SALT=1 cargo test`.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::{Flock, FlockArg};
use qvm_template::sandbox::server::log::Entry;
use sha2::{Digest as _, Sha256};

use crate::support::programs::{BUILD, command, folder, success};
use crate::support::sandbox::{Said, Sandbox};

const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");
const REQUIREMENTS: &str = include_str!("salt/requirements.txt");
/// Debian's own: a qube of the sandbox sees no other.
const PYTHON: &str = "/usr/bin/python3";

/// What is served, by folder.
const FOLDERS: [&str; 4] = ["old", "new", "itl", "community"];

/// Whether the person at the keyboard said to leave these tests out.
fn left_out() -> bool {
    let said = std::env::var_os("QVM_TEMPLATE_TESTS_WITHOUT_SALT").is_some_and(|value| value == "1");
    if said {
        // Past the harness, which keeps what a test that passes prints to itself.
        let _ = writeln!(std::io::stderr(), "left out: QVM_TEMPLATE_TESTS_WITHOUT_SALT is 1");
    }
    said
}

/// The virtual environment with Salt, made once for these requirements and this Python.
fn environment() -> Result<&'static Path> {
    static MADE: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| make_environment().map_err(|error| format!("{error:#}")));
    made.as_deref().map_err(|error| anyhow::anyhow!("{error}"))
}

fn make_environment() -> Result<PathBuf> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("salt");
    fs::create_dir_all(&cache)?;
    let python = success(&cache, PYTHON, ["-VV"])?;
    let digest = Sha256::new().chain_update(REQUIREMENTS).chain_update(python).finalize();
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let place = cache.join(&name);
    if place.exists() {
        return Ok(place);
    }
    // Another test program waits for this one. A place that has its final name is whole.
    let lock = fs::File::create(cache.join(format!("{name}.lock")))?;
    let _lock = Flock::lock(lock, FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("waiting for the virtual environment")?;
    if place.exists() {
        return Ok(place);
    }
    let making = cache.join(format!("{name}.making"));
    let _ = fs::remove_dir_all(&making);
    let at = making.display().to_string();
    success(&cache, PYTHON, ["-m", "venv", &at]).context("the Debian package python3-venv is needed")?;
    let requirements = format!("{REPOSITORY}/tests/salt/requirements.txt");
    let pip = making.join("bin/python");
    let options = ["-q", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-compile"];
    let of = ["-r", &requirements];
    let line = ["-m", "pip", "install"].iter().chain(&options).chain(&of);
    // How this machine reaches PyPI is the one thing that is taken from outside.
    let reach = std::env::vars_os().filter(|(name, _)| {
        let name = name.to_string_lossy().to_ascii_lowercase();
        name.starts_with("pip_") || name.ends_with("_proxy") || name == "ssl_cert_file"
    });
    let output = command(&cache, &pip.display().to_string(), line).envs(reach).output()?;
    let said = Said::of(&output)?;
    ensure!(
        said.status == 0,
        "Salt could not be had from PyPI; QVM_TEMPLATE_TESTS_WITHOUT_SALT=1 leaves these tests out:\n{}",
        said.err
    );
    fs::rename(&making, &place)?;
    Ok(place)
}

/// Packages: of `demo` one build in the folder `old`, two in `new`; those that the projects' files name in `itl` and `community`.
fn packages() -> Result<&'static Path> {
    static MADE: OnceLock<Result<tempfile::TempDir, String>> = OnceLock::new();
    let made = MADE.get_or_init(|| make_packages().map_err(|error| format!("{error:#}")));
    made.as_ref().map(tempfile::TempDir::path).map_err(|error| anyhow::anyhow!("{error}"))
}

fn make_packages() -> Result<tempfile::TempDir> {
    let place = folder()?;
    let at = place.path();
    let options = ["--algorithm", "ed25519", "--secret", "secret", "--public", "key", "--seed", "salt"];
    success(at, BUILD, ["keygen"].iter().chain(&options))?;
    for (name, version, folders) in [
        ("demo", "1.0", &["old", "new"][..]),
        ("demo", "2.0", &["new"]),
        ("second", "1.0", &["old"]),
        ("debian-13-minimal", "1.0", &["itl"]),
        ("fedora-43-xfce", "1.0", &["itl"]),
        ("whonix-gateway-18", "1.0", &["community"]),
        ("whonix-workstation-18", "1.0", &["community"]),
    ] {
        let image: Vec<u8> = version.bytes().cycle().take(1 << 20).collect();
        fs::write(at.join("root.img"), image)?;
        let recipe =
            format!("name = \"{name}\"\nversion = \"{version}\"\nrelease = \"1\"\n[conf]\nqrexec = \"1\"\n");
        fs::write(at.join("recipe.toml"), recipe)?;
        for folder in folders {
            fs::create_dir_all(at.join(folder))?;
            success(
                at,
                BUILD,
                [
                    "pack",
                    "root.img",
                    "--recipe",
                    "recipe.toml",
                    "--level",
                    "1",
                    "--key",
                    "secret",
                    "-o",
                    folder,
                ],
            )?;
        }
    }
    for folder in FOLDERS {
        success(at, "createrepo_c", ["-q", folder])?;
    }
    Ok(place)
}

/// A sandbox in which sys-net has the packages and mgmt knows the repository.
fn system() -> Result<Sandbox> {
    let (system, packages) = (Sandbox::new()?, packages()?);
    let served = system.files("sys-net").join("srv");
    fs::create_dir_all(&served)?;
    for folder in FOLDERS {
        success(packages, "cp", ["-r", folder, &served.display().to_string()])?;
    }
    let configuration = system.files("mgmt").join("etc/qubes/repo-templates");
    fs::create_dir_all(configuration.join("keys"))?;
    fs::copy(packages.join("key"), configuration.join("keys/RPM-GPG-KEY-test"))?;
    let gpgkey = "gpgkey=file:///etc/qubes/repo-templates/keys/RPM-GPG-KEY-test";
    let section = |name: &str, enabled: u8, folder: &str| {
        format!("[{name}]\nname={name}\nenabled={enabled}\nbaseurl=file:///srv/{folder}\n{gpgkey}\n")
    };
    fs::write(configuration.join("test.repo"), section("test", 1, "old"))?;
    fs::write(configuration.join("other.repo"), section("other", 0, "new"))?;
    let itl =
        section("qubes-templates-itl", 1, "itl") + &section("qubes-templates-community", 0, "community");
    fs::write(configuration.join("qubes.repo"), itl)?;
    Ok(system)
}

/// A command of Python in a qube, with Salt and the tests at hand.
fn python(system: &Sandbox, qube: &str, arguments: &[&str]) -> Result<Command> {
    let binds = [
        format!("{}:/t/venv", environment()?.display()),
        format!("{REPOSITORY}/salt:/t/repository/salt"),
        format!("{REPOSITORY}/qrexec-policy:/t/repository/qrexec-policy"),
        format!("{REPOSITORY}/rpc-services:/t/repository/rpc-services"),
        format!("{REPOSITORY}/tests/salt:/t/tests"),
        format!("{}:/t/sandbox", system.dir().display()),
    ];
    let mut options = vec!["--qube", qube, "--user", "root", "--cwd", "/t/tests"];
    options.extend(["--env", "PYTHONDONTWRITEBYTECODE=1", "--env", "PYTHONPATH=/t/tests"]);
    for bind in &binds {
        options.extend(["--bind", bind]);
    }
    let line = [&["/t/venv/bin/python"], arguments].concat();
    Ok(system.command(&options, &line))
}

/// Runs the tests of one file in a qube.
fn judge(system: &Sandbox, qube: &str, module: &str) -> Result<()> {
    let output = python(system, qube, &["-m", "unittest", "-v", module])?.output()?;
    let said = Said::of(&output)?;
    ensure!(said.status == 0, "{module} in {qube}:\n{}{}", said.out, said.err);
    // A file without tests would be well too.
    ensure!(said.err.contains("\nOK"), "{module} in {qube} ran nothing:\n{}", said.err);
    Ok(())
}

/// The calls that tests of a refusal have refused.
const REFUSED: [&str; 2] = ["admin.vm.Create.TemplateVM", "qubes.PostInstall"];

/// Runs the tests of some files, each in its qube, in one system. The policy allows all that they do.
fn judge_all(parts: &[(&str, &str)]) -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let system = system()?;
    parts.iter().try_for_each(|(qube, module)| judge(&system, qube, module))?;
    let denied = |call: &Entry| !call.allowed && !REFUSED.contains(&call.service.as_str());
    let denied: Vec<_> = system.log()?.into_iter().filter(denied).collect();
    ensure!(denied.is_empty(), "{denied:?}");
    Ok(())
}

#[test]
fn states_do_what_they_plan_and_then_nothing() -> Result<()> {
    judge_all(&[("mgmt", "test_states")])
}

#[test]
fn files_of_the_projects_that_use_the_stock_names_apply() -> Result<()> {
    judge_all(&[("mgmt", "test_projects")])
}

#[test]
fn the_formula_sets_up_dom0_and_the_management_qube() -> Result<()> {
    judge_all(&[("dom0", "test_formula_dom0"), ("mgmt", "test_formula_mgmt")])
}

#[test]
fn what_is_written_in_python_has_no_loose_ends() -> Result<()> {
    if left_out() {
        return Ok(());
    }
    let python = environment()?.join("bin/python").display().to_string();
    let line = ["-m", "pyflakes", "salt/_modules", "salt/_states", "tests/salt"];
    let mut lint = command(Path::new(REPOSITORY), &python, line);
    // What Salt puts into each module.
    let output = lint.env("PYFLAKES_BUILTINS", "__salt__,__opts__").output()?;
    let said = Said::of(&output)?;
    ensure!(said.status == 0, "{}{}", said.out, said.err);
    Ok(())
}
