//! Whether a package that passed verification is let in: the one place where [`crate::seen`] is asked and told, and where
//! a package's age is judged.
//!
//! It is asked twice about a download: before it, with what the offer claims, so that gigabytes are not fetched in vain;
//! and after verification, with what the signed header says, which alone counts. Local packages are asked about once.
//! No change in dom0 happens before.
//!
//! What a person asked for in so many words is no surprise: `downgrade` takes an older build (of a repository that the
//! template came from before); `reinstall` takes the build that is installed; a specification that excludes the newest
//! build that was seen, as `NAME-1.0` does after 2.0 was, takes what it says. None of these lowers the floor.
//! `--allow-older` does: from then on the build that was let in is the newest that counts.

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::Context as _;

use crate::confine;
use crate::repo::choice::RepoOption;
use crate::report::{Failure, Message, Reporter};
use crate::root_image::Limits;
use crate::seen::{self, Arrival, Memory, Surprise};
use crate::state::Directory;
use crate::template::{Evr, Offer, RepoId, TemplateSpec, Timestamp, fnmatch};
use crate::untrusted::displayable;
use crate::verify::{Keyring, Verified};

/// Seconds in a day.
const DAY: i64 = 24 * 60 * 60;

/// What a person demands of packages beyond the policy, and what they let pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Demands {
    /// Templates (names or patterns) that may be older than a build seen before.
    pub allow_older: Vec<String>,
    /// Templates that may come from another repository than before.
    pub allow_repository_change: Vec<String>,
    /// Templates that may be signed by another certificate than before.
    pub allow_signer_change: Vec<String>,
    /// Most days since a package was built.
    pub max_age: Option<u32>,
    /// The certificate that has to have signed a package: its fingerprint, in hexadecimal digits.
    pub signer: Option<String>,
    /// Most bytes of an image: the size that a package announces is held against it before anything is imported.
    pub max_image_size: u64,
    /// The state directory, where one is configured.
    pub state_dir: Option<PathBuf>,
    /// Whether specifications and repository options were made by a program, so that they ask for nothing in so many words.
    pub unattended: bool,
}

impl Default for Demands {
    /// Nothing beyond the policy.
    fn default() -> Self {
        Self {
            allow_older: Vec::new(),
            allow_repository_change: Vec::new(),
            allow_signer_change: Vec::new(),
            max_age: None,
            signer: None,
            max_image_size: Limits::default().image_size,
            state_dir: None,
            unattended: false,
        }
    }
}

/// Which build is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// The newest there is.
    Newest,
    /// The one that is installed.
    Same,
    /// An older one.
    Older,
}

/// Judges what arrives in one run.
pub struct Admission<'a> {
    demands: &'a Demands,
    wish: Wish,
    specs: Vec<TemplateSpec>,
    options: &'a [RepoOption],
    reporter: &'a dyn Reporter,
    now: SystemTime,
}

impl std::fmt::Debug for Admission<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission")
            .field("demands", self.demands)
            .field("wish", &self.wish)
            .finish_non_exhaustive()
    }
}

impl<'a> Admission<'a> {
    /// For a run that wants `wish` of what was `named`, with these repository options.
    #[must_use]
    pub fn new(
        demands: &'a Demands,
        wish: Wish,
        named: &[String],
        options: &'a [RepoOption],
        reporter: &'a dyn Reporter,
    ) -> Self {
        if let Some(warning) = confine::walls().ok().and_then(confine::Walls::missing) {
            reporter.say(&Message::Warning(warning));
        }
        let specs = named.iter().filter_map(|text| TemplateSpec::new(text).ok()).collect();
        Self { demands, wish, specs, options, reporter, now: SystemTime::now() }
    }

    /// Whether `offer` is worth downloading, if it is what it claims to be.
    ///
    /// # Errors
    /// Why it would not be let in.
    pub fn offer(&self, offer: &Offer) -> Result<(), Failure> {
        self.young_enough(&offer.name, offer.build_time)?;
        let arrival =
            Arrival { name: &offer.name, repo: &offer.repo, evr: &offer.evr, signer: None, trusted: &[] };
        self.judge(&self.memory(), &arrival).map(drop)
    }

