//! The request of both services: written byte for byte as the original client writes it, read as the stock service
//! reads it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::repo::choice::RepoOption;
use crate::repo::keys::KeyFile;

const BLOCK_BEGIN: &str = "###!Q!BEGIN-QUBES-WRAPPER!Q!###";
const BLOCK_END: &str = "###!Q!END-QUBES-WRAPPER!Q!###";

/// Largest request that the service reads, in bytes.
pub const MAX_REQUEST: usize = 16 << 20;

/// What the client asks of the UpdateVM.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Repository options in command-line order.
    pub options: Vec<RepoOption>,
    /// Whether cached metadata must not be used.
    pub refresh: bool,
    /// Value of `$releasever`.
    pub releasever: Option<String>,
    /// Which packages: `*`, a name, a pattern, a name with a version. Data, never an option.
    pub spec: String,
    /// Text of the repository files, each followed by a line feed.
    pub repo_text: String,
    /// Key files that the repositories name.
    pub key_block: Vec<KeyFile>,
}

/// Why a request cannot be written down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// A line feed would begin a new line of the request.
    #[error("Malformed {0}: argument should not contain '\\n'.")]
    LineFeed(&'static str),
    /// The spec would end the options.
    #[error("Malformed template name: argument should not be '---'.")]
    Separator,
}

impl Request {
    /// The bytes to send.
    ///
    /// # Errors
    /// An option or the spec would be read as something else.
    pub fn encode(&self) -> Result<Vec<u8>, RequestError> {
        let mut text = String::new();
        for option in &self.options {
            let name = match option {
                RepoOption::Enable(_) => "--enablerepo",
                RepoOption::Disable(_) => "--disablerepo",
                RepoOption::Only(_) => "--repoid",
            };
            line(&mut text, name, &format!("{name}={}", option.argument()))?;
        }
        if self.refresh {
            text.push_str("--refresh\n");
        }
        if let Some(releasever) = &self.releasever {
            line(&mut text, "--releasever", &format!("--releasever={releasever}"))?;
        }
        if self.spec == "---" {
            return Err(RequestError::Separator);
        }
        line(&mut text, "template name", &self.spec)?;
        text.push_str("---\n");
        text.push_str(&self.repo_text);
        if !self.key_block.is_empty() {
            text.push_str(&format!("\n{BLOCK_BEGIN}\n"));
            for key in &self.key_block {
                text.push_str(&format!("#{}\n#{}\n", key.path, STANDARD.encode(&key.bytes)));
            }
            text.push_str(BLOCK_END);
        }
        Ok(text.into_bytes())
    }

    /// Reads a request the way the stock service does: known options up to the line `---`, the last other line is
    /// the spec (so a word that looks like an option, but is none of these, is only a name that nothing has), the rest
    /// is the repository text. A last line without its line feed is not looked at.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut request = Self::default();
        let mut rest: &str = &text;
        while let Some((line, after)) = rest.split_once('\n') {
            rest = after;
            if line == "---" {
                request.read_repositories(rest);
                break;
            }
            request.read_option(line);
        }
        request
    }

    fn read_option(&mut self, line: &str) {
        if line == "--refresh" {
            self.refresh = true;
        } else if let Some((name, value)) = line.strip_prefix("--").and_then(|rest| rest.split_once('='))
            && (name == "releasever" || RepoOption::from_name(name, value).is_some())
        {
            match RepoOption::from_name(name, value) {
                Some(option) => self.options.push(option),
                None => self.releasever = Some(value.to_owned()),
            }
        } else {
            line.clone_into(&mut self.spec);
        }
    }

    fn read_repositories(&mut self, text: &str) {
        let (repos, block) = split_block(text);
        repos.clone_into(&mut self.repo_text);
        let mut lines = block.lines().take_while(|line| *line != BLOCK_END);
        while let (Some(path), Some(content)) = (lines.next(), lines.next()) {
            let (Some(path), Some(content)) = (path.strip_prefix('#'), content.strip_prefix('#')) else {
                continue;
            };
            if let Ok(bytes) = STANDARD.decode(content) {
                self.key_block.push(KeyFile { path: path.to_owned(), bytes });
            }
        }
    }

    /// The content of a key file that came with the request, by its path or `file://` address.
    #[must_use]
    pub fn key(&self, value: &str) -> Option<&[u8]> {
        let path = value.strip_prefix("file://").unwrap_or(value);
        self.key_block.iter().find(|key| key.path == path).map(|key| key.bytes.as_slice())
    }
}

