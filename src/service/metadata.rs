//! What repodata says: `repomd.xml` names the list of packages and its checksum, the list (`primary`) describes them.
//!
//! Only packages whose name makes them templates are kept. One that cannot be described in a reply is left out with a
//! warning.

use std::io::Read;

use anyhow::{Context as _, Result, bail};

use super::checksum::Checksum;
use super::xml::{Step, Steps, attribute};
use crate::template::{Evr, Offer, PACKAGE_PREFIX, RepoId, Timestamp};
use crate::untrusted::displayable;

/// Largest `repomd.xml`, in bytes.
pub const MAX_REPOMD: u64 = 4 << 20;

/// Largest list of packages as it travels, in bytes.
pub const MAX_PRIMARY: u64 = 128 << 20;

/// Largest list of packages unpacked, in bytes. (Fedora's, with 70,000 packages, has about 250 MB.)
const MAX_PRIMARY_OPEN: u64 = 1 << 30;

/// Most templates kept of one repository.
const MAX_PACKAGES: usize = 50_000;

/// Most warnings kept of one repository.
const MAX_WARNINGS: usize = 20;

/// A template package of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// What a search prints.
    pub offer: Offer,
    /// Architecture.
    pub arch: String,
    /// Where it is, below the repository's address or [`Package::base`].
    pub href: String,
    /// Address that the metadata gives for this package instead of the repository's.
    pub base: Option<String>,
    /// Checksum of the file.
    pub checksum: Checksum,
}

/// Where `repomd.xml` says the list of packages is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Primary {
    /// Below the repository's address.
    pub href: String,
    /// Checksum of the file as it travels.
    pub checksum: Checksum,
    /// Its size, where given.
    pub size: Option<u64>,
}

/// Reads `repomd.xml`.
///
/// # Errors
/// It is malformed, or names no list of packages with a known checksum.
pub fn read_repomd(text: &[u8]) -> Result<Primary> {
    let mut steps = Steps::new(text, MAX_REPOMD);
    let mut inside = false;
    let mut root = false;
    let (mut href, mut checksum, mut size) = (None, None, None);
    while let Some(step) = steps.step()? {
        match step {
            Step::Start(name, _) if !root => {
                if name != "repomd" {
                    bail!("repomd.xml is something else");
                }
                root = true;
            }
            Step::Start(name, attributes) => match name.as_str() {
                "data" => inside = attribute(&attributes, "type") == Some("primary"),
                "checksum" if inside => {
                    let kind = attribute(&attributes, "type").unwrap_or("").to_owned();
                    checksum = Checksum::new(&kind, &steps.text(&name)?);
                }
                "location" if inside => href = attribute(&attributes, "href").map(str::to_owned),
                "size" if inside => size = steps.text(&name)?.trim().parse().ok(),
                _ => {}
            },
            Step::End(name) if name == "data" => inside = false,
            Step::End(_) | Step::Text(_) => {}
        }
    }
    Ok(Primary {
        href: href.context("repomd.xml names no list of packages")?,
        checksum: checksum.context("repomd.xml has no checksum of a known kind for the list of packages")?,
        size,
    })
}

/// Reads the list of packages of repository `repo`, and what was left out of it.
///
/// # Errors
/// It is malformed or too large.
pub fn read_primary(source: impl Read, repo: &RepoId) -> Result<(Vec<Package>, Vec<String>)> {
    let mut steps = Steps::new(source, MAX_PRIMARY_OPEN);
    let (mut packages, mut warnings) = (Vec::new(), Vec::new());
    let (mut root, mut ended) = (false, false);
    while let Some(step) = steps.step()? {
        match step {
            Step::Start(name, _) if !root => {
                if name != "metadata" {
                    bail!("the list of packages is something else");
                }
                root = true;
            }
            Step::Start(name, _) if name == "package" => {
                let Some(found) = read_package(&mut steps)? else { continue };
                let shown = displayable(&found.name, false);
                match found.finish(repo) {
                    Ok(_) if packages.len() >= MAX_PACKAGES => bail!("more than {MAX_PACKAGES} templates"),
                    Ok(package) => packages.push(package),
                    Err(why) if warnings.len() < MAX_WARNINGS => {
                        warnings.push(format!("package '{shown}' is left out: {why}"))
                    }
                    Err(_) => {}
                }
            }
            Step::Start(name, _) => steps.skip(&name)?,
            Step::End(name) => ended = name == "metadata",
            Step::Text(_) => {}
        }
    }
    if !ended {
        bail!("the list of packages ends too early");
    }
    Ok((packages, warnings))
}

