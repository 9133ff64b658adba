//! What a property is while nobody has set it.

use super::{Holder, value_of_qube, value_of_system};
use crate::sandbox::state::{Class, Driver, Power, Qube, System};

/// The default of a property: the outer none where it has no default, the inner where its default is none.
pub(super) fn default(system: &System, holder: Holder<'_>, property: &str) -> Option<Option<String>> {
    match holder {
        Holder::System => of_system(system, property),
        Holder::Qube(name) => {
            let qube = system.qubes.get(name)?;
            if qube.class == Class::AdminVM {
                of_dom0(system, property)
            } else {
                of_qube(system, name, qube, property)
            }
        }
    }
}

fn text(value: &str) -> Option<Option<String>> {
    Some(Some(value.to_owned()))
}

fn of_system(system: &System, property: &str) -> Option<Option<String>> {
    match property {
        "check_updates_vm" => text("True"),
        "clockvm" | "default_dispvm" | "default_netvm" | "management_dispvm" | "updatevm" => Some(None),
        "default_audiovm" | "default_guivm" => text("dom0"),
        "default_pool" => default_pool(system).map(Some),
        "default_pool_kernel" | "default_pool_private" | "default_pool_root" | "default_pool_volatile" => {
            Some(value_of_system(system, "default_pool"))
        }
        "default_qrexec_timeout" | "default_shutdown_timeout" => text("60"),
        "maxmem" => text(HOST_MEMORY_MIB),
        "no_cpus" => text("4"),
        "stats_interval" => text("3"),
        _ => None,
    }
}

/// The pool called `default`, else the one in which dom0 itself lies.
fn default_pool(system: &System) -> Option<String> {
    let named = system.pool("default");
    let under_dom0 = || {
        system.pools.iter().find(|pool| match pool.driver {
            Driver::FileReflink | Driver::File => pool.get("dir_path") == Some("/var/lib/qubes"),
            Driver::LvmThin => pool.get("thin_pool") == Some("root-pool"),
            _ => false,
        })
    };
    let first = || system.pools.iter().find(|pool| pool.driver != Driver::LinuxKernel);
    named.or_else(under_dom0).or_else(first).map(|pool| pool.name.clone())
}

fn of_dom0(system: &System, property: &str) -> Option<Option<String>> {
    match property {
        "name" => text("dom0"),
        "qid" => text("0"),
        "uuid" => text(crate::sandbox::fresh::DOM0_UUID),
        "klass" => text("AdminVM"),
        "icon" => text("adminvm-black"),
        "default_dispvm" => Some(value_of_system(system, "default_dispvm")),
        "include_in_backups" | "updateable" => text("True"),
        "devices_denied" => text(""),
        "keyboard_layout" => text("us++"),
        "maxmem" => text("4096"),
        _ => None,
    }
}

fn of_qube(system: &System, name: &str, qube: &Qube, property: &str) -> Option<Option<String>> {
    let own = |property: &str| value_of_qube(system, name, property);
    let template = own("template");
    let from_template =
        |property: &str| template.as_deref().map(|template| value_of_qube(system, template, property));
    let or_template = |otherwise: &str| from_template(property).or_else(|| text(otherwise));
    let or_template_or_system =
        |global: &str| Some(from_template(property).unwrap_or_else(|| value_of_system(system, global)));
    match property {
        "autostart" | "auto_cleanup" | "debug" | "installed_by_rpm" | "provides_network" => text("False"),
        "template_for_dispvms" => text("False"),
        "is_preload" => text(if qube.flag("is_preload") { "True" } else { "False" }),
        "backup_timestamp" | "stubdom_mem" | "gateway6" | "visible_gateway6" | "ip6" | "visible_ip6" => {
            Some(None)
        }
        "default_user" => or_template("user"),
        "devices_denied" | "stubdom_uuid" => text(""),
        "dns" => Some((is_networked(system, name)).then(|| "10.139.1.1 10.139.1.2".to_owned())),
        "gateway" => Some(own("visible_ip").filter(|_| provides_network(system, name))),
        "icon" => text(&icon(qube)),
        "include_in_backups" => text(if qube.flag("auto_cleanup") { "False" } else { "True" }),
        "ip" => Some(is_networked(system, name).then(|| ip(qube))),
        "kernel" => or_template_or_system("default_kernel"),
        "keyboard_layout" => {
            let guivm = own("guivm").and_then(|guivm| value_of_qube(system, &guivm, "keyboard_layout"));
            text(guivm.as_deref().unwrap_or("us++"))
        }
        "klass" => text(qube.class.as_str()),
        "mac" => text("00:16:3e:5e:6c:00"),
        "maxmem" if !can_balance_memory(system, name, own("virt_mode")) => text("0"),
        "maxmem" => Some(from_template(property).unwrap_or_else(|| Some(maxmem(qube, own("memory"))))),
        "memory" => or_template("400"),
        "name" => text(name),
        "qid" => text(&qube.qid.to_string()),
        "qrexec_timeout" => or_template_or_system("default_qrexec_timeout"),
        "shutdown_timeout" => or_template_or_system("default_shutdown_timeout"),
        "start_time" => Some(qube.started.map(|seconds| format!("{seconds}.0"))),
        "stubdom_xid" => text("-1"),
        "updateable" => text(if qube.class.is_template_based() { "False" } else { "True" }),
        "vcpus" => or_template("2"),
        "virt_mode" => or_template("pvh"),
        "visible_gateway" => {
            let fake = feature_with_template(system, name, "net.fake-gateway").map(str::to_owned);
            Some(fake.or_else(|| own("netvm").and_then(|netvm| value_of_qube(system, &netvm, "gateway"))))
        }
        "visible_ip" => {
            let fake = feature_with_template(system, name, "net.fake-ip").map(str::to_owned);
            Some(fake.or_else(|| own("ip")))
        }
        "visible_netmask" => {
            let fake = feature_with_template(system, name, "net.fake-netmask").map(str::to_owned);
            Some(fake.or_else(|| own("netvm").map(|_| "255.255.255.255".to_owned())))
        }
        "xid" => {
            text(&qube.xid.filter(|_| runs(qube)).map_or_else(|| "-1".to_owned(), |xid| xid.to_string()))
        }
        "appvm_default_bootmode" => text(qube.features.get("boot-mode.appvm-default").unwrap_or("default")),
        "audiovm" => Some(value_of_system(system, "default_audiovm")),
        "bootmode" => text(&boot_mode(system, name, qube)),
        "default_dispvm" if qube.class == Class::DispVM => Some(template),
        "default_dispvm" => Some(value_of_system(system, "default_dispvm")),
        "guivm" => Some(value_of_system(system, "default_guivm")),
        "kernelopts" if own("kernel").is_none_or(|kernel| kernel.is_empty()) => text(""),
        "kernelopts" => or_template("swiotlb=2048"),
        "management_dispvm" => or_template_or_system("management_dispvm"),
        "netvm" if qube.class == Class::TemplateVM => Some(None),
        "netvm" => Some(value_of_system(system, "default_netvm")),
        _ => None,
    }
}

