//! What the metadata says about one package, read from its header.

use std::fs::File;
use std::io::{BufReader, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rpm::{DependencyFlags, FileType, IndexSignatureTag, PackageMetadata};

use super::digest_of;

/// One package of a repository.
#[derive(Debug)]
pub struct Indexed {
    pub name: String,
    pub epoch: u32,
    pub version: String,
    pub release: String,
    pub arch: String,
    pub digest: String,
    pub summary: String,
    pub description: String,
    pub packager: String,
    pub url: String,
    pub license: String,
    pub vendor: String,
    pub group: String,
    pub build_host: String,
    pub source_rpm: String,
    pub build_time: u64,
    pub file_time: u32,
    pub package_size: u64,
    pub installed_size: u64,
    pub archive_size: u64,
    pub header: (u64, u64),
    /// Path below the repository's folder, as it goes into a URL.
    pub location: String,
    pub relations: Vec<(&'static str, Vec<Relation>)>,
    pub files: Vec<(FileKind, String)>,
    pub changes: Vec<(String, u64, String)>,
}

/// One entry of Provides, Requires and so on.
#[derive(Debug)]
pub struct Relation {
    pub name: String,
    /// Comparison and the build it compares with.
    pub compared: Option<(&'static str, Build)>,
    /// Needed before the package's own scripts run.
    pub before: bool,
}

/// Epoch, version and release as a relation writes them.
#[derive(Debug, PartialEq, Eq)]
pub struct Build {
    pub epoch: String,
    pub version: String,
    pub release: Option<String>,
}

/// How a file is listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    Plain,
    Directory,
    Ghost,
}

impl Indexed {
    /// Reads the package at `path` below `dir`.
    pub fn read(dir: &Path, path: &Path, file_time: u32) -> Result<Self> {
        let location = path.to_str().context("its path is not UTF-8, which metadata needs")?.to_owned();
        ensure!(!location.contains(char::is_control), "its path has control characters");
        let mut file = File::open(dir.join(path))?;
        let package_size = file.metadata()?.len();
        let metadata =
            PackageMetadata::parse(&mut BufReader::new(&mut file)).context("reading its headers")?;
        file.seek(SeekFrom::Start(0))?;
        let digest = digest_of(&mut file)?;
        let text = |value: Result<&str, rpm::Error>| value.unwrap_or_default().to_owned();
        let offsets = metadata.get_package_segment_offsets();
        let archive_size = metadata
            .signature
            .get_entry_data_as_u64(IndexSignatureTag::RPMSIGTAG_LONGARCHIVESIZE)
            .or_else(|_| {
                metadata
                    .signature
                    .get_entry_data_as_u32(IndexSignatureTag::RPMSIGTAG_PAYLOADSIZE)
                    .map(u64::from)
            });
        Ok(Self {
            name: metadata.get_name().context("reading its name")?.to_owned(),
            epoch: metadata.get_epoch().unwrap_or(0),
            version: metadata.get_version().context("reading its version")?.to_owned(),
            release: metadata.get_release().context("reading its release")?.to_owned(),
            arch: if metadata.is_source_package() {
                "src".to_owned()
            } else {
                metadata.get_arch().context("reading its architecture")?.to_owned()
            },
            digest,
            summary: text(metadata.get_summary()),
            description: text(metadata.get_description()),
            packager: text(metadata.get_packager()),
            url: text(metadata.get_url()),
            license: text(metadata.get_license()),
            vendor: text(metadata.get_vendor()),
            group: text(metadata.get_group()),
            build_host: text(metadata.get_build_host()),
            source_rpm: text(metadata.get_source_rpm()),
            build_time: metadata.get_build_time().unwrap_or(0),
            file_time,
            package_size,
            installed_size: metadata.get_installed_size().unwrap_or(0),
            archive_size: archive_size.unwrap_or(0),
            header: (offsets.header, offsets.payload),
            location,
            relations: relations(&metadata),
            files: files(&metadata).context("reading its list of files")?,
            changes: metadata
                .get_changelog_entries()
                .unwrap_or_default()
                .into_iter()
                .map(|entry| (entry.name, entry.timestamp, entry.description))
                .collect(),
        })
    }

    /// Name, build and architecture.
    pub fn nevra(&self) -> String {
        format!("{}-{}:{}-{}.{}", self.name, self.epoch, self.version, self.release, self.arch)
    }
}

fn relations(metadata: &PackageMetadata) -> Vec<(&'static str, Vec<Relation>)> {
    [
        ("provides", metadata.get_provides()),
        ("requires", metadata.get_requires()),
        ("conflicts", metadata.get_conflicts()),
        ("obsoletes", metadata.get_obsoletes()),
        ("suggests", metadata.get_suggests()),
        ("enhances", metadata.get_enhances()),
        ("recommends", metadata.get_recommends()),
        ("supplements", metadata.get_supplements()),
    ]
    .into_iter()
    .map(|(kind, list)| {
        // What rpm itself must be able to do is no concern of a repository.
        let foreign = |entry: &rpm::Dependency| !entry.flags.contains(DependencyFlags::RPMLIB);
        let list = list.unwrap_or_default().into_iter().filter(foreign);
        (kind, list.map(|entry| relation(&entry)).collect())
    })
    .collect()
}

fn relation(entry: &rpm::Dependency) -> Relation {
    let comparison = match (
        entry.flags.contains(DependencyFlags::LESS),
        entry.flags.contains(DependencyFlags::GREATER),
        entry.flags.contains(DependencyFlags::EQUAL),
    ) {
        (true, false, true) => Some("LE"),
        (false, true, true) => Some("GE"),
        (true, false, false) => Some("LT"),
        (false, true, false) => Some("GT"),
        (false, false, true) => Some("EQ"),
        _ => None,
    };
    Relation {
        name: entry.name.clone(),
        compared: comparison.map(|comparison| (comparison, Build::parse(&entry.version))),
        before: entry
            .flags
            .intersects(DependencyFlags::PREREQ | DependencyFlags::SCRIPT_PRE | DependencyFlags::SCRIPT_POST),
    }
}

impl Build {
    fn parse(text: &str) -> Self {
        let (epoch, rest) = text.split_once(':').unwrap_or(("0", text));
        let (version, release) =
            rest.rsplit_once('-').map_or((rest, None), |(version, release)| (version, Some(release)));
        Self { epoch: epoch.to_owned(), version: version.to_owned(), release: release.map(str::to_owned) }
    }
}

fn files(metadata: &PackageMetadata) -> Result<Vec<(FileKind, String)>> {
    let entries = metadata.get_file_entries()?;
    Ok(entries
        .iter()
        .map(|entry| {
            let kind = match entry.file_type() {
                _ if entry.flags().contains(rpm::FileFlags::GHOST) => FileKind::Ghost,
                FileType::Dir => FileKind::Directory,
                _ => FileKind::Plain,
            };
            (kind, entry.path().to_string_lossy().into_owned())
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_are_taken_apart() {
        let build = |epoch: &str, version: &str, release: Option<&str>| Build {
            epoch: epoch.to_owned(),
            version: version.to_owned(),
            release: release.map(str::to_owned),
        };
        assert_eq!(Build::parse("4.3.0-2025"), build("0", "4.3.0", Some("2025")));
        assert_eq!(Build::parse("2:1.0-1"), build("2", "1.0", Some("1")));
        assert_eq!(Build::parse("1.0"), build("0", "1.0", None));
    }
}
