//! Who uses whom: the properties of the system and of qubes that name a qube.
//!
//! A value that nobody set counts for nothing, since dom0 lets it fall back by itself; a property that cannot be read counts as not
//! there. A qube does not depend on itself.

use std::cell::Cell;
use std::collections::BTreeMap;

use crate::admin::system::{self, Property, Qube};
use crate::admin::{AdminApi, CallError, Pending, QubeApi, bounded};

/// Properties of the system that name a qube.
pub const GLOBALS: [&str; 8] = [
    "default_dispvm",
    "default_netvm",
    "default_guivm",
    "default_audiovm",
    "default_template",
    "clockvm",
    "updatevm",
    "management_dispvm",
];

/// Properties of a qube that name another.
pub const PROPERTIES: [&str; 6] =
    ["template", "netvm", "guivm", "audiovm", "default_dispvm", "management_dispvm"];

/// How many qubes are asked at a time.
const AT_A_TIME: usize = 8;
/// After so many refusals nobody is asked any more.
const MAX_DENIED: usize = 3;

/// All qubes and what they name.
#[derive(Clone, Debug, Default)]
pub struct System {
    /// The qubes that we may see, sorted by name.
    pub qubes: Vec<Qube>,
    /// Properties of the system, by name; those that could be read.
    pub globals: BTreeMap<&'static str, String>,
    /// Properties of qubes that somebody set, by qube and name.
    pub properties: BTreeMap<(String, &'static str), String>,
    /// Qubes whose properties nobody may know, and `dom0` where that holds for the system's; so they may use anything.
    pub unread: Vec<String>,
}

/// One use of a qube.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Who uses it; `None` for the system.
    pub holder: Option<String>,
    /// By which property.
    pub property: &'static str,
}

impl System {
    /// Reads everything.
    ///
    /// # Errors
    /// When the qubes cannot be listed, or dom0 cannot be reached.
    pub async fn read(api: &dyn AdminApi) -> Result<Self, CallError> {
        let qubes = system::list(api).await?;
        let mut own = Self { qubes, ..Self::default() };
        let reader = Reader { api, denied: Cell::new(0) };
        for name in GLOBALS {
            match reader.ask(|| system::property(api, name)).await? {
                Answer::Told(property) => drop(own.globals.insert(name, property.value)),
                Answer::Refused if own.unread.is_empty() => own.unread.push("dom0".to_owned()),
                Answer::Refused | Answer::Nothing => {}
            }
        }
        let each = own.qubes.iter().map(|qube| -> Pending<'_, _> { Box::pin(reader.properties(qube)) });
        let answers = bounded(AT_A_TIME, each.collect()).await;
        for (qube, answer) in own.qubes.iter().zip(answers) {
            let (found, complete) = answer?;
            for (name, property) in found.into_iter().filter(|(_, property)| !property.is_default) {
                own.properties.insert((qube.name.clone(), name), property.value);
            }
            if !complete && !own.unread.contains(&qube.name) {
                own.unread.push(qube.name.clone());
            }
        }
        Ok(own)
    }

    /// The qube of this name.
    #[must_use]
    pub fn qube(&self, name: &str) -> Option<&Qube> {
        self.qubes.iter().find(|qube| qube.name == name)
    }

    /// Who uses `name`: the system first, then the qubes by name.
    #[must_use]
    pub fn uses(&self, name: &str) -> Vec<Use> {
        let global =
            GLOBALS.into_iter().filter(|property| self.globals.get(property).is_some_and(|v| v == name));
        let mut uses: Vec<Use> = global.map(|property| Use { holder: None, property }).collect();
        for qube in self.qubes.iter().filter(|qube| qube.name != name) {
            let holds = |property: &&str| self.value(&qube.name, property).is_some_and(|value| value == name);
            let holder = || Some(qube.name.clone());
            uses.extend(
                PROPERTIES.into_iter().filter(holds).map(|property| Use { holder: holder(), property }),
            );
        }
        uses
    }

    /// What somebody set this property of a qube to.
    #[must_use]
    pub fn value(&self, qube: &str, property: &str) -> Option<&str> {
        let mut set =
            self.properties.iter().filter(|((holder, name), _)| holder == qube && *name == property);
        set.next().map(|(_, value)| value.as_str())
    }
}

/// Whether qubes of this class have this property at all.
fn has(class: &str, property: &str) -> bool {
    match class {
        "AdminVM" => property == "default_dispvm",
        "TemplateVM" | "StandaloneVM" => property != "template",
        "RemoteVM" => false,
        _ => true,
    }
}

/// What came of a question.
enum Answer {
    Told(Property),
    /// Policy does not let us know, or would not if it were asked.
    Refused,
    /// dom0 knows no such thing.
    Nothing,
}

/// Asks until it has been refused too often: every refusal shows a notification in dom0.
struct Reader<'a> {
    api: &'a dyn AdminApi,
    denied: Cell<usize>,
}

impl Reader<'_> {
    async fn ask<F>(&self, call: impl FnOnce() -> F) -> Result<Answer, CallError>
    where
        F: Future<Output = Result<Property, CallError>>,
    {
        if self.denied.get() >= MAX_DENIED && !self.api.may_probe() {
            return Ok(Answer::Refused);
        }
        match call().await {
            Ok(property) => Ok(Answer::Told(property)),
            Err(error) if error.is_denied() => {
                self.denied.set(self.denied.get() + 1);
                Ok(Answer::Refused)
            }
            Err(CallError::Api { .. } | CallError::Empty(_) | CallError::Malformed(_)) => Ok(Answer::Nothing),
            Err(broken) => Err(broken),
        }
    }

    /// What one qube names, and whether that is all; a refusal stands for all of its properties.
    async fn properties(&self, qube: &Qube) -> Result<(Vec<(&'static str, Property)>, bool), CallError> {
        let mut found = Vec::new();
        for name in PROPERTIES.into_iter().filter(|name| has(&qube.class, name)) {
            let (api, qube) = (self.api, qube.name.as_str());
            match self.ask(|| async move { QubeApi::new(api, qube).property(name).await }).await? {
                Answer::Told(property) => found.push((name, property)),
                Answer::Refused => return Ok((found, false)),
                Answer::Nothing => {}
            }
        }
        Ok((found, true))
    }
}
