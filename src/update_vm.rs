//! The UpdateVM: it knows repositories and has a network, and nothing that it says is believed.
//!
//! Two services, reached over qrexec or, where there is no UpdateVM, run from `/etc/qubes-rpc` of this qube:
//! `qubes.TemplateSearch` answers with offers, `qubes.TemplateDownload` with the bytes of one package. Both take the
//! same [`Request`]. Answers are bounded in size and in time; what comes out of a search is a list of claims, what comes
//! out of a download goes into a spool and is worth nothing before it was verified.
//!
//! | status | meaning | what we do |
//! |---|---|---|
//! | 126 | policy refused, or no such qube | say which rule is missing; never tried again, each refusal shows a dialog |
//! | 127 | the service is not installed | say which package; never tried again |
//! | other | the service failed | show its own lines as `[Qrexec] ...`; a download may be tried again |

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{AdminApi, CallError, QubeApi, system};
use crate::confine;
use crate::qrexec::{self, Ended, Escapes, Limits, NO_SERVICE, Pending, Program, REFUSED, RunError, Side};
use crate::repo::wire::{self, ReplyError, Request, RequestError, SearchReply};
use crate::report::{Message, Reporter};
use crate::untrusted::displayable;

/// Name of the search service.
pub const SEARCH: &str = "qubes.TemplateSearch";
/// Name of the download service.
pub const DOWNLOAD: &str = "qubes.TemplateDownload";

/// Time over which the rate of a download is measured.
const MINUTE: Duration = Duration::from_secs(60);
/// How much of a service's error text is kept.
const MAX_ERRORS: usize = 64 * 1024;
/// How many lines of it are shown.
const MAX_LINES: usize = 50;

/// How long is waited for an UpdateVM, and how much is taken from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Longest search.
    pub search: Duration,
    /// Most bytes of an answer to a search.
    pub reply: usize,
    /// Longest download in all.
    pub download: Duration,
    /// Longest wait for a download's first byte.
    pub first: Duration,
    /// Longest time in which a download stands still.
    pub stall: Duration,
    /// Fewest bytes a second that an answer brings once it began, over the time that it may stand still; none are demanded if this is 0.
    pub rate: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            // A repository's metadata may come through Tor, and nothing is sent before all of it was read.
            search: 20 * MINUTE,
            reply: wire::Limits::default().bytes,
            download: 3 * 24 * 60 * MINUTE,
            // The download service looks the package up first, which can take as long as a search.
            first: 10 * MINUTE,
            // A download that stands still for so long has lost its peer.
            stall: MINUTE,
            // A fraction of what Tor does on a bad day.
            rate: 1 << 10,
        }
    }
}

/// Somebody who finds and fetches packages.
pub trait UpdateVm {
    /// Name of the qube; empty for this one.
    fn name(&self) -> &str;

    /// Asks what there is.
    fn search<'a>(&'a self, request: &'a Request) -> Pending<'a, Result<Found, SearchError>>;

    /// Fetches one package of exactly `size` bytes and gives them to `sink` as they come.
    fn download<'a>(
        &'a self,
        request: &'a Request,
        size: u64,
        sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Pending<'a, Result<(), DownloadError>>;
}

/// What a search brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The offers.
    pub reply: SearchReply,
    /// What the service wrote to its standard error although it succeeded: worth showing when nothing was found.
    pub remarks: Vec<String>,
    /// The reply as it came.
    pub untrusted_bytes: Arc<[u8]>,
}

