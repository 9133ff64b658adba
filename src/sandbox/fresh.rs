//! New systems, new qubes and new volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;

use super::state::{Class, Driver, Features, Label, Pool, Power, Qube, System, VOLUME_NAMES, Volume};

/// Length of a new root volume.
pub const ROOT_SIZE: u64 = 10 << 30;
/// Length of a new private volume.
pub const PRIVATE_SIZE: u64 = 2 << 30;
/// dom0's name for ever.
pub const DOM0_UUID: &str = "00000000-0000-0000-0000-000000000000";
/// The colours of a fresh system, in the order of their numbers.
pub const LABELS: [(&str, &str); 8] = [
    ("red", "0xcc0000"),
    ("orange", "0xf57900"),
    ("yellow", "0xedd400"),
    ("green", "0x73d216"),
    ("gray", "0x555555"),
    ("blue", "0x3465a4"),
    ("purple", "0x75507b"),
    ("black", "0x000000"),
];
/// The kernel of a fresh system.
pub const KERNEL: &str = "6.12.47-1.fc41";

/// A system with dom0 and nothing else: labels, pools, a kernel.
#[must_use]
pub fn bare() -> System {
    let mut system = System {
        labels: LABELS
            .iter()
            .map(|(name, color)| Label { name: (*name).to_owned(), color: (*color).to_owned() })
            .collect(),
        kernels: vec![KERNEL.to_owned()],
        pools: vec![
            Pool::new("varlibqubes", Driver::FileReflink),
            Pool::new("linux-kernel", Driver::LinuxKernel),
        ],
        next_xid: 1,
        ..System::default()
    };
    system.globals.insert("default_kernel".into(), KERNEL.into());
    system.globals.insert("default_pool_kernel".into(), "linux-kernel".into());
    system.qubes.insert("dom0".into(), dom0());
    system
}

/// The system that `qubes-sandbox new` makes: dom0, the management qube `mgmt` without network, and `sys-net`, which
/// is the network and the UpdateVM.
#[must_use]
pub fn system() -> System {
    let mut system = bare();
    add_qube(&mut system, "sys-net", Class::StandaloneVM, "red");
    add_qube(&mut system, "mgmt", Class::StandaloneVM, "blue");
    for (name, netvm) in [("sys-net", ""), ("mgmt", "")] {
        if let Some(qube) = system.qubes.get_mut(name) {
            qube.properties.insert("netvm".into(), netvm.into());
            qube.features.set("qrexec", "1");
            qube.state = Power::Running;
        }
    }
    if let Some(net) = system.qubes.get_mut("sys-net") {
        net.properties.insert("provides_network".into(), "True".into());
        net.features.set("servicevm", "1");
        net.features.set("service.clocksync", "1");
    }
    for (name, value) in [("default_netvm", "sys-net"), ("updatevm", "sys-net"), ("clockvm", "sys-net")] {
        system.globals.insert(name.into(), value.into());
    }
    number_domains(&mut system);
    system
}

/// Puts a new, stopped qube into a system; its volumes in the default pools.
pub fn add_qube(system: &mut System, name: &str, class: Class, label: &str) {
    let mut made = qube(class, system.next_qid(), label);
    made.tags = ["audiovm-dom0", "created-by-dom0", "guivm-dom0"].map(str::to_owned).into();
    if class.has_volumes() {
        let pools =
            VOLUME_NAMES.iter().filter_map(|volume| default_pool(system, volume).map(|pool| (*volume, pool)));
        made.volumes = pools.map(|(volume_name, pool)| volume(class, name, volume_name, pool)).collect();
    }
    system.qubes.insert(name.to_owned(), made);
}

fn default_pool<'a>(system: &'a System, volume: &str) -> Option<&'a Pool> {
    let named =
        system.globals.get(&format!("default_pool_{volume}")).or_else(|| system.globals.get("default_pool"));
    let fits = |pool: &&Pool| (pool.driver == Driver::LinuxKernel) == (volume == "kernel");
    named.and_then(|name| system.pool(name)).filter(fits).or_else(|| system.pools.iter().find(fits))
}

