//! What has to change so that another template takes the place of one, worked out before anything is changed.
//!
//! | who names the old one | by | what becomes of it |
//! |---|---|---|
//! | an app qube, a named disposable | `template` | the new one, while the qube is off |
//! | the system | `default_template`, `default_dispvm`, `management_dispvm` | the new one |
//! | a qube or dom0 | `default_dispvm`, `management_dispvm` | the new one |
//! | anybody | `netvm`, `guivm`, `audiovm`, `clockvm`, ... | stays: what provides network, windows or sound is no matter of templates |
//!
//! dom0 changes the template of a qube only while it is off, and that of a disposable template only while no disposable of it
//! runs; disposables that dom0 made in advance do not count, since it makes them anew. All else may change at any time.

use crate::remove::dependencies::{System, Use};

/// Properties of the system that follow a template.
const SYSTEM: [&str; 3] = ["default_template", "default_dispvm", "management_dispvm"];
/// Properties of a qube that follow a template.
const QUBE: [&str; 3] = ["template", "default_dispvm", "management_dispvm"];

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changes, in their order.
    pub changes: Vec<Change>,
    /// Uses that stay as they are, fit to be shown.
    pub left: Vec<String>,
    /// Qubes that have to be off before a change, by name.
    pub running: Vec<String>,
}

/// A property that gets another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose it is; `None` for the system.
    pub holder: Option<String>,
    /// Which.
    pub property: &'static str,
    /// What it is now.
    pub old: String,
    /// What it becomes.
    pub new: String,
}

impl Change {
    /// As people read it.
    #[must_use]
    pub fn told(&self) -> String {
        let holder = self.holder.as_deref().unwrap_or("the system");
        format!("{} of {holder}: {} -> {}", self.property, self.old, self.new)
    }

    /// What the property is now; `None` where nobody set it or it cannot be read.
    fn present<'s>(&self, system: &'s System) -> Option<&'s str> {
        match &self.holder {
            None => system.globals.get(self.property).map(String::as_str),
            Some(holder) => system.value(holder, self.property),
        }
    }
}

/// A property by its name, if it is one that follows a template.
#[must_use]
pub fn property(holder: Option<&str>, name: &str) -> Option<&'static str> {
    let known = if holder.is_some() { QUBE } else { SYSTEM };
    known.into_iter().find(|known| *known == name)
}

impl Plan {
    /// Works out how everything that uses `from` comes to use `to`.
    ///
    /// # Errors
    /// When one cannot take the place of the other, with the reason.
    pub fn new(system: &System, from: &str, to: &str) -> Result<Self, String> {
        check(system, from, to)?;
        let mut plan = Self::default();
        for Use { holder, property: name } in system.uses(from) {
            let change = |property| Change {
                holder: holder.clone(),
                property,
                old: from.to_owned(),
                new: to.to_owned(),
            };
            match property(holder.as_deref(), name) {
                Some(property) => plan.changes.push(change(property)),
                None => {
                    let holder = holder.as_deref().unwrap_or("the system");
                    plan.left.push(format!("{name} of {holder} is '{from}'"));
                }
            }
        }
        plan.find_running(system);
        Ok(plan)
    }

    /// Works out how what was changed comes back, as far as nobody has changed it since.
    #[must_use]
    pub fn back(system: &System, changes: &[Change]) -> Self {
        let mut plan = Self::default();
        for change in changes.iter().rev() {
            let gone = change.holder.as_ref().filter(|holder| system.qube(holder).is_none());
            let holder = change.holder.as_deref().unwrap_or("the system");
            let name = change.property;
            match (gone, change.present(system)) {
                (Some(gone), _) => plan.left.push(format!("'{gone}' is not there any more")),
                (None, Some(value)) if *value == change.old => {}
                (None, Some(value)) if *value == change.new => plan.changes.push(Change {
                    old: change.new.clone(),
                    new: change.old.clone(),
                    ..change.clone()
                }),
                (None, value) => {
                    let value = value.map_or_else(|| "not known".to_owned(), |value| format!("'{value}'"));
                    plan.left.push(format!("{name} of {holder} is {value} by now"));
                }
            }
        }
        plan.find_running(system);
        plan
    }

    /// Which qubes have to be off: those that get another template, and disposables of them.
    fn find_running(&mut self, system: &System) {
        let moved: Vec<&str> = self
            .changes
            .iter()
            .filter(|change| change.property == "template")
            .filter_map(|change| change.holder.as_deref())
            .collect();
        let in_the_way = system.qubes.iter().filter(|qube| {
            let of_moved = || {
                let template = system.value(&qube.name, "template");
                qube.class == "DispVM" && template.is_some_and(|template| moved.contains(&template))
            };
            !qube.is_halted() && (moved.contains(&qube.name.as_str()) || of_moved())
        });
        self.running = in_the_way.map(|qube| qube.name.clone()).collect();
    }
}

