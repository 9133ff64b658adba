//! Classes of qubes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of qube it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// dom0.
    AdminVM,
    /// Root volume from a template, own private volume.
    AppVM,
    /// Like an AppVM, gone after it stops.
    DispVM,
    /// A qube on another machine.
    RemoteVM,
    /// Own root volume, no template.
    StandaloneVM,
    /// What AppVMs take their root volume from.
    TemplateVM,
}

impl Class {
    /// All classes in the order in which `admin.vmclass.List` names them.
    pub const ALL: [Self; 6] =
        [Self::AdminVM, Self::AppVM, Self::DispVM, Self::RemoteVM, Self::StandaloneVM, Self::TemplateVM];

    /// The class of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.as_str() == name)
    }

    /// The name as the Admin API writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AdminVM => "AdminVM",
            Self::AppVM => "AppVM",
            Self::DispVM => "DispVM",
            Self::RemoteVM => "RemoteVM",
            Self::StandaloneVM => "StandaloneVM",
            Self::TemplateVM => "TemplateVM",
        }
    }

    /// Whether qubes of this class have a property `template`.
    #[must_use]
    pub const fn is_template_based(self) -> bool {
        matches!(self, Self::AppVM | Self::DispVM)
    }

    /// Whether qubes of this class are domains of this machine with volumes of their own.
    #[must_use]
    pub const fn has_volumes(self) -> bool {
        !matches!(self, Self::AdminVM | Self::RemoteVM)
    }

    /// Folder in which volumes of this class lie in a pool.
    #[must_use]
    pub const fn folder(self) -> &'static str {
        match self {
            Self::TemplateVM => "vm-templates",
            _ => "appvms",
        }
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
