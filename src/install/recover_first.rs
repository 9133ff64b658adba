//! What an earlier command left unfinished of the templates that are meant is put right before anything is chosen.

use super::{Job, Run};
use crate::journal;
use crate::lock::Lock;
use crate::recover::{self, Nameless};
use crate::report::{Failure, Message};
use crate::template::{TemplateName, TemplateSpec, fnmatch};

impl Run<'_, '_> {
    /// Recovers those of the meant templates that need it.
    pub(super) async fn recover_first(
        &self,
        lock: &Lock,
        specs: &[TemplateSpec],
        locals: &[Job],
    ) -> Result<(), Failure> {
        for name in journal::unfinished(&self.order.state) {
            if !locals.iter().any(|job| job.name.as_str() == name)
                && !specs.iter().any(|spec| means(spec, &name))
            {
                continue;
            }
            let Ok(name) = TemplateName::new(&name) else { continue };
            lock.template(name.as_str()).map_err(anyhow::Error::from)?;
            let outcome = recover::one(self.desk, &self.order.state, &name, Nameless::Leave).await?;
            self.reporter.say(&Message::Note(&outcome.told(name.as_str())));
        }
        Ok(())
    }
}

/// Whether a specification can mean a template of this name.
fn means(spec: &TemplateSpec, name: &str) -> bool {
    let text = spec.as_str();
    if spec.is_pattern() {
        return fnmatch::matches(text, name) || fnmatch::matches(text, &format!("{name}-"));
    }
    text.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_means_the_template_that_it_names() {
        let means = |spec: &str| means(&TemplateSpec::new(spec).unwrap(), "demo-xfce");
        for spec in ["demo-xfce", "demo-xfce-1.0", "demo-xfce-0:1.0-1", "demo*", "*", "demo-xfce-*"] {
            assert!(means(spec), "{spec}");
        }
        for spec in ["demo", "demo-xfce2", "other*"] {
            assert!(!means(spec), "{spec}");
        }
    }
}
