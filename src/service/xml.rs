//! What the readers of repodata have in common: a bounded XML reader that gives elements by their plain names.

use std::io::{self, BufRead, BufReader, Read};

use anyhow::{Context as _, Result, bail};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, XmlVersion};

/// Longest text or tag taken from a document, in bytes.
const MAX_RUN: usize = 1 << 20;

/// Longest text of one element kept, in bytes; the rest of it is dropped.
const MAX_TEXT: usize = 128 << 10;

/// One step through a document.
#[derive(Debug)]
pub enum Step {
    /// An element begins: its name without namespace prefix, and its attributes.
    Start(String, Vec<(String, String)>),
    /// Text inside the innermost element.
    Text(String),
    /// An element ends.
    End(String),
}

/// Reads a document step by step.
#[derive(Debug)]
pub struct Steps<R: Read> {
    reader: Reader<BufReader<Bounded<R>>>,
    buffer: Vec<u8>,
    /// An element without content ends in the next step.
    ended: Option<String>,
}

impl<R: Read> Steps<R> {
    /// Begins to read; `limit` bounds the document's bytes.
    pub fn new(source: R, limit: u64) -> Self {
        let bounded = Bounded { source, left: limit, run: 0 };
        let mut reader = Reader::from_reader(BufReader::with_capacity(64 << 10, bounded));
        reader.config_mut().allow_dangling_amp = true;
        Self { reader, buffer: Vec::new(), ended: None }
    }

    /// The next step, `None` at the end.
    ///
    /// # Errors
    /// The document is malformed, too large, or cannot be read.
    pub fn step(&mut self) -> Result<Option<Step>> {
        if let Some(name) = self.ended.take() {
            return Ok(Some(Step::End(name)));
        }
        loop {
            self.buffer.clear();
            let event = self.reader.read_event_into(&mut self.buffer).context("reading XML")?;
            return Ok(Some(match event {
                Event::Start(tag) => start(&tag)?,
                Event::Empty(tag) => {
                    self.ended = Some(local(&tag));
                    start(&tag)?
                }
                Event::End(tag) => Step::End(tag.local_name().as_ref().to_owned()),
                Event::Text(text) => Step::Text(text.xml10_content().into_owned()),
                Event::CData(text) => Step::Text(text.xml10_content().into_owned()),
                Event::GeneralRef(entity) => {
                    let character = entity.resolve_char_ref().context("reading XML")?;
                    let named = || quick_xml::escape::resolve_predefined_entity(&entity).map(str::to_owned);
                    match character.map(String::from).or_else(named) {
                        Some(text) => Step::Text(text),
                        None => bail!("the XML names an unknown entity"),
                    }
                }
                Event::DocType(_) => bail!("the XML has a document type, which repodata never has"),
                Event::Eof => return Ok(None),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => continue,
            }));
        }
    }

    /// Skips to the end of the element `name`, which has begun.
    ///
    /// # Errors
    /// As [`Steps::step`].
    pub fn skip(&mut self, name: &str) -> Result<()> {
        if self.ended.take().is_some() {
            return Ok(());
        }
        let mut depth = 1_usize;
        while depth > 0 {
            self.buffer.clear();
            match self.reader.read_event_into(&mut self.buffer).context("reading XML")? {
                Event::Start(tag) if tag.local_name().as_ref() == name => depth += 1,
                Event::End(tag) if tag.local_name().as_ref() == name => depth -= 1,
                Event::Eof => bail!("the XML ends too early"),
                _ => {}
            }
        }
        Ok(())
    }

    /// The text up to the end of the element `name`, which has begun; elements inside are passed over.
    ///
    /// # Errors
    /// As [`Steps::step`].
    pub fn text(&mut self, name: &str) -> Result<String> {
        let mut text = String::new();
        let mut depth = 1_usize;
        loop {
            match self.step()?.context("the XML ends too early")? {
                Step::Text(more) if depth == 1 && text.len() < MAX_TEXT => text.push_str(&more),
                Step::Text(_) => {}
                Step::Start(..) => depth += 1,
                Step::End(inner) => {
                    depth -= 1;
                    if depth == 0 {
                        debug_assert_eq!(inner, name);
                        return Ok(text);
                    }
                }
            }
        }
    }
}

/// The value of an attribute.
#[must_use]
pub fn attribute<'a>(attributes: &'a [(String, String)], name: &str) -> Option<&'a str> {
    attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

fn local(tag: &BytesStart<'_>) -> String {
    tag.local_name().as_ref().to_owned()
}

