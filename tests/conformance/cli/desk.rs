//! Answers what a case's qube asks: dom0's Admin API from an emulated system, the UpdateVM by recorded replies, guests
//! by what the case says of them. Writes down what was asked.

use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context as _, Result};
use qvm_template::sandbox::qubesd::{Destination, Qubesd, Request, ServiceCall};
use qvm_template::template::provenance::RECORD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::super::support::packages::Packages;
use super::case::Case;
use super::front::Caller;
use super::reply::{self, Answer};

/// Who asks. The recorded populations have no management qube, and policy is not what is compared here.
const SOURCE: &str = "dom0";

/// A desk that is open.
#[derive(Debug)]
pub struct Desk {
    shared: Arc<Shared>,
    socket: PathBuf,
    door: JoinHandle<Vec<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    recordings: PathBuf,
    packages: Arc<Packages>,
    case: Case,
    dom0: Qubesd,
    /// Calls that policy refuses.
    deny: Vec<Rule>,
    /// Calls whose transport fails.
    broken: Vec<(Rule, i32, String)>,
    book: Mutex<Book>,
    closed: AtomicBool,
}

/// What was asked.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// Changing calls, services in qubes, helpers.
    pub calls: Vec<Value>,
    /// How many reading calls there were.
    pub reads: usize,
    /// Requests to the UpdateVM.
    pub requests: Vec<Value>,
    /// The same in full.
    pub payloads: Vec<String>,
    /// What went wrong at the desk itself.
    pub faults: Vec<String>,
    queries: usize,
    attempts: std::collections::BTreeMap<String, usize>,
}

/// A call that is meant.
#[derive(Clone, Debug)]
struct Rule {
    method: Option<String>,
    arg: Option<String>,
    dest: Option<String>,
}

impl Rule {
    fn read(rule: &Value) -> Self {
        let word = |key: &str| rule[key].as_str().filter(|word| *word != "*").map(ToOwned::to_owned);
        Self { method: word("method"), arg: word("arg"), dest: word("dest") }
    }

    fn fits(&self, method: &str, arg: &str, dest: &str) -> bool {
        let fits = |wanted: &Option<String>, word: &str| wanted.as_ref().is_none_or(|wanted| wanted == word);
        fits(&self.method, method) && fits(&self.arg, arg) && fits(&self.dest, dest)
    }
}

impl Desk {
    /// Opens a desk at `socket`.
    pub fn open(
        socket: &Path,
        recordings: &Path,
        packages: &Arc<Packages>,
        case: &Case,
        dom0: Qubesd,
        population: &Value,
    ) -> Result<Self> {
        let listener = UnixListener::bind(socket).context("opening the desk")?;
        let deny = population["deny"].as_array().into_iter().flatten().map(Rule::read).collect();
        let broken = population["fail"].as_array().into_iter().flatten().filter_map(|rule| {
            let status = i32::try_from(rule["status"].as_i64()?).ok()?;
            Some((Rule::read(rule), status, rule["stderr"].as_str().unwrap_or_default().to_owned()))
        });
        let broken = broken.collect();
        let shared = Arc::new(Shared {
            recordings: recordings.to_owned(),
            packages: Arc::clone(packages),
            case: case.clone(),
            dom0,
            deny,
            broken,
            book: Mutex::default(),
            closed: AtomicBool::new(false),
        });
        let for_door = Arc::clone(&shared);
        let door = std::thread::spawn(move || {
            let mut clerks = Vec::new();
            for visitor in listener.incoming() {
                let shared = Arc::clone(&for_door);
                if shared.closed.load(Ordering::Acquire) {
                    break;
                }
                if let Ok(visitor) = visitor {
                    clerks.push(std::thread::spawn(move || shared.serve(visitor)));
                }
            }
            clerks
        });
        Ok(Self { shared, socket: socket.to_owned(), door })
    }

    /// Waits for what is under way, and gives what was asked.
    pub fn close(self) -> Result<Book> {
        self.shared.closed.store(true, Ordering::Release);
        drop(UnixStream::connect(&self.socket).context("closing the desk")?);
        let clerks = self.door.join().map_err(|_| anyhow::anyhow!("the desk broke down"))?;
        for clerk in clerks {
            clerk.join().map_err(|_| anyhow::anyhow!("the desk broke down"))?;
        }
        Ok(self.shared.book().clone())
    }
}

