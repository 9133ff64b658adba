//! What was seen of each template: the newest build that passed verification, from which repository, and whose
//! certificate signed it.
//!
//! A signature says who made a package and not when it is offered: an UpdateVM, a mirror or whoever stands between can
//! keep newer builds back, or offer an old one with known holes to somebody who installs anew. Nobody can prove that
//! from one reply. What can be done is to remember, and to be surprised:
//!
//! | surprise | when | not when |
//! |---|---|---|
//! | [`Surprise::Older`] | the repository had a newer build of this template before | an older build is what was asked for |
//! | [`Surprise::Repository`] | the template never came from this repository, but from others | the repository was named in full with `--enablerepo` or `--repoid`, or the package is a local file |
//! | [`Surprise::Signer`] | the repository's packages of this template were signed by another certificate, which still vouches for it; or a local file replaces what was there (or is replaced) under another certificate | the certificates of the repository were replaced here |
//!
//! Packages whose signature was not looked at (`--nogpgcheck`) are neither compared nor remembered.
//!
//! Pure: [`crate::admission`] reads and writes the file and knows what was asked for.

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::template::{Evr, RepoId};

/// The file in the state directory.
pub const FILE: &str = "seen.json";
/// Version of its form.
const SCHEMA: u32 = 1;
/// Most records: some hundred times what a system has. Beyond, those that were not confirmed for longest are dropped.
const MAX_RECORDS: usize = 4096;
/// Longest text in a record, in bytes.
const MAX_TEXT: usize = 512;

/// Everything that is remembered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    records: Vec<Record>,
}

/// What is remembered of a template and a repository that it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Name of the template, as its package has it.
    pub name: String,
    /// The repository.
    pub repo: RepoId,
    /// Its newest build that passed verification.
    pub newest: Evr,
    /// Fingerprint of the certificate that vouched for the last one.
    pub signer: String,
    /// When one was seen last, in seconds since 1970.
    pub time: i64,
}

/// A package that passed verification.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Name of the template.
    pub name: &'a str,
    /// The repository that vouched for it.
    pub repo: &'a RepoId,
    /// Its build.
    pub evr: &'a Evr,
    /// Fingerprint of the certificate that signed it; `None` where it is not known yet, before the download.
    pub signer: Option<&'a str>,
    /// Fingerprints of all certificates that may vouch for it.
    pub trusted: &'a [String],
}

/// What speaks against a package that is sound by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Surprise {
    /// The repository had this newer build.
    Older(Evr),
    /// It came from these repositories before.
    Repository(Vec<RepoId>),
    /// It was signed by this certificate before.
    Signer(String),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    schema: u32,
    seen: Vec<StoredRecord>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredRecord {
    name: String,
    repository: String,
    epoch: u32,
    version: String,
    release: String,
    signer: String,
    time: i64,
}

impl Memory {
    /// Reads the file's content.
    ///
    /// # Errors
    /// When it is not what [`Memory::write`] writes.
    pub fn read(bytes: &[u8]) -> anyhow::Result<Self> {
        let stored: Stored = serde_json::from_slice(bytes)?;
        ensure!(stored.schema == SCHEMA, "its form has version {}, not {SCHEMA}", stored.schema);
        ensure!(stored.seen.len() <= MAX_RECORDS, "it has more than {MAX_RECORDS} records");
        let record = |stored: StoredRecord| {
            let long = [&stored.name, &stored.signer].into_iter().any(|text| text.len() > MAX_TEXT);
            ensure!(!long, "a text in it is too long");
            let repo =
                RepoId::new(&stored.repository).context("a repository in it has an impossible name")?;
            let newest = Evr::new(&stored.epoch.to_string(), &stored.version, &stored.release)?;
            Ok(Record { name: stored.name, repo, newest, signer: stored.signer, time: stored.time })
        };
        Ok(Self { records: stored.seen.into_iter().map(record).collect::<anyhow::Result<_>>()? })
    }