    /// Whether a verified package is let in, and remembers it if so. `keyring`: the certificates that might have vouched
    /// for it; `None` where nobody's signature was looked at.
    ///
    /// # Errors
    /// Why it is not let in.
    pub fn package(
        &self,
        verified: &Verified,
        repo: &RepoId,
        keyring: Option<&Keyring>,
    ) -> Result<(), Failure> {
        let info = verified.info();
        self.young_enough(info.name.as_str(), info.build_time)?;
        self.signed_as_demanded(
            info.name.as_str(),
            verified.signer().map(|signer| signer.certificate.as_str()),
        )?;
        let (Some(signer), Some(keyring)) = (verified.signer(), keyring) else { return Ok(()) };
        let trusted: Vec<String> = keyring.certificates().iter().map(|one| one.fingerprint()).collect();
        let arrival = Arrival {
            name: info.name.as_str(),
            repo,
            evr: &info.nevra.evr,
            signer: Some(&signer.certificate),
            trusted: &trusted,
        };
        let mut memory = self.memory();
        let lower = self.judge(&memory, &arrival)?;
        memory.note(
            &arrival,
            crate::verify::keyring::seconds(self.now).try_into().unwrap_or(i64::MAX),
            lower,
        );
        if let Err(error) = self.directory().and_then(|state| state.write(seen::FILE, &memory.write()?)) {
            self.reporter.say(&Message::Warning(&format!("what was seen is not remembered: {error:#}")));
        }
        Ok(())
    }

    /// Whether the floor is to be lowered to what arrives.
    fn judge(&self, memory: &Memory, arrival: &Arrival<'_>) -> Result<bool, Failure> {
        let name = arrival.name;
        let same = self.wish == Wish::Same;
        match memory.stranger(arrival, self.is_named(arrival.repo), same) {
            Some(Surprise::Repository(known)) if !any(&self.demands.allow_repository_change, name) => {
                let known: Vec<String> = known.iter().map(|repo| format!("'{repo}'")).collect();
                return Err(refused(
                    &format!(
                        "repository '{}' offers it, which came from {} before",
                        arrival.repo,
                        known.join(", ")
                    ),
                    name,
                    &format!(
                        "'--allow-repository-change={name}' or '--enablerepo={}' takes it from there",
                        arrival.repo
                    ),
                ));
            }
            Some(Surprise::Signer(before)) if !any(&self.demands.allow_signer_change, name) => {
                let signer = arrival.signer.unwrap_or("nobody");
                return Err(refused(
                    &format!("certificate {signer} signed it, and {before} signed it before"),
                    name,
                    &format!("'--allow-signer-change={name}' takes it, if you know why that changed"),
                ));
            }
            _ => {}
        }
        let Some(floor) = memory.floor(name, arrival.repo).filter(|floor| *floor > arrival.evr) else {
            return Ok(false);
        };
        if self.wish != Wish::Newest || self.asked_for(name, arrival.evr, floor) {
            return Ok(false);
        }
        if any(&self.demands.allow_older, name) {
            return Ok(true);
        }
        Err(refused(
            &format!("{} is older than {floor}, which repository '{}' had before", arrival.evr, arrival.repo),
            name,
            &format!(
                "a stale mirror or a dishonest UpdateVM can keep builds back; '--allow-older={name}' takes the older one"
            ),
        ))
    }

    /// Whether a specification means this build, and does not mean the newest one that was seen.
    fn asked_for(&self, name: &str, evr: &Evr, floor: &Evr) -> bool {
        !self.demands.unattended
            && self.specs.iter().any(|spec| spec.matches(name, evr) && !spec.matches(name, floor))
    }

    /// Whether the person wrote this repository's name, and not a pattern.
    fn is_named(&self, repo: &RepoId) -> bool {
        if self.demands.unattended {
            return false;
        }
        self.options
            .iter()
            .filter(|option| !matches!(option, RepoOption::Disable(_)))
            .any(|option| option.argument().split([',', ' ']).any(|word| word == repo.as_str()))
    }

    fn young_enough(&self, name: &str, built: Timestamp) -> Result<(), Failure> {
        let Some(most) = self.demands.max_age else { return Ok(()) };
        let age = days(built, self.now);
        if age <= i64::from(most) {
            return Ok(());
        }
        Err(refused(
            &format!("it was built {age} days ago (on {built}), and at most {most} are allowed"),
            name,
            "'--require-max-age' and the configuration's 'require-max-age' set that bound",
        ))
    }

    /// Whether one of these certificates is the one that has to have signed a package.
    ///
    /// # Errors
    /// When none is.
    pub fn signable(&self, name: &str, keyring: &Keyring) -> Result<(), Failure> {
        let Some(wanted) = &self.demands.signer else { return Ok(()) };
        if keyring.certificates().iter().any(|one| one.fingerprint().eq_ignore_ascii_case(wanted)) {
            return Ok(());
        }
        let why = format!("none of the keys of its repository is {wanted}, which has to sign it");
        Err(refused(&why, name, "'qvm-template trust list' shows whose signatures count"))
    }

