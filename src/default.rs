//! `default`: what the system takes where nobody chose a template.
//!
//! Three properties of the system: the template of new qubes, the disposable template that opens links and files, and the one
//! that Salt manages qubes from. All values are looked at before the first change; when a later change fails the earlier
//! ones get their old values back.

use crate::admin::{AdminApi, system};
use crate::report::Failure;

/// What the properties should be: `None` leaves one alone, an empty name is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `default_template`
    pub template: Option<String>,
    /// `default_dispvm`
    pub dispvm: Option<String>,
    /// `management_dispvm`
    pub management_dispvm: Option<String>,
}

/// A property that gets another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its name.
    pub property: &'static str,
    /// What it was; empty for none.
    pub before: String,
    /// What it becomes; empty for none.
    pub after: String,
}

impl Wanted {
    fn entries(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = [
            ("default_template", &self.template),
            ("default_dispvm", &self.dispvm),
            ("management_dispvm", &self.management_dispvm),
        ];
        named.into_iter().filter_map(|(property, value)| Some((property, value.as_deref()?)))
    }
}

/// Makes the properties what they should be, or with `dry_run` only says what would change.
///
/// # Errors
/// When nothing is asked for, a name is not that of a suitable qube, or a call fails.
pub async fn run(api: &dyn AdminApi, wanted: &Wanted, dry_run: bool) -> Result<Vec<Change>, Failure> {
    if wanted.entries().next().is_none() {
        return Err(Failure::Usage(
            "one of --template, --dispvm and --management-dispvm is required".to_owned(),
        ));
    }
    let mut changes = Vec::new();
    for (property, after) in wanted.entries() {
        let before = system::property(api, property).await?;
        if before.value != after {
            changes.push(Change { property, before: before.value, after: after.to_owned() });
        }
    }
    // What is there already was fit once: no look at the qubes is needed for it.
    if !changes.is_empty() {
        check(api, &changes).await?;
    }
    if dry_run {
        return Ok(changes);
    }
    for (number, change) in changes.iter().enumerate() {
        if let Err(error) = system::set_property(api, change.property, &change.after).await {
            for done in changes[..number].iter().rev() {
                system::set_property(api, done.property, &done.before).await?;
            }
            return Err(error.into());
        }
    }
    Ok(changes)
}

async fn check(api: &dyn AdminApi, changes: &[Change]) -> Result<(), Failure> {
    let qubes = system::list(api).await?;
    for change in changes.iter().filter(|change| !change.after.is_empty()) {
        let name = &change.after;
        let Some(qube) = qubes.iter().find(|qube| qube.name == *name) else {
            return Err(Failure::Usage(format!("no such domain: '{name}'")));
        };
        let fits = match change.property {
            "default_template" => qube.is_template(),
            _ => qube.class == "AppVM",
        };
        if !fits {
            let (class, property) = (&qube.class, change.property);
            return Err(Failure::Usage(format!("'{name}' is of class {class} and cannot be the {property}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::admin::fake::{FakeAdmin, Fault};

    fn fake() -> Rc<FakeAdmin> {
        let fake = FakeAdmin::with(&[
            ("dom0", "AdminVM", "Running"),
            ("debian-13", "TemplateVM", "Halted"),
            ("fedora-43", "TemplateVM", "Halted"),
            ("dvm", "AppVM", "Halted"),
        ]);
        let mut qubes = fake.qubes.borrow_mut();
        let dom0 = &mut qubes.get_mut("dom0").unwrap().properties;
        dom0.insert("default_template".to_owned(), "debian-13".to_owned());
        dom0.insert("default_dispvm".to_owned(), String::new());
        dom0.insert("management_dispvm".to_owned(), "dvm".to_owned());
        drop(qubes);
        Rc::new(fake)
    }

    fn wanted(template: &str, dispvm: &str) -> Wanted {
        Wanted { template: Some(template.to_owned()), dispvm: Some(dispvm.to_owned()), ..Wanted::default() }
    }

    #[tokio::test]
    async fn only_what_differs_is_changed() {
        let fake = fake();
        let changes = run(&fake, &wanted("fedora-43", ""), false).await.unwrap();
        assert_eq!(
            changes,
            [Change {
                property: "default_template",
                before: "debian-13".to_owned(),
                after: "fedora-43".to_owned()
            }]
        );
        assert_eq!(fake.changed(), ["admin.property.Set+default_template dom0 fedora-43"]);
    }

    #[tokio::test]
    async fn a_plan_changes_nothing_and_says_the_same() {
        let fake = fake();
        let plan = run(&fake, &wanted("fedora-43", "dvm"), true).await.unwrap();
        assert!(fake.changed().is_empty());
        assert_eq!(plan, run(&fake, &wanted("fedora-43", "dvm"), false).await.unwrap());
    }

    #[tokio::test]
    async fn names_are_checked_before_anything_is_changed() {
        for (template, dispvm, said) in [
            ("fedora-43", "nobody", "no such domain: 'nobody'"),
            ("dvm", "", "'dvm' is of class AppVM and cannot be the default_template"),
            ("fedora-43", "debian-13", "'debian-13' is of class TemplateVM and cannot be the default_dispvm"),
        ] {
            let fake = fake();
            let failure = run(&fake, &wanted(template, dispvm), false).await.unwrap_err();
            assert_eq!(failure.to_string(), said);
            assert!(fake.changed().is_empty());
        }
    }

    #[tokio::test]
    async fn a_refusal_takes_back_what_was_done() {
        let fake = fake();
        fake.fail("admin.property.Set", "default_dispvm", Fault::Denied);
        run(&fake, &wanted("fedora-43", "dvm"), false).await.unwrap_err();
        assert_eq!(
            fake.qubes.borrow()["dom0"].properties["default_template"],
            "debian-13",
            "the first change stays"
        );
    }
}