/// What stands in one `package` element.
#[derive(Default)]
struct Raw {
    name: String,
    arch: String,
    evr: [String; 3],
    checksum: Option<Checksum>,
    summary: String,
    description: String,
    url: String,
    license: String,
    build_time: Option<i64>,
    size: Option<u64>,
    href: String,
    base: Option<String>,
}

/// Reads a `package` element that has begun, `None` if it is not a template.
fn read_package<R: Read>(steps: &mut Steps<R>) -> Result<Option<Raw>> {
    let mut raw = Raw::default();
    loop {
        match steps.step()?.context("the XML ends too early")? {
            Step::End(name) if name == "package" => {
                return Ok(raw.name.starts_with(PACKAGE_PREFIX).then_some(raw));
            }
            Step::End(_) | Step::Text(_) => {}
            Step::Start(name, attributes) => {
                let get = |key: &str| attribute(&attributes, key).unwrap_or("").to_owned();
                match name.as_str() {
                    "name" => {
                        raw.name = steps.text(&name)?;
                        if !raw.name.starts_with(PACKAGE_PREFIX) {
                            steps.skip("package")?;
                            return Ok(None);
                        }
                    }
                    "arch" => raw.arch = steps.text(&name)?,
                    "version" => raw.evr = [get("epoch"), get("ver"), get("rel")],
                    "checksum" => raw.checksum = Checksum::new(&get("type"), &steps.text(&name)?),
                    "summary" => raw.summary = steps.text(&name)?,
                    "description" => raw.description = steps.text(&name)?,
                    "url" => raw.url = steps.text(&name)?,
                    "license" => raw.license = steps.text(&name)?,
                    "time" => raw.build_time = get("build").parse().ok(),
                    "size" => raw.size = get("package").parse().ok(),
                    "location" => {
                        raw.href = get("href");
                        raw.base = attribute(&attributes, "xml:base").map(str::to_owned);
                    }
                    // The licence is in here; files and dependencies are not wanted.
                    "format" => {}
                    _ => steps.skip(&name)?,
                }
            }
        }
    }
}

impl Raw {
    fn finish(self, repo: &RepoId) -> Result<Package> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
        let name = self.name[PACKAGE_PREFIX.len()..].to_owned();
        if name.is_empty() || name.len() > 200 || !name.bytes().all(plain) {
            bail!("its name is not one of a package");
        }
        let [epoch, version, release] = &self.evr;
        let evr = Evr::new(epoch, version, release)?;
        if self.arch.is_empty() || !self.arch.bytes().all(plain) || self.arch == "src" {
            bail!("its architecture is not one of a template");
        }
        Ok(Package {
            offer: Offer {
                name,
                evr,
                repo: repo.clone(),
                download_size: self.size.filter(|size| *size > 0).context("its size is missing")?,
                build_time: Timestamp(self.build_time.unwrap_or(0).clamp(0, 253_402_300_799)),
                license: self.license,
                url: self.url,
                summary: self.summary,
                description: self.description,
            },
            arch: self.arch,
            href: self.href,
            base: self.base,
            checksum: self.checksum.context("its checksum is missing or of an unknown kind")?,
        })
    }
}

#[cfg(test)]
pub mod tests {
    //! Tests of the readers, and packages for others' tests.
    use proptest::prelude::*;

    use super::*;

    /// A package with this name and version.
    pub fn package(name: &str, epoch: &str, version: &str, release: &str) -> Package {
        let text = primary(&[&element(name, epoch, version, release)]);
        read_primary(text.as_bytes(), &RepoId::new("r").unwrap()).unwrap().0.remove(0)
    }

