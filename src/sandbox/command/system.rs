//! Commands that make or change a system as an administrator in dom0 does. No command may run in it meanwhile.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};

use super::Dir;
use crate::sandbox::qubesd::Qubesd;
use crate::sandbox::server::settings::{Answer, Settings};
use crate::sandbox::state::{Class, Driver, Pool};
use crate::sandbox::store::Store;
use crate::sandbox::{fresh, population};

/// `qubes-sandbox answer`
#[derive(Debug, Args)]
pub(super) struct AnswerCommand {
    #[command(flatten)]
    dir: Dir,
    /// The answer; without it the present one is shown
    answer: Option<Word>,
    /// The target that is chosen; the first one offered without it
    #[arg(long, value_name = "QUBE", requires = "answer")]
    target: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Word {
    Allow,
    Deny,
}

impl AnswerCommand {
    pub(super) fn run(self, out: &mut dyn Write) -> Result<()> {
        let dir = &self.dir.dir;
        let mut settings = Settings::read(dir)?;
        settings.answer = match (self.answer, self.target) {
            (None, _) => {
                return writeln!(out, "{}", serde_json::to_string(&settings.answer)?).context("writing");
            }
            (Some(Word::Deny), _) => Answer::Deny,
            (Some(Word::Allow), None) => Answer::Allow,
            (Some(Word::Allow), Some(target)) => Answer::Target(target),
        };
        settings.write(dir)
    }
}

/// `qubes-sandbox pool`
#[derive(Debug, Args)]
pub(super) struct PoolCommand {
    #[command(flatten)]
    dir: Dir,
    /// The pool's name
    name: String,
    /// How it keeps volumes: file-reflink, lvm_thin, zfs, file
    #[arg(long, value_name = "DRIVER")]
    driver: Option<String>,
    /// How much data it can hold
    #[arg(long, value_name = "SIZE", value_parser = super::size::parse)]
    size: Option<u64>,
    /// Make it the default for new volumes
    #[arg(long)]
    default: bool,
}

impl PoolCommand {
    pub(super) fn run(self) -> Result<()> {
        let server = crate::sandbox::server::open(&self.dir.dir)?;
        let parse = |name: &String| Driver::parse(name).with_context(|| format!("there is no driver {name}"));
        let driver = self.driver.as_ref().map(parse).transpose()?;
        server.change(|system| {
            if system.pool(&self.name).is_none() {
                system.pools.push(Pool::new(&self.name, driver.unwrap_or(Driver::FileReflink)));
            }
            for pool in system.pools.iter_mut().filter(|pool| pool.name == self.name) {
                if let Some(driver) = driver.filter(|driver| *driver != pool.driver) {
                    *pool = Pool::new(&self.name, driver);
                }
                pool.limit = self.size.or(pool.limit);
            }
            if self.default {
                system.globals.insert("default_pool".to_owned(), self.name.clone());
            }
        })
    }
}

/// `qubes-sandbox qube`
#[derive(Debug, Args)]
pub(super) struct QubeCommand {
    #[command(flatten)]
    dir: Dir,
    /// The qube's name; one that is not there is made
    name: String,
    /// The class of a new qube
    #[arg(long, value_name = "CLASS", default_value = "TemplateVM")]
    class: String,
    /// The label of a new qube
    #[arg(long, value_name = "LABEL", default_value = "black")]
    label: String,
    /// Set a property
    #[arg(long, value_name = "NAME=VALUE")]
    property: Vec<String>,
    /// Set a feature
    #[arg(long, value_name = "NAME=VALUE")]
    feature: Vec<String>,
    /// Add a tag
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Put a file into a volume
    #[arg(long, value_name = "VOLUME=FILE")]
    content: Vec<String>,
}

impl QubeCommand {
    pub(super) fn run(self) -> Result<()> {
        let pair = |text: &String| -> Result<(String, String)> {
            let (key, value) = text.split_once('=').with_context(|| format!("`{text}` is not NAME=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        let properties = self.property.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let features = self.feature.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let contents = self.content.iter().map(pair).collect::<Result<Vec<_>>>()?;
        let class = Class::parse(&self.class).with_context(|| format!("there is no class {}", self.class))?;
        let server = crate::sandbox::server::open(&self.dir.dir)?;
        server.change(|system| {
            if !system.qubes.contains_key(&self.name) {
                fresh::add_qube(system, &self.name, class, &self.label);
            }
            let Some(qube) = system.qubes.get_mut(&self.name) else { return };
            qube.properties.extend(properties);
            for (name, value) in features {
                qube.features.set(&name, &value);
            }
            qube.tags.extend(self.tag.iter().cloned());
        })?;
        for (volume, file) in contents {
            self.fill(&server, &volume, &PathBuf::from(file))?;
        }
        Ok(())
    }

    /// Puts a file into a volume the way everybody does.
    fn fill(&self, server: &Qubesd, volume: &str, file: &PathBuf) -> Result<()> {
        use crate::sandbox::qubesd::{Destination, ServiceCall};
        let opened = fs::File::open(file).with_context(|| format!("opening {}", file.display()))?;
        let size = opened.metadata().with_context(|| format!("reading {}", file.display()))?.len();
        let call = ServiceCall {
            source: "dom0".to_owned(),
            service: "admin.vm.volume.ImportWithSize".to_owned(),
            arg: volume.to_owned(),
            target: Destination::Name(self.name.clone()),
        };
        let line = format!("{size}\n");
        let mut input = std::io::Read::chain(line.as_bytes(), opened);
        let mut reply = Vec::new();
        server.service(&call, &mut input, &mut reply, &mut std::io::sink()).context("filling a volume")?;
        let why = String::from_utf8_lossy(&reply).replace('\0', " ");
        ensure!(reply.starts_with(b"0\0"), "filling volume {volume} of {}: {}", self.name, why.trim());
        Ok(())
    }
}

/// `qubes-sandbox import`
#[derive(Debug, Args)]
pub(super) struct Import {
    #[command(flatten)]
    dir: Dir,
    /// The population file
    population: PathBuf,
}

impl Import {
    pub(super) fn run(self) -> Result<()> {
        let path = &self.population;
        let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
        let system = population::read(&text).with_context(|| format!("understanding {}", path.display()))?;
        if self.dir.dir.join("system.json").exists() {
            return crate::sandbox::server::open(&self.dir.dir)?.change(|present| *present = system);
        }
        Qubesd::create(&self.dir.dir, system)?;
        super::new::install(&self.dir.dir)
    }
}

/// `qubes-sandbox export`
#[derive(Debug, Args)]
pub(super) struct Export {
    #[command(flatten)]
    dir: Dir,
}

impl Export {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        out.write_all(&population::write(&Store::read(&self.dir.dir)?)?).context("writing")
    }
}
