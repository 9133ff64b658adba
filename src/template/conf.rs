//! What a template package says about its qube: `template.conf` and the three lists of menu entries.
//!
//! `template.conf` has lines `KEY=VALUE`; blank lines and lines that start with `#` count for nothing, of a key that comes twice the
//! last line counts, keys that are not listed here are passed over. Values are never taken on trust: each key has its own small set.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Whether a template may ask for para-virtualisation, whose isolation is weaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllowPv {
    /// `--allow-pv` was given.
    Yes,
    /// It was not.
    No,
}

/// One wish of a template that is to be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Setting {
    /// A feature of the qube.
    Feature(&'static str, String),
    /// The property `virt_mode`.
    VirtMode(&'static str),
    /// The property `kernel`, emptied: the template boots its own kernel.
    OwnKernel,
}

/// The wishes of a `template.conf`, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TemplateConf {
    /// In the order in which they are carried out.
    pub settings: Vec<Setting>,
    /// What was passed over and why, for the log.
    pub warnings: Vec<String>,
}

const FLAGS: [&str; 7] =
    ["no-monitor-layout", "pci-e820-host", "linux-stubdom", "gui", "selinux", "gui-emulated", "qrexec"];
const ADDRESSES: [&str; 3] = ["net.fake-ip", "net.fake-gateway", "net.fake-netmask"];
const NETMASK: &str = "net.fake-netmask";
const VIRT_MODES: [&str; 3] = ["pvh", "hvm", "pv"];

/// Files of a package that list menu entries, and the feature that each one fills.
pub const MENU_LISTS: [(&str, &str); 3] = [
    ("vm-whitelisted-appmenus.list", "default-menu-items"),
    ("whitelisted-appmenus.list", "menu-items"),
    ("netvm-whitelisted-appmenus.list", "netvm-menu-items"),
];

impl TemplateConf {
    /// Reads the file's content.
    #[must_use]
    pub fn parse(bytes: &[u8], allow_pv: AllowPv) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut own = Self::default();
        let mut keys = BTreeMap::new();
        for line in text.lines().map(str::trim_end).filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            match line.split_once('=') {
                Some((key, value)) => drop(keys.insert(key.trim_end(), value)),
                None => {
                    own.warnings.push("ignoring a line of template.conf that is not KEY=VALUE".to_owned())
                }
            }
        }
        for flag in FLAGS {
            match keys.get(flag) {
                Some(&"1") => own.settings.push(Setting::Feature(flag, "1".to_owned())),
                Some(_) => own.warnings.push("ignoring boolean config flags that are not '1'".to_owned()),
                None => {}
            }
        }
        for key in ADDRESSES {
            match keys.get(key) {
                Some(value) if is_address(value, key == NETMASK) => {
                    own.settings.push(Setting::Feature(key, (*value).to_owned()));
                }
                Some(_) => own.warnings.push(format!("ignoring invalid value for '{key}'")),
                None => {}
            }
        }
        if let Some(wish) = keys.get("virt-mode") {
            match VIRT_MODES.iter().find(|mode| *mode == wish) {
                Some(&"pv") if allow_pv == AllowPv::No => {
                    own.warnings.push("--allow-pv not set, ignoring request to change virt-mode".to_owned());
                }
                Some(mode) => own.settings.push(Setting::VirtMode(mode)),
                None => own.warnings.push("ignoring invalid value for virt-mode".to_owned()),
            }
        }
        match keys.get("kernel") {
            Some(&"") => own.settings.push(Setting::OwnKernel),
            Some(_) => own.warnings.push("Currently only supports setting kernel to (none)".to_owned()),
            None => {}
        }
        own
    }

    /// Features that some `template.conf` may set: those that a former version of a template may have left behind.
    pub fn features() -> impl Iterator<Item = &'static str> {
        FLAGS.into_iter().chain(ADDRESSES)
    }
}

/// The value of a menu feature: the entries of a list, one space between them, in characters that a feature can hold.
#[must_use]
pub fn menu_items(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let entries: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    crate::untrusted::feature_value(&entries.join(" "), super::installed::MAX_FEATURE)
}

fn is_address(text: &str, netmask: bool) -> bool {
    text.parse::<Ipv4Addr>().is_ok_and(|address| {
        let bits = address.to_bits();
        !netmask || bits.leading_ones() + bits.trailing_zeros() >= 32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> TemplateConf {
        TemplateConf::parse(text.as_bytes(), AllowPv::No)
    }

    #[test]
    fn only_listed_values_pass() {
        let conf = parse(
            "gui=1\n\n# note\nqrexec=1\r\nselinux=0\nother=1\nvirt-mode=pvh\nvirt-mode=hvm\nkernel=\nodd\n",
        );
        let feature = |name| Setting::Feature(name, "1".to_owned());
        let expected = [feature("gui"), feature("qrexec"), Setting::VirtMode("hvm"), Setting::OwnKernel];
        assert_eq!(conf.settings, expected);
        assert_eq!(conf.warnings.len(), 2);
    }

    #[test]
    fn para_virtualisation_needs_leave() {
        assert_eq!(parse("virt-mode=pv").settings, []);
        let allowed = TemplateConf::parse(b"virt-mode=pv", AllowPv::Yes);
        assert_eq!(allowed.settings, [Setting::VirtMode("pv")]);
        assert_eq!(parse("virt-mode=qemu\nkernel=6.1").warnings.len(), 2);
    }

    #[test]
    fn addresses_are_dotted_quads() {
        for bad in ["1", "1.2", " 1.2.3.4", "+1.2.3.4", "1.2.3.256", "1.2.3.4.5", "01.2.3.4", "1.2.3.x", ""] {
            assert_eq!(parse(&format!("net.fake-ip={bad}")).settings, [], "{bad:?}");
        }
        assert_eq!(parse("net.fake-ip=10.137.0.5").settings.len(), 1);
        for (mask, good) in
            [("255.255.255.0", true), ("255.255.255.255", true), ("0.0.0.0", true), ("255.0.255.0", false)]
        {
            assert_eq!(
                parse(&format!("net.fake-netmask={mask}")).settings.len(),
                usize::from(good),
                "{mask}"
            );
        }
    }

    #[test]
    fn menu_entries_stand_on_one_line() {
        assert_eq!(menu_items(b"a.desktop\n\nb.desktop  \n"), "a.desktop b.desktop");
        assert_eq!(menu_items("\u{f6}\t.desktop".as_bytes()), "__.desktop");
        assert_eq!(menu_items(b""), "");
    }
}
