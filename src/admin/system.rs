//! Questions about the machine as a whole.

use super::{AdminApi, CallError, CallName};
use crate::untrusted::displayable;

/// A qube as `admin.vm.List` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qube {
    /// Name.
    pub name: String,
    /// Class: `TemplateVM`, `AppVM`, `StandaloneVM`, `DispVM`, `AdminVM`, `RemoteVM`.
    pub class: String,
    /// Power state, such as `Halted` or `Running`.
    pub state: String,
    /// Name for ever, which no other qube ever has; releases before 4.3 do not tell it.
    pub uuid: Option<String>,
}

impl Qube {
    /// Whether this is a template.
    #[must_use]
    pub fn is_template(&self) -> bool {
        self.class == "TemplateVM"
    }

    /// Whether it is off.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.state == "Halted"
    }
}

/// A value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Whether nobody set it.
    pub is_default: bool,
    /// Type: `str`, `bool`, `int`, `vm`, `label`.
    pub kind: String,
    /// The value; empty stands for none.
    pub value: String,
}

/// Usage of a storage pool, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolUsage {
    /// All there is.
    pub size: u64,
    /// How much of it is taken.
    pub used: u64,
}

/// All qubes that we may see, dom0 first among them where it is shown, sorted by name as dom0 sorts them.
///
/// # Errors
/// When the call fails or its answer cannot be read.
pub async fn list(api: &dyn AdminApi) -> Result<Vec<Qube>, CallError> {
    let answer = api.call("dom0", "admin.vm.List", None, b"").await?;
    let text = text(&CallName::new("dom0", "admin.vm.List", None), answer)?;
    Ok(text.lines().filter_map(listed).collect())
}

/// A property of the system, such as `updatevm`.
///
/// # Errors
/// When the call fails or its answer cannot be read.
pub async fn property(api: &dyn AdminApi, name: &str) -> Result<Property, CallError> {
    read_property(api, "dom0", "admin.property.Get", name).await
}

/// Sets a property of the system; an empty value is none.
///
/// # Errors
/// When the call fails.
pub async fn set_property(api: &dyn AdminApi, name: &str, value: &str) -> Result<(), CallError> {
    api.call("dom0", "admin.property.Set", Some(name), value.as_bytes()).await.map(drop)
}

/// Creates a template, in the storage pool `pool` or else where dom0 puts templates.
///
/// # Errors
/// When the call fails.
pub async fn create_template(
    api: &dyn AdminApi,
    name: &str,
    label: &str,
    pool: Option<&str>,
) -> Result<(), CallError> {
    let (method, payload) = match pool {
        None => ("admin.vm.Create.TemplateVM", format!("name={name} label={label}")),
        Some(pool) => ("admin.vm.CreateInPool.TemplateVM", format!("name={name} label={label} pool={pool}")),
    };
    api.call("dom0", method, None, payload.as_bytes()).await.map(drop)
}

/// Driver and options of a storage pool, as `key=value` lines give them.
///
/// # Errors
/// When the call fails or its answer cannot be read.
pub async fn pool(api: &dyn AdminApi, name: &str) -> Result<Vec<(String, String)>, CallError> {
    let answer = api.call("dom0", "admin.pool.Info", Some(name), b"").await?;
    Ok(pairs(&text(&CallName::new("dom0", "admin.pool.Info", Some(name)), answer)?))
}

/// How full a storage pool is; `None` when its driver cannot tell.
///
/// # Errors
/// When the call fails or its answer cannot be read.
pub async fn pool_usage(api: &dyn AdminApi, name: &str) -> Result<Option<PoolUsage>, CallError> {
    let answer = api.call("dom0", "admin.pool.UsageDetails", Some(name), b"").await?;
    let pairs = pairs(&text(&CallName::new("dom0", "admin.pool.UsageDetails", Some(name)), answer)?);
    let number = |wanted: &str| {
        pairs.iter().find(|(key, _)| key == wanted).and_then(|(_, value)| value.parse::<u64>().ok())
    };
    Ok(number("data_size").zip(number("data_usage")).map(|(size, used)| PoolUsage { size, used }))
}

pub(super) async fn read_property(
    api: &dyn AdminApi,
    dest: &str,
    method: &str,
    name: &str,
) -> Result<Property, CallError> {
    let call = CallName::new(dest, method, Some(name));
    let text = text(&call, api.call(dest, method, Some(name), b"").await?)?;
    parse_property(&text).ok_or(CallError::Malformed(call))
}

/// `default=True|False type=T VALUE`, where VALUE may be empty and may hold spaces.
fn parse_property(text: &str) -> Option<Property> {
    let mut parts = text.splitn(3, ' ');
    let is_default = match parts.next()?.strip_prefix("default=")? {
        "True" => true,
        "False" => false,
        _ => return None,
    };
    let kind = parts.next()?.strip_prefix("type=")?.to_owned();
    Some(Property { is_default, kind, value: parts.next().unwrap_or("").to_owned() })
}

/// An answer as text, free of what could act on a terminal.
pub(super) fn text(call: &CallName, answer: Vec<u8>) -> Result<String, CallError> {
    let text = String::from_utf8(answer).map_err(|_| CallError::Malformed(call.clone()))?;
    Ok(displayable(&text, true))
}

pub(super) fn pairs(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn listed(line: &str) -> Option<Qube> {
    let mut words = line.split(' ');
    let name = words.next().filter(|name| !name.is_empty())?.to_owned();
    let mut qube = Qube { name, class: String::new(), state: String::new(), uuid: None };
    for (key, value) in words.filter_map(|word| word.split_once('=')) {
        match key {
            "class" => value.clone_into(&mut qube.class),
            "state" => value.clone_into(&mut qube.state),
            "uuid" => qube.uuid = Some(value.to_owned()),
            _ => {}
        }
    }
    Some(qube)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_properties_are_read_as_sent() {
        let qube = listed("work class=AppVM state=Running uuid=1-2").unwrap();
        assert_eq!(
            (qube.name.as_str(), qube.class.as_str(), qube.state.as_str()),
            ("work", "AppVM", "Running")
        );
        assert!(!qube.is_template() && !qube.is_halted());
        assert_eq!(qube.uuid.as_deref(), Some("1-2"));
        assert_eq!(listed(""), None);
        let property = parse_property("default=False type=vm ").unwrap();
        assert_eq!((property.is_default, property.value.as_str()), (false, ""));
        assert_eq!(parse_property("default=True type=str a b c").unwrap().value, "a b c");
        assert_eq!(parse_property("default=True type=str").unwrap().value, "");
        for bad in ["", "type=str x", "default=maybe type=str x", "default=True x"] {
            assert_eq!(parse_property(bad), None, "{bad}");
        }
    }
}
