//! `[limits]`: how long is waited for the UpdateVM, how much is taken from it, and how long an answer is shown again.
//!
//! Times are seconds, or a number with `s`, `m`, `h` or `d`; sizes are bytes, or a number with `K`, `M` or `G`.

use std::time::Duration;

use anyhow::bail;

use super::Setting;
use super::file::{File, latest, toml_size};
use crate::cli::format;
use crate::update_vm::Bounds;

/// The keys of the table.
pub(super) const KEYS: [&str; 7] = [
    "search-time",
    "reply-size",
    "download-time",
    "first-byte-time",
    "stall-time",
    "lowest-rate",
    "query-age",
];

/// How long an answer to a search is shown again.
const QUERY_AGE: Duration = Duration::from_secs(300);

/// The limits in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest search.
    pub search_time: Setting<Duration>,
    /// Most bytes of an answer to a search.
    pub reply_size: Setting<u64>,
    /// Longest download in all.
    pub download_time: Setting<Duration>,
    /// Longest wait for the first byte of a download.
    pub first_byte_time: Setting<Duration>,
    /// Longest time in which a download stands still.
    pub stall_time: Setting<Duration>,
    /// Fewest bytes a second that a download brings; 0 demands none.
    pub lowest_rate: Setting<u64>,
    /// How long an answer to a search is shown again; 0 never.
    pub query_age: Setting<Duration>,
}

impl Limits {
    pub(super) fn gather(files: &[File]) -> anyhow::Result<Self> {
        let ours = Bounds::default();
        let any_time = |key: &str, default| {
            anyhow::Ok(Setting::new(None, latest(files, &format!("limits.{key}"), toml_time)?, || default))
        };
        let time = |key: &str, default| {
            let time = any_time(key, default)?;
            if time.value.is_zero() {
                bail!("reading a setting from {}: `limits.{key}` must be more than nothing", time.origin);
            }
            Ok(time)
        };
        let size = |key: &str, default| {
            anyhow::Ok(Setting::new(None, latest(files, &format!("limits.{key}"), toml_size)?, || default))
        };
        Ok(Self {
            search_time: time("search-time", ours.search)?,
            reply_size: size("reply-size", u64::try_from(ours.reply).unwrap_or(u64::MAX))?,
            download_time: time("download-time", ours.download)?,
            first_byte_time: time("first-byte-time", ours.first)?,
            stall_time: time("stall-time", ours.stall)?,
            lowest_rate: size("lowest-rate", ours.rate)?,
            query_age: any_time("query-age", QUERY_AGE)?,
        })
    }

    /// Those that hold for the UpdateVM.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        Bounds {
            search: self.search_time.value,
            reply: usize::try_from(self.reply_size.value).unwrap_or(usize::MAX),
            download: self.download_time.value,
            first: self.first_byte_time.value,
            stall: self.stall_time.value,
            rate: self.lowest_rate.value,
        }
    }

    pub(super) fn rows(&self) -> Vec<[String; 3]> {
        let row =
            |key: &str, value, origin: &super::Origin| [format!("limits.{key}"), value, origin.to_string()];
        let time = |key, setting: &Setting<Duration>| row(key, shown(setting.value), &setting.origin);
        let size = |key, setting: &Setting<u64>, per: &str| {
            row(key, format!("{}{per}", format::size(setting.value)), &setting.origin)
        };
        vec![
            time("search-time", &self.search_time),
            size("reply-size", &self.reply_size, ""),
            time("download-time", &self.download_time),
            time("first-byte-time", &self.first_byte_time),
            time("stall-time", &self.stall_time),
            size("lowest-rate", &self.lowest_rate, "/s"),
            time("query-age", &self.query_age),
        ]
    }
}

const UNITS: [(char, u64); 4] = [('d', 24 * 60 * 60), ('h', 60 * 60), ('m', 60), ('s', 1)];

fn toml_time(value: &toml::Value) -> Option<Duration> {
    let seconds = match value {
        toml::Value::String(text) => {
            let (number, unit) = text.split_at(text.len().checked_sub(1)?);
            let (_, seconds) = UNITS.into_iter().find(|(letter, _)| unit.starts_with(*letter))?;
            number.parse::<u64>().ok()?.checked_mul(seconds)?
        }
        other => u64::try_from(other.as_integer()?).ok()?,
    };
    // Longer than anybody waits, and short enough for the clock.
    Some(Duration::from_secs(seconds.min(1 << 32)))
}

/// A time in the largest unit that divides it.
fn shown(time: Duration) -> String {
    let seconds = time.as_secs();
    let fits = |(_, size): &(char, u64)| seconds > 0 && seconds.is_multiple_of(*size);
    UNITS
        .into_iter()
        .find(fits)
        .map_or_else(|| "0s".to_owned(), |(letter, size)| format!("{}{letter}", seconds / size))
}
