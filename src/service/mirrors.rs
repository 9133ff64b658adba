//! Where the files of a repository are: its `baseurl`s, then what its `mirrorlist` and `metalink` name.

use anyhow::{Context as _, Result, bail};

use super::address::Address;
use super::checksum::Checksum;
use super::client::Client;
use super::xml::{Step, Steps, attribute};
use crate::repo::file::Repo;
use crate::repo::variables::Variables;

/// Largest list of mirrors, in bytes.
const MAX_LIST: u64 = 4 << 20;

/// Most mirrors kept.
const MAX_MIRRORS: usize = 100;

/// The places of a repository, best first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors {
    /// Folders or addresses below which `repodata/repomd.xml` lies.
    pub addresses: Vec<Address>,
    /// If not empty, `repomd.xml` has to have one of these checksums.
    pub repomd: Vec<Checksum>,
}

impl Mirrors {
    /// Asks for the lists that `repo` names; its values are expanded.
    ///
    /// # Errors
    /// No place is known: the first reason why.
    pub fn find(repo: &Repo, client: &Client, variables: &Variables) -> Result<Self> {
        let mut mirrors = Self::default();
        let mut failure = None;
        for url in &repo.baseurl {
            match Address::parse(url).context("reading baseurl") {
                Ok(address) => mirrors.addresses.push(address),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        for (what, url) in [("mirrorlist", &repo.mirrorlist), ("metalink", &repo.metalink)] {
            let Some(url) = url else { continue };
            let list = Address::parse(url)
                .and_then(|address| client.read(&address, MAX_LIST).with_context(|| address.shown()))
                .and_then(|bytes| mirrors.take_list(&bytes, variables))
                .with_context(|| format!("reading {what}"));
            failure = failure.or_else(|| list.err());
        }
        mirrors.addresses.dedup();
        mirrors.addresses.truncate(MAX_MIRRORS);
        if mirrors.addresses.is_empty() {
            return Err(failure
                .unwrap_or_else(|| anyhow::anyhow!("neither baseurl, mirrorlist nor metalink is given")));
        }
        Ok(mirrors)
    }

    /// A list is XML (then it is a metalink, whatever it was called) or has one address a line.
    fn take_list(&mut self, bytes: &[u8], variables: &Variables) -> Result<()> {
        if bytes.trim_ascii_start().starts_with(b"<") {
            return self.take_metalink(bytes);
        }
        let text = std::str::from_utf8(bytes).context("not a text")?;
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        let found = lines.filter_map(|line| Address::parse(&variables.expand(line)).ok()).take(MAX_MIRRORS);
        let before = self.addresses.len();
        self.addresses.extend(found);
        if self.addresses.len() == before {
            bail!("no usable address in it");
        }
        Ok(())
    }

    fn take_metalink(&mut self, bytes: &[u8]) -> Result<()> {
        let mut steps = Steps::new(bytes, MAX_LIST);
        let mut urls: Vec<(i32, Address)> = Vec::new();
        let mut sums: Vec<Checksum> = Vec::new();
        let mut inside = false;
        while let Some(step) = steps.step()? {
            match step {
                Step::Start(name, attributes) => match name.as_str() {
                    "file" => inside = attribute(&attributes, "name") == Some("repomd.xml"),
                    "hash" if inside => {
                        let kind = attribute(&attributes, "type").unwrap_or("").to_owned();
                        sums.extend(Checksum::new(&kind, &steps.text(&name)?).filter(Checksum::is_strong));
                    }
                    "url" if inside => {
                        let preference = attribute(&attributes, "preference")
                            .and_then(|text| text.parse().ok())
                            .unwrap_or(0);
                        let text = steps.text(&name)?;
                        let base = text.trim().strip_suffix("repodata/repomd.xml").map(Address::parse);
                        urls.extend(
                            base.and_then(Result::ok)
                                .filter(|_| urls.len() < MAX_MIRRORS)
                                .map(|base| (preference, base)),
                        );
                    }
                    _ => {}
                },
                Step::End(name) if name == "file" => inside = false,
                Step::End(_) | Step::Text(_) => {}
            }
        }
        if sums.is_empty() {
            bail!("it has no strong checksum of repomd.xml");
        }
        if urls.is_empty() {
            bail!("no usable address in it");
        }
        urls.sort_by_key(|(preference, _)| std::cmp::Reverse(*preference));
        self.addresses.extend(urls.into_iter().map(|(_, address)| address));
        self.repomd = sums;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn taken(text: &str) -> Result<Mirrors> {
        let mut mirrors = Mirrors::default();
        mirrors.take_list(text.as_bytes(), &Variables::new("4.3")).map(|()| mirrors)
    }

    #[test]
    fn lists_are_read() {
        let list = taken("# comment\n\nhttps://a/r$releasever/\nrsync://b/\nhttp://c\n").unwrap();
        assert_eq!(list.addresses, [Address::Web("https://a/r4.3/".into()), Address::Web("http://c".into())]);
        assert!(taken("nothing\n").is_err());
        let sum = "a".repeat(64);
        let metalink = format!(
            "<?xml version=\"1.0\"?><metalink xmlns=\"m\" xmlns:mm0=\"x\"><files><file name=\"repomd.xml\"><size>1</size><verification><hash type=\"md5\">b\
             </hash><hash type=\"sha256\">{sum}</hash></verification><resources maxconnections=\"1\"><url protocol=\"rsync\" preference=\"100\">rsync://r/\
             repodata/repomd.xml</url><url preference=\"90\">http://b/repodata/repomd.xml</url><url preference=\"99\">https://a/x/repodata/repomd.xml</url>\
             </resources></file></files></metalink>"
        );
        let found = taken(&metalink).unwrap();
        assert_eq!(found.addresses, [Address::Web("https://a/x/".into()), Address::Web("http://b/".into())]);
        assert_eq!(found.repomd, [Checksum::new("sha256", &sum).unwrap()]);
        assert!(taken(&metalink.replace("sha256", "sha1")).is_err());
    }

    proptest! {
        #[test]
        fn takes_any_text(text in "(<metalink><files><file name=\"repomd.xml\">)?(\\PC|[<>&;/\"= \n]){0,80}") {
            let _ = taken(&text);
        }
    }
}
