use std::fmt;

/// Prefix that turns a template name into the name of its RPM package.
pub const PACKAGE_PREFIX: &str = "qubes-template-";

/// A name that dom0 accepts for a TemplateVM.
///
/// The rule is the one of `qubes.vm.validate_name`: `[A-Za-z][A-Za-z0-9_.-]*`, at most
/// [`TemplateName::MAX_LEN`] bytes, not a reserved word, and not ending in `-dm` (stub domains).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TemplateName(String);

/// Why a text cannot be the name of a qube.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a qube name must not be empty")]
    Empty,
    /// Longer than [`TemplateName::MAX_LEN`].
    #[error("qube name is too long: {0} characters, at most {max} are possible", max = TemplateName::MAX_LEN)]
    TooLong(usize),
    /// A character outside the allowed set, or a first character that is not a letter.
    #[error("qube name contains the character {0:?}, which is not possible at that place")]
    Character(char),
    /// A word with a meaning of its own in Qubes.
    #[error("this qube name is reserved")]
    Reserved,
}

impl TemplateName {
    /// Longest possible name, in bytes (a limit of Xen's tool stack that qubesd enforces).
    pub const MAX_LEN: usize = 31;

    /// Checks `name` against qubesd's rule.
    ///
    /// # Errors
    /// The first rule that the text breaks.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let first = name.chars().next().ok_or(NameError::Empty)?;
        if !first.is_ascii_alphabetic() {
            return Err(NameError::Character(first));
        }
        if let Some(odd) = name.chars().find(|c| !(c.is_ascii_alphanumeric() || "_.-".contains(*c))) {
            return Err(NameError::Character(odd));
        }
        if name.len() > Self::MAX_LEN {
            return Err(NameError::TooLong(name.len()));
        }
        if matches!(name, "none" | "default" | "Domain-0") || name.ends_with("-dm") {
            return Err(NameError::Reserved);
        }
        Ok(Self(name.to_owned()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Name of the RPM package that carries this template.
    #[must_use]
    pub fn package_name(&self) -> String {
        format!("{PACKAGE_PREFIX}{}", self.0)
    }
}

impl fmt::Display for TemplateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_the_rule_of_qubesd() {
        for good in ["debian-13-xfce", "a", "A_b.c-d", &"x".repeat(31)] {
            assert_eq!(TemplateName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "1a", ".a", "-a", "a+b", "a b", "grösse", "none", "default", "Domain-0", "x-dm"] {
            assert!(TemplateName::new(bad).is_err(), "{bad:?} was accepted");
        }
        assert_eq!(TemplateName::new(&"x".repeat(32)), Err(NameError::TooLong(32)));
    }
}
