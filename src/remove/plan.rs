//! What has to happen before qubes can go, worked out before anything is changed.
//!
//! | who uses a qube that goes | what becomes of it |
//! |---|---|
//! | the system | nothing |
//! | a qube whose template it is | it gets the dummy, a template without content |
//! | a disposable whose template it is | it has to go too |
//! | a qube whose netvm or default disposable it is | none: another network or disposable than the one chosen could give the user away |
//! | a qube whose guivm, audiovm or management disposable it is | the default, or none where that goes too |
//!
//! A qube that goes itself keeps what it has, its template apart, and goes before what it uses.

use std::collections::BTreeMap;

use super::dependencies::{System, Use};

/// What is to be done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Qubes that go, as they are shown.
    pub goes: Vec<String>,
    /// The same, in the order of their removal: users before what they use.
    pub order: Vec<String>,
    /// Running qubes that stay and have to be off while they are changed.
    pub stops: Vec<String>,
    /// Running qubes that go and have to be off before they are changed.
    pub kills_first: Vec<String>,
    /// Changes, in their order.
    pub changes: Vec<Change>,
    /// Why it cannot be done, fit to be shown.
    pub obstacles: Vec<String>,
}

/// A property that gets another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whose it is; `None` for the system.
    pub holder: Option<String>,
    /// Which.
    pub property: &'static str,
    /// What it is now: a qube that goes.
    pub old: String,
    /// What it becomes.
    pub new: NewValue,
}

/// What a property becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewValue {
    /// The dummy.
    Dummy,
    /// None.
    Nothing,
    /// Its default.
    Default,
}

/// How far a removal reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The named qubes; their users stay, without them.
    Named,
    /// The named qubes and everything that uses them, directly or not.
    Users,
}

const ADMIN: &str = "AdminVM";
const DISPOSABLE: &str = "DispVM";

impl Plan {
    /// Works out how `named` can go. `own` is the qube that this program runs in.
    #[must_use]
    pub fn new(system: &System, named: &[String], reach: Reach, own: Option<&str>) -> Self {
        let mut plan = Self { goes: named.to_vec(), ..Self::default() };
        if reach == Reach::Users {
            plan.add_users(system);
        }
        for name in plan.goes.clone() {
            for user in system.uses(&name) {
                plan.change(system, &name, user);
            }
        }
        plan.put_in_order(system);
        if let Some(own) = own.filter(|own| plan.goes.iter().any(|name| name == own)) {
            plan.obstacles.push(format!("'{own}' is the qube that this command runs in; run it elsewhere"));
        }
        plan
    }

    /// Whether this qube goes.
    #[must_use]
    pub fn removes(&self, name: &str) -> bool {
        self.goes.iter().any(|goes| goes == name)
    }

    fn add_users(&mut self, system: &System) {
        let mut at = 0;
        while let Some(name) = self.goes.get(at).cloned() {
            at += 1;
            for holder in system.uses(&name).into_iter().filter_map(|user| user.holder) {
                let is_dom0 = system.qube(&holder).is_some_and(|qube| qube.class == ADMIN);
                if !is_dom0 && !self.removes(&holder) {
                    self.goes.push(holder);
                }
            }
        }
    }

    fn change(&mut self, system: &System, name: &str, user: Use) {
        let Use { holder, property } = user;
        let Some(holder) = holder else {
            self.changes.push(Change {
                holder: None,
                property,
                old: name.to_owned(),
                new: NewValue::Nothing,
            });
            return;
        };
        let goes = self.removes(&holder);
        let class = system.qube(&holder).map_or("", |qube| qube.class.as_str());
        let new = match property {
            "template" if class == DISPOSABLE => {
                if !goes {
                    self.obstacles
                        .push(format!("'{holder}' is a disposable of '{name}'; shut it down, or use purge"));
                }
                return;
            }
            "template" => NewValue::Dummy,
            _ if goes => return,
            "netvm" | "default_dispvm" => NewValue::Nothing,
            _ => {
                let default = match property {
                    "guivm" => "default_guivm",
                    "audiovm" => "default_audiovm",
                    _ => "management_dispvm",
                };
                let default_goes = system.globals.get(default).is_some_and(|value| self.removes(value));
                if default_goes { NewValue::Nothing } else { NewValue::Default }
            }
        };
        if new == NewValue::Dummy {
            self.stop_for(system, &holder);
        }
        self.changes.push(Change { holder: Some(holder), property, old: name.to_owned(), new });
    }

    /// What has to be off before a qube can get another template: itself, and disposables of it.
    fn stop_for(&mut self, system: &System, holder: &str) {
        let disposables = system.uses(holder).into_iter().filter(|user| user.property == "template");
        let names = disposables.filter_map(|user| user.holder).chain([holder.to_owned()]);
        for name in names.filter(|name| system.qube(name).is_some_and(|qube| !qube.is_halted())) {
            let first = if self.removes(&name) { &mut self.kills_first } else { &mut self.stops };
            if !first.contains(&name) {
                first.push(name);
            }
        }
    }

