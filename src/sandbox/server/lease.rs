//! The right to run commands in a sandbox, which keeps its server alive.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{Flock, FlockArg};

use super::super::view::View;
use super::{Grant, SERVE, Wish, sockets};

/// A lease. It ends with [`Lease::end`], or when the process does.
#[derive(Debug)]
pub struct Lease {
    stream: UnixStream,
    /// The server, where this process started it.
    server: Option<Child>,
}

impl Lease {
    /// Joins the server of a sandbox, or starts it, and asks how the world looks from a qube.
    pub fn take(dir: &Path, qube: &str, uid: u32) -> Result<(Self, View)> {
        let dir = dir.canonicalize().with_context(|| format!("finding {}", dir.display()))?;
        ensure!(
            dir.join("system.json").exists(),
            "{} is no sandbox: `qubes-sandbox new` makes one",
            dir.display()
        );
        let run = dir.join("run");
        fs::create_dir_all(run.join("stage")).with_context(|| format!("making {}", run.display()))?;
        let lock = lock(&dir)?;
        let (stream, server) = match sockets::connect(&run, "control.sock") {
            Ok(stream) => (stream, None),
            Err(_) => {
                let server = start(&dir)?;
                (sockets::connect(&run, "control.sock").context("reaching the server")?, Some(server))
            }
        };
        let mut lease = Self { stream, server };
        // Once it has counted the lease, the server stays, and others may come and go.
        let counted = lease.stream.read_exact(&mut [0]);
        drop(lock);
        counted.context("listening to the server")?;
        let view = lease.ask(&Wish { qube: qube.to_owned(), uid })?;
        Ok((lease, view))
    }

    fn ask(&mut self, wish: &Wish) -> Result<View> {
        let mut text = serde_json::to_vec(wish).context("writing a wish")?;
        text.push(b'\n');
        self.stream.write_all(&text).context("asking the server")?;
        let mut line = String::new();
        BufReader::new(&self.stream).read_line(&mut line).context("listening to the server")?;
        match serde_json::from_str(&line).context("understanding the server; see run/server.log")? {
            Grant::View(view) => Ok(*view),
            Grant::Refused(why) => bail!("{why}"),
        }
    }

    /// Ends the lease, and with the last one the server, which has gone when this returns.
    pub fn end(mut self) {
        // A server that was killed has closed it before.
        let _ = self.stream.shutdown(Shutdown::Write);
        let _ = self.stream.read_to_end(&mut Vec::new());
        if let Some(mut server) = self.server.take() {
            // It goes on where others hold leases.
            let _ = server.try_wait();
        }
    }
}

/// Takes the lock under which servers come and go.
pub(super) fn lock(dir: &Path) -> Result<Flock<File>> {
    let path = dir.join("run/lock");
    let file = File::create(&path).with_context(|| format!("opening {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| errno)
        .with_context(|| format!("locking {}", path.display()))
}

fn start(dir: &Path) -> Result<Child> {
    let log = dir.join("run/server.log");
    let errors = File::create(&log).with_context(|| format!("opening {}", log.display()))?;
    let program = std::env::current_exe().context("finding this program")?;
    let mut server = Command::new(program)
        .arg(SERVE)
        .arg(dir)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(errors)
        // Ctrl-C is for the command, not for the server.
        .process_group(0)
        .spawn()
        .context("starting the server")?;
    let mut line = String::new();
    let out = server.stdout.take().context("listening to the server")?;
    BufReader::new(out).read_line(&mut line).context("listening to the server")?;
    if line != "ready\n" {
        // It says why before it ends.
        let _ = server.wait();
        let why = fs::read_to_string(&log).unwrap_or_default();
        bail!("the server did not start: {}", why.trim());
    }
    Ok(server)
}
