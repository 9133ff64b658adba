//! Counts cases, says which ones differ, and ends with one line that holds everything.

use std::collections::{BTreeMap, BTreeSet};

use super::differences::{Declared, Differences, Known};

/// What came of one case.
#[derive(Debug)]
pub struct CaseResult {
    /// The case.
    pub id: String,
    /// Rules by which we want to do better here: the case's `better`.
    pub better: Vec<String>,
    /// What differs from the recording; none: equal.
    pub difference: Option<String>,
    /// Where it differs: whether what we do instead is what we want. None: the module has no check for it, and the
    /// case fails.
    pub instead: Option<Result<(), String>>,
}

impl CaseResult {
    /// A case without a rule, equal or not.
    pub fn plain(id: &str, difference: Option<String>) -> Self {
        Self { id: id.to_owned(), better: Vec::new(), difference, instead: None }
    }
}

/// The counts so far.
#[derive(Debug)]
pub struct Report<'a> {
    declared: &'a Differences,
    known: &'a Known,
    details: bool,
    cases: usize,
    equal: usize,
    listed: BTreeMap<String, usize>,
    failed: usize,
    seen: BTreeSet<(String, String)>,
    used_rules: BTreeSet<String>,
}

impl<'a> Report<'a> {
    /// No case yet.
    pub fn new(declared: &'a Differences, known: &'a Known, details: bool) -> Self {
        Self {
            declared,
            known,
            details,
            cases: 0,
            equal: 0,
            listed: BTreeMap::new(),
            failed: 0,
            seen: BTreeSet::new(),
            used_rules: BTreeSet::new(),
        }
    }

    /// Counts the cases of one file and says which ones fail.
    pub fn file(&mut self, file: &str, results: anyhow::Result<Vec<CaseResult>>) {
        let results = match results {
            Ok(results) => results,
            Err(error) => {
                self.failed += 1;
                println!("{file}: FAILED: {error:#}");
                return;
            }
        };
        let before = (self.equal, self.failed);
        for result in &results {
            if let Err(why) = self.case(file, result) {
                self.failed += 1;
                let why = if self.details { why } else { shortened(&why) };
                println!("{file} {}: {why}", result.id);
            }
        }
        self.cases += results.len();
        let (equal, failed) = (self.equal - before.0, self.failed - before.1);
        let listed = results.len() - equal - failed;
        println!(
            "{file}: {} cases, {equal} equal, {listed} listed differences, {failed} failed",
            results.len()
        );
    }

    fn case(&mut self, file: &str, result: &CaseResult) -> Result<(), String> {
        self.seen.insert((file.to_owned(), result.id.clone()));
        let declared = self.declared.declares(file, &result.id, &result.better);
        match (&result.difference, declared) {
            (None, None) => {
                self.equal += 1;
                Ok(())
            }
            (None, Some(Declared::ByRule(_))) if !self.known.has(&result.id) => {
                self.equal += 1;
                Ok(())
            }
            (None, Some(declared)) => {
                Err(format!("declared as a difference ({}), yet it is equal", declared.category()))
            }
            (Some(difference), None) => Err(format!("differs: {difference}")),
            (Some(difference), Some(declared)) => {
                let category = declared.category().to_owned();
                self.used_rules.insert(category.clone());
                match &result.instead {
                    Some(Ok(())) => {
                        *self.listed.entry(category).or_default() += 1;
                        Ok(())
                    }
                    Some(Err(why)) => Err(format!(
                        "declared ({}), but what is done instead is wrong: {why}",
                        declared.ours()
                    )),
                    None => Err(format!("declared ({category}), but nothing checks it: {difference}")),
                }
            }
        }
    }

    /// Fails what is declared and stands for no case.
    pub fn leftovers(&mut self) {
        for case in &self.declared.case {
            if !self.seen.contains(&(case.file.clone(), case.id.clone())) {
                self.failed += 1;
                println!("differences.toml: there is no case {} in {}", case.id, case.file);
            }
        }
        for rule in &self.declared.rule {
            if !self.used_rules.contains(&rule.id) {
                self.failed += 1;
                println!("differences.toml: no case differs by rule {}", rule.id);
            }
        }
    }

    /// Whether nothing failed.
    pub fn is_sound(&self) -> bool {
        self.failed == 0
    }

    /// Prints the last lines. False when something failed.
    pub fn end(&self) -> bool {
        let listed: usize = self.listed.values().sum();
        let categories: Vec<String> =
            self.listed.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let categories =
            if categories.is_empty() { String::new() } else { format!(" ({})", categories.join(", ")) };
        println!("{} passed, {} failed", self.equal + listed, self.failed);
        println!(
            "{} cases, {} equal, {listed} listed differences{categories}, {} unlisted",
            self.cases, self.equal, self.failed
        );
        self.is_sound()
    }
}

/// A text cut to what fits a few lines.
fn shortened(text: &str) -> String {
    const LENGTH: usize = 900;
    match text.char_indices().nth(LENGTH) {
        Some((at, _)) => format!("{} ...", &text[..at]),
        None => text.to_owned(),
    }
}
