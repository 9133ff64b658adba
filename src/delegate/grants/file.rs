//! Reading the file of grants. A file with one wrong line grants nothing at all.

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;

use super::{Caller, Grant, Grants, Limits, Lines, Whose};
use crate::delegate::Verb;
use crate::template::{RepoId, TemplateName};

/// Largest file of grants that is read, in bytes.
pub const MAX_FILE: u64 = 256 * 1024;

/// Image size where a grant names none: what Qubes' own templates have at most, in bytes.
const DEFAULT_IMAGE_SIZE: u64 = 20 << 30;

/// Why a file of grants cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GrantsError {
    /// It cannot be read.
    #[error("{0}")]
    Unreadable(String),
    /// Not TOML of the right shape.
    #[error("{0}")]
    Syntax(String),
    /// A value that says nothing sensible.
    #[error("line {line}: grant {grant}: {what}")]
    Value {
        /// Number of the grant, counted from 1.
        grant: usize,
        /// The line of its `caller`.
        line: usize,
        /// The value and what is wrong with it.
        what: String,
    },
}

impl Grants {
    /// Reads a file; one that does not exist grants nothing.
    ///
    /// # Errors
    /// As [`Grants::parse`], and when the file cannot be read or is too long.
    pub fn read(path: &Path) -> Result<Self, GrantsError> {
        use std::io::Read as _;
        let unreadable =
            |error: std::io::Error| GrantsError::Unreadable(format!("reading {}: {error}", path.display()));
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            other => other.map_err(unreadable)?,
        };
        let mut text = String::new();
        file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
        Self::parse(&text)
    }

    /// Reads the text of a file of grants.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str) -> Result<Self, GrantsError> {
        if u64::try_from(text.len()).is_ok_and(|length| length > MAX_FILE) {
            return Err(GrantsError::Syntax(format!("longer than {MAX_FILE} bytes")));
        }
        let file: File = toml::from_str(text).map_err(|error| GrantsError::Syntax(error.to_string()))?;
        if file.version != 1 {
            return Err(GrantsError::Syntax(format!(
                "version {} is not known; this program reads 1",
                file.version
            )));
        }
        if file.audit_log.as_ref().is_some_and(|path| !path.starts_with('/')) {
            return Err(GrantsError::Syntax("audit-log is no absolute path".to_owned()));
        }
        let check = |(index, raw): (usize, RawGrant)| {
            let line = line_of(text, &raw.caller);
            raw.check(text).map_err(|what| GrantsError::Value { grant: index + 1, line, what })
        };
        let grants = file.grant.into_iter().enumerate().map(check).collect::<Result<_, _>>()?;
        Ok(Self { grants, audit_log: file.audit_log })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    version: u32,
    #[serde(default)]
    audit_log: Option<String>,
    #[serde(default)]
    grant: Vec<RawGrant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RawGrant {
    caller: Spanned<String>,
    verbs: Spanned<Vec<Verb>>,
    templates: Option<Spanned<Vec<String>>>,
    repositories: Option<Spanned<Vec<String>>>,
    pools: Option<Spanned<Vec<String>>>,
    whose: Option<Spanned<Whose>>,
    max_image_size: Option<String>,
    max_templates: Option<u32>,
    max_total_size: Option<String>,
    max_changes_per_hour: Option<u32>,
    owner_tag: Option<String>,
}

impl RawGrant {
    fn check(self, text: &str) -> Result<Grant, String> {
        let own = line_of(text, &self.caller);
        let lines = Lines {
            caller: own,
            verbs: line_of(text, &self.verbs),
            templates: self.templates.as_ref().map_or(own, |key| line_of(text, key)),
            repositories: self.repositories.as_ref().map_or(own, |key| line_of(text, key)),
            pools: self.pools.as_ref().map_or(own, |key| line_of(text, key)),
            whose: self.whose.as_ref().map_or(own, |key| line_of(text, key)),
        };
        let caller = self.caller.into_inner();
        let caller = match caller.strip_prefix("@tag:") {
            Some(tag) if is_tag(tag) => Caller::Tag(tag.to_owned()),
            None if TemplateName::new(&caller).is_ok() && caller != "dom0" => Caller::Name(caller),
            _ => return Err(format!("caller {caller:?} is neither the name of a qube nor @tag:NAME")),
        };
        let list = |key: Option<Spanned<Vec<String>>>| key.map(Spanned::into_inner).unwrap_or_default();
        let (templates, pools) = (list(self.templates), list(self.pools));
        if let Some(odd) = templates.iter().find(|glob| !is_glob(glob)) {
            return Err(format!("templates: {odd:?} can match no template"));
        }
        if let Some(odd) = pools.iter().find(|pool| !is_pool(pool)) {
            return Err(format!("pools: {odd:?} is no name of a pool"));
        }
        let repository = |id: &String| {
            RepoId::new(id)
                .filter(|repo| *repo != RepoId::command_line())
                .ok_or_else(|| format!("repositories: {id:?} is no repository identifier"))
        };
        let repositories = list(self.repositories).iter().map(repository).collect::<Result<_, _>>()?;
        if let Some(odd) =
            self.owner_tag.as_ref().filter(|tag| !is_tag(tag) || tag.starts_with("created-by-"))
        {
            return Err(format!("owner-tag {odd:?} is no tag that this qube could set"));
        }
        let max_image_size = self.max_image_size.as_deref().map_or(Ok(DEFAULT_IMAGE_SIZE), parse_size)?;
        let max_templates = self.max_templates.unwrap_or(1);
        let total = || Ok(max_image_size.saturating_mul(u64::from(max_templates)));
        let limits = Limits {
            max_image_size,
            max_templates,
            max_total_size: self.max_total_size.as_deref().map_or_else(total, parse_size)?,
            max_changes_per_hour: self.max_changes_per_hour.unwrap_or(1),
        };
        let (verbs, whose) =
            (self.verbs.into_inner(), self.whose.map(Spanned::into_inner).unwrap_or_default());
        let text = format!(
            "{caller} {verbs:?} {templates:?} {repositories:?} {pools:?} {whose:?} {limits:?} {:?}",
            self.owner_tag
        );
        Ok(Grant {
            caller,
            verbs,
            templates,
            repositories,
            pools,
            whose,
            limits,
            owner_tag: self.owner_tag,
            lines,
            text,
        })
    }
}

fn line_of<T>(text: &str, value: &Spanned<T>) -> usize {
    let before = text.as_bytes().get(..value.span().start).unwrap_or_default();
    before.iter().filter(|byte| **byte == b'\n').count() + 1
}

fn is_tag(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
}

fn is_pool(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
    !text.is_empty() && text.len() <= 64 && !text.starts_with(['-', '.']) && text.bytes().all(plain)
}

fn is_glob(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 64
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-*?".contains(&b))
}

/// Reads `20 GiB`, `512 MiB`, or a plain number of bytes.
fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(split);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        other => return Err(format!("{other:?} is not a unit; write KiB, MiB, GiB or TiB")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size"))?;
    number
        .checked_mul(1 << shift)
        .filter(|&bytes| bytes > 0)
        .ok_or_else(|| format!("{text:?} is not a possible size"))
}
