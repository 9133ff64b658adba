//! Names of users and groups, as the tree that gets a package knows them.
//!
//! They come from the tree's own `/etc/passwd` and `/etc/group`, and where these do not know a name from the
//! `sysusers.d` of the packages that are put on it, if those give it a number: the template makes the user, with that
//! number, when it starts. A user whose number is chosen only then cannot own a file that is written now.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};

use crate::build::tree::{Kind, Tree};

const MAX: u64 = 4 << 20;

/// Users and groups by name.
#[derive(Debug, Default)]
pub(super) struct Users {
    users: BTreeMap<String, u32>,
    groups: BTreeMap<String, u32>,
    /// Those of `sysusers.d`.
    promised: [BTreeMap<String, Option<u32>>; 2],
}

impl Users {
    /// Reads `/etc/passwd` and `/etc/group` of a tree.
    pub(super) fn of(tree: &Tree) -> Result<Self> {
        let read = |path: &str, column: usize| -> Result<BTreeMap<String, u32>> {
            let Some(id) = tree.find_following(path.as_bytes()) else { return Ok(BTreeMap::new()) };
            let Kind::File(content) = &tree.node(id).kind else { return Ok(BTreeMap::new()) };
            let bytes = tree.sources.read_all(content, MAX).with_context(|| format!("reading /{path}"))?;
            let text = String::from_utf8_lossy(&bytes);
            let mut known = BTreeMap::new();
            for line in text.lines() {
                let mut fields = line.split(':');
                let (Some(name), Some(Ok(number))) = (fields.next(), fields.nth(column - 1).map(str::parse))
                else {
                    continue;
                };
                known.entry(name.to_owned()).or_insert(number);
            }
            Ok(known)
        };
        Ok(Self {
            users: read("etc/passwd", 2)?,
            groups: read("etc/group", 2)?,
            promised: Default::default(),
        })
    }

    /// Reads a file of `sysusers.d`.
    pub(super) fn promise(&mut self, text: &str) -> Result<()> {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let mut words = line.split_ascii_whitespace();
            let (Some(kind), Some(name)) = (words.next(), words.next()) else { continue };
            let number = words.next().unwrap_or("-");
            let (user, group) = match number.split_once(':') {
                Some((user, group)) => (user.parse().ok(), group.parse().ok()),
                None => (number.parse().ok(), number.parse().ok()),
            };
            match kind.trim_end_matches(['!', '+', '-']) {
                "u" => {
                    self.check(name, user)?;
                    self.promised[0].insert(name.to_owned(), user);
                    self.promised[1].entry(name.to_owned()).or_insert(group);
                }
                "g" => {
                    self.promised[1].insert(name.to_owned(), user);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn check(&self, name: &str, number: Option<u32>) -> Result<()> {
        let Some(number) = number.filter(|_| !self.users.contains_key(name)) else { return Ok(()) };
        let taken = self.users.iter().find(|(_, known)| **known == number);
        ensure!(
            taken.is_none(),
            "sysusers.d wants the number {number} for user `{}`, which another user has",
            name.escape_debug()
        );
        Ok(())
    }

    /// The number of a user.
    pub(super) fn user(&self, name: &str) -> Result<u32> {
        number(name, "user", &self.users, &self.promised[0])
    }

    /// The number of a group.
    pub(super) fn group(&self, name: &str) -> Result<u32> {
        number(name, "group", &self.groups, &self.promised[1])
    }
}

fn number(
    name: &str,
    what: &str,
    known: &BTreeMap<String, u32>,
    promised: &BTreeMap<String, Option<u32>>,
) -> Result<u32> {
    if let Some(number) = known.get(name) {
        return Ok(*number);
    }
    let shown = name.escape_debug();
    match promised.get(name) {
        Some(Some(number)) => Ok(*number),
        Some(None) => {
            bail!("the {what} `{shown}` gets its number only when the template starts, and owns a file now")
        }
        None if name == "root" => Ok(0),
        None => bail!("the {what} `{shown}` is neither in the tree nor in the packages' sysusers.d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_tree() {
        let mut users = Users::default();
        users.users.insert("games".to_owned(), 5);
        users.groups.insert("games".to_owned(), 60);
        users.promise("# x\nu tss 59 \"TPM\"\nu dyn - x\ng grp 77\nu two 81:82\nm a b\n").unwrap();
        assert_eq!((users.user("games").unwrap(), users.group("games").unwrap()), (5, 60));
        assert_eq!((users.user("tss").unwrap(), users.group("tss").unwrap()), (59, 59));
        assert_eq!((users.user("two").unwrap(), users.group("two").unwrap()), (81, 82));
        assert_eq!((users.user("root").unwrap(), users.group("grp").unwrap()), (0, 77));
        assert!(users.user("dyn").unwrap_err().to_string().contains("when the template starts"));
        assert!(users.user("nobody-knows").is_err());
        assert!(users.promise("u other 5 \"\"").is_err());
    }
}
