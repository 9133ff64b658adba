//! The reply to a search: records `name|epoch|version|release|repository|size|build time|licence|url|summary|description|`,
//! each followed by a line feed.
//!
//! The format cannot tell a description that holds `|` and a line feed from the end of a record. So the parser looks
//! for the *beginnings* of records: text after such an end belongs to the description above unless its first line
//! looks like a record. A record that is none is skipped and said so; the others stay. Both forms of the build time
//! (dnf 4 and 5) and the additional `|` of older dnf 5 are understood.
//!
//! What the format cannot prevent: a description can hold a whole forged record. It can claim nothing that the
//! UpdateVM itself could not claim, so every offer is a claim: [`SearchReply::claiming`] keeps those that name a
//! repository which takes part in the call, and the package has to be signed by a key of exactly that repository.

use std::fmt::Write as _;

use crate::template::{Evr, Offer, PACKAGE_PREFIX, RepoId, Timestamp};
use crate::untrusted::displayable;

/// How many warnings are kept; later ones are only counted.
const MAX_WARNINGS: usize = 20;

/// Longest licence, address, summary and description kept, in bytes; longer ones are cut.
const MAX_TEXT: [usize; 4] = [1 << 10, 8 << 10, 4 << 10, 64 << 10];

/// Bounds for a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the whole reply.
    pub bytes: usize,
    /// Records, skipped ones included.
    pub records: usize,
}

impl Default for Limits {
    /// 32 MiB and 50,000 records: some hundred times what Qubes' repositories hold.
    fn default() -> Self {
        Self { bytes: 32 << 20, records: 50_000 }
    }
}

/// The templates that the UpdateVM says the repositories have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SearchReply {
    /// In the order of the reply.
    pub offers: Vec<Offer>,
    /// Why records were skipped, one line each, fit to be shown.
    pub skipped: Vec<String>,
}

/// Why a reply is of no use at all.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// Larger than [`Limits::bytes`].
    #[error("the search reply is larger than {0} bytes")]
    TooLarge(usize),
    /// More than [`Limits::records`].
    #[error("the search reply has more than {0} records")]
    TooMany(usize),
    /// There is something, but not one record.
    #[error("unexpected data format")]
    Format,
}

impl SearchReply {
    /// Reads a reply. Packages that are not templates are left out without a word.
    ///
    /// # Errors
    /// A bound is exceeded, or there are records and not one of them is usable.
    pub fn parse(bytes: &[u8], limits: Limits) -> Result<Self, ReplyError> {
        if bytes.len() > limits.bytes {
            return Err(ReplyError::TooLarge(limits.bytes));
        }
        let text = String::from_utf8_lossy(bytes);
        let mut reply = Self::default();
        let (mut records, mut skipped) = (0_usize, 0_usize);
        let mut others = false;
        for record in records_of(&text) {
            records += 1;
            if records > limits.records {
                return Err(ReplyError::TooMany(limits.records));
            }
            match read(record) {
                Ok(Some(offer)) => reply.offers.push(offer),
                Ok(None) => others = true,
                Err(why) => {
                    skipped += 1;
                    if skipped <= MAX_WARNINGS {
                        let name: String = record.chars().take_while(|c| *c != '|').take(80).collect();
                        reply.skipped.push(format!(
                            "record {records} of the search reply ('{}') is skipped: {why}",
                            displayable(&name, false)
                        ));
                    }
                }
            }
        }
        if skipped > MAX_WARNINGS {
            reply.skipped.push(format!("{} more records are skipped", skipped - MAX_WARNINGS));
        }
        if reply.offers.is_empty() && skipped > 0 && !others {
            return Err(ReplyError::Format);
        }
        Ok(reply)
    }

    /// Keeps the offers that name one of `repos`, the repositories that take part in this call; the others come beside.
    #[must_use]
    pub fn claiming(mut self, repos: &[RepoId]) -> (Self, Vec<Offer>) {
        let (kept, foreign) = self.offers.into_iter().partition(|offer| repos.contains(&offer.repo));
        self.offers = kept;
        (self, foreign)
    }

    /// The reply of a service: sorted as dnf sorts, and without anything inside a field that could be taken for the
    /// end of it.
    #[must_use]
    pub fn write(offers: &[Offer]) -> Vec<u8> {
        let mut records: Vec<String> = offers.iter().map(record).collect();
        records.sort_unstable();
        records.dedup();
        records.concat().into_bytes()
    }
}