/// Gives the qubes that run the numbers that Xen would have given them: a qube's network comes before it.
pub fn number_domains(system: &mut System) {
    let depth = |name: &str| {
        let netvm =
            |name: &str| system.qubes.get(name).and_then(|qube| qube.property("netvm")).map(str::to_owned);
        let mut depth = 0;
        let mut next = netvm(name).filter(|netvm| !netvm.is_empty());
        while let Some(netvm_name) = next.filter(|_| depth < system.qubes.len()) {
            depth += 1;
            next = netvm(&netvm_name).filter(|netvm| !netvm.is_empty());
        }
        depth
    };
    let mut running: Vec<(usize, String)> = system
        .qubes
        .iter()
        .filter(|(_, qube)| qube.class.has_volumes() && !qube.state.is_halted())
        .map(|(name, _)| (depth(name), name.clone()))
        .collect();
    running.sort();
    let mut next = system.next_xid.max(1);
    for (_, name) in running {
        if let Some(qube) = system.qubes.get_mut(&name) {
            qube.xid = Some(next);
            qube.started = Some(START_TIME);
            next += 1;
        }
    }
    system.next_xid = next;
}

/// When the qubes of a system that was never started were: what stands in a file cannot know better.
const START_TIME: u64 = 1_700_000_000;

/// dom0.
#[must_use]
pub fn dom0() -> Qube {
    let mut dom0 = qube(Class::AdminVM, 0, "black");
    dom0.uuid = DOM0_UUID.to_owned();
    dom0.state = Power::Running;
    dom0
}

/// A new qube without volumes and tags.
#[must_use]
pub fn qube(class: Class, qid: u32, label: &str) -> Qube {
    Qube {
        class,
        qid,
        uuid: new_uuid(),
        properties: BTreeMap::from([("label".to_owned(), label.to_owned())]),
        features: Features::default(),
        tags: BTreeSet::new(),
        volumes: Vec::new(),
        state: Power::Halted,
        xid: None,
        started: None,
    }
}

/// A new volume of a qube.
#[must_use]
pub fn volume(class: Class, qube: &str, name: &str, pool: &Pool) -> Volume {
    let from_template = name == "root" && class.is_template_based();
    let kept = match name {
        "root" => !from_template,
        "private" => class != Class::DispVM,
        _ => false,
    };
    let snap_on_start = from_template || (name == "private" && class == Class::DispVM);
    let kernel = name == "kernel";
    let vid = match pool.driver {
        Driver::LinuxKernel => String::new(),
        Driver::FileReflink | Driver::File => format!("{}/{qube}/{name}", class.folder()),
        Driver::LvmThin => format!("{}/vm-{qube}-{name}", pool.get("volume_group").unwrap_or("qubes_dom0")),
        Driver::Zfs => {
            format!("{}/{}/{qube}/{name}", pool.get("container").unwrap_or("qubes_dom0"), class.folder())
        }
    };
    Volume {
        name: name.to_owned(),
        pool: pool.name.clone(),
        vid,
        size: match name {
            "private" => PRIVATE_SIZE,
            "kernel" => 0,
            _ => ROOT_SIZE,
        },
        rw: !kernel,
        save_on_stop: kept,
        snap_on_start,
        revisions_to_keep: if kernel { 0 } else { pool.revisions_to_keep() },
        revisions: Vec::new(),
        ephemeral: None,
        usage: None,
        dirty: false,
        commits: 0,
    }
}

/// A random name for ever.
#[must_use]
pub fn new_uuid() -> String {
    let mut bytes = [0_u8; 16];
    // Without the device there is no randomness on this system at all.
    File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut bytes)).expect("/dev/urandom");
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Policy files that a fresh system has: name and text.
pub const STOCK_POLICY: [(&str, &str); 1] =
    [("91-admin-default-deny.policy", include_str!("stock/91-admin-default-deny.policy"))];
