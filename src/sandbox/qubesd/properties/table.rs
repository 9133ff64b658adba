//! Which properties there are, in the order in which the server lists them.

use crate::sandbox::state::Class;

/// What a value means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Number,
    Switch,
    Label,
    Uuid,
    Ipv4,
    Ipv6,
    /// The name of a qube, of this class where there is one.
    Qube {
        class: Option<Class>,
        none: bool,
    },
}

impl Kind {
    /// The name of the type in replies.
    pub(super) const fn wire_name(self) -> &'static str {
        match self {
            Self::Text | Self::Uuid | Self::Ipv4 | Self::Ipv6 => "str",
            Self::Number => "int",
            Self::Switch => "bool",
            Self::Label => "label",
            Self::Qube { .. } => "vm",
        }
    }

    /// Whether it names a qube.
    pub(super) const fn is_qube(self) -> bool {
        matches!(self, Self::Qube { .. })
    }
}

/// What can be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Free,
    /// Set once, when the qube was made.
    Once,
    /// Worked out.
    Never,
}

/// Which qubes have it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum On {
    /// All that run on this machine, but not dom0.
    Local,
    /// Those, and dom0.
    LocalAndDom0,
    /// All.
    All,
    App,
    Disposable,
    Template,
}

/// One property.
#[derive(Clone, Copy, Debug)]
pub(super) struct Property {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) access: Access,
    on: On,
}

const fn property(name: &'static str, kind: Kind, access: Access, on: On) -> Property {
    Property { name, kind, access, on }
}

use Access::{Free, Never, Once};
use Kind::{Number, Switch, Text};

const ANY_QUBE: Kind = Kind::Qube { class: None, none: true };

/// Properties of qubes.
const QUBE: &[Property] = &[
    property("auto_cleanup", Switch, Free, On::Disposable),
    property("autostart", Switch, Free, On::Local),
    property("backup_timestamp", Number, Free, On::Local),
    property("debug", Switch, Free, On::Local),
    property("default_user", Text, Free, On::Local),
    property("devices_denied", Text, Free, On::LocalAndDom0),
    property("dispid", Number, Once, On::Disposable),
    property("dns", Text, Never, On::Local),
    property("gateway", Text, Never, On::Local),
    property("gateway6", Text, Never, On::Local),
    property("icon", Text, Never, On::All),
    property("include_in_backups", Switch, Free, On::LocalAndDom0),
    property("installed_by_rpm", Switch, Free, On::Local),
    property("ip", Kind::Ipv4, Free, On::Local),
    property("ip6", Kind::Ipv6, Free, On::Local),
    property("is_preload", Switch, Never, On::Disposable),
    property("kernel", Text, Free, On::Local),
    property("keyboard_layout", Text, Free, On::LocalAndDom0),
    property("klass", Text, Never, On::All),
    property("label", Kind::Label, Free, On::All),
    property("mac", Text, Free, On::Local),
    property("maxmem", Number, Free, On::LocalAndDom0),
    property("memory", Number, Free, On::Local),
    property("name", Text, Once, On::All),
    property("provides_network", Switch, Free, On::Local),
    property("qid", Number, Once, On::All),
    property("qrexec_timeout", Number, Free, On::Local),
    property("shutdown_timeout", Number, Free, On::Local),
    property("start_time", Text, Never, On::Local),
    property("stubdom_mem", Number, Free, On::Local),
    property("stubdom_uuid", Text, Never, On::Local),
    property("stubdom_xid", Number, Never, On::Local),
    property("template_for_dispvms", Switch, Free, On::App),
    property("updateable", Switch, Never, On::LocalAndDom0),
    property("uuid", Kind::Uuid, Once, On::All),
    property("vcpus", Number, Free, On::Local),
    property("virt_mode", Text, Free, On::Local),
    property("visible_gateway", Text, Never, On::Local),
    property("visible_gateway6", Text, Never, On::Local),
    property("visible_ip", Text, Never, On::Local),
    property("visible_ip6", Text, Never, On::Local),
    property("visible_netmask", Text, Never, On::Local),
    property("xid", Number, Never, On::Local),
    property("appvm_default_bootmode", Text, Free, On::Template),
    property("audiovm", ANY_QUBE, Free, On::Local),
    property("bootmode", Text, Free, On::Local),
    property("default_dispvm", ANY_QUBE, Free, On::LocalAndDom0),
    property("guivm", ANY_QUBE, Free, On::Local),
    property("kernelopts", Text, Free, On::Local),
    property("management_dispvm", ANY_QUBE, Free, On::Local),
    property("netvm", ANY_QUBE, Free, On::Local),
    property("template", Kind::Qube { class: Some(Class::TemplateVM), none: false }, Free, On::App),
    property("template", Kind::Qube { class: Some(Class::AppVM), none: false }, Free, On::Disposable),
];

/// Properties of the system.
pub(super) const SYSTEM: &[Property] = &[
    property("check_updates_vm", Switch, Free, On::All),
    property("clockvm", ANY_QUBE, Free, On::All),
    property("default_audiovm", ANY_QUBE, Free, On::All),
    property("default_dispvm", ANY_QUBE, Free, On::All),
    property("default_guivm", ANY_QUBE, Free, On::All),
    property("default_kernel", Text, Free, On::All),
    property("default_netvm", ANY_QUBE, Free, On::All),
    property("default_pool", Text, Free, On::All),
    property("default_pool_kernel", Text, Free, On::All),
    property("default_pool_private", Text, Free, On::All),
    property("default_pool_root", Text, Free, On::All),
    property("default_pool_volatile", Text, Free, On::All),
    property("default_qrexec_timeout", Number, Free, On::All),
    property("default_shutdown_timeout", Number, Free, On::All),
    property("default_template", Kind::Qube { class: Some(Class::TemplateVM), none: true }, Free, On::All),
    property("management_dispvm", ANY_QUBE, Free, On::All),
    property("maxmem", Number, Never, On::All),
    property("no_cpus", Number, Never, On::All),
    property("stats_interval", Number, Free, On::All),
    property("updatevm", ANY_QUBE, Free, On::All),
];

/// The properties of qubes of a class.
pub(super) fn of_class(class: Class) -> impl Iterator<Item = &'static Property> {
    let local = class.has_volumes();
    QUBE.iter().filter(move |property| match property.on {
        On::Local => local,
        On::LocalAndDom0 => local || class == Class::AdminVM,
        On::All => true,
        On::App => class == Class::AppVM,
        On::Disposable => class == Class::DispVM,
        On::Template => class == Class::TemplateVM,
    })
}