    fn signed_as_demanded(&self, name: &str, signer: Option<&str>) -> Result<(), Failure> {
        let Some(wanted) = &self.demands.signer else { return Ok(()) };
        let is = signer.unwrap_or("nobody whose signature was looked at");
        if is.eq_ignore_ascii_case(wanted) {
            return Ok(());
        }
        let why = format!("it is signed by {is}, not {wanted}");
        Err(refused(&why, name, "find out who should sign it; '--signer' says who has to"))
    }

    fn directory(&self) -> anyhow::Result<Directory> {
        Directory::open(self.demands.state_dir.as_deref())
    }

    /// Fingerprint of the certificate that signed this build of a template, where it is the newest that was seen of its
    /// repository.
    #[must_use]
    pub fn signer_seen(&self, name: &str, repo: &str, evr: &Evr) -> Option<String> {
        let memory = self.memory();
        let is = |record: &&seen::Record| {
            record.name == name && record.repo.as_str() == repo && record.newest == *evr
        };
        memory.records().iter().find(is).map(|record| record.signer.clone())
    }

    /// What is remembered; damage is said, and the memory begins anew beside what is left of the old one.
    fn memory(&self) -> Memory {
        let read = || -> anyhow::Result<Memory> {
            let Some(bytes) = self.directory()?.read(seen::FILE).context("reading it")? else {
                return Ok(Memory::default());
            };
            Memory::read(&bytes).inspect_err(|_| {
                let kept = self.directory().and_then(|state| {
                    state.write(&format!("{}.damaged", seen::FILE), &bytes)?;
                    Ok(state.remove(seen::FILE)?)
                });
                drop(kept);
            })
        };
        read().unwrap_or_else(|error| {
            let text = format!("the memory of builds seen ({}) begins anew: {error:#}", seen::FILE);
            self.reporter.say(&Message::Warning(&text));
            Memory::default()
        })
    }
}

/// Whole days since a package was built; negative where that lies ahead.
#[must_use]
pub fn days(built: Timestamp, now: SystemTime) -> i64 {
    let now = i64::try_from(crate::verify::keyring::seconds(now)).unwrap_or(i64::MAX);
    now.saturating_sub(built.0).div_euclid(DAY)
}

fn any(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| fnmatch::matches(pattern, name))
}

