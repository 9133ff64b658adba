//! Templates whose qube is called otherwise than their package: `install --name`, and what later commands make of it.
//!
//! The mark (`template-name`) is the qube's name, so that every tool takes it for managed and lists it; our record has the name in
//! the package. Commands that need what is installed look there and ask the repositories for that. The original asks for the
//! qube's name and finds nothing, so it can list and remove such a template and not replace it by accident.

use std::collections::HashMap;

use super::{Job, Run, Verb};
use crate::admin::system;
use crate::census;
use crate::report::Failure;
use crate::template::{Presence, TemplateSpec, fnmatch};

/// A qube and the name in its package.
#[derive(Clone, Debug)]
pub(super) struct Renamed {
    /// Name of the qube.
    pub qube: String,
    /// Name of the template in its package.
    package: String,
    /// Whether it was named, and not only meant by a pattern.
    pub literal: bool,
}

impl Run<'_, '_> {
    /// The specifications as they are for repositories: where one means a qube that is called otherwise than its package, with
    /// the package's name instead of it. A pattern may mean several.
    pub(super) async fn expanded(
        &self,
        specs: &[TemplateSpec],
    ) -> Result<Vec<(TemplateSpec, Option<Renamed>)>, Failure> {
        let as_they_are = || specs.iter().map(|spec| (spec.clone(), None));
        if self.order.verb == Verb::Install || specs.is_empty() {
            return Ok(as_they_are().collect());
        }
        let templates = system::list(self.api).await?.into_iter().filter(system::Qube::is_template);
        let names: Vec<String> = templates.map(|qube| qube.name).collect();
        let mut all = Vec::new();
        for spec in specs {
            let text = spec.as_str();
            if spec.is_pattern() {
                all.push((spec.clone(), None));
                for qube in names.iter().filter(|name| fnmatch::matches(text, name)) {
                    if let Some(package) = self.package_of(qube).await? {
                        let renamed =
                            Renamed { qube: qube.clone(), package: package.clone(), literal: false };
                        all.push((TemplateSpec::new(&package).map_err(usage)?, Some(renamed)));
                    }
                }
                continue;
            }
            let rest = |name: &str| {
                text.strip_prefix(name)
                    .filter(|rest| rest.is_empty() || rest.starts_with('-'))
                    .map(str::to_owned)
            };
            let meant = names.iter().filter_map(|name| Some((name, rest(name)?)));
            // The longest name is the one that is meant.
            let meant = meant.max_by_key(|(name, _)| name.len());
            let package = match &meant {
                Some((qube, _)) => self.package_of(qube).await?,
                None => None,
            };
            match (meant, package) {
                (Some((qube, rest)), Some(package)) => {
                    let asked = TemplateSpec::new(&format!("{package}{rest}")).map_err(usage)?;
                    all.push((asked, Some(Renamed { qube: qube.clone(), package, literal: true })));
                }
                _ => all.push((spec.clone(), None)),
            }
        }
        Ok(all)
    }

    /// The name in its package of a managed qube that is called otherwise.
    async fn package_of(&self, qube: &str) -> Result<Option<String>, Failure> {
        // Where nobody may know, everything else will fail with a better message.
        Ok(census::one(self.api, qube).await.ok().flatten().and_then(|installed| installed.package))
    }

    /// What there is under the name of a qube, by the name of its package.
    pub(super) async fn presence_of_renamed(
        &self,
        renamed: Option<&Renamed>,
    ) -> Result<HashMap<String, Presence>, Failure> {
        let Some(Renamed { qube, package, .. }) = renamed else { return Ok(HashMap::new()) };
        let mut there = self.presence([qube.as_str()].into_iter()).await?;
        Ok(there.remove(qube).map(|presence| (package.clone(), presence)).into_iter().collect())
    }

    /// Gives the one new template its name, where the order has one.
    pub(super) fn renamed(
        &self,
        mut locals: Vec<Job>,
        mut offers: Vec<Job>,
    ) -> Result<(Vec<Job>, Vec<Job>), Failure> {
        let Some(name) = &self.order.name else { return Ok((locals, offers)) };
        let mut jobs = locals.iter_mut().chain(&mut offers);
        match (jobs.next(), jobs.next()) {
            (Some(job), None) => job.name = name.clone(),
            _ => return Err(Failure::Usage("--name is for one template at a time".to_owned())),
        }
        Ok((locals, offers))
    }
}

fn usage(error: impl std::fmt::Display) -> Failure {
    Failure::Usage(error.to_string())
}
