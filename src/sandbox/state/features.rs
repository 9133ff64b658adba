//! Features of a qube: a map that remembers in which order its keys came.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// Feature names and values, in the order in which they were first set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(Vec<(String, String)>);

impl Features {
    /// Sets a feature and returns its old value; a new one goes to the end.
    pub fn set(&mut self, name: &str, value: &str) -> Option<String> {
        if let Some((_, old)) = self.0.iter_mut().find(|(known, _)| known == name) {
            return Some(std::mem::replace(old, value.to_owned()));
        }
        self.0.push((name.to_owned(), value.to_owned()));
        None
    }

    /// Removes a feature and returns its value.
    pub fn remove(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(at).1)
    }

    /// The value of a feature.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Names and values in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Features {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(pairs: I) -> Self {
        let mut features = Self::default();
        for (name, value) in pairs {
            features.set(&name, &value);
        }
        features
    }
}

impl Serialize for Features {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Features {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = Map::deserialize(deserializer)?;
        map.into_iter()
            .map(|(name, value)| match value {
                Value::String(value) => Ok((name, value)),
                other => Err(serde::de::Error::custom(format!("feature {name} is {other}, not a string"))),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Features;

    #[test]
    fn a_changed_feature_keeps_its_place() {
        let mut features = Features::default();
        features.set("b", "1");
        features.set("a", "2");
        assert_eq!(features.set("b", "3"), Some("1".to_owned()));
        let json = serde_json::to_string(&features).expect("a map");
        assert_eq!(json, r#"{"b":"3","a":"2"}"#);
        assert_eq!(serde_json::from_str::<Features>(&json).expect("the same map"), features);
    }
}
