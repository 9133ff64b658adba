//! What an image is made of in the words of SPDX 2.3, as JSON.
//!
//! One package for the image, one for each layer and each package file in it, one for each package that is installed
//! in the tree; all with what is known: digests, versions, licences, purls. Every value follows from the manifest and
//! the tree, so the same image has the same document; its name space ends with the image's digest.
//!
//! Written here because no crate fits: `spdx-rs` was last released in 2023, and `cyclonedx-bom` brings a validator, an
//! XML writer and some forty crates for what are a hundred lines of JSON. Source: <https://spdx.github.io/spdx-spec/v2.3/>.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{Manifest, Package};

const NOTHING: &str = "NOASSERTION";

/// The document for an image. `distribution` is the `ID` of its `os-release`, which purls need.
pub fn spdx(manifest: &Manifest, packages: &[Package], distribution: Option<&str>) -> Result<String> {
    let created = jiff::Timestamp::from_second(manifest.source_date).context("writing the source date")?;
    let mut list = vec![json!({
        "SPDXID": "SPDXRef-Image", "name": manifest.name, "versionInfo": created.strftime("%Y%m%d%H%M").to_string(),
        "downloadLocation": NOTHING, "filesAnalyzed": false, "primaryPackagePurpose": "OPERATING-SYSTEM",
        "checksums": [{"algorithm": "SHA256", "checksumValue": manifest.image.sha256}],
    })];
    let mut relations = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", "SPDXRef-Image")];
    for (number, layer) in manifest.layers.iter().enumerate() {
        let id = format!("SPDXRef-Layer-{number}");
        let mut value = json!({
            "SPDXID": id, "name": layer.name, "downloadLocation": NOTHING, "filesAnalyzed": false,
            "comment": format!("layer {number}, of kind {}", layer.kind),
        });
        if let Some(digest) = layer.digest.as_deref().and_then(|digest| digest.strip_prefix("sha256:"))
            && layer.packages.is_empty()
            && !matches!(layer.kind.as_str(), "oci" | "dir")
        {
            value["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": digest}]);
        }
        list.push(value);
        relations.push(relation("SPDXRef-Image", "GENERATED_FROM", &id));
        for (at, package) in layer.packages.iter().enumerate() {
            let inner = format!("{id}-File-{at}");
            list.push(json!({
                "SPDXID": inner, "name": package.package, "downloadLocation": NOTHING, "filesAnalyzed": false,
                "checksums": [{"algorithm": "SHA256", "checksumValue": package.sha256}],
            }));
            relations.push(relation(&id, "CONTAINS", &inner));
        }
    }
    for (number, package) in packages.iter().enumerate() {
        let id = format!("SPDXRef-Installed-{number}");
        let mut value = json!({
            "SPDXID": id, "name": package.name, "versionInfo": package.version, "downloadLocation": NOTHING,
            "filesAnalyzed": false, "licenseConcluded": NOTHING, "licenseDeclared": NOTHING, "copyrightText": NOTHING,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl",
                "referenceLocator": purl(package, distribution),
            }],
        });
        // what rpm's packages write is no SPDX expression before 2023; as a comment nobody takes it for one
        if let Some(license) = &package.license {
            value["licenseComments"] = format!("the package says: {license}").into();
        }
        if let Some(source) = &package.source {
            value["sourceInfo"] = format!("built from: {source}").into();
        }
        list.push(value);
        relations.push(relation("SPDXRef-Image", "CONTAINS", &id));
    }
    let document = json!({
        "spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": manifest.name,
        "documentNamespace": format!("https://spdx.org/spdxdocs/{}-{}", manifest.name, manifest.image.sha256),
        "creationInfo": {
            "created": created.to_string(),
            "creators": [format!("Tool: {}-{}", manifest.tool, manifest.version)],
        },
        "packages": list, "relationships": relations,
    });
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

/// `pkg:deb/debian/NAME@VERSION?arch=ARCH`, <https://github.com/package-url/purl-spec>.
fn purl(package: &Package, distribution: Option<&str>) -> String {
    let kind = if package.manager == "dpkg" { "deb" } else { "rpm" };
    let space = distribution.map(|id| format!("{}/", escaped(id))).unwrap_or_default();
    let (epoch, version) = match package.version.split_once(':') {
        Some((epoch, version)) if kind == "rpm" => (Some(epoch), version),
        _ => (None, package.version.as_str()),
    };
    let epoch = epoch.map(|epoch| format!("&epoch={}", escaped(epoch))).unwrap_or_default();
    let (name, version, arch) = (escaped(&package.name), escaped(version), escaped(&package.arch));
    format!("pkg:{kind}/{space}{name}@{version}?arch={arch}{epoch}")
}

fn escaped(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._-~".contains(&b);
    text.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_packages_are_addresses() {
        let package = |manager, version: &str| Package {
            manager,
            name: "libstdc++6".to_owned(),
            version: version.to_owned(),
            arch: "amd64".to_owned(),
            license: None,
            source: None,
        };
        assert_eq!(
            purl(&package("dpkg", "1:12.2-3"), Some("debian")),
            "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2-3?arch=amd64"
        );
        assert_eq!(purl(&package("rpm", "2:1-3"), None), "pkg:rpm/libstdc%2B%2B6@1-3?arch=amd64&epoch=2");
    }
}
