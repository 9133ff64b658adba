//! A real nginx with a prefix and configuration of its own, on loopback, for as long as the value lives.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// A running server.
#[derive(Debug)]
pub struct Nginx {
    /// `http://127.0.0.1:PORT` or `https://localhost:PORT`
    pub url: String,
    child: Child,
    prefix: tempfile::TempDir,
}

impl Nginx {
    /// Serves the files below `root`; `more` stands in the server block (`ssl_certificate` there makes it TLS).
    pub fn start(root: &Path, more: &str) -> Result<Self> {
        // Another process may take the port between the choice and nginx's own start.
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::start_once(root, more) {
                Err(error) if tries == 3 => return Err(error),
                Err(_) => {}
                running => return running,
            }
        }
    }

    fn start_once(root: &Path, more: &str) -> Result<Self> {
        let program = super::peer("nginx", "nginx-light");
        let prefix = crate::support::programs::folder()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let tls = more.contains("ssl_certificate");
        let at = prefix.path().display();
        let places: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {at}/{kind};\n"))
            .collect();
        let configuration = format!(
            "daemon off;\nmaster_process off;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\nhttp {{\naccess_log {at}/access.log;\n\
             {places}default_type application/octet-stream;\nserver {{\nlisten 127.0.0.1:{port}{};\nroot {};\n{more}\n}}\n}}\n",
            if tls { " ssl" } else { "" },
            root.display()
        );
        fs::write(prefix.path().join("nginx.conf"), configuration)?;
        let child = Command::new(program)
            .args(["-p", &at.to_string(), "-c", "nginx.conf", "-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("starting nginx")?;
        let url = if tls { format!("https://localhost:{port}") } else { format!("http://127.0.0.1:{port}") };
        let mut nginx = Self { url, child, prefix };
        let begun = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if nginx.child.try_wait()?.is_some() || begun.elapsed() > Duration::from_secs(10) {
                bail!(
                    "nginx does not run: {}",
                    fs::read_to_string(nginx.prefix.path().join("error.log")).unwrap_or_default()
                );
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }

    /// Requests answered so far: `GET /path HTTP/1.1" 200` and so on, a line each.
    pub fn log(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.prefix.path().join("access.log"))?;
        Ok(text
            .lines()
            .filter_map(|line| line.split('"').nth(1).zip(line.split('"').nth(2)))
            .map(|(request, rest)| format!("{} {}", request, rest.split_whitespace().next().unwrap_or("")))
            .collect())
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
