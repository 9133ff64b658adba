//! The four XML files.

use anyhow::Result;
use quick_xml::Writer;
use quick_xml::events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event};

use super::package::{FileKind, Indexed, Relation};

/// One of the three files, as `repomd.xml` names it.
#[derive(Debug)]
pub struct DataEntry {
    pub kind: &'static str,
    pub location: String,
    pub checksum: String,
    pub size: usize,
    pub open_checksum: String,
    pub open_size: usize,
}

/// Attributes of an element.
type Attributes<'a> = &'a [(&'a str, &'a str)];

/// A document that is being written, indented as createrepo_c does.
struct Document(Writer<Vec<u8>>);

impl Document {
    fn new() -> Result<Self> {
        let mut writer = Writer::new_with_indent(Vec::new(), b' ', 2);
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None)))?;
        Ok(Self(writer))
    }

    fn open(&mut self, name: &str, attributes: Attributes<'_>) -> Result<()> {
        self.0.write_event(Event::Start(start(name, attributes)))?;
        Ok(())
    }

    fn close(&mut self, name: &str) -> Result<()> {
        self.0.write_event(Event::End(BytesEnd::new(name)))?;
        Ok(())
    }

    fn empty(&mut self, name: &str, attributes: Attributes<'_>) -> Result<()> {
        self.0.write_event(Event::Empty(start(name, attributes)))?;
        Ok(())
    }

    fn text(&mut self, name: &str, attributes: Attributes<'_>, text: &str) -> Result<()> {
        if text.is_empty() {
            return self.empty(name, attributes);
        }
        self.open(name, attributes)?;
        self.0.write_event(Event::Text(BytesText::new(&legal(text))))?;
        self.close(name)
    }

    fn finish(self) -> Vec<u8> {
        let mut bytes = self.0.into_inner();
        bytes.push(b'\n');
        bytes
    }
}

fn start<'a>(name: &'a str, attributes: Attributes<'_>) -> BytesStart<'a> {
    let mut element = BytesStart::new(name);
    for (key, value) in attributes {
        element.push_attribute((*key, legal(value).as_str()));
    }
    element
}

/// Characters that XML 1.0 cannot hold, replaced: one of them would make dnf skip the whole repository.
fn legal(text: &str) -> String {
    let possible = |c: char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars().map(|c| if possible(c) { c } else { '?' }).collect()
}

/// `primary.xml`
pub fn primary(packages: &[Indexed]) -> Result<Vec<u8>> {
    let mut xml = Document::new()?;
    let count = packages.len().to_string();
    let common = ("xmlns", "http://linux.duke.edu/metadata/common");
    xml.open(
        "metadata",
        &[common, ("xmlns:rpm", "http://linux.duke.edu/metadata/rpm"), ("packages", &count)],
    )?;
    for package in packages {
        xml.open("package", &[("type", "rpm")])?;
        xml.text("name", &[], &package.name)?;
        xml.text("arch", &[], &package.arch)?;
        version(&mut xml, package)?;
        xml.text("checksum", &[("type", "sha256"), ("pkgid", "YES")], &package.digest)?;
        xml.text("summary", &[], &package.summary)?;
        xml.text("description", &[], &package.description)?;
        xml.text("packager", &[], &package.packager)?;
        xml.text("url", &[], &package.url)?;
        xml.empty(
            "time",
            &[("file", &package.file_time.to_string()), ("build", &package.build_time.to_string())],
        )?;
        xml.empty(
            "size",
            &[
                ("package", &package.package_size.to_string()),
                ("installed", &package.installed_size.to_string()),
                ("archive", &package.archive_size.to_string()),
            ],
        )?;
        xml.empty("location", &[("href", &href(&package.location))])?;
        format(&mut xml, package)?;
        xml.close("package")?;
    }
    xml.close("metadata")?;
    Ok(xml.finish())
}

fn version(xml: &mut Document, package: &Indexed) -> Result<()> {
    let epoch = package.epoch.to_string();
    xml.empty("version", &[("epoch", &epoch), ("ver", &package.version), ("rel", &package.release)])
}

fn format(xml: &mut Document, package: &Indexed) -> Result<()> {
    xml.open("format", &[])?;
    xml.text("rpm:license", &[], &package.license)?;
    xml.text("rpm:vendor", &[], &package.vendor)?;
    xml.text("rpm:group", &[], &package.group)?;
    xml.text("rpm:buildhost", &[], &package.build_host)?;
    xml.text("rpm:sourcerpm", &[], &package.source_rpm)?;
    let (from, to) = (package.header.0.to_string(), package.header.1.to_string());
    xml.empty("rpm:header-range", &[("start", &from), ("end", &to)])?;
    for (kind, relations) in package.relations.iter().filter(|(_, relations)| !relations.is_empty()) {
        let name = format!("rpm:{kind}");
        xml.open(&name, &[])?;
        for entry in relations {
            relation(xml, entry)?;
        }
        xml.close(&name)?;
    }
    for (kind, path) in package.files.iter().filter(|(_, path)| is_primary(path)) {
        file(xml, *kind, path)?;
    }
    xml.close("format")
}