    fn element(name: &str, epoch: &str, version: &str, release: &str) -> String {
        format!(
            "<package type=\"rpm\"><name>qubes-template-{name}</name><arch>noarch</arch>\
             <version epoch=\"{epoch}\" ver=\"{version}\" rel=\"{release}\"/><checksum type=\"sha256\" pkgid=\"YES\">{}</checksum>\
             <summary>S &amp; T</summary><description>\nD\n</description><packager/><url>http://x</url><time file=\"1\" build=\"1700519160\"/>\
             <size package=\"12\" installed=\"0\" archive=\"1\"/><location href=\"rpm/{name}.rpm\"/>\
             <format><rpm:license>GPL</rpm:license><rpm:provides><rpm:entry name=\"{name}\"/></rpm:provides><file>/x</file></format></package>",
            "0".repeat(64)
        )
    }

    fn primary(packages: &[&str]) -> String {
        format!(
            "<?xml version=\"1.0\"?><metadata xmlns=\"c\" xmlns:rpm=\"r\">{}</metadata>",
            packages.concat()
        )
    }

    #[test]
    fn reads_a_list_of_packages() {
        let good = element("a", "2", "1.0~b", "3");
        let other = good.replace("qubes-template-a", "bash");
        let bad = good.replace("1.0~b", "1-0");
        let (packages, warnings) =
            read_primary(primary(&[&other, &bad, &good]).as_bytes(), &RepoId::new("r").unwrap()).unwrap();
        assert_eq!(packages.len(), 1);
        let offer = &packages[0].offer;
        assert_eq!(
            (offer.name.as_str(), offer.evr.to_string().as_str(), offer.download_size),
            ("a", "2:1.0~b-3", 12)
        );
        assert_eq!(
            (offer.summary.as_str(), offer.description.as_str(), offer.license.as_str()),
            ("S & T", "\nD\n", "GPL")
        );
        assert_eq!(packages[0].href, "rpm/a.rpm");
        assert_eq!(
            warnings,
            ["package 'qubes-template-a' is left out: the version or release is not one of an RPM package"]
        );
        for broken in [
            primary(&[&good]).replace("</metadata>", ""),
            "<html/>".into(),
            String::new(),
            primary(&["<package>"]),
        ] {
            assert!(read_primary(broken.as_bytes(), &RepoId::new("r").unwrap()).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn reads_repomd() {
        let text = format!(
            "<repomd><revision>1</revision><data type=\"filelists\"><location href=\"f\"/></data><data type=\"primary\"><checksum type=\"sha256\">{}\
             </checksum><open-checksum type=\"sha256\">x</open-checksum><location href=\"repodata/p.xml.gz\"/><size>7</size></data></repomd>",
            "a".repeat(64)
        );
        let primary = read_repomd(text.as_bytes()).unwrap();
        assert_eq!((primary.href.as_str(), primary.size), ("repodata/p.xml.gz", Some(7)));
        for broken in [
            "",
            "<html></html>",
            "<repomd/>",
            &text.replace("sha256", "md5"),
            &text.replace("\"primary\"", "\"x\""),
        ] {
            assert!(read_repomd(broken.as_bytes()).is_err(), "{broken:?}");
        }
    }

    proptest! {
        /// Whatever is changed in a document, it is read or refused.
        #[test]
        fn takes_any_damage(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in any::<prop::sample::Index>()) {
            let mut text = primary(&[&element("a", "2", "1.0~b", "3"), &element("b", "", "1", "1")]).into_bytes();
            for (at, byte) in changes {
                let at = at.index(text.len());
                text[at] = byte;
            }
            let _ = read_primary(text.as_slice(), &RepoId::new("r").unwrap());
            let _ = read_repomd(&text);
            text.truncate(cut.index(text.len()));
            let _ = read_primary(text.as_slice(), &RepoId::new("r").unwrap());
        }

        #[test]
        fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read_repomd(&bytes);
            let _ = super::super::xml::unpack(bytes.as_slice()).map(|source| read_primary(source, &RepoId::new("r").unwrap()));
        }
    }
}
