//! What is compared with what: a file for each side of the tool.

mod builder;
mod compose;
mod line;
mod listing;
mod whole;

use anyhow::Result;
use qvm_template::build::compress::Method;

use crate::data::{Filling, Wanted};
use crate::rows::Bench;
use crate::table::RowResult;

/// A group: rows that come from the same rounds.
type Group = fn(&Bench) -> Result<Vec<RowResult>>;

/// Every group, by name.
pub const ALL: [(&str, Group); 16] = [
    ("zstd", line::zstd),
    ("zstd-frames", line::frames),
    ("xz", line::xz),
    ("xz-blocks", line::blocks),
    ("holes", line::holes),
    ("memory", line::memory),
    ("whole", whole::whole),
    ("disk", whole::disk),
    ("verify", whole::verification),
    ("three", whole::three),
    ("start", listing::start),
    ("list-available", listing::available),
    ("pack", builder::fast),
    ("pack-19", builder::usual),
    ("compose", compose::small),
    ("compose-5G", compose::large),
];

/// A package of mixed content.
fn mixed(name: &'static str, mebibytes: u64, method: Method, level: u32) -> Wanted {
    Wanted { name, mebibytes, filling: Filling::Mixed, method, level, seams: false }
}

/// A package of mostly holes.
fn holes(name: &'static str, mebibytes: u64) -> Wanted {
    Wanted { name, mebibytes, filling: Filling::MostlyHoles, method: Method::Zstd, level: 3, seams: false }
}