/// A stream of frames to the caller.
struct Frames(UnixStream, u8);

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(1 << 20);
        let mut head = vec![self.1];
        head.extend(u32::try_from(taken).unwrap_or(0).to_be_bytes());
        self.0.write_all(&head)?;
        self.0.write_all(&bytes[..taken])?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, visitor: UnixStream) {
        match self.answer(&visitor) {
            Ok(rc) => {
                // The caller may have gone.
                let _ = Frames(visitor, 3).write_all(&[rc.to_le_bytes()[0]]);
            }
            // A caller that was ended in the middle of a call is no fault of the desk.
            Err(error) if error.downcast_ref::<io::Error>().is_some() => {}
            Err(error) => self.book().faults.push(format!("{error:#}")),
        }
    }

    fn answer(&self, visitor: &UnixStream) -> Result<i32> {
        let mut input = BufReader::new(visitor.try_clone()?);
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Ok(0);
        }
        let caller = serde_json::from_str(&line).context("understanding who calls")?;
        let mut out = Frames(visitor.try_clone()?, 1);
        let mut err = Frames(visitor.try_clone()?, 2);
        let answer = match caller {
            Caller::Helper { command } => {
                self.book().calls.push(json!({ "exec": command }));
                return Ok(0);
            }
            Caller::Local { service } => self.update_vm(&service, "", &mut input)?,
            Caller::Call { target, service } if service.starts_with("admin.") => {
                return self.admin(&target, &service, &mut input, &mut out, &mut err);
            }
            Caller::Call { target, .. } if !self.dom0.system().qubes.contains_key(&target) => {
                Answer { stderr: b"Request refused\n".to_vec(), rc: 126, ..Answer::default() }
            }
            Caller::Call { target, service } if service.starts_with("qubes.Template") => {
                self.update_vm(&service, &target, &mut input)?
            }
            Caller::Call { target, service } => self.guest(&target, &service)?,
        };
        // A caller that goes before it has everything is no fault.
        let _ = err.write_all(&answer.stderr);
        let _ = out.write_all(&answer.stdout);
        Ok(answer.rc)
    }

    fn admin(
        &self,
        target: &str,
        service: &str,
        input: &mut dyn Read,
        out: &mut Frames,
        err: &mut Frames,
    ) -> Result<i32> {
        let (method, arg) = match service.split_once('+') {
            Some((method, arg)) => (method, Some(arg)),
            None => (service, None),
        };
        // What we write down beside the original's features is read by nobody but us.
        let ours = method == "admin.vm.feature.Set" && arg == Some(RECORD);
        let place = if is_reading(method) {
            self.book().reads += 1;
            None
        } else if ours {
            None
        } else {
            let mut call = json!({ "method": method, "dest": target });
            if let Some(arg) = arg.filter(|arg| !arg.is_empty()) {
                call["arg"] = json!(arg);
            }
            let mut book = self.book();
            book.calls.push(call);
            Some(book.calls.len() - 1)
        };
        let note = |key: &str, value: Value| {
            if let Some(place) = place {
                self.book().calls[place][key] = value;
            }
        };
        let mut heard = Heard::new(input, method == "admin.vm.volume.ImportWithSize");
        let fits = |rule: &Rule| rule.fits(method, arg.unwrap_or_default(), target);
        let refused = self.deny.iter().any(fits).then(|| (126, "Request refused\n".to_owned()));
        let broken =
            self.broken.iter().find(|(rule, ..)| fits(rule)).map(|(_, rc, text)| (*rc, text.clone()));
        if let Some((rc, text)) = refused.or(broken) {
            // A caller that is refused before it said everything is no fault.
            let _ = io::copy(&mut heard, &mut io::sink());
            if !heard.line.is_empty() {
                note("payload", json!(String::from_utf8_lossy(&heard.line)));
            }
            if heard.image && heard.size > 0 {
                note("data_size", json!(heard.size));
                note("data_sha256", json!(hex(&heard.digest.finalize())));
            }
            note("error", json!(format!("status {rc}")));
            let _ = err.write_all(text.as_bytes());
            return Ok(rc);
        }
        let call = ServiceCall {
            source: SOURCE.to_owned(),
            service: method.to_owned(),
            arg: arg.unwrap_or_default().to_owned(),
            target: Destination::of_target(target),
        };
        let mut said = Said { first: Vec::new(), out };
        let rc = self.dom0.service(&call, &mut heard, &mut said, err)?;
        if !heard.line.is_empty() {
            note("payload", json!(String::from_utf8_lossy(&heard.line)));
        }
        if heard.image && heard.size > 0 {
            note("data_size", json!(heard.size));
            note("data_sha256", json!(hex(&heard.digest.finalize())));
        }
        if rc != 0 {
            note("error", json!(format!("status {rc}")));
        } else if let Some(error) = said.first.strip_prefix(b"2\0") {
            let class = error.split(|byte| *byte == 0).next().unwrap_or_default();
            note("error", json!(String::from_utf8_lossy(class)));
        } else if said.first.is_empty() {
            note("error", json!("empty"));
        }
        Ok(rc)
    }

    /// A service of the UpdateVM.
    fn update_vm(&self, service: &str, target: &str, input: &mut dyn Read) -> Result<Answer> {
        let mut request = Vec::new();
        input.read_to_end(&mut request).context("hearing a request")?;
        let request = String::from_utf8_lossy(&request).into_owned();
        let head = request.split_once("---\n").map_or(request.as_str(), |(head, _)| head);
        let entry = json!({ "service": service, "dest": target, "head": head });
        self.book().requests.push(entry);
        self.book().payloads.push(request.clone());
        if service == "qubes.TemplateSearch" {
            let mut book = self.book();
            let replies = &self.case.repo_reply;
            let name = &replies[book.queries.min(replies.len() - 1)];
            book.queries += 1;
            drop(book);
            return reply::search(&self.recordings, name, &self.packages);
        }
        let label = head.lines().last().unwrap_or_default();
        let attempt = {
            let mut book = self.book();
            let attempts = book.attempts.entry(label.to_owned()).or_default();
            *attempts += 1;
            *attempts - 1
        };
        let ways = self.case.download.get(label).map(Vec::as_slice).unwrap_or_default();
        let how = ways.get(attempt).or_else(|| ways.last()).map_or("ok", String::as_str);
        reply::download(&self.packages, label, how)
    }

    /// A service in a guest.
    fn guest(&self, target: &str, service: &str) -> Result<Answer> {
        self.book().calls.push(json!({ "service": service, "dest": target }));
        for (name, value) in &self.case.postinstall.features {
            self.dom0.call(&Request {
                source: "dom0".to_owned(),
                method: "admin.vm.feature.Set".to_owned(),
                arg: name.clone(),
                dest: Destination::of_target(target),
                payload: value.clone().into_bytes(),
            });
        }
        Ok(Answer { rc: self.case.postinstall.rc, ..Answer::default() })
    }
}