fn relation(xml: &mut Document, entry: &Relation) -> Result<()> {
    let mut attributes = vec![("name", entry.name.as_str())];
    if let Some((comparison, build)) = &entry.compared {
        attributes.extend([("flags", *comparison), ("epoch", &build.epoch), ("ver", &build.version)]);
        attributes.extend(build.release.as_deref().map(|release| ("rel", release)));
    }
    if entry.before {
        attributes.push(("pre", "1"));
    }
    xml.empty("rpm:entry", &attributes)
}

/// Files that other packages depend on by their path, which is why they stand in `primary.xml` too.
fn is_primary(path: &str) -> bool {
    path.starts_with("/etc/") || path.contains("bin/") || path == "/usr/lib/sendmail"
}

fn file(xml: &mut Document, kind: FileKind, path: &str) -> Result<()> {
    match kind {
        FileKind::Plain => xml.text("file", &[], path),
        FileKind::Directory => xml.text("file", &[("type", "dir")], path),
        FileKind::Ghost => xml.text("file", &[("type", "ghost")], path),
    }
}

/// `filelists.xml`
pub fn filelists(packages: &[Indexed]) -> Result<Vec<u8>> {
    listed("filelists", "http://linux.duke.edu/metadata/filelists", packages, |xml, package| {
        package.files.iter().try_for_each(|(kind, path)| file(xml, *kind, path))
    })
}

/// `other.xml`
pub fn other(packages: &[Indexed]) -> Result<Vec<u8>> {
    listed("otherdata", "http://linux.duke.edu/metadata/other", packages, |xml, package| {
        package.changes.iter().try_for_each(|(author, date, text)| {
            xml.text("changelog", &[("author", author), ("date", &date.to_string())], text)
        })
    })
}

fn listed(
    root: &str,
    space: &str,
    packages: &[Indexed],
    body: impl Fn(&mut Document, &Indexed) -> Result<()>,
) -> Result<Vec<u8>> {
    let mut xml = Document::new()?;
    xml.open(root, &[("xmlns", space), ("packages", &packages.len().to_string())])?;
    for package in packages {
        xml.open("package", &[("pkgid", &package.digest), ("name", &package.name), ("arch", &package.arch)])?;
        version(&mut xml, package)?;
        body(&mut xml, package)?;
        xml.close("package")?;
    }
    xml.close(root)?;
    Ok(xml.finish())
}

/// `repomd.xml`
pub fn repomd(entries: &[DataEntry], revision: u32) -> Result<Vec<u8>> {
    let mut xml = Document::new()?;
    let space = ("xmlns", "http://linux.duke.edu/metadata/repo");
    xml.open("repomd", &[space, ("xmlns:rpm", "http://linux.duke.edu/metadata/rpm")])?;
    let revision = revision.to_string();
    xml.text("revision", &[], &revision)?;
    for entry in entries {
        xml.open("data", &[("type", entry.kind)])?;
        xml.text("checksum", &[("type", "sha256")], &entry.checksum)?;
        xml.text("open-checksum", &[("type", "sha256")], &entry.open_checksum)?;
        xml.empty("location", &[("href", &entry.location)])?;
        xml.text("timestamp", &[], &revision)?;
        xml.text("size", &[], &entry.size.to_string())?;
        xml.text("open-size", &[], &entry.open_size.to_string())?;
        xml.close("data")?;
    }
    xml.close("repomd")?;
    Ok(xml.finish())
}

/// A path as a relative URL. Everything that could mean something else in one is written as its number.
fn href(path: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._-~+^:=@,".contains(&b);
    path.bytes().map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_that_xml_cannot_hold_is_replaced() {
        let mut xml = Document::new().unwrap();
        xml.text("a", &[("b", "<\"\u{1}&")], "x\u{0}<y>\u{ffff}").unwrap();
        let text = String::from_utf8(xml.finish()).unwrap();
        assert_eq!(
            text,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a b=\"&lt;&quot;?&amp;\">x?&lt;y&gt;?</a>\n"
        );
    }

    #[test]
    fn a_path_is_a_relative_address() {
        assert_eq!(href("rpm/a-0:1.0~x^y-1.rpm"), "rpm/a-0:1.0~x^y-1.rpm");
        assert_eq!(href("a b#c%.rpm"), "a%20b%23c%25.rpm");
    }
}
