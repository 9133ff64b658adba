//! The document that a caller writes on standard input of a service: one JSON object, at most [`MAX_REQUEST`] bytes.
//!
//! ```json
//! {"schema": 1, "version": "4.3.0-202511051200", "repository": "qubes-templates-itl", "pool": "fast",
//!  "plan": "0f8c...", "on-hangup": "continue", "skip-start": true}
//! ```
//!
//! | key | of | means |
//! |---|---|---|
//! | `version` | changes, `Plan` | the build: version, or version and release, with or without epoch |
//! | `repository`, `pool` | changes, `Plan` | one of those granted |
//! | `skip-start` | changes | leave the first start out |
//! | `verb` | `Plan` | the change that is planned: `install` and the like |
//! | `plan` | changes | carry out exactly this plan, or refuse |
//! | `on-hangup` | changes | `continue` or `cancel` when the caller goes |
//! | `show`, `all-versions` | `List`, `Info` | any of `installed`, `available`, `extras`, `upgrades` |
//! | `keywords`, `everything` | `Search` | words that are looked for; also in descriptions and addresses |
//! | `job`, `follow` | `Status`, `Cancel` | one job, not all of that template; tell until it ends |
//!
//! Every key but `schema` may be absent; an empty standard input stands for `{"schema": 1}`. Keys that are not listed
//! here are refused, so that a caller never believes in an option that this version does not know.

use serde::Deserialize;

use super::Verb;
use crate::template::RepoId;

/// Largest request, in bytes.
pub const MAX_REQUEST: usize = 4096;
/// Most words of a search.
const MAX_WORDS: usize = 16;

/// A checked request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Build asked for: version, or version and release, with or without epoch.
    pub version: Option<String>,
    /// Repository asked for.
    pub repository: Option<RepoId>,
    /// Pool asked for, for a new template.
    pub pool: Option<String>,
    /// Carry out exactly this plan, or refuse.
    pub plan: Option<Id>,
    /// What becomes of the job when the caller is gone.
    pub on_hangup: OnHangup,
    /// The job that `Status` and `Cancel` speak of.
    pub job: Option<Id>,
    /// What `Search` looks for.
    pub keywords: Vec<String>,
    /// Whether `Search` looks at all texts.
    pub everything: bool,
    /// What `Plan` plans.
    pub verb: Option<Verb>,
    /// Groups that `List` and `Info` show; the usual ones when empty.
    pub show: Vec<Group>,
    /// Whether `List` and `Info` show every build.
    pub all_versions: bool,
    /// Whether `Status` goes on until the job ends.
    pub follow: bool,
    /// Whether the first start is left out.
    pub skip_start: bool,
}

/// A group of `List` and `Info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Group {
    /// What is installed.
    Installed,
    /// What repositories have.
    Available,
    /// What is installed and in no repository.
    Extras,
    /// Newer builds of what is installed.
    Upgrades,
}

/// What becomes of a job when its caller is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnHangup {
    /// It goes on; `Status` finds it again.
    #[default]
    Continue,
    /// It ends in the state before it.
    Cancel,
}

/// Identifier of a plan or of a job: 32 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
pub struct Id(String);

/// Why a request is refused; the text goes to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// Longer than [`MAX_REQUEST`].
    #[error("the request is too long")]
    TooLong,
    /// Not JSON, or a key that is not known.
    #[error("the request is not a document of schema 1")]
    Malformed,
    /// A `schema` other than 1.
    #[error("the request's schema is not known here")]
    Schema,
    /// A value outside its bounds.
    #[error("the request's key {0:?} has no possible value")]
    Value(&'static str),
}

impl RequestError {
    /// The same text, which never holds anything of the request.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::TooLong => "the request is too long",
            Self::Malformed => "the request is not a document of schema 1",
            Self::Schema => "the request's schema is not known here",
            Self::Value("version") => "the request's key \"version\" has no possible value",
            Self::Value("repository") => "the request's key \"repository\" has no possible value",
            Self::Value("pool") => "the request's key \"pool\" has no possible value",
            Self::Value("keywords") => "the request's key \"keywords\" has no possible value",
            Self::Value(_) => "a key of the request has no possible value",
        }
    }
}

