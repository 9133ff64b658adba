//! What the UpdateVM answers: recorded search replies, and packages that arrive well or badly.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use super::super::support::packages::Packages;

/// What a service answers.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// Exit status.
    pub rc: i32,
}

/// The recorded answer to a search, with the sizes of our packages.
pub fn search(recordings: &Path, name: &str, packages: &Packages) -> Result<Answer> {
    let file = |kind: &str| recordings.join("repo_replies").join(format!("{name}.{kind}"));
    let read = |kind: &str| fs::read(file(kind)).ok();
    let stdout = match (read("stdout"), read("generated.json")) {
        (Some(stdout), _) => with_our_sizes(&stdout, packages),
        (None, Some(generated)) => generate(recordings, &serde_json::from_slice(&generated)?)
            .with_context(|| format!("making the reply {name}"))?,
        (None, None) => bail!("there is no reply {name}"),
    };
    let rc = match read("rc") {
        Some(text) => String::from_utf8_lossy(&text).trim().parse().context("reading a status")?,
        None => 0,
    };
    Ok(Answer { stdout, stderr: read("stderr").unwrap_or_default(), rc })
}

/// Replaces the sizes of the recorded packages by those of ours.
fn with_our_sizes(reply: &[u8], packages: &Packages) -> Vec<u8> {
    let mut out = Vec::new();
    for line in reply.split_inclusive(|b| *b == b'\n') {
        let mut fields: Vec<Vec<u8>> = line.split(|b| *b == b'|').map(<[u8]>::to_vec).collect();
        if fields.len() > 6 {
            let text = |at: usize| String::from_utf8_lossy(&fields[at]).into_owned();
            let label = format!("{}-{}:{}-{}", text(0), text(1), text(2), text(3));
            if let Ok(size) = text(5).parse() {
                fields[5] = packages.size_of_record(&label, size).to_string().into_bytes();
            }
        }
        out.extend(fields.join(&b'|'));
    }
    out
}

/// A reply that is too long to keep: a record of another reply over and over, as its description says in words:
///
/// | key | says |
/// |---|---|
/// | `records` | how many |
/// | `record` | `as in FILE with name A to B, evr E\|V\|R, repository ID, size N` |
/// | `url`, `summary`, `description` | `N times the word "W", joined by spaces` |
fn generate(recordings: &Path, how: &Value) -> Result<Vec<u8>> {
    let said = how["record"].as_str().context("what the records are like")?;
    let after = |word: &str| {
        let rest = said.split_once(word).map(|(_, rest)| rest)?;
        rest.split([' ', ',']).next()
    };
    let file = after("as in ").context("the reply that the record is from")?;
    let reply = fs::read_to_string(recordings.join("repo_replies").join(file)).context(file.to_owned())?;
    let record = reply.split_inclusive("|\n").next().context("a record")?;
    let mut fields: Vec<String> = record.trim_end_matches("|\n").split('|').map(ToOwned::to_owned).collect();
    let first = after("with name ").context("the first name")?;
    let digits = first.len() - first.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    let (name, number) = first.split_at(first.len() - digits);
    let number: u64 = number.parse().context("the number of the first name")?;
    let records = how["records"].as_u64().context("the number of records")?;
    let mut set = |at: usize, value: &str| -> Result<()> {
        value.clone_into(fields.get_mut(at).context("a record with eleven fields")?);
        Ok(())
    };
    for (at, value) in after("evr ").unwrap_or_default().split('|').enumerate() {
        set(at + 1, value)?;
    }
    set(4, after("repository ").context("the repository")?)?;
    set(5, after("size ").context("the size")?)?;
    for (at, key) in [(8, "url"), (9, "summary"), (10, "description")] {
        if let Some(text) = how[key].as_str() {
            let (times, rest) = text.split_once(" times the word \"").context("a number of words")?;
            let word = rest.split('"').next().unwrap_or_default();
            set(at, &vec![word; times.parse().context("how many words")?].join(" "))?;
        }
    }
    let mut out = String::new();
    for number in number..number + records {
        fields[0] = format!("qubes-template-{name}{number:0digits$}");
        out.push_str(&fields.join("|"));
        out.push_str("|\n");
    }
    Ok(out.into_bytes())
}

/// A download that goes as the word says.
pub fn download(packages: &Packages, label: &str, how: &str) -> Result<Answer> {
    let Some(package) = packages.find(label) else {
        return Ok(Answer { rc: 1, ..Answer::default() });
    };
    let mut stdout = fs::read(&package.path).context("reading a package")?;
    let mut rc = 0;
    let (word, value) = how.split_once(':').unwrap_or((how, ""));
    match word {
        "ok" => {}
        "fail" => (stdout, rc) = (Vec::new(), 1),
        "cut" => {
            stdout.truncate(value.parse()?);
            rc = 1;
        }
        "short" => stdout.truncate(value.parse()?),
        "flip" => flip(&mut stdout, value.parse()?)?,
        "trail" => stdout.extend(b"trailing bytes"),
        "html" => stdout = b"<html><body>404 Not Found</body></html>\n".to_vec(),
        "as" => {
            let other = packages.find(value).with_context(|| format!("there is no package {value}"))?;
            stdout = fs::read(&other.path).context("reading a package")?;
        }
        _ => bail!("a download cannot go {how:?}"),
    }
    Ok(Answer { stdout, stderr: Vec::new(), rc })
}

/// Changes the lowest bit of one byte, counted from the end where negative.
pub fn flip(bytes: &mut [u8], at: i64) -> Result<()> {
    let place = if at < 0 { i64::try_from(bytes.len())? + at } else { at };
    *bytes.get_mut(usize::try_from(place)?).context("a byte inside the package")? ^= 1;
    Ok(())
}