/// Why there is no UpdateVM to ask.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The property is empty, and the services are not here either.
    #[error(
        "no UpdateVM is set, and {SEARCH} is not installed here\n\
         help: set one with 'qubes-prefs updatevm NAME' in dom0, or name one with '--updatevm=NAME'"
    )]
    NotSet,
    /// A call to dom0 failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// The request cannot be written down.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The service failed; its own words were said already.
    #[error("qrexec call '{SEARCH}' failed.{0}")]
    Failed(String),
    /// The answer is none.
    #[error("qrexec call '{SEARCH}' failed: unexpected data format.")]
    Format,
    /// The answer is out of bounds.
    #[error("qrexec call '{SEARCH}' failed: {0}.")]
    Bounds(ReplyError),
    /// The service could not be run, or did not end.
    #[error("qrexec call '{SEARCH}' failed: {0}")]
    Run(RunError),
    /// The UpdateVM could not be started.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The request cannot be written down.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The service failed; its own words were said already.
    #[error("qrexec call '{DOWNLOAD}' failed{0}")]
    Failed(String),
    /// It may not be called, or is not there: trying again is of no use.
    #[error("qrexec call '{DOWNLOAD}' failed{0}")]
    Unusable(String),
    /// Fewer bytes than announced.
    #[error("the download ended after {got} of {announced} bytes")]
    Short {
        /// What the repository says.
        announced: u64,
        /// What came.
        got: u64,
    },
    /// More bytes than announced.
    #[error("more than the {0} bytes that the repository announced were sent")]
    Long(u64),
    /// The service could not be run, or stood still.
    #[error("the download stopped: {0}")]
    Run(RunError),
    /// The spool could not take it: trying again is of no use.
    #[error("keeping the download")]
    Keep(#[source] io::Error),
    /// The UpdateVM could not be started.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl DownloadError {
    /// Whether another attempt may succeed.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Failed(_) | Self::Short { .. } | Self::Long(_) => true,
            Self::Run(error) => {
                matches!(error, RunError::Stalled(_) | RunError::Slow { .. } | RunError::Late(_))
            }
            Self::Request(_) | Self::Unusable(_) | Self::Keep(_) | Self::Call(_) => false,
        }
    }
}

/// The services of another qube, or those of this one.
pub struct UpdateQube<'a> {
    api: &'a dyn AdminApi,
    reporter: &'a dyn Reporter,
    side: Side,
    /// `None`: here.
    name: Option<String>,
    bounds: Bounds,
}

impl std::fmt::Debug for UpdateQube<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UpdateQube")
            .field("side", &self.side)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<'a> UpdateQube<'a> {
    /// Finds the UpdateVM: `option` as given with `--updatevm` (empty: here), else the system's. Whether there is such a
    /// qube shows when it is called: to see it in a list would need a right that nothing else needs.
    ///
    /// # Errors
    /// When none is set.
    pub async fn resolve(
        api: &'a dyn AdminApi,
        reporter: &'a dyn Reporter,
        option: Option<&str>,
    ) -> Result<Self, ResolveError> {
        let name = match option {
            Some(name) => name.to_owned(),
            None => system::property(api, "updatevm").await?.value,
        };
        let here = |name| Self { api, reporter, side: Side::here(), name, bounds: Bounds::default() };
        if name.is_empty() {
            let installed = Path::new(Program::local_service(SEARCH).path()).exists();
            return if installed || option.is_some() { Ok(here(None)) } else { Err(ResolveError::NotSet) };
        }
        Ok(here(Some(name)))
    }

    /// The same, within these bounds.
    #[must_use]
    pub fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    async fn program(&self, service: &str, escapes: Escapes) -> Result<Program, CallError> {
        let Some(name) = &self.name else { return Ok(Program::local_service(service)) };
        if self.side == Side::Dom0 {
            QubeApi::new(self.api, name).start().await?;
        }
        Ok(Program::service(self.side, name, service, None, escapes))
    }

    /// Fewest bytes in the time that an answer may stand still.
    fn pace(&self) -> Option<(u64, Duration)> {
        let Bounds { rate, stall, .. } = self.bounds;
        (rate > 0).then(|| (rate.saturating_mul(stall.as_secs()), stall))
    }

    /// What a status means beyond "failed": nothing, or a help line.
    fn hint(&self, service: &str, ended: &Ended) -> Option<String> {
        let place = self.name.as_deref().map_or_else(|| "this qube".to_owned(), |name| format!("'{name}'"));
        match ended.status {
            REFUSED => Some(format!(
                "\nhelp: no qrexec policy rule allows {service} to {place}, or there is no such qube"
            )),
            NO_SERVICE => Some(format!(
                "\nhelp: {service} is not installed in {place}; the package qubes-core-agent-dom0-updates or \
                 qubes-template-service there provides it"
            )),
            _ => None,
        }
    }

    async fn searched(&self, request: &Request) -> Result<Found, SearchError> {
        let bounds = wire::Limits { bytes: self.bounds.reply, ..wire::Limits::default() };
        let limits = Limits {
            output: u64::try_from(bounds.bytes).unwrap_or(u64::MAX),
            errors: MAX_ERRORS,
            total: Some(self.bounds.search),
            first: None,
            idle: Some(self.bounds.stall),
            pace: self.pace(),
        };
        let bytes = request.encode()?;
        let program = self.program(SEARCH, Escapes::Filtered).await?;
        let (output, ended) = program.output(&bytes, limits).await.map_err(|error| match error {
            RunError::TooMuch(_) => SearchError::Bounds(ReplyError::TooLarge(bounds.bytes)),
            other => SearchError::Run(other),
        })?;
        let remarks = lines(&ended.errors);
        if ended.status != 0 {
            let bare = if remarks.is_empty() { vec![String::new()] } else { remarks };
            bare.iter().for_each(|line| self.reporter.say(&Message::Remote(line)));
            return Err(SearchError::Failed(self.hint(SEARCH, &ended).unwrap_or_default()));
        }
        let parsed = confine::run(|| SearchReply::parse(&output, bounds))
            .map_err(|error| SearchError::Run(RunError::Taking(error)))?;
        let reply = parsed.map_err(|error| match error {
            ReplyError::Format => SearchError::Format,
            other => SearchError::Bounds(other),
        })?;
        Ok(Found { reply, remarks, untrusted_bytes: output.into() })
    }

    async fn downloaded(
        &self,
        request: &Request,
        size: u64,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), DownloadError> {
        let limits = Limits {
            output: size,
            errors: MAX_ERRORS,
            total: Some(self.bounds.download),
            first: Some(self.bounds.first),
            idle: Some(self.bounds.stall),
            pace: self.pace(),
        };
        let bytes = request.encode()?;
        let program = self.program(DOWNLOAD, Escapes::Raw).await?;
        let mut got = 0;
        let mut refused = false;
        let ended = program
            .stream(&bytes, limits, &mut |chunk| {
                got += u64::try_from(chunk.len()).unwrap_or(u64::MAX);
                sink(chunk).inspect_err(|_| refused = true)
            })
            .await;
        let ended = ended.map_err(|error| match error {
            RunError::TooMuch(_) => DownloadError::Long(size),
            RunError::Taking(error) if refused => DownloadError::Keep(error),
            other => DownloadError::Run(other),
        })?;
        if ended.status != 0 {
            lines(&ended.errors).iter().for_each(|line| self.reporter.say(&Message::Remote(line)));
            return Err(match self.hint(DOWNLOAD, &ended) {
                Some(hint) => DownloadError::Unusable(hint),
                None if ended.status == qrexec::QREXEC_FAILED => {
                    DownloadError::Failed(": no connection".into())
                }
                None => DownloadError::Failed(format!(" with status {} after {got} bytes", ended.status)),
            });
        }
        if got == size { Ok(()) } else { Err(DownloadError::Short { announced: size, got }) }
    }
}