/// The text before and after the line that begins the key block, without the line feed that stands before it.
fn split_block(text: &str) -> (&str, &str) {
    let begin = if text.starts_with(BLOCK_BEGIN) {
        Some(0)
    } else {
        text.find(&format!("\n{BLOCK_BEGIN}")).map(|at| at + 1)
    };
    match begin {
        Some(at) => {
            let block = text[at..].split_once('\n').map_or("", |(_, block)| block);
            (text[..at].strip_suffix('\n').unwrap_or(""), block)
        }
        None => (text, ""),
    }
}

fn line(text: &mut String, what: &'static str, content: &str) -> Result<(), RequestError> {
    if content.contains('\n') {
        return Err(RequestError::LineFeed(what));
    }
    text.push_str(content);
    text.push('\n');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request() -> Request {
        Request {
            options: vec![
                RepoOption::Enable("a*".into()),
                RepoOption::Only("b".into()),
                RepoOption::Disable("c".into()),
            ],
            refresh: true,
            releasever: Some("4.3".into()),
            spec: "qubes-template-debian-13".into(),
            repo_text: "[a]\nname=a\n\n".into(),
            key_block: vec![KeyFile {
                path: "/etc/qubes/repo-templates/keys/k".into(),
                bytes: b"hello\n".to_vec(),
            }],
        }
    }

    #[test]
    fn is_written_as_the_original_does() {
        let want = "--enablerepo=a*\n--repoid=b\n--disablerepo=c\n--refresh\n--releasever=4.3\nqubes-template-debian-13\n---\n[a]\nname=a\n\n\
                    \n###!Q!BEGIN-QUBES-WRAPPER!Q!###\n#/etc/qubes/repo-templates/keys/k\n#aGVsbG8K\n###!Q!END-QUBES-WRAPPER!Q!###";
        assert_eq!(String::from_utf8(request().encode().unwrap()).unwrap(), want);
        assert_eq!(Request::parse(want.as_bytes()), request());
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        let bad = |change: fn(&mut Request)| {
            let mut request = request();
            change(&mut request);
            request.encode().unwrap_err().to_string()
        };
        assert_eq!(
            bad(|r| r.options[0] = RepoOption::Enable("a\nb".into())),
            r"Malformed --enablerepo: argument should not contain '\n'."
        );
        assert_eq!(
            bad(|r| r.releasever = Some("\n".into())),
            r"Malformed --releasever: argument should not contain '\n'."
        );
        assert_eq!(
            bad(|r| r.spec = "a\n".into()),
            r"Malformed template name: argument should not contain '\n'."
        );
        assert_eq!(bad(|r| r.spec = "---".into()), "Malformed template name: argument should not be '---'.");
    }

    #[test]
    fn is_read_as_the_stock_service_reads_it() {
        let spec = |text: &str| Request::parse(text.as_bytes()).spec;
        assert_eq!(spec("a\nb\n---\n"), "b");
        assert_eq!(spec("*\n--releasever=4.3\n---\n"), "*");
        assert_eq!(spec("*\n\n---\n"), "");
        assert_eq!(spec("--releasever=4.3\n--installroot=/x\n---\n"), "--installroot=/x");
        assert_eq!(spec("--help\n---\n"), "--help");
        assert_eq!(spec("*"), "");
        let crlf = Request::parse(b"--releasever=4.3\r\n*\r\n---\r\n[a]\n");
        assert_eq!((crlf.spec.as_str(), crlf.repo_text.as_str()), ("[a]", ""));
        let cut = Request::parse(
            b"*\n---\n[a]\n\n###!Q!BEGIN-QUBES-WRAPPER!Q!###\n#/k\n#aGVsbG8K\n#/l\n#**\n#/m\n",
        );
        assert_eq!(cut.key("file:///k"), Some(b"hello\n".as_slice()));
        assert_eq!(cut.key_block.len(), 1);
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(
            ids in prop::collection::vec("[a-z*,.-]{1,9}", 0..4),
            releasever in prop::option::of("[0-9.]{0,4}"),
            spec in "qubes-template-[ -~ö]{0,20}",
            repo_text in "(\\[[a-z]{1,4}\\]\n([a-z]{1,4}=[ -~]{0,8}\n){0,3}){0,3}",
            keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3),
        ) {
            let request = Request {
                options: ids.into_iter().map(RepoOption::Enable).collect(),
                refresh: false,
                releasever,
                spec,
                repo_text,
                key_block: keys.into_iter().map(|bytes| KeyFile { path: "/k".into(), bytes }).collect(),
            };
            prop_assert_eq!(Request::parse(&request.encode().unwrap()), request);
        }

        #[test]
        fn takes_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::parse(&bytes);
        }
    }
}
