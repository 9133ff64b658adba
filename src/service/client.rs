//! Opens files of a repository: from a folder, or over HTTP with the repository's own certificates and proxy.
//!
//! Every wait is bounded: connecting, the first byte, each further read, and the average rate.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use base64::Engine as _;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};

use super::address::Address;
use super::checksum::Checksum;
use super::proxy::ProxyChoice;
use crate::repo::file::Repo;
use crate::repo::wire::Request;

/// Largest file with certificates or keys, in bytes.
const MAX_PEM: u64 = 4 << 20;

/// Longest time that one file of metadata may take.
const METADATA_TIME: Duration = Duration::from_secs(15 * 60);

/// Opens the files of one repository.
#[derive(Debug)]
pub struct Client {
    agent: ureq::Agent,
    proxy: ProxyChoice,
    authorization: Option<String>,
    stall: Duration,
    min_rate: u64,
    tls_failure: Option<String>,
}

/// What tells two states of a file on a server apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Validator(String);

/// Where to go on with a file of which a part is there already.
#[derive(Clone, Debug)]
pub struct Resume {
    /// First byte wanted.
    pub from: u64,
    /// The state of the file that the part belongs to.
    pub validator: Validator,
}

/// A file that was opened.
pub struct Opened {
    /// First byte that [`Opened::body`] gives.
    pub from: u64,
    /// Size of the whole file, where the server says it.
    pub size: Option<u64>,
    /// Its state.
    pub validator: Option<Validator>,
    /// The bytes.
    pub body: Box<dyn Read + Send>,
}

/// The server has the file not, or not for us: asking again does not help.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("HTTP status {0}")]
pub struct Status(pub u16);

impl Status {
    /// Whether the answer will be the same next time.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self.0, 400..=407 | 410 | 451)
    }
}

impl Client {
    /// The client of `repo`, whose values are expanded. Certificates that came along with `request` are taken from
    /// there, others from this machine.
    ///
    /// # Errors
    /// A number cannot be read.
    pub fn new(repo: &Repo, request: &Request, proxy: &ProxyChoice) -> Result<Self> {
        let seconds = number(repo, "timeout", 30)?.clamp(1, 600);
        let stall = Duration::from_secs(seconds);
        // Certificates that cannot be used matter only where they are used.
        let (tls, tls_failure) = match tls(repo, request) {
            Ok(tls) => (tls, None),
            Err(error) => (TlsConfig::default(), Some(format!("{error:#}"))),
        };
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("qubes-template-service/", env!("CARGO_PKG_VERSION")))
            .max_redirects(8)
            .timeout_resolve(Some(stall))
            .timeout_connect(Some(stall))
            .timeout_recv_response(Some(stall))
            .timeout_per_read(Some(stall))
            .tls_config(tls)
            .proxy(None)
            .build()
            .into();
        let authorization = repo.option("username").map(|user| {
            let pair = format!("{user}:{}", repo.option("password").unwrap_or(""));
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
        });
        let proxy = proxy.for_repo(repo);
        Ok(Self { agent, proxy, authorization, stall, min_rate: number(repo, "minrate", 1000)?, tls_failure })
    }

    /// Opens the file at `address`, at the beginning or, if the server can and the state is the same, further on.
    ///
    /// # Errors
    /// [`Status`] where a server refuses; everything else that can go wrong on the way.
    pub fn open(&self, address: &Address, resume: Option<&Resume>) -> Result<Opened> {
        match address {
            Address::File(path) => {
                let mut file = File::open(path).context("opening the file")?;
                let about = file.metadata()?;
                if !about.is_file() {
                    bail!("not a file");
                }
                let from = resume.map_or(0, |resume| resume.from.min(about.len()));
                file.seek(SeekFrom::Start(from))?;
                Ok(Opened { from, size: Some(about.len()), validator: None, body: Box::new(file) })
            }
            Address::Web(url) => self.open_web(url, resume),
        }
    }

    fn open_web(&self, url: &str, resume: Option<&Resume>) -> Result<Opened> {
        if let Some(failure) = self.tls_failure.as_ref().filter(|_| url.starts_with("https:")) {
            bail!("{failure}");
        }
        let mut get = self.agent.get(url).config().proxy(self.proxy.for_url(url)?).build();
        if let Some(authorization) = &self.authorization {
            get = get.header("Authorization", authorization);
        }
        if let Some(Resume { from, validator }) = resume {
            get = get.header("Range", format!("bytes={from}-")).header("If-Range", &validator.0);
        }
        let response = get.call().map_err(|error| anyhow!("{error}"))?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let length = header("content-length").and_then(|text| text.parse::<u64>().ok());
        let (from, size) = match (response.status().as_u16(), resume) {
            (200, _) => (0, length),
            (206, Some(resume)) => {
                let (from, size) = header("content-range")
                    .and_then(content_range)
                    .context("the server's range cannot be read")?;
                if from != resume.from {
                    bail!("the server sent another range than the one asked for");
                }
                (from, size)
            }
            (status, _) => return Err(Status(status).into()),
        };
        let strong = header("etag").filter(|tag| !tag.starts_with("W/"));
        let validator = strong.or_else(|| header("last-modified")).map(|text| Validator(text.to_owned()));
        let body = Paced {
            source: response.into_body().into_reader(),
            stall: self.stall,
            min_rate: self.min_rate,
            since: Instant::now(),
            count: 0,
        };
        Ok(Opened { from, size, validator, body: Box::new(body) })
    }

    /// The whole file, if it is not larger than `limit`.
    ///
    /// # Errors
    /// As [`Client::open`]; too large.
    pub fn read(&self, address: &Address, limit: u64) -> Result<Vec<u8>> {
        let opened = self.open(address, None)?;
        if opened.size.is_some_and(|size| size > limit) {
            bail!("larger than {limit} bytes");
        }
        let mut bytes = Vec::new();
        drain(opened.body, limit, |part| {
            bytes.extend_from_slice(part);
            Ok(())
        })?;
        if opened.size.is_some_and(|size| size != bytes.len() as u64) {
            bail!("the connection ended too early");
        }
        Ok(bytes)
    }

    /// Copies the whole file to `out`, if it is not larger than `limit` and has the checksum.
    ///
    /// # Errors
    /// As [`Client::open`]; too large; another checksum.
    pub fn fetch(
        &self,
        address: &Address,
        limit: u64,
        checksum: &Checksum,
        out: &mut impl Write,
    ) -> Result<()> {
        let opened = self.open(address, None)?;
        let mut hasher = checksum.hasher();
        drain(opened.body, limit, |part| {
            hasher.update(part);
            out.write_all(part).context("writing the metadata to a file")
        })?;
        if hasher.finish() != *checksum {
            bail!("the checksum is not the one that repomd.xml names");
        }
        Ok(())
    }
}