impl Id {
    /// Checks the form.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        (text.len() == 32 && text.bytes().all(hex)).then(|| Self(text.to_owned()))
    }

    /// A new one that nobody can guess.
    #[must_use]
    pub fn random() -> Self {
        Self(format!("{:032x}", rand::random::<u128>()))
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Request {
    /// Reads what a caller wrote.
    ///
    /// # Errors
    /// The first thing that is not as the module says.
    pub fn parse(untrusted: &[u8]) -> Result<Self, RequestError> {
        if untrusted.len() > MAX_REQUEST {
            return Err(RequestError::TooLong);
        }
        if untrusted.iter().all(u8::is_ascii_whitespace) {
            return Ok(Self::default());
        }
        let raw: Raw = serde_json::from_slice(untrusted).map_err(|_| RequestError::Malformed)?;
        if raw.schema != 1 {
            return Err(RequestError::Schema);
        }
        let plain = |key, value: Option<String>, max, extra: &[u8]| match value {
            Some(text) if !is_plain(&text, max, extra) => Err(RequestError::Value(key)),
            other => Ok(other),
        };
        let id = |key, value: Option<String>| {
            value.map(|text| Id::parse(&text).ok_or(RequestError::Value(key))).transpose()
        };
        Ok(Self {
            version: plain("version", raw.version, 128, b"._+~^:-")?,
            repository: raw
                .repository
                .map(|text| {
                    RepoId::new(&text)
                        .filter(|repo| *repo != RepoId::command_line())
                        .ok_or(RequestError::Value("repository"))
                })
                .transpose()?,
            pool: plain("pool", raw.pool, 64, b"._-")?,
            plan: id("plan", raw.plan)?,
            on_hangup: raw.on_hangup,
            job: id("job", raw.job)?,
            keywords: match raw.keywords {
                words
                    if words.len() > MAX_WORDS || !words.iter().all(|word| is_plain(word, 64, b"._+- ")) =>
                {
                    return Err(RequestError::Value("keywords"));
                }
                words => words,
            },
            everything: raw.everything,
            verb: match raw.verb {
                Some(verb) if !verb.changes() => return Err(RequestError::Value("verb")),
                verb => verb,
            },
            show: raw.show,
            all_versions: raw.all_versions,
            follow: raw.follow,
            skip_start: raw.skip_start,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Raw {
    schema: u32,
    version: Option<String>,
    repository: Option<String>,
    pool: Option<String>,
    plan: Option<String>,
    #[serde(default)]
    on_hangup: OnHangup,
    job: Option<String>,
    #[serde(default)]
    keywords: Vec<String>,
    #[serde(default)]
    everything: bool,
    verb: Option<Verb>,
    #[serde(default)]
    show: Vec<Group>,
    #[serde(default)]
    all_versions: bool,
    #[serde(default)]
    follow: bool,
    #[serde(default)]
    skip_start: bool,
}

/// No option, no glob, no path: letters, digits and `extra`, not starting with a dash or a dot.
fn is_plain(text: &str, max: usize, extra: &[u8]) -> bool {
    !text.is_empty()
        && text.len() <= max
        && !text.starts_with(['-', '.'])
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || extra.contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_key() {
        let request = Request::parse(
            br#"{"schema": 1, "version": "0:4.3.0-2025", "repository": "itl", "pool": "fast",
                "plan": "00112233445566778899aabbccddeeff", "on-hangup": "cancel", "keywords": ["debian 13"]}"#,
        )
        .unwrap();
        assert_eq!(request.version.as_deref(), Some("0:4.3.0-2025"));
        assert_eq!(request.on_hangup, OnHangup::Cancel);
        assert_eq!(request.plan.unwrap().as_str(), "00112233445566778899aabbccddeeff");
        assert_eq!(Request::parse(b" \n").unwrap(), Request::default());
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for (text, error) in [
            (&br#"{"schema": 2}"#[..], RequestError::Schema),
            (br#"{"schema": 1, "nogpgcheck": true}"#, RequestError::Malformed),
            (br#"{"schema": 1, "version": "*"}"#, RequestError::Value("version")),
            (br#"{"schema": 1, "version": "--x"}"#, RequestError::Value("version")),
            (br#"{"schema": 1, "pool": "../x"}"#, RequestError::Value("pool")),
            (br#"{"schema": 1, "repository": "-x"}"#, RequestError::Value("repository")),
            (br#"{"schema": 1, "repository": "@commandline"}"#, RequestError::Value("repository")),
            (br#"{"schema": 1, "plan": "xyz"}"#, RequestError::Value("plan")),
            (br#"{"schema": 1, "keywords": ["a\u001b[2J"]}"#, RequestError::Value("keywords")),
            (br#"{"schema": 1, "verb": "list"}"#, RequestError::Value("verb")),
            (br#"{"schema": 1, "show": ["secrets"]}"#, RequestError::Malformed),
            (b"{", RequestError::Malformed),
            (b"\xff", RequestError::Malformed),
            (&[b' '; 5000], RequestError::TooLong),
        ] {
            assert_eq!(Request::parse(text).unwrap_err(), error, "{}", String::from_utf8_lossy(text));
        }
    }
}