    /// Users before what they use, else in the order shown. Where qubes use each other in a circle, the first lets go.
    fn put_in_order(&mut self, system: &System) {
        let mut users: BTreeMap<&str, Vec<Use>> = BTreeMap::new();
        for name in &self.goes {
            let left = system.uses(name).into_iter().filter(|user| {
                let goes = user.holder.as_ref().is_some_and(|holder| self.goes.contains(holder));
                goes && !self
                    .changes
                    .iter()
                    .any(|c| c.old == *name && c.holder == user.holder && c.property == user.property)
            });
            users.insert(name, left.collect());
        }
        let mut waiting: Vec<&str> = self.goes.iter().map(String::as_str).collect();
        let mut order = Vec::new();
        let mut circle = Vec::new();
        while !waiting.is_empty() {
            let blocked = |name: &str| {
                let held = users[name].iter().filter_map(|user| user.holder.as_deref());
                held.into_iter().any(|holder| waiting.contains(&holder))
            };
            let at = waiting.iter().position(|name| !blocked(name)).unwrap_or_else(|| {
                let first = waiting[0];
                circle.extend(
                    users[first]
                        .iter()
                        .filter(|u| u.holder.as_deref().is_some_and(|h| waiting.contains(&h)))
                        .map(|user| Change {
                            holder: user.holder.clone(),
                            property: user.property,
                            old: first.to_owned(),
                            new: NewValue::Nothing,
                        }),
                );
                0
            });
            order.push(waiting.remove(at).to_owned());
        }
        self.order = order;
        self.changes.extend(circle);
    }
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

    fn plan(system: &System, named: &str, reach: Reach) -> Plan {
        Plan::new(system, &[named.to_owned()], reach, Some("mgmt"))
    }

    fn shown(plan: &Plan) -> Vec<String> {
        let line = |c: &Change| format!("{}.{} {:?}", c.holder.as_deref().unwrap_or("-"), c.property, c.new);
        plan.changes.iter().map(line).collect()
    }

    const CHAIN: &[(&str, &str, &str)] = &[
        ("a-app", "AppVM", "Halted"),
        ("dom0", "AdminVM", "Running"),
        ("net", "AppVM", "Running"),
        ("tpl", "TemplateVM", "Halted"),
        ("x-disp", "DispVM", "Running"),
    ];

    #[test]
    fn users_go_before_what_they_use() {
        let system = system(
            CHAIN,
            &[
                ("net", "template", "tpl"),
                ("a-app", "netvm", "net"),
                ("x-disp", "template", "a-app"),
                ("dom0", "default_dispvm", "a-app"),
                ("", "default_template", "tpl"),
            ],
        );
        let plan = plan(&system, "tpl", Reach::Users);
        assert_eq!(plan.goes, ["tpl", "net", "a-app", "x-disp"]);
        assert_eq!(plan.order, ["tpl", "x-disp", "a-app", "net"]);
        assert_eq!(
            shown(&plan),
            ["-.default_template Nothing", "net.template Dummy", "dom0.default_dispvm Nothing"]
        );
        assert_eq!((plan.kills_first.clone(), plan.stops.clone()), (vec!["net".to_owned()], vec![]));
        assert_eq!(plan.obstacles, Vec::<String>::new());
    }

    #[test]
    fn users_that_stay_let_go() {
        let system = system(
            CHAIN,
            &[
                ("net", "template", "tpl"),
                ("net", "guivm", "tpl"),
                ("a-app", "netvm", "tpl"),
                ("a-app", "audiovm", "tpl"),
                ("", "default_audiovm", "tpl"),
            ],
        );
        let plan = plan(&system, "tpl", Reach::Named);
        assert_eq!(
            shown(&plan),
            [
                "-.default_audiovm Nothing",
                "a-app.netvm Nothing",
                "a-app.audiovm Nothing",
                "net.template Dummy",
                "net.guivm Default"
            ]
        );
        assert_eq!(plan.stops, ["net"]);
        assert_eq!(plan.order, ["tpl"]);
    }

    #[test]
    fn a_disposable_cannot_stay_without_its_template() {
        let system = system(CHAIN, &[("x-disp", "template", "a-app")]);
        assert_eq!(plan(&system, "a-app", Reach::Named).obstacles.len(), 1);
        assert_eq!(plan(&system, "a-app", Reach::Users).obstacles.len(), 0);
    }

    #[test]
    fn disposables_are_off_before_what_they_are_made_from_changes() {
        let system = system(CHAIN, &[("a-app", "template", "tpl"), ("x-disp", "template", "a-app")]);
        assert_eq!(plan(&system, "tpl", Reach::Named).stops, ["x-disp"]);
        assert_eq!(plan(&system, "tpl", Reach::Users).kills_first, ["x-disp"]);
    }

    #[test]
    fn a_circle_is_broken() {
        let system = system(CHAIN, &[("a-app", "default_dispvm", "net"), ("net", "default_dispvm", "a-app")]);
        let plan = plan(&system, "net", Reach::Users);
        assert_eq!(plan.order, ["net", "a-app"]);
        assert_eq!(shown(&plan), ["a-app.default_dispvm Nothing"]);
    }

    #[test]
    fn the_own_qube_is_an_obstacle() {
        let system = system(
            &[("mgmt", "AppVM", "Running"), ("tpl", "TemplateVM", "Halted")],
            &[("mgmt", "template", "tpl")],
        );
        assert_eq!(plan(&system, "tpl", Reach::Users).obstacles.len(), 1);
    }
}