/// Gives all of `source` to `take`, if it is not more than `limit` and does not take longer than [`METADATA_TIME`].
fn drain(mut source: impl Read, limit: u64, mut take: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let begun = Instant::now();
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        let count = source.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        total += count as u64;
        if total > limit {
            bail!("larger than {limit} bytes");
        }
        if begun.elapsed() > METADATA_TIME {
            bail!("not complete after {} minutes", METADATA_TIME.as_secs() / 60);
        }
        take(&buffer[..count])?;
    }
}

fn tls(repo: &Repo, request: &Request) -> Result<TlsConfig> {
    let pem = |value: &str| -> Result<Vec<u8>> {
        let path = value.strip_prefix("file://").unwrap_or(value);
        match request.key(path) {
            Some(bytes) => Ok(bytes.to_vec()),
            None => read_bounded(File::open(path)?, MAX_PEM),
        }
    };
    let roots = match &repo.sslcacert {
        Some(path) => {
            let certificates = pem(path).and_then(|pem| certificates(&pem)).context("reading sslcacert")?;
            RootCerts::new_with_certs(&certificates)
        }
        None => RootCerts::Specific(SYSTEM_ROOTS.clone()),
    };
    let client_cert = match (&repo.sslclientcert, &repo.sslclientkey) {
        (Some(cert), key) => {
            let chain = pem(cert).and_then(|pem| certificates(&pem)).context("reading sslclientcert")?;
            let key = pem(key.as_ref().unwrap_or(cert))
                .and_then(|pem| Ok(PrivateKey::from_pem(&pem)?))
                .context("reading sslclientkey")?;
            Some(ClientCert::new_with_certs(&chain, key))
        }
        (None, _) => None,
    };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(client_cert)
        .disable_verification(!repo.sslverify)
        .build())
}

/// The certificates of this machine, empty where it has none.
static SYSTEM_ROOTS: LazyLock<Arc<Vec<Certificate<'static>>>> = LazyLock::new(|| {
    let found = rustls_native_certs::load_native_certs();
    Arc::new(found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect())
});

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>> {
    let mut found = Vec::new();
    for item in ureq::tls::parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        bail!("no certificate in it");
    }
    Ok(found)
}

fn number(repo: &Repo, key: &str, default: u64) -> Result<u64> {
    repo.option(key).map_or(Ok(default), |text| text.parse().with_context(|| format!("reading {key}")))
}

fn read_bounded(source: impl Read, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    source.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        bail!("larger than {limit} bytes");
    }
    Ok(bytes)
}

/// First byte and size of the whole file in `bytes 5-9/10`.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let from = range.split_once('-')?.0.parse().ok()?;
    Some((from, size.parse().ok()))
}

/// Gives up on a server that sends, on average, fewer bytes a second than wanted.
struct Paced<R> {
    source: R,
    stall: Duration,
    min_rate: u64,
    since: Instant,
    count: u64,
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into).map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("the server sent nothing for {} seconds", self.stall.as_secs()),
            ),
            _ => error,
        })?;
        self.count += count as u64;
        let waited = self.since.elapsed();
        if waited >= self.stall {
            if self.count < self.min_rate.saturating_mul(waited.as_secs()) && count > 0 {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    format!("the server sends less than {} bytes a second", self.min_rate),
                ));
            }
            (self.since, self.count) = (Instant::now(), 0);
        }
        Ok(count)
    }
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("from", &self.from).field("size", &self.size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        assert_eq!(content_range("bytes */10"), None);
        assert_eq!(content_range("5-9/10"), None);
    }

    #[test]
    fn a_slow_server_is_given_up() {
        struct Drip;
        impl Read for Drip {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                std::thread::sleep(Duration::from_millis(20));
                into[0] = 0;
                Ok(1)
            }
        }
        let mut slow = Paced {
            source: Drip,
            stall: Duration::from_secs(1),
            min_rate: 1000,
            since: Instant::now(),
            count: 0,
        };
        let error = io::copy(&mut slow, &mut io::sink()).unwrap_err();
        assert_eq!(error.to_string(), "the server sends less than 1000 bytes a second");
    }
}