fn refused(why: &str, name: &str, help: &str) -> Failure {
    Failure::new(format!("Template '{}' is not taken: {why}\nhelp: {help}", displayable(name, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake::Heard;

    fn offer(name: &str, version: &str, repo: &str) -> Offer {
        Offer {
            name: name.to_owned(),
            evr: Evr::new("0", version, "1").unwrap(),
            repo: RepoId::new(repo).unwrap(),
            download_size: 7,
            build_time: Timestamp(0),
            license: String::new(),
            url: String::new(),
            summary: String::new(),
            description: String::new(),
        }
    }

    /// A state directory that knows `a` 2 of `r`, and demands for it.
    fn place() -> (tempfile::TempDir, Demands) {
        let place = tempfile::tempdir().unwrap();
        let mut memory = Memory::default();
        let seen = offer("a", "2", "r");
        let arrival =
            Arrival { name: &seen.name, repo: &seen.repo, evr: &seen.evr, signer: Some("K"), trusted: &[] };
        memory.note(&arrival, 1, false);
        Directory::at(place.path()).write(seen::FILE, &memory.write().unwrap()).unwrap();
        let demands = Demands { state_dir: Some(place.path().to_owned()), ..Demands::default() };
        (place, demands)
    }

    fn says(demands: &Demands, wish: Wish, named: &str, options: &[RepoOption], offer: &Offer) -> String {
        let heard = Heard::default();
        let admission = Admission::new(demands, wish, &[named.to_owned()], options, &heard);
        let verdict = admission.offer(offer).map_err(|error| error.to_string());
        [heard.lines(), verdict.err().into_iter().collect()].concat().join("\n")
    }

    #[test]
    fn only_what_was_not_asked_for_is_a_surprise() {
        let (_place, demands) = place();
        let old = offer("a", "1", "r");
        let plain = |wish, named: &str, offer: &Offer| says(&demands, wish, named, &[], offer);
        assert!(
            plain(Wish::Newest, "a", &old)
                .contains("0:1-1 is older than 0:2-1, which repository 'r' had before")
        );
        assert!(plain(Wish::Newest, "a-*", &old).contains("--allow-older=a'"));
        for (wish, named, offer) in [
            (Wish::Newest, "a", &offer("a", "2", "r")),
            (Wish::Newest, "a", &offer("a", "3", "r")),
            (Wish::Newest, "b", &offer("b", "1", "s")),
            (Wish::Newest, "a-1", &old),
            (Wish::Older, "a", &old),
            (Wish::Same, "a", &old),
        ] {
            assert_eq!(plain(wish, named, offer), "", "{wish:?} {named}");
        }
        let allowed = Demands { allow_older: vec!["a".into()], ..demands.clone() };
        assert_eq!(says(&allowed, Wish::Newest, "a", &[], &old), "");
        let other = Demands { allow_older: vec!["b*".into()], ..demands.clone() };
        assert_ne!(says(&other, Wish::Newest, "a", &[], &old), "");
    }

    #[test]
    fn another_repository_is_a_surprise_unless_it_was_named() {
        let (_place, demands) = place();
        let from_s = offer("a", "3", "s");
        let with =
            |demands: &Demands, options: &[RepoOption]| says(demands, Wish::Newest, "a", options, &from_s);
        let refused = "repository 's' offers it, which came from 'r' before";
        assert!(with(&demands, &[]).contains(refused));
        assert!(with(&demands, &[RepoOption::Enable("*".into())]).contains(refused));
        assert!(with(&demands, &[RepoOption::Disable("s".into())]).contains(refused));
        assert_eq!(with(&demands, &[RepoOption::Enable("x,s".into())]), "");
        assert_eq!(with(&demands, &[RepoOption::Only("s".into())]), "");
        assert!(says(&demands, Wish::Older, "a", &[], &offer("a", "1", "s")).contains(refused));
        let allowed = Demands { allow_repository_change: vec!["a".into()], ..demands };
        assert_eq!(with(&allowed, &[]), "");
    }

    #[test]
    fn age_is_counted_in_days() {
        let (_place, demands) = place();
        let now = SystemTime::now();
        let ago = |days: i64| {
            let now = i64::try_from(crate::verify::keyring::seconds(now)).unwrap();
            Offer { build_time: Timestamp(now - days * DAY), ..offer("b", "1", "r") }
        };
        let bound = Demands { max_age: Some(10), ..demands };
        assert_eq!(says(&bound, Wish::Newest, "b", &[], &ago(10)), "");
        assert!(says(&bound, Wish::Newest, "b", &[], &ago(12)).contains("it was built 12 days ago (on "));
        assert_eq!(says(&bound, Wish::Newest, "b", &[], &ago(-3)), "");
    }

    #[test]
    fn a_demanded_signer_has_to_have_signed() {
        let heard = Heard::default();
        let (_place, demands) = place();
        let judged = |wanted: Option<&str>, signer: Option<&str>| {
            let demands = Demands { signer: wanted.map(str::to_owned), ..demands.clone() };
            let admission = Admission::new(&demands, Wish::Newest, &[], &[], &heard);
            admission.signed_as_demanded("a", signer).map_err(|error| error.to_string())
        };
        assert_eq!(judged(None, None), Ok(()));
        assert_eq!(judged(Some("ab"), Some("AB")), Ok(()));
        assert!(judged(Some("ab"), Some("cd")).unwrap_err().contains("it is signed by cd, not ab"));
        assert!(judged(Some("ab"), None).unwrap_err().contains("nobody"));
        let admission = Admission::new(&demands, Wish::Newest, &[], &[], &heard);
        let seen = |version: &str| admission.signer_seen("a", "r", &Evr::new("0", version, "1").unwrap());
        assert_eq!((seen("2").as_deref(), seen("1")), (Some("K"), None));
    }

    #[test]
    fn a_damaged_memory_begins_anew() {
        let (place, demands) = place();
        std::fs::write(place.path().join(seen::FILE), "{\"schema\":1,").unwrap();
        let said = says(&demands, Wish::Newest, "a", &[], &offer("a", "1", "r"));
        assert!(said.starts_with("Warning: the memory of builds seen (seen.json) begins anew: "), "{said}");
        assert_eq!(says(&demands, Wish::Newest, "a", &[], &offer("a", "1", "r")), "");
        assert!(place.path().join("seen.json.damaged").exists());
    }
}