fn record(offer: &Offer) -> String {
    let mut out = String::new();
    let built = offer.build_time.to_string();
    // Without the seconds, as dnf 4 writes it.
    let built = built.rsplit_once(':').map_or(built.as_str(), |(minutes, _)| minutes);
    let evr = &offer.evr;
    let _ = write!(
        out,
        "{PACKAGE_PREFIX}{}|{}|{}|{}|{}|{}|{built}|",
        offer.name,
        evr.epoch(),
        evr.version(),
        evr.release(),
        offer.repo,
        offer.download_size
    );
    let url = if offer.url.is_empty() { "(none)" } else { offer.url.as_str() };
    for text in [offer.license.as_str(), url, offer.summary.as_str()] {
        out.extend(text.chars().map(|c| field_char(c, false)));
        out.push('|');
    }
    out.extend(offer.description.trim_start_matches('\n').chars().map(|c| field_char(c, true)));
    out.push_str("|\n");
    out
}

fn field_char(c: char, multi_line: bool) -> char {
    match c {
        '|' => '/',
        '\n' if multi_line => '\n',
        '\t' if multi_line => '\t',
        c if c.is_control() => ' ',
        c => c,
    }
}

/// Cuts a reply into records. Everything after the end of one belongs to it until a line looks like a beginning.
fn records_of(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut searched = 0;
        loop {
            let Some(end) = rest[searched..].find("|\n").map(|at| searched + at) else {
                return Some(std::mem::take(&mut rest));
            };
            let after = &rest[end + 2..];
            // The first record has nothing above it that could go on.
            if after.is_empty() || begins_record(after) {
                let record = &rest[..end];
                rest = after;
                return Some(record);
            }
            searched = end + 1;
        }
    })
}

/// Whether the first line of `text` could be a record, good or bad: a package name and at least six more fields.
fn begins_record(text: &str) -> bool {
    let line = text.split('\n').next().unwrap_or("");
    let name = line.split('|').next().unwrap_or("");
    let plausible = !name.is_empty() && name.len() <= 256 && !name.contains(char::is_whitespace);
    plausible && line.matches('|').take(6).count() == 6
}

/// One record: an offer, or nothing if the package is not a template.
fn read(record: &str) -> Result<Option<Offer>, &'static str> {
    let fields: Vec<&str> = record.splitn(11, '|').collect();
    let Ok([name, epoch, version, release, repo, size, built, license, url, summary, description]) =
        <[&str; 11]>::try_from(fields)
    else {
        return Err("it does not have eleven fields");
    };
    let Some(name) = name.strip_prefix(PACKAGE_PREFIX) else {
        let plain = !name.is_empty() && !name.contains(char::is_whitespace);
        return if plain { Ok(None) } else { Err("it does not begin with the name of a package") };
    };
    if !is_name(name) {
        return Err("the name is not one of a template");
    }
    let evr = Evr::new(epoch, version, release)
        .map_err(|_| "epoch, version or release are not those of a package")?;
    let repo = RepoId::new(repo)
        .filter(|id| id.as_str() != RepoId::COMMAND_LINE)
        .ok_or("the repository's name is not possible")?;
    let download_size = number(size).ok_or("the size is not a number")?;
    let build_time = match number(built) {
        Some(seconds) => i64::try_from(seconds).ok().filter(|s| *s < 253_402_300_800).map(Timestamp),
        None => Timestamp::parse(built),
    };
    let build_time = build_time.ok_or("the build time is not a moment")?;
    // Also what gives away a record with a field too many: a number or a date stands here then.
    if !license.chars().any(char::is_alphabetic) {
        return Err("the licence is not a text");
    }
    // Older dnf 5 ends the description with a `|` of its own.
    let description = description.strip_suffix('|').unwrap_or(description);
    let [license_max, url_max, summary_max, description_max] = MAX_TEXT;
    Ok(Some(Offer {
        name: name.to_owned(),
        evr,
        repo,
        download_size,
        build_time,
        license: text(license, license_max, false),
        url: if url == "(none)" { String::new() } else { text(url, url_max, false) },
        summary: text(summary, summary_max, false),
        description: text(description, description_max, true),
    }))
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._+-".contains(&b);
    !name.is_empty() && name.len() <= 256 && !name.starts_with('-') && name.bytes().all(plain)
}

fn number(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

fn text(text: &str, limit: usize, multi_line: bool) -> String {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    displayable(&text[..end], multi_line)
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
