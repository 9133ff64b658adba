//! Writes the archive inside an RPM package: `cpio -H newc` with the numbers that rpmbuild puts there.

use std::io::{self, Write};

/// What stands before the content of one member.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// Path with a leading `./`.
    pub path: &'a str,
    /// Number of the file in the package, from 1.
    pub inode: u32,
    /// Kind and permissions.
    pub mode: u16,
    /// Seconds since 1970.
    pub mtime: u32,
    /// Length of the content that follows.
    pub size: u32,
}

/// An archive being written. Members follow each other: [`Archive::begin`], then exactly the announced bytes through
/// [`Write`], then [`Archive::end`].
#[derive(Debug)]
pub struct Archive<W> {
    out: W,
    written: u64,
    due: u64,
}

impl<W: Write> Archive<W> {
    /// Begins an archive.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, due: 0 }
    }

    /// Begins a member.
    ///
    /// # Errors
    /// When writing fails.
    pub fn begin(&mut self, member: &Member<'_>) -> io::Result<()> {
        let fields = [member.inode, u32::from(member.mode), 0, 0, 1, member.mtime, member.size];
        self.record(fields, member.path)?;
        self.due = u64::from(member.size);
        Ok(())
    }

    /// Ends a member.
    ///
    /// # Errors
    /// When writing fails, or the content was not as long as announced.
    pub fn end(&mut self) -> io::Result<()> {
        if self.due != 0 {
            return Err(io::Error::other("the content of an archive member is shorter than announced"));
        }
        self.pad()
    }

    /// Ends the archive, and says how long it is.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> io::Result<(W, u64)> {
        self.record([0, 0, 0, 0, 1, 0, 0], "TRAILER!!!")?;
        Ok((self.out, self.written))
    }

    fn record(&mut self, fields: [u32; 7], path: &str) -> io::Result<()> {
        let mut head = String::from("070701");
        let name = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        for number in fields.into_iter().chain([0, 0, 0, 0, name, 0]) {
            head.push_str(&format!("{number:08x}"));
        }
        self.put(head.as_bytes())?;
        self.put(path.as_bytes())?;
        self.put(&[0])?;
        self.pad()
    }

    fn pad(&mut self) -> io::Result<()> {
        let padding = self.written.next_multiple_of(4) - self.written;
        self.put(&[0; 4][..usize::try_from(padding).unwrap_or(0)])
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.written += bytes.len() as u64;
        Ok(())
    }
}

impl<W: Write> Write for Archive<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.due = self
            .due
            .checked_sub(bytes.len() as u64)
            .ok_or_else(|| io::Error::other("the content of an archive member is longer than announced"))?;
        self.put(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_begins_at_a_multiple_of_four() {
        let mut archive = Archive::new(Vec::new());
        for (path, content) in [("./a", "12345"), ("./ab", ""), ("./abc", "x")] {
            let size = u32::try_from(content.len()).unwrap();
            archive.begin(&Member { path, inode: 1, mode: 0o100_644, mtime: 7, size }).unwrap();
            archive.write_all(content.as_bytes()).unwrap();
            archive.end().unwrap();
        }
        let (bytes, length) = archive.finish().unwrap();
        assert_eq!(bytes.len() as u64, length);
        assert_eq!(length % 4, 0);
        let begins: Vec<_> =
            bytes.windows(6).enumerate().filter(|(_, w)| *w == b"070701").map(|(at, _)| at % 4).collect();
        assert_eq!(begins, [0, 0, 0, 0]);
    }

    #[test]
    fn content_is_exactly_as_long_as_announced() {
        let member = Member { path: "./a", inode: 1, mode: 0o100_644, mtime: 0, size: 2 };
        let mut archive = Archive::new(Vec::new());
        archive.begin(&member).unwrap();
        archive.write_all(b"x").unwrap();
        assert!(archive.end().is_err());
        assert!(archive.write_all(b"yz").is_err());
    }
}
