//! A web server for tests that answers from memory and misbehaves on order.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use qvm_template::template::fnmatch;
use serde::Deserialize;

/// What goes wrong with the files of some paths.
#[derive(Clone, Debug, Deserialize)]
pub struct Fault {
    /// Pattern of the path.
    pub path: String,
    /// What happens.
    #[serde(flatten)]
    pub kind: Kind,
    /// How often; without it: always.
    #[serde(default)]
    pub times: Option<u64>,
}

/// What can go wrong.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Kind {
    /// Another status.
    Status {
        /// Which.
        code: u16,
    },
    /// The connection ends before this byte of the file.
    Cut {
        /// Which.
        at: usize,
    },
    /// A request for a range gets the whole file.
    IgnoreRange,
    /// A request for a range is refused.
    #[serde(rename = "range-416")]
    Range416,
    /// The announced length is another one.
    Length {
        /// By how much.
        delta: i64,
    },
    /// Nothing in it.
    Empty,
    /// This byte has its lowest bit changed.
    Corrupt {
        /// Which.
        at: usize,
    },
    /// The answer names another address.
    Redirect {
        /// Which.
        to: String,
    },
    /// Another file.
    Replace {
        /// Which.
        to: String,
    },
    /// It never ends.
    Endless,
    /// Nothing more after this many bytes, and the connection stays.
    Stall {
        /// How many.
        at: usize,
    },
}

impl Kind {
    fn name(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Cut { .. } => "cut",
            Self::IgnoreRange => "ignore-range",
            Self::Range416 => "range-416",
            Self::Length { .. } => "length",
            Self::Empty => "empty",
            Self::Corrupt { .. } => "corrupt",
            Self::Redirect { .. } => "redirect",
            Self::Replace { .. } => "replace",
            Self::Endless => "endless",
            Self::Stall { .. } => "stall",
        }
    }
}

/// Files by path; a path begins with `/`.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A server that runs until it is dropped.
#[derive(Debug)]
pub struct Web {
    /// `http://127.0.0.1:PORT`
    pub url: String,
    port: u16,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    files: Arc<Files>,
    faults: Mutex<Vec<Fault>>,
    log: Mutex<Vec<String>>,
    over: AtomicBool,
    /// Whether the first part of a path, `r` and a release, is left aside.
    releases: bool,
}

impl Web {
    /// Serves `files`. With `releases`, `/rVERSION/x` means `/x`.
    pub fn start(files: Arc<Files>, faults: Vec<Fault>, releases: bool) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("listening for a test")?;
        let port = listener.local_addr()?.port();
        let state = Arc::new(State {
            files,
            faults: Mutex::new(faults),
            log: Mutex::default(),
            over: AtomicBool::new(false),
            releases,
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                if shared.over.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(connection) = connection else { continue };
                let shared = Arc::clone(&shared);
                // A client that goes away is none of a server's business.
                std::thread::spawn(move || shared.serve(connection).ok());
            }
        });
        Ok(Self { url: format!("http://127.0.0.1:{port}"), port, state })
    }

    /// The requests so far: `GET PATH range=RANGE fault=FAULT`.
    pub fn log(&self) -> Vec<String> {
        self.state.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.state.over.store(true, Ordering::Relaxed);
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok();
    }
}

impl State {
    fn serve(&self, mut connection: TcpStream) -> Result<()> {
        let mut lines = BufReader::new(connection.try_clone()?).lines();
        let first = lines.next().context("no request")??;
        let mut range = None;
        for line in lines {
            let line = line?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            range = line.strip_prefix("range:").map(|value| value.trim().to_owned()).or(range);
        }
        let path = first.split(' ').nth(1).unwrap_or("/");
        let path = match path[1..].split_once('/') {
            Some((release, rest)) if self.releases && release.starts_with('r') => format!("/{rest}"),
            _ => path.to_owned(),
        };
        let fault = self.fault(&path);
        let entry = format!(
            "GET {path} range={} fault={}",
            range.as_deref().unwrap_or("-"),
            fault.as_ref().map_or("-", Kind::name)
        );
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
        self.answer(&mut connection, &path, range.as_deref(), fault.as_ref())
    }

    fn fault(&self, path: &str) -> Option<Kind> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        let fault =
            faults.iter_mut().find(|fault| fault.times != Some(0) && fnmatch::matches(&fault.path, path))?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.kind.clone())
    }

    fn answer(
        &self,
        out: &mut TcpStream,
        path: &str,
        range: Option<&str>,
        fault: Option<&Kind>,
    ) -> Result<()> {
        let mut status = 200;
        let mut more = String::new();
        let name = if let Some(Kind::Replace { to }) = fault { to } else { path };
        let mut body = self.files.get(name).cloned();
        match fault {
            Some(Kind::Status { code }) => (status, body) = (*code, Some(b"no".to_vec())),
            Some(Kind::Redirect { to }) => {
                (status, body) = (302, Some(Vec::new()));
                more = format!("Location: {}{to}\r\n", if self.releases { "/r" } else { "" });
            }
            Some(Kind::Empty) => body = Some(Vec::new()),
            Some(Kind::Corrupt { at }) => {
                if let Some(byte) = body.as_mut().and_then(|body| body.get_mut(*at)) {
                    *byte ^= 1;
                }
            }
            _ => {}
        }
        let Some(body) = body else {
            return Ok(write!(
                out,
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
            )?);
        };
        let mut from = 0;
        if let Some(start) =
            range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok())
        {
            if matches!(fault, Some(Kind::Range416)) || start >= body.len() {
                return Ok(write!(
                    out,
                    "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )?);
            }
            if !matches!(fault, Some(Kind::IgnoreRange)) && status == 200 {
                (from, status) = (start, 206);
                more = format!("Content-Range: bytes {start}-{}/{}\r\n", body.len() - 1, body.len());
            }
        }
        let delta = if let Some(Kind::Length { delta }) = fault { *delta } else { 0 };
        let length = i64::try_from(body.len() - from)? + delta;
        if !matches!(fault, Some(Kind::Endless)) {
            more += &format!("Content-Length: {length}\r\n");
        }
        write!(
            out,
            "HTTP/1.1 {status} Status\r\nETag: \"{:x}\"\r\n{more}Connection: close\r\n\r\n",
            body.len()
        )?;
        match fault {
            Some(Kind::Cut { at }) => out.write_all(&body[from..(*at).clamp(from, body.len())])?,
            Some(Kind::Stall { at }) => {
                out.write_all(&body[from..(*at).clamp(from, body.len())])?;
                while !self.over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(50));
                }
            }
            Some(Kind::Endless) => loop {
                out.write_all(&[b'x'; 8192])?;
            },
            _ => out.write_all(&body[from..from + usize::try_from(length)?.min(body.len() - from)])?,
        }
        Ok(())
    }
}