fn start(tag: &BytesStart<'_>) -> Result<Step> {
    let mut attributes = Vec::new();
    for attribute in tag.attributes() {
        let attribute = attribute.context("reading XML")?;
        let value = attribute.normalized_value(XmlVersion::Implicit1_0).context("reading XML")?;
        attributes.push((attribute.key.as_ref().to_owned(), value.into_owned()));
    }
    Ok(Step::Start(local(tag), attributes))
}

/// Ends with an error after too many bytes, or too many without a `<`: an XML reader keeps one text in memory.
#[derive(Debug)]
struct Bounded<R> {
    source: R,
    left: u64,
    run: usize,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(into)?;
        self.left = self
            .left
            .checked_sub(count as u64)
            .ok_or_else(|| io::Error::new(io::ErrorKind::FileTooLarge, "the document is too large"))?;
        match into[..count].iter().rposition(|b| *b == b'<') {
            Some(at) => self.run = count - at,
            None => self.run += count,
        }
        if self.run > MAX_RUN {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the document has a text that is too long",
            ));
        }
        Ok(count)
    }
}

/// Opens whatever packs `source`: gzip, xz, zstd or nothing, told by the first bytes.
///
/// # Errors
/// Unknown packing, or the source cannot be read.
pub fn unpack<'a, R: Read + 'a>(source: R) -> Result<Box<dyn Read + 'a>> {
    const XZ_MEMORY: u64 = 256 << 20;
    let mut source = BufReader::new(source);
    let magic = source.fill_buf().context("reading the first bytes")?;
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            let stream =
                liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).context("starting to unpack xz")?;
            Box::new(liblzma::bufread::XzDecoder::new_stream(source, stream))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder =
                zstd::stream::read::Decoder::with_buffer(source).context("starting to unpack zstd")?;
            decoder.window_log_max(27).context("starting to unpack zstd")?;
            Box::new(decoder)
        }
        [b'B', b'Z', b'h', ..] => bail!("packed with bzip2, which is not supported"),
        _ => Box::new(source),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_through_a_document() {
        let mut steps = Steps::new(b"<?xml version='1.0'?><!-- c --><a:r x='&lt;1'><b>x &amp;<i>no</i>&#10;y</b><c/><d><d/>z</d></a:r>".as_slice(), 1000);
        assert!(
            matches!(steps.step().unwrap(), Some(Step::Start(name, a)) if name == "r" && attribute(&a, "x") == Some("<1"))
        );
        assert!(matches!(steps.step().unwrap(), Some(Step::Start(name, _)) if name == "b"));
        assert_eq!(steps.text("b").unwrap(), "x &\ny");
        assert!(matches!(steps.step().unwrap(), Some(Step::Start(name, _)) if name == "c"));
        assert_eq!(steps.text("c").unwrap(), "");
        assert!(matches!(steps.step().unwrap(), Some(Step::Start(name, _)) if name == "d"));
        steps.skip("d").unwrap();
        assert!(matches!(steps.step().unwrap(), Some(Step::End(name)) if name == "r"));
        assert!(steps.step().unwrap().is_none());
    }

    #[test]
    fn bounds_are_kept() {
        let drain = |text: &str, limit: u64| {
            let mut steps = Steps::new(text.as_bytes(), limit);
            while steps.step()?.is_some() {}
            anyhow::Ok(())
        };
        assert!(drain("<a>xx</a>", 9).is_ok());
        assert!(drain("<a>xx</a>", 8).is_err());
        assert!(drain(&format!("<a>{}</a>", "x".repeat(3 << 20)), 1 << 30).is_err());
        assert!(drain(&format!("<a x='{}'/>", "x".repeat(3 << 20)), 1 << 30).is_err());
        for bad in ["<a>", "<a></b>", "<a>&x;</a>", "<!DOCTYPE a [<!ENTITY x 'y'>]><a/>", "<a", "\u{1}\u{2}<"]
        {
            assert!(drain(bad, 1000).is_err() || bad == "<a>", "{bad:?}");
        }
    }

    #[test]
    fn packing_is_told_by_the_first_bytes() {
        use std::io::Write as _;
        let text = b"<a/>".repeat(100);
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&text).unwrap();
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&text).unwrap();
        for packed in [
            text.clone(),
            gz.finish().unwrap(),
            xz.finish().unwrap(),
            zstd::encode_all(text.as_slice(), 1).unwrap(),
        ] {
            let mut out = Vec::new();
            unpack(packed.as_slice()).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, text);
        }
        assert!(unpack(b"BZh9".as_slice()).is_err());
        assert!(unpack(b"".as_slice()).is_ok());
    }
}
