//! The parts of an RPM file in front of its payload.
//!
//! ```text
//! lead (96)   ed ab ee db  3 0  type:u16 arch:u16  name[66]  os:u16 sigtype:u16  reserved[16]
//! signature header, padded with zeros to a multiple of 8
//! header
//! payload, to the end of the file
//! ```

use super::header::{self, Header};
use super::rejection::{Rejection, Section};

/// Bytes of the lead.
pub(crate) const LEAD: usize = 96;

/// Lead and headers, taken apart but not yet judged.
#[derive(Clone, Debug)]
pub(crate) struct Head {
    /// The name field of the lead, without its zeros.
    pub(crate) lead_name: Vec<u8>,
    /// The header with signatures and digests.
    pub(crate) signature: Header,
    /// The header that is signed.
    pub(crate) header: Header,
    /// The bytes that the signature is about: the header as it stands in the file.
    pub(crate) signed: Vec<u8>,
    /// Where the payload begins.
    pub(crate) payload_offset: u64,
}

/// How much of the file belongs to the head, as far as `bytes` (its beginning) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// At least this many bytes are needed to know more.
    AtLeast(usize),
    /// Exactly this many bytes are the head.
    Exactly(usize),
}

/// Finds out where the head of a package ends. Never asks for more than the limits of the policy allow.
pub(crate) fn extent(bytes: &[u8]) -> Result<Extent, Rejection> {
    if !LEAD_MAGIC.starts_with(&bytes[..bytes.len().min(LEAD_MAGIC.len())]) {
        return Err(Rejection::NotAPackage);
    }
    let mut at = LEAD;
    for section in [Section::Signature, Section::Header] {
        let Some(intro) = bytes.get(at..).and_then(|rest| rest.first_chunk()) else {
            return Ok(Extent::AtLeast(at + header::INTRO));
        };
        at += header::measure(intro, section)?;
        if section == Section::Signature {
            at = at.next_multiple_of(8);
        }
    }
    Ok(Extent::Exactly(at))
}

impl Head {
    /// Takes apart the head of a package; `bytes` must be exactly as long as [`extent`] says.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Rejection> {
        let (lead, rest) = bytes.split_at_checked(LEAD).ok_or(Rejection::Truncated("the lead"))?;
        let lead_name = parse_lead(lead)?;

        let cut = |section| match section {
            Section::Signature => Rejection::Truncated("the signature header"),
            Section::Header => Rejection::Truncated("the header"),
        };
        let measured = |bytes: &[u8], section| {
            let intro = bytes.first_chunk().ok_or_else(|| cut(section))?;
            header::measure(intro, section)
        };
        let len = measured(rest, Section::Signature)?;
        let padded = len.next_multiple_of(8);
        let (signature, main) = rest.split_at_checked(padded).ok_or_else(|| cut(Section::Signature))?;
        if signature[len..].iter().any(|b| *b != 0) {
            return Err(Rejection::Header(Section::Signature, "its padding is not zero"));
        }
        if measured(main, Section::Header)? != main.len() {
            return Err(cut(Section::Header));
        }
        Ok(Self {
            lead_name,
            signature: Header::parse(&signature[..len], Section::Signature)?,
            header: Header::parse(main, Section::Header)?,
            signed: main.to_vec(),
            payload_offset: u64::try_from(bytes.len()).unwrap_or(u64::MAX),
        })
    }
}

/// Checks everything in the lead that has a fixed value and returns the name in it.
///
/// The number of the architecture is the one thing that may vary: it is that of the machine that wrote or signed the
/// package (1 for x86, 19 for ARM, 255 where rpm was told `--target noarch`, 0 where it was not rpm), and nothing
/// reads it.
fn parse_lead(lead: &[u8]) -> Result<Vec<u8>, Rejection> {
    let (magic, fields) = lead.split_at(4);
    if magic != LEAD_MAGIC {
        return Err(Rejection::NotAPackage);
    }
    match fields[2..4] {
        [0, 0] => {}
        [0, 1] => return Err(Rejection::SourcePackage),
        _ => return Err(Rejection::Lead("unknown type")),
    }
    if fields[..2] != [3, 0] {
        return Err(Rejection::Lead("unknown version"));
    }
    if !matches!(fields[4..6], [0, 0 | 1 | 19 | 255]) {
        return Err(Rejection::Lead("unknown architecture number"));
    }
    if fields[72..76] != [0, 1, 0, 5] {
        return Err(Rejection::Lead("unknown system or signature type"));
    }
    if fields[76..].iter().any(|b| *b != 0) {
        return Err(Rejection::Lead("reserved bytes are not zero"));
    }
    let name = &fields[6..72];
    let end = name.iter().position(|b| *b == 0).ok_or(Rejection::Lead("the name has no end"))?;
    if name[end..].iter().any(|b| *b != 0) {
        return Err(Rejection::Lead("bytes follow after the name"));
    }
    Ok(name[..end].to_vec())
}

const LEAD_MAGIC: [u8; 4] = [0xed, 0xab, 0xee, 0xdb];

#[cfg(test)]
mod tests {
    use super::*;

    fn lead() -> Vec<u8> {
        let mut lead = vec![0; LEAD];
        lead[..4].copy_from_slice(&LEAD_MAGIC);
        lead[4] = 3;
        lead[9] = 1;
        lead[10..13].copy_from_slice(b"a-1");
        lead[77] = 1;
        lead[79] = 5;
        lead
    }

    #[test]
    fn the_lead_has_no_room_for_anything() {
        assert_eq!(parse_lead(&lead()).unwrap(), b"a-1");
        for at in (0..10).chain(76..LEAD).chain([14, 40, 75]) {
            let mut changed = lead();
            changed[at] ^= 0x40;
            assert!(parse_lead(&changed).is_err(), "byte {at}");
        }
    }

    #[test]
    fn the_extent_is_known_step_by_step() {
        assert_eq!(extent(b"").unwrap(), Extent::AtLeast(LEAD + 16));
        assert_eq!(extent(&lead()).unwrap(), Extent::AtLeast(LEAD + 16));
        let mut bytes = lead();
        bytes.extend([0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 17]);
        assert_eq!(extent(&bytes).unwrap(), Extent::AtLeast(LEAD + 56 + 16));
        bytes.resize(LEAD + 56, 0);
        bytes.extend([0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 17]);
        assert_eq!(extent(&bytes).unwrap(), Extent::Exactly(LEAD + 56 + 49));
        assert!(matches!(extent(b"PK"), Err(Rejection::NotAPackage)));
        assert!(matches!(Head::parse(&bytes), Err(Rejection::Header(..) | Rejection::Truncated(_))));
    }
}