/// Whether one can take the place of the other: two templates, or two qubes that disposables are made from.
fn check(system: &System, from: &str, to: &str) -> Result<(), String> {
    let find = |name: &str| system.qube(name).ok_or_else(|| format!("no such domain: '{name}'"));
    let (old, new) = (find(from)?, find(to)?);
    if from == to {
        return Err(format!("'{from}' cannot take its own place"));
    }
    for qube in [old, new] {
        if !matches!(qube.class.as_str(), "TemplateVM" | "AppVM") {
            return Err(format!("'{}' is no template but of class {}", qube.name, qube.class));
        }
    }
    if old.class == new.class {
        return Ok(());
    }
    if system.value(to, "template") == Some(from) {
        return Err(format!("'{to}' is based on '{from}' itself, and cannot take its place"));
    }
    Err(format!(
        "'{from}' is of class {} and '{to}' of class {}: one cannot take the other's place",
        old.class, new.class
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::system::Qube;

    fn system(qubes: &[(&str, &str, &str)], properties: &[(&str, &'static str, &str)]) -> System {
        let mut system = System::default();
        for (name, class, state) in qubes {
            let text = |text: &str| text.to_owned();
            let (name, class, state) = (text(name), text(class), text(state));
            system.qubes.push(Qube { name, class, state, uuid: None });
        }
        for (qube, property, value) in properties {
            if qube.is_empty() {
                system.globals.insert(property, (*value).to_owned());
            } else {
                system.properties.insert(((*qube).to_owned(), property), (*value).to_owned());
            }
        }
        system
    }

    const QUBES: &[(&str, &str, &str)] = &[
        ("disp1", "DispVM", "Running"),
        ("dom0", "AdminVM", "Running"),
        ("dvm", "AppVM", "Halted"),
        ("new", "TemplateVM", "Halted"),
        ("new-dvm", "AppVM", "Halted"),
        ("old", "TemplateVM", "Halted"),
        ("sys-usb", "DispVM", "Halted"),
        ("vault", "StandaloneVM", "Running"),
        ("work", "AppVM", "Paused"),
    ];

    fn told(plan: &Plan) -> Vec<String> {
        plan.changes.iter().map(Change::told).collect()
    }

    #[test]
    fn everything_that_uses_a_template_follows() {
        let system = system(
            QUBES,
            &[
                ("", "default_template", "old"),
                ("", "default_netvm", "old"),
                ("dvm", "template", "old"),
                ("disp1", "template", "dvm"),
                ("work", "template", "old"),
                ("work", "guivm", "old"),
                ("new-dvm", "template", "new"),
            ],
        );
        let plan = Plan::new(&system, "old", "new").unwrap();
        assert_eq!(
            told(&plan),
            [
                "default_template of the system: old -> new",
                "template of dvm: old -> new",
                "template of work: old -> new"
            ]
        );
        assert_eq!(plan.left, ["default_netvm of the system is 'old'", "guivm of work is 'old'"]);
        assert_eq!(plan.running, ["disp1", "work"]);
    }

    #[test]
    fn what_disposables_are_made_from_can_be_switched_too() {
        let system = system(
            QUBES,
            &[
                ("", "default_dispvm", "dvm"),
                ("", "management_dispvm", "dvm"),
                ("dom0", "default_dispvm", "dvm"),
                ("vault", "default_dispvm", "dvm"),
                ("new-dvm", "default_dispvm", "dvm"),
                ("dvm", "default_dispvm", "dvm"),
                ("sys-usb", "template", "dvm"),
            ],
        );
        let plan = Plan::new(&system, "dvm", "new-dvm").unwrap();
        assert_eq!(
            told(&plan),
            [
                "default_dispvm of the system: dvm -> new-dvm",
                "management_dispvm of the system: dvm -> new-dvm",
                "default_dispvm of dom0: dvm -> new-dvm",
                "default_dispvm of new-dvm: dvm -> new-dvm",
                "template of sys-usb: dvm -> new-dvm",
                "default_dispvm of vault: dvm -> new-dvm"
            ]
        );
        assert_eq!((plan.left.len(), plan.running.len()), (0, 0));
    }

    #[test]
    fn one_that_cannot_take_the_place_is_refused() {
        let system = system(QUBES, &[("dvm", "template", "old")]);
        let refused = |from, to| Plan::new(&system, from, to).unwrap_err();
        assert_eq!(refused("old", "old"), "'old' cannot take its own place");
        assert_eq!(refused("old", "gone"), "no such domain: 'gone'");
        assert_eq!(refused("", "new"), "no such domain: ''");
        assert_eq!(refused("old", "dvm"), "'dvm' is based on 'old' itself, and cannot take its place");
        for (from, to) in [("old", "vault"), ("dom0", "new"), ("disp1", "new"), ("dvm", "new")] {
            assert!(refused(from, to).contains("of class"), "{from} {to}");
        }
    }

    #[test]
    fn only_what_nobody_changed_since_comes_back() {
        let change = |holder: Option<&str>, property| Change {
            holder: holder.map(str::to_owned),
            property,
            old: "old".to_owned(),
            new: "new".to_owned(),
        };
        let changes = [
            change(None, "default_template"),
            change(Some("dvm"), "template"),
            change(Some("work"), "template"),
            change(Some("gone"), "template"),
            change(Some("vault"), "default_dispvm"),
        ];
        let system = system(
            QUBES,
            &[("", "default_template", "new"), ("dvm", "template", "old"), ("work", "template", "new")],
        );
        let plan = Plan::back(&system, &changes);
        assert_eq!(
            told(&plan),
            ["template of work: new -> old", "default_template of the system: new -> old"]
        );
        assert_eq!(
            plan.left,
            ["default_dispvm of vault is not known by now", "'gone' is not there any more"]
        );
        assert_eq!(plan.running, ["work"]);
    }
}