/// Whether a method of the Admin API changes nothing.
fn is_reading(method: &str) -> bool {
    let last = method.rsplit('.').next().unwrap_or_default();
    let reads =
        ["List", "Get", "GetAll", "GetDefault", "Info", "Help", "HelpRst", "CurrentState", "Events", "Stats"];
    let reads_more =
        ["ListSnapshots", "UsageDetails", "CheckWithTemplate", "CheckWithNetvm", "CheckWithAdminVM"];
    reads.contains(&last) || reads_more.contains(&last) || last.starts_with("CheckWith")
}

/// Input as it is heard: a payload is kept; of an import the first line, with length and digest of the rest.
struct Heard<'a> {
    from: &'a mut dyn Read,
    image: bool,
    line: Vec<u8>,
    ended: bool,
    size: u64,
    digest: Sha256,
}

impl<'a> Heard<'a> {
    fn new(from: &'a mut dyn Read, image: bool) -> Self {
        Self { from, image, line: Vec::new(), ended: false, size: 0, digest: Sha256::new() }
    }
}

impl Read for Heard<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let taken = self.from.read(into)?;
        let mut bytes = &into[..taken];
        if self.image && !self.ended {
            let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |at| at + 1);
            self.line.extend(&bytes[..end]);
            self.ended = self.line.ends_with(b"\n");
            bytes = &bytes[end..];
        } else if !self.image {
            self.line.extend(bytes);
            return Ok(taken);
        }
        self.size += bytes.len() as u64;
        self.digest.update(bytes);
        Ok(taken)
    }
}

/// Output as it is said, with its beginning kept.
struct Said<'a> {
    first: Vec<u8>,
    out: &'a mut Frames,
}

impl Write for Said<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.first.len() < 256 {
            self.first.extend(&bytes[..bytes.len().min(256)]);
        }
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