    /// The file's content.
    ///
    /// # Errors
    /// Never in practice: all values are texts and numbers.
    pub fn write(&self) -> anyhow::Result<Vec<u8>> {
        let record = |record: &Record| StoredRecord {
            name: record.name.clone(),
            repository: record.repo.to_string(),
            epoch: record.newest.epoch(),
            version: record.newest.version().to_owned(),
            release: record.newest.release().to_owned(),
            signer: record.signer.clone(),
            time: record.time,
        };
        let stored = Stored { schema: SCHEMA, seen: self.records.iter().map(record).collect() };
        let mut bytes = serde_json::to_vec_pretty(&stored)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// The records, in the order in which they came.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// What is surprising about where `arrival` comes from and who signed it. `named`: whether the person named the
    /// repository itself; `same`: whether it is the build that is installed already.
    #[must_use]
    pub fn stranger(&self, arrival: &Arrival<'_>, named: bool, same: bool) -> Option<Surprise> {
        let known: Vec<&Record> = self.records.iter().filter(|record| record.name == arrival.name).collect();
        if known.is_empty() {
            return None;
        }
        let is_local = |repo: &RepoId| repo.as_str() == RepoId::COMMAND_LINE;
        if let Some(own) = known.iter().find(|record| record.repo == *arrival.repo) {
            let other = arrival.signer.is_some_and(|signer| signer != own.signer);
            // A repository's certificates are replaced by whoever looks after this qube; a local file has no repository.
            let expected = is_local(arrival.repo) || arrival.trusted.contains(&own.signer);
            return (other && expected).then(|| Surprise::Signer(own.signer.clone()));
        }
        if named {
            return None;
        }
        let vouched = arrival.signer.map(|signer| known.iter().any(|record| record.signer == signer));
        if is_local(arrival.repo) || known.iter().all(|record| is_local(&record.repo)) {
            return (vouched == Some(false)).then(|| Surprise::Signer(known[0].signer.clone()));
        }
        // The same build under the same certificate is the same package, whoever passes it on.
        if same && vouched != Some(false) {
            return None;
        }
        Some(Surprise::Repository(known.into_iter().map(|record| record.repo.clone()).collect()))
    }

    /// The newest build that `repo` had of a template.
    #[must_use]
    pub fn floor(&self, name: &str, repo: &RepoId) -> Option<&Evr> {
        self.records
            .iter()
            .find(|record| record.name == name && record.repo == *repo)
            .map(|record| &record.newest)
    }

    /// Remembers a package whose signer is known. The floor rises and never falls, unless `lower` says so.
    pub fn note(&mut self, arrival: &Arrival<'_>, now: i64, lower: bool) {
        let Some(signer) = arrival.signer else { return };
        let is_it = |record: &Record| record.name == arrival.name && record.repo == *arrival.repo;
        match self.records.iter_mut().find(|record| is_it(record)) {
            Some(record) => {
                if lower || record.newest < *arrival.evr {
                    record.newest = arrival.evr.clone();
                }
                signer.clone_into(&mut record.signer);
                record.time = now;
            }
            None => {
                if self.records.len() >= MAX_RECORDS
                    && let Some(oldest) = (0..self.records.len()).min_by_key(|at| self.records[*at].time)
                {
                    self.records.remove(oldest);
                }
                self.records.push(Record {
                    name: arrival.name.to_owned(),
                    repo: arrival.repo.clone(),
                    newest: arrival.evr.clone(),
                    signer: signer.to_owned(),
                    time: now,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn evr(version: &str) -> Evr {
        Evr::new("0", version, "1").unwrap()
    }

    fn repo(id: &str) -> RepoId {
        RepoId::new(id).unwrap()
    }

    /// A memory of `a` from these repositories, each with its signer; all certificates of `trusted` vouch.
    fn judge(known: &[(&str, &str)], from: &str, signer: &str, trusted: &[&str]) -> Option<Surprise> {
        let mut memory = Memory::default();
        for (id, signer) in known {
            let (id, evr) = (repo(id), evr("1"));
            memory.note(
                &Arrival { name: "a", repo: &id, evr: &evr, signer: Some(signer), trusted: &[] },
                1,
                false,
            );
        }
        let trusted: Vec<String> = trusted.iter().map(|one| (*one).to_owned()).collect();
        let (id, evr) = (repo(from), evr("2"));
        let arrival = Arrival { name: "a", repo: &id, evr: &evr, signer: Some(signer), trusted: &trusted };
        memory.stranger(&arrival, false, false)
    }

    #[test]
    fn who_comes_from_elsewhere_is_a_stranger() {
        let signer = |was: &str| Some(Surprise::Signer(was.to_owned()));
        assert_eq!(judge(&[], "r", "K", &["K"]), None);
        assert_eq!(judge(&[("r", "K")], "r", "K", &["K"]), None);
        assert_eq!(judge(&[("r", "K")], "s", "K", &["K"]), Some(Surprise::Repository(vec![repo("r")])));
        assert_eq!(judge(&[("r", "K"), ("s", "K")], "s", "K", &["K"]), None);
        // Another certificate: a surprise while the former one vouches, and a change of keys when it does not any more.
        assert_eq!(judge(&[("r", "K")], "r", "L", &["K", "L"]), signer("K"));
        assert_eq!(judge(&[("r", "K")], "r", "L", &["L"]), None);
        // Local files are held to the certificate.
        assert_eq!(judge(&[("r", "K")], "@commandline", "K", &["K"]), None);
        assert_eq!(judge(&[("r", "K")], "@commandline", "L", &["L"]), signer("K"));
        assert_eq!(judge(&[("@commandline", "K")], "r", "K", &["K"]), None);
        assert_eq!(judge(&[("@commandline", "K")], "r", "L", &["L"]), signer("K"));
    }

    #[test]
    fn a_repository_that_was_named_is_no_stranger_and_the_same_build_is_none_either() {
        let mut memory = Memory::default();
        let (r, s, one) = (repo("r"), repo("s"), evr("1"));
        memory.note(&Arrival { name: "a", repo: &r, evr: &one, signer: Some("K"), trusted: &[] }, 1, false);
        let arrival = |signer| Arrival { name: "a", repo: &s, evr: &one, signer, trusted: &[] };
        assert_eq!(memory.stranger(&arrival(Some("L")), true, false), None);
        assert_eq!(memory.stranger(&arrival(None), false, true), None);
        assert_eq!(memory.stranger(&arrival(Some("K")), false, true), None);
        assert!(memory.stranger(&arrival(Some("L")), false, true).is_some());
        assert!(memory.stranger(&arrival(None), false, false).is_some());
    }

    #[test]
    fn the_floor_rises_and_falls_only_when_told() {
        let mut memory = Memory::default();
        let id = repo("r");
        let mut note = |version: &str, lower| {
            let evr = evr(version);
            memory.note(
                &Arrival { name: "a", repo: &id, evr: &evr, signer: Some("K"), trusted: &[] },
                1,
                lower,
            );
            memory.floor("a", &id).unwrap().version().to_owned()
        };
        assert_eq!(
            [note("2", false), note("1", false), note("3", false), note("1", true)],
            ["2", "2", "3", "1"]
        );
        assert_eq!(memory.floor("a", &repo("s")), None);
        assert_eq!(memory.floor("b", &id), None);
    }

    #[test]
    fn the_file_is_bounded_and_read_back() {
        let mut memory = Memory::default();
        let (id, one) = (repo("r"), evr("1"));
        for number in 0..MAX_RECORDS + 10 {
            let name = format!("{number:031}");
            let time = i64::try_from(number).unwrap();
            memory.note(
                &Arrival { name: &name, repo: &id, evr: &one, signer: Some("K"), trusted: &[] },
                time,
                false,
            );
        }
        assert_eq!(memory.records().len(), MAX_RECORDS);
        assert_eq!(memory.records()[0].name, format!("{:031}", 10));
        let bytes = memory.write().unwrap();
        assert!(u64::try_from(bytes.len()).unwrap() < crate::state::MAX_FILE);
        assert_eq!(Memory::read(&bytes).unwrap(), memory);
        for damaged in [&b""[..], b"{", b"[]", b"{\"schema\":2,\"seen\":[]}", &bytes[..bytes.len() / 2]] {
            assert!(Memory::read(damaged).is_err());
        }
    }
}
