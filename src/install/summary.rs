//! What became of each template, in one line each, where a command was for more than one.

use super::Run;
use crate::ledger::{Ending, Entry};
use crate::report::Message;

impl Run<'_, '_> {
    /// Says what became of each template.
    pub(super) fn sum_up(&self) {
        let entries = self.ledger.entries();
        let lines = entries.iter().map(|entry| format!("\n  {}: {}", entry.name, line(entry)));
        let text = format!("Summary:{}", lines.collect::<String>());
        let well = !entries.iter().any(|entry| matches!(entry.ending, Ending::Failed | Ending::NotFinalized));
        self.reporter.say(&Message::Summary { text: &text, well });
    }
}

fn line(entry: &Entry) -> String {
    let build = entry.after.as_ref().map_or_else(String::new, |build| format!(" {}", build.evr));
    let why = |text: Option<&str>| {
        text.and_then(|text| text.lines().next()).map_or_else(String::new, |text| format!(": {text}"))
    };
    match entry.ending {
        Ending::Done => format!("{} done{build}", entry.action.word()),
        Ending::NotFinalized => format!("{} done{build}, but not the first start", entry.action.word()),
        Ending::Failed => {
            format!("failed{}", why(entry.trouble.as_ref().map(|trouble| trouble.message.as_str())))
        }
        Ending::Skipped | Ending::Planned => format!("skipped{}", why(entry.reason.as_deref())),
    }
}
