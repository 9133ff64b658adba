//! What a person writes about a template: a small TOML file. [`EXAMPLE`] has every key, each with a word about it.
//!
//! What the image is made of is described with [`super::compose`].

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::compose::{EditRecipe, EfiRecipe, ImageRecipe, LayerRecipe};
use super::compress::{Compression, Method};
use super::package::{Menus, Package};
use crate::template::{Evr, TemplateName};

/// A recipe with every key, for people to begin with (`qubes-template-build example`).
pub const EXAMPLE: &str = include_str!("recipe.example.toml");

/// A recipe, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// Name of the template.
    pub name: String,
    /// Version.
    pub version: Option<String>,
    /// Release.
    pub release: Option<String>,
    /// Epoch.
    #[serde(default)]
    pub epoch: u32,
    /// One line about the template.
    pub summary: Option<String>,
    /// Longer text.
    pub description: Option<String>,
    /// Licence.
    pub license: Option<String>,
    /// Address of the project.
    pub url: Option<String>,
    /// Lines of `template.conf`; no such file where there is none.
    pub conf: Option<BTreeMap<String, String>>,
    /// Menu entries.
    #[serde(default)]
    pub menus: MenuEntries,
    /// Compression.
    #[serde(default)]
    pub payload: PayloadRecipe,
    /// Who signs.
    #[serde(default)]
    pub sign: SignRecipe,
    /// The moment that the source stands for, in seconds since 1970.
    pub source_date: Option<i64>,
    /// The image.
    #[serde(default)]
    pub image: ImageRecipe,
    /// What the image is made of.
    #[serde(default)]
    pub layers: Vec<LayerRecipe>,
    /// Changes after the last layer.
    #[serde(default)]
    pub edits: Vec<EditRecipe>,
    /// Files for the EFI partition.
    #[serde(default)]
    pub efi: Vec<EfiRecipe>,
}

/// Menu entries of a recipe.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MenuEntries {
    /// For the template itself.
    pub template: Option<Vec<String>>,
    /// For qubes based on it.
    pub qubes: Option<Vec<String>>,
    /// For those of them that provide network.
    pub network: Option<Vec<String>>,
}

/// Who signs package and repository.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignRecipe {
    /// Secret key (armored).
    pub key: Option<PathBuf>,
    /// File with its passphrase.
    pub passphrase_file: Option<PathBuf>,
}

/// How a recipe wants its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadRecipe {
    /// Method.
    pub compression: Option<Method>,
    /// Level.
    pub level: Option<u32>,
}

impl Recipe {
    /// Reads a recipe.
    ///
    /// # Errors
    /// Text that is not TOML, or has keys that nobody knows.
    pub fn parse(text: &str) -> Result<Self> {
        toml::from_str(text).map_err(|error| with_suggestion(&error)).context("reading the recipe")
    }

    /// Checks the recipe and fills in what it leaves open from the moment that the source stands for.
    ///
    /// # Errors
    /// Values that a template or a package cannot have.
    pub fn package(&self, source_date: u32) -> Result<Package> {
        let name = TemplateName::new(&self.name).context("reading the name in the recipe")?;
        let version = self.version.clone().unwrap_or_else(|| "4.3.0".to_owned());
        let release = match &self.release {
            Some(release) => release.clone(),
            None => release_of(source_date)?,
        };
        Evr::new(&self.epoch.to_string(), &version, &release)
            .context("reading version and release in the recipe")?;
        let summary = self.summary.clone().unwrap_or_else(|| format!("Qubes template for {name}"));
        let description = self.description.clone().unwrap_or_else(|| summary.clone());
        ensure!(!summary.contains('\n'), "the summary has more than one line");
        let lines = |list: &Option<Vec<String>>| list.as_ref().map(|lines| menu(lines)).transpose();
        Ok(Package {
            name: self.name.clone(),
            epoch: self.epoch,
            version,
            release,
            summary,
            description: description.trim_end_matches('\n').to_owned(),
            url: self.url.clone(),
            license: self.license.clone().unwrap_or_else(|| "GPL-2.0-or-later".to_owned()),
            conf: self.conf.as_ref().map(conf).transpose()?,
            menus: Menus {
                template: lines(&self.menus.template)?,
                qubes: lines(&self.menus.qubes)?,
                network: lines(&self.menus.network)?,
            },
            build_time: source_date,
            manifest: None,
            build_host: "localhost".to_owned(),
        })
    }

    /// The compression that the recipe asks for.
    ///
    /// # Errors
    /// A level that the method does not have.
    pub fn compression(&self) -> Result<Compression> {
        Compression::new(self.payload.compression.unwrap_or(Method::Zstd), self.payload.level)
    }
}

/// The release that Qubes' builders give to what was built at that moment: `YYYYMMDDhhmm`.
///
/// # Errors
/// Never in practice.
pub fn release_of(source_date: u32) -> Result<String> {
    let moment = jiff::Timestamp::from_second(i64::from(source_date)).context("reading the source date")?;
    Ok(moment.strftime("%Y%m%d%H%M").to_string())
}

