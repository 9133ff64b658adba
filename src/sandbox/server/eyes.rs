//! The policy of a sandbox, read again when its files change.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::policy::{Call, Directories, Domain, Facts, LoadError, Policy, Verdict};
use super::super::qubesd::{self, Visibility};
use super::super::state::Rule;

/// Reads the policy and answers what a qube may see.
#[derive(Debug)]
pub(super) struct Eyes {
    directories: Directories,
    /// Calls that the population refuses.
    refused: Vec<Rule>,
    read: Mutex<Option<(Fingerprint, Loaded)>>,
}

type Loaded = Arc<Result<Policy, LoadError>>;

/// Name, change time and size of every file of the policy.
type Fingerprint = Vec<(PathBuf, i64, i64, u64)>;

impl Eyes {
    pub(super) fn new(dir: &Path, refused: Vec<Rule>) -> Self {
        let directories = Directories::of_dom0(&super::roots::files(dir, "dom0"));
        Self { directories, refused, read: Mutex::default() }
    }

    /// The policy as it is now.
    pub(super) fn policy(&self) -> Loaded {
        let mut now = Vec::new();
        for path in
            self.directories.paths.iter().map(PathBuf::as_path).chain([Path::new("/etc/qubes-rpc/policy")])
        {
            fingerprint(&self.directories.root.join(path.strip_prefix("/").unwrap_or(path)), &mut now);
        }
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        match &*read {
            Some((then, policy)) if *then == now => Arc::clone(policy),
            _ => {
                let policy = Arc::new(Policy::load(&self.directories));
                *read = Some((now, Arc::clone(&policy)));
                policy
            }
        }
    }
}

impl Visibility for Eyes {
    fn allows(&self, facts: &qubesd::Facts, source: &str, service: &str, arg: &str, target: &str) -> bool {
        if self.refused.iter().any(|rule| rule.fits(service, arg, target)) {
            return false;
        }
        let facts = facts_for_policy(facts);
        let Ok(policy) = &*self.policy() else { return false };
        let argument = format!("+{arg}");
        let Ok(call) = Call::new((service, &argument), source, target, &facts, &mut Vec::new()) else {
            return false;
        };
        matches!(policy.evaluate(&call, &facts, &mut Vec::new()), Ok(Verdict::Allow { .. }))
    }
}

/// The server's picture of the system in the policy's words.
#[must_use]
pub fn facts_for_policy(facts: &qubesd::Facts) -> Facts {
    let domains = facts.qubes.iter().map(|(name, qube)| {
        let domain = Domain {
            tags: qube.tags.iter().cloned().collect(),
            class: qube.class.as_str().to_owned(),
            template_for_dispvms: qube.template_for_dispvms,
            default_dispvm: qube.default_dispvm.clone(),
            power_state: qube.state.as_str().to_owned(),
            guivm: qube.guivm.clone(),
            relayvm: None,
            uuid: qube.uuid.clone(),
            internal: qube.internal.then(|| "1".to_owned()),
        };
        (name.clone(), domain)
    });
    Facts { domains: domains.collect() }
}

fn fingerprint(directory: &Path, into: &mut Fingerprint) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut entries: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        if metadata.is_dir() {
            fingerprint(&path, into);
        } else {
            into.push((path, metadata.ctime(), metadata.ctime_nsec(), metadata.size()));
        }
    }
}