impl UpdateVm for UpdateQube<'_> {
    fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }

    fn search<'a>(&'a self, request: &'a Request) -> Pending<'a, Result<Found, SearchError>> {
        Box::pin(self.searched(request))
    }

    fn download<'a>(
        &'a self,
        request: &'a Request,
        size: u64,
        sink: &'a mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Pending<'a, Result<(), DownloadError>> {
        Box::pin(self.downloaded(request, size, sink))
    }
}

/// What a service wrote to standard error, fit to be shown.
fn lines(untrusted_errors: &[u8]) -> Vec<String> {
    let text = displayable(&String::from_utf8_lossy(untrusted_errors), true);
    let text = text.strip_suffix('\n').unwrap_or(&text);
    if text.is_empty() {
        return Vec::new();
    }
    text.split('\n').take(MAX_LINES).map(|line| line.trim_end().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_lines_are_bounded_and_harmless() {
        assert_eq!(lines(b""), Vec::<String>::new());
        assert_eq!(lines(b"one\n\n  two\nESC \x1b[31m end\n"), ["one", "", "  two", "ESC _[31m end"]);
        assert_eq!(lines(&b"x\n".repeat(1000)).len(), MAX_LINES);
    }

    #[test]
    fn only_passing_failures_are_tried_again() {
        for (passing, error) in [
            (true, DownloadError::Failed(String::new())),
            (true, DownloadError::Short { announced: 2, got: 1 }),
            (true, DownloadError::Run(RunError::Stalled(MINUTE))),
            (false, DownloadError::Unusable(String::new())),
            (false, DownloadError::Keep(io::Error::other("full"))),
            (false, DownloadError::Run(RunError::Missing("x".into()))),
        ] {
            assert_eq!(error.is_passing(), passing, "{error}");
        }
    }
}