fn conf(lines: &BTreeMap<String, String>) -> Result<Vec<u8>> {
    let mut text = String::new();
    for (key, value) in lines {
        let plain = |text: &str| text.bytes().all(|b| (b' '..=b'~').contains(&b));
        ensure!(plain(key) && plain(value) && !key.contains('='), "{key:?} cannot stand in template.conf");
        text.push_str(&format!("{key}={value}\n"));
    }
    Ok(text.into_bytes())
}

fn menu(entries: &[String]) -> Result<Vec<u8>> {
    let mut text = String::new();
    for entry in entries {
        let plain = !entry.is_empty() && entry.bytes().all(|b| (b'!'..=b'~').contains(&b));
        ensure!(plain, "{entry:?} cannot stand in a list of menu entries");
        text.push_str(entry);
        text.push('\n');
    }
    Ok(text.into_bytes())
}

/// The error with the known key that is nearest to one that nobody knows.
fn with_suggestion(error: &toml::de::Error) -> anyhow::Error {
    let message = error.message();
    let mut words = message.split('`').skip(1).step_by(2);
    let unknown = words.next().filter(|_| message.starts_with("unknown"));
    let near = unknown.and_then(|unknown| {
        words.map(|known| (distance(unknown, known), known)).filter(|(far, _)| *far <= 2).min()
    });
    match near {
        Some((_, known)) => anyhow::anyhow!("{}help: did you mean `{known}`?", error),
        None => anyhow::anyhow!("{}", error.to_string().trim_end()),
    }
}

/// How many letters have to be inserted, removed, replaced or exchanged with the next.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let change = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = change.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_open_follows_from_the_source_date() {
        let package = Recipe::parse("name = 'demo'").unwrap().package(1_700_000_000).unwrap();
        assert_eq!(package.release, "202311142213");
        assert_eq!(package.file_name(), "qubes-template-demo-4.3.0-202311142213.noarch.rpm");
        assert_eq!((package.conf, package.build_time), (None, 1_700_000_000));
    }

    #[test]
    fn all_of_it_is_read() {
        let text = "name = 'demo'\nversion = '1'\nrelease = '2'\nepoch = 3\n[conf]\ngui = '1'\n'net.fake-ip' = '10.0.0.1'\n\
                    [menus]\nqubes = ['a.desktop', 'b.desktop']\nnetwork = []\n[payload]\ncompression = 'xz'\nlevel = 2\n";
        let recipe = Recipe::parse(text).unwrap();
        let package = recipe.package(0).unwrap();
        assert_eq!(package.conf.as_deref(), Some(&b"gui=1\nnet.fake-ip=10.0.0.1\n"[..]));
        assert_eq!(package.menus.qubes.as_deref(), Some(&b"a.desktop\nb.desktop\n"[..]));
        assert_eq!((package.menus.template, package.menus.network), (None, Some(Vec::new())));
        assert_eq!(recipe.compression().unwrap(), Compression::new(Method::Xz, Some(2)).unwrap());
    }

    #[test]
    fn the_example_has_every_key_and_is_right() {
        let recipe = Recipe::parse(EXAMPLE).unwrap();
        recipe.package(1_700_000_000).unwrap();
        let there = std::path::Path::new("/nowhere");
        assert!(recipe.layers.iter().all(|layer| layer.layer(there).is_ok()));
        let edits = recipe.edits.iter().filter(|edit| edit.source.is_none());
        assert!(edits.map(|edit| edit.edit(there)).all(|edit| edit.is_ok()));
        let keys: std::collections::BTreeSet<&str> = EXAMPLE
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| match line.strip_prefix('[') {
                Some(table) => table.trim_start_matches('[').split(']').next(),
                None => line.split_once(" = ").map(|(key, _)| key),
            })
            .collect();
        // serde names all keys when it meets one that it does not know
        let layer = "name='x'\n[[layers]]\nkind='tar'\npath='x'\nwhiteouts='none'\n";
        let tables =
            ["", "[menus]\n", "[payload]\n", "[sign]\n", "[image]\n", layer, "[[edits]]\n", "[[efi]]\n"];
        let mut known = 0;
        for table in tables {
            let error = toml::from_str::<Recipe>(&format!("{table}nobody_knows = 1\n")).unwrap_err();
            let (_, list) = error.message().split_once("expected").unwrap();
            for key in list.split('`').skip(1).step_by(2) {
                assert!(keys.contains(key), "`{key}` of `{table}` is not in the example");
                known += 1;
            }
        }
        assert!(known > 40, "{known}");
    }

    #[test]
    fn what_cannot_be_is_refused() {
        for bad in [
            "name = '1x'",
            "name = 'a'\nversion = '1-2'",
            "name = 'a'\nsummary = \"a\\nb\"",
            "nam = 'a'",
            "name = 'a'\n[conf]\n'a=b' = '1'",
            "name = 'a'\n[menus]\nqubes = ['a b']",
        ] {
            let made = Recipe::parse(bad).and_then(|recipe| recipe.package(0));
            assert!(made.is_err(), "{bad}");
        }
    }
}
