//! Calls about one qube: power, features, properties, volumes.

use super::system::{Property, pairs, read_property, text};
use super::{AdminApi, CallError, CallName};

/// One qube, and the way to dom0.
#[derive(Clone, Copy)]
pub struct QubeApi<'a> {
    api: &'a dyn AdminApi,
    name: &'a str,
}

/// What `admin.vm.volume.Info` says about a volume.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct VolumeInfo {
    /// Storage pool.
    pub pool: String,
    /// Size, in bytes.
    pub size: u64,
    /// Bytes taken in the pool.
    pub usage: u64,
    /// How many earlier contents the pool keeps; -1 and 0 for none.
    pub revisions_to_keep: i64,
}

impl std::fmt::Debug for QubeApi<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QubeApi").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<'a> QubeApi<'a> {
    /// The qube called `name`. Nothing is asked yet.
    #[must_use]
    pub fn new(api: &'a dyn AdminApi, name: &'a str) -> Self {
        Self { api, name }
    }

    /// Name of the qube.
    #[must_use]
    pub fn name(&self) -> &'a str {
        self.name
    }

    /// Value of a feature; `None` where it is not set.
    ///
    /// # Errors
    /// When the call fails otherwise.
    pub async fn feature(&self, name: &str) -> Result<Option<String>, CallError> {
        match self.ask("admin.vm.feature.Get", Some(name)).await {
            Ok(value) => Ok(Some(value)),
            Err(e) if e.is("QubesFeatureNotFoundError") => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Names of the features that are set.
    ///
    /// # Errors
    /// When the call fails or its answer cannot be read.
    pub async fn features(&self) -> Result<Vec<String>, CallError> {
        Ok(self.ask("admin.vm.feature.List", None).await?.lines().map(str::to_owned).collect())
    }

    /// Sets a feature.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn set_feature(&self, name: &str, value: &str) -> Result<(), CallError> {
        self.tell("admin.vm.feature.Set", Some(name), value.as_bytes()).await
    }

    /// Removes a feature; one that is not there is no error.
    ///
    /// # Errors
    /// When the call fails otherwise.
    pub async fn remove_feature(&self, name: &str) -> Result<(), CallError> {
        match self.tell("admin.vm.feature.Remove", Some(name), b"").await {
            Err(e) if e.is("QubesFeatureNotFoundError") => Ok(()),
            other => other,
        }
    }

    /// Value of a property.
    ///
    /// # Errors
    /// When the call fails or its answer cannot be read.
    pub async fn property(&self, name: &str) -> Result<Property, CallError> {
        read_property(self.api, self.name, "admin.vm.property.Get", name).await
    }

    /// Sets a property; an empty value is none.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn set_property(&self, name: &str, value: &str) -> Result<(), CallError> {
        self.tell("admin.vm.property.Set", Some(name), value.as_bytes()).await
    }

    /// Puts a property back to its default.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn reset_property(&self, name: &str) -> Result<(), CallError> {
        self.tell("admin.vm.property.Reset", Some(name), b"").await
    }

    /// Its tags.
    ///
    /// # Errors
    /// When the call fails or its answer cannot be read.
    pub async fn tags(&self) -> Result<Vec<String>, CallError> {
        Ok(self.ask("admin.vm.tag.List", None).await?.lines().map(str::to_owned).collect())
    }

    /// Gives it a tag.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn set_tag(&self, tag: &str) -> Result<(), CallError> {
        self.tell("admin.vm.tag.Set", Some(tag), b"").await
    }

    /// Names of the volumes.
    ///
    /// # Errors
    /// When the call fails or its answer cannot be read.
    pub async fn volumes(&self) -> Result<Vec<String>, CallError> {
        Ok(self.ask("admin.vm.volume.List", None).await?.lines().map(str::to_owned).collect())
    }

    /// Size, pool and usage of a volume. What is missing counts as zero.
    ///
    /// # Errors
    /// When the call fails or its answer cannot be read.
    pub async fn volume(&self, name: &str) -> Result<VolumeInfo, CallError> {
        let mut info = VolumeInfo::default();
        for (key, value) in pairs(&self.ask("admin.vm.volume.Info", Some(name)).await?) {
            match key.as_str() {
                "pool" => info.pool = value,
                "size" => info.size = value.parse().unwrap_or(0),
                "usage" => info.usage = value.parse().unwrap_or(0),
                "revisions_to_keep" => info.revisions_to_keep = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        Ok(info)
    }

    /// Earlier contents of a volume that the pool still has, oldest first.
    ///
    /// # Errors
    /// When the call fails or its answer cannot be read.
    pub async fn revisions(&self, volume: &str) -> Result<Vec<String>, CallError> {
        Ok(self
            .ask("admin.vm.volume.ListSnapshots", Some(volume))
            .await?
            .lines()
            .map(str::to_owned)
            .collect())
    }

    /// Puts an earlier content of a volume back.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn revert(&self, volume: &str, revision: &str) -> Result<(), CallError> {
        self.tell("admin.vm.volume.Revert", Some(volume), revision.as_bytes()).await
    }

    /// Says how many earlier contents of a volume the pool shall keep.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn keep_revisions(&self, volume: &str, count: i64) -> Result<(), CallError> {
        let count = count.to_string();
        self.tell("admin.vm.volume.Set.revisions_to_keep", Some(volume), count.as_bytes()).await
    }

    /// Replaces the content of a volume by zeros.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn clear_volume(&self, volume: &str) -> Result<(), CallError> {
        self.tell("admin.vm.volume.Clear", Some(volume), b"").await
    }

    /// Starts the qube, and returns when it runs.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn start(&self) -> Result<(), CallError> {
        self.tell("admin.vm.Start", None, b"").await
    }

    /// Shuts the qube down, and returns when it is off.
    ///
    /// # Errors
    /// When the call fails, or dom0 gave up waiting.
    pub async fn shutdown_and_wait(&self) -> Result<(), CallError> {
        self.tell("admin.vm.Shutdown", Some("wait"), b"").await
    }

    /// Ends the qube at once.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn kill(&self) -> Result<(), CallError> {
        self.tell("admin.vm.Kill", None, b"").await
    }

    /// Power state at this moment, such as `Halted`.
    ///
    /// # Errors
    /// When the call fails or its answer cannot be read.
    pub async fn power_state(&self) -> Result<String, CallError> {
        let answer = self.ask("admin.vm.CurrentState", None).await?;
        let state = answer.split_whitespace().find_map(|word| word.strip_prefix("power_state="));
        let call = CallName::new(self.name, "admin.vm.CurrentState", None);
        state.map(str::to_owned).ok_or(CallError::Malformed(call))
    }

    /// Removes the qube with its volumes.
    ///
    /// # Errors
    /// When the call fails.
    pub async fn remove(&self) -> Result<(), CallError> {
        self.tell("admin.vm.Remove", None, b"").await
    }

    async fn ask(&self, method: &str, arg: Option<&str>) -> Result<String, CallError> {
        text(&CallName::new(self.name, method, arg), self.api.call(self.name, method, arg, b"").await?)
    }

    async fn tell(&self, method: &str, arg: Option<&str>, payload: &[u8]) -> Result<(), CallError> {
        self.api.call(self.name, method, arg, payload).await.map(drop)
    }
}