fn runs(qube: &Qube) -> bool {
    matches!(qube.state, Power::Running | Power::Transient | Power::Halting)
}

fn provides_network(system: &System, name: &str) -> bool {
    value_of_qube(system, name, "provides_network").as_deref() == Some("True")
}

fn is_networked(system: &System, name: &str) -> bool {
    provides_network(system, name) || value_of_qube(system, name, "netvm").is_some()
}

/// Addresses come from the qube's number, from another range for disposables; 0 and 255 are left out.
fn ip(qube: &Qube) -> String {
    let dispid = qube.property("dispid").and_then(|id| id.parse().ok());
    let (range, number) = match qube.class {
        Class::DispVM => ("10.138", dispid.unwrap_or(qube.qid)),
        _ => ("10.137", qube.qid),
    };
    if number < 255 {
        return format!("{range}.0.{number}");
    }
    let number = number - 1;
    format!("{range}.{}.{}", number / 254, number % 254 + 1)
}

fn icon(qube: &Qube) -> String {
    let service = qube.features.get("servicevm").is_some_and(|value| !value.is_empty());
    let kind = match qube.class {
        Class::TemplateVM => "templatevm",
        Class::AppVM if qube.flag("template_for_dispvms") => "templatevm",
        _ if service => "servicevm",
        Class::DispVM => "dispvm",
        Class::StandaloneVM => "standalonevm",
        Class::RemoteVM => "remotevm",
        _ => "appvm",
    };
    format!("{kind}-{}", qube.property("label").unwrap_or("black"))
}

/// Whether the qube gives memory back: not a full machine without Qubes' tools in it.
fn can_balance_memory(system: &System, name: &str, virt_mode: Option<String>) -> bool {
    let tools = || feature_with_template(system, name, "qrexec").is_some_and(|value| !value.is_empty());
    virt_mode.as_deref() != Some("hvm") || tools()
}

/// Linux can grow to ten times the memory that it started with; half of the machine is the most.
fn maxmem(qube: &Qube, memory: Option<String>) -> String {
    let memory: u64 = memory.and_then(|memory| memory.parse().ok()).unwrap_or(400);
    let most = if qube.features.get("os") == Some("Linux") { memory * 10 } else { 4000 };
    most.min(HOST_MEMORY_MIB.parse::<u64>().unwrap_or(u64::MAX) / 2).to_string()
}

fn boot_mode(system: &System, name: &str, qube: &Qube) -> String {
    let known =
        |mode: &str| feature_with_template(system, name, &format!("boot-mode.kernelopts.{mode}")).is_some();
    let active = qube.features.get("boot-mode.active").map(str::to_owned);
    let of_template = || {
        qube.property("template")
            .and_then(|template| value_of_qube(system, template, "appvm_default_bootmode"))
    };
    active
        .filter(|mode| known(mode))
        .or_else(|| of_template().filter(|mode| known(mode)))
        .unwrap_or_else(|| "default".into())
}

fn feature_with_template<'a>(system: &'a System, name: &str, feature: &str) -> Option<&'a str> {
    let qube = system.qubes.get(name)?;
    match qube.features.get(feature) {
        Some(value) => Some(value),
        None => feature_with_template(system, qube.property("template")?, feature),
    }
}

const HOST_MEMORY_MIB: &str = "16384";
