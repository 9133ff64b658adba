//! `list` and `info`: what is installed, available, extra and upgradable.
//!
//! What is installed comes from the features of the templates in this system, the rest from one search. Groups come in a fixed
//! order; installed templates are sorted by name, offers come in the order of the reply, or sorted by name and build where
//! specifications were given.

use crate::admin::AdminApi;
use crate::catalogue::Catalogue;
use crate::census::{self, Census, Fields};
use crate::report::Failure;
use crate::spelling;
use crate::template::provenance::Provenance;
use crate::template::select::newest_of_each;
use crate::template::{Installed, Offer, TemplateSpec};

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only templates that these mean; all when there are none.
    pub specs: Vec<TemplateSpec>,
    /// What is installed.
    pub installed: bool,
    /// What repositories have.
    pub available: bool,
    /// What is installed and in no repository.
    pub extras: bool,
    /// Newer builds of what is installed.
    pub upgrades: bool,
    /// Every build, not only the newest of each.
    pub all_versions: bool,
    /// Everything that is known, not only name, build and repository.
    pub details: bool,
    /// Until when an installed template's system is maintained, and whether its first start is still to be repeated.
    pub end_of_life: bool,
    /// How installed templates came to be what they are, and which templates are not managed.
    pub provenance: bool,
}

/// A group of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Installed here.
    Installed,
    /// In a repository.
    Available,
    /// Installed here and in no repository.
    Extra,
    /// In a repository, and newer than what is installed.
    Upgradable,
}

/// One line of a listing. All texts are fit to be shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// What is known of an installed template; of an offer the same fields, without a time of installation.
    pub template: Installed,
    /// Bytes that it takes or that the download has; known only where details were asked for.
    pub size: u64,
    /// The last day on which the installed system is maintained, where that is known and was asked for.
    pub end_of_life: String,
    /// Why an installed template is not finalized, one word; empty where it is, or where that was not asked for.
    pub not_finalized: String,
    /// How an installed template came to be what it is, where that was asked for.
    pub provenance: Option<Provenance>,
}

/// A listing.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// The groups that are not empty, in their order.
    pub groups: Vec<(Status, Vec<Entry>)>,
    /// Templates that are not managed and so in no group, where these were asked for.
    pub unmanaged: Vec<(String, Provenance)>,
    /// What a person should know beside it, fit to be shown.
    pub warnings: Vec<String>,
    /// Names that may have been meant, where nothing is listed.
    pub alike: Vec<String>,
}

impl Status {
    /// As programs read it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Available => "available",
            Self::Extra => "extra",
            Self::Upgradable => "upgradable",
        }
    }

    /// As people read it, above the group.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Installed => "Installed Templates",
            Self::Available => "Available Templates",
            Self::Extra => "Extra Templates",
            Self::Upgradable => "Available Upgrades",
        }
    }
}

impl Wanted {
    fn of_repositories(&self) -> bool {
        self.available || self.extras || self.upgrades
    }

    fn of_this_system(&self) -> bool {
        self.installed || self.extras || self.upgrades
    }

    fn meant(&self, template: &Installed) -> bool {
        self.specs.is_empty() || self.specs.iter().any(|spec| template.matches(spec))
    }
}

/// Gathers a listing. An empty one is no error here.
///
/// # Errors
/// When the qubes cannot be listed or the search fails.
pub async fn run(api: &dyn AdminApi, catalogue: &Catalogue<'_>, wanted: &Wanted) -> Result<Listing, Failure> {
    let offers = async {
        if wanted.of_repositories() {
            offers(catalogue, &wanted.specs).await
        } else {
            Ok((Vec::new(), Vec::new()))
        }
    };
    let census = async {
        let fields = if wanted.details { Fields::All } else { Fields::Build };
        if wanted.of_this_system() { Ok(census::take(api, fields).await?) } else { Ok(Census::default()) }
    };
    let ((offers, remarks), census) = tokio::try_join!(offers, census)?;
    let mut groups = groups(wanted, &offers, &census.templates);
    if wanted.details {
        for (_, entries) in groups.iter_mut().filter(|(s, _)| matches!(s, Status::Installed | Status::Extra))
        {
            let names: Vec<&str> = entries.iter().map(|entry| entry.template.name.as_str()).collect();
            let sizes = census::disk_usage(api, &names).await;
            entries.iter_mut().zip(sizes).for_each(|(entry, size)| entry.size = size);
        }
    }
    if wanted.end_of_life {
        for (_, entries) in groups.iter_mut().filter(|(s, _)| matches!(s, Status::Installed | Status::Extra))
        {
            let names: Vec<&str> = entries.iter().map(|entry| entry.template.name.as_str()).collect();
            let days = census::end_of_life(api, &names).await;
            let marks = census::not_finalized(api, &names).await;
            for ((entry, day), mark) in entries.iter_mut().zip(days).zip(marks) {
                (entry.end_of_life, entry.not_finalized) = (day, mark);
            }
        }
    }
    let mut unmanaged = Vec::new();
    if wanted.provenance && wanted.of_this_system() {
        let mut judged = census::provenance(api).await?;
        let of_here = |status: &Status| matches!(status, Status::Installed | Status::Extra);
        for (_, entries) in groups.iter_mut().filter(|(status, _)| of_here(status)) {
            for entry in entries {
                entry.provenance = judged.get(&entry.template.name).cloned();
            }
        }
        let meant = |name: &str| {
            wanted.specs.is_empty() || wanted.specs.iter().any(|spec| spec.matches_parts(name, "", "", ""))
        };
        judged.retain(|name, _| !census.templates.iter().any(|known| known.name == *name) && meant(name));
        unmanaged.extend(judged);
    }
    let mut warnings = census.warnings;
    let extras = groups.iter().any(|(status, _)| *status == Status::Extra);
    if extras && offers.is_empty() {
        warnings.push(
            "Warning: the enabled repositories have none of these; extra means no more than that".to_owned(),
        );
    }
    let mut alike = Vec::new();
    if groups.is_empty() {
        alike = meant_names(catalogue, wanted, &census.templates).await;
        warnings.extend(remarks.iter().map(|line| format!("[Qrexec] {line}")));
    }
    Ok(Listing { groups, unmanaged, warnings, alike })
}

/// Names of templates, here and in repositories if those were asked, that are like the one that was typed.
async fn meant_names(catalogue: &Catalogue<'_>, wanted: &Wanted, here: &[Installed]) -> Vec<String> {
    let [spec] = &wanted.specs[..] else { return Vec::new() };
    let there = if wanted.of_repositories() { catalogue.alike(spec.as_str()).await } else { Vec::new() };
    let names = here.iter().map(|template| template.name.as_str()).chain(there.iter().map(String::as_str));
    spelling::templates(spec.as_str(), names).into_iter().map(str::to_owned).collect()
}

/// What the repositories have of what `specs` mean, and what the service said beside it.
///
/// A request has room for one specification; for several everything is fetched once and the choice is made here.
async fn offers(
    catalogue: &Catalogue<'_>,
    specs: &[TemplateSpec],
) -> Result<(Vec<Offer>, Vec<String>), Failure> {
    let found = catalogue.look(if let [spec] = specs { Some(spec) } else { None }).await?;
    let mut offers = found.reply.offers;
    if !specs.is_empty() {
        offers.retain(|offer| specs.iter().any(|spec| spec.matches(&offer.name, &offer.evr)));
    }
    Ok((offers, found.remarks))
}

fn groups(wanted: &Wanted, offers: &[Offer], installed: &[Installed]) -> Vec<(Status, Vec<Entry>)> {
    let mut offered: Vec<&Offer> =
        if wanted.all_versions { offers.iter().collect() } else { newest_of_each(offers) };
    if !wanted.specs.is_empty() {
        offered.sort_by(|a, b| a.name.cmp(&b.name).then_with(|| a.evr.cmp(&b.evr)));
    }
    let meant: Vec<&Installed> = installed.iter().filter(|template| wanted.meant(template)).collect();
    let mut groups = Vec::new();
    let mut add = |status, asked: bool, entries: Vec<Entry>| {
        if asked && !entries.is_empty() {
            groups.push((status, entries));
        }
    };
    let here = |keep: &dyn Fn(&Installed) -> bool| {
        let entry = |t: &&Installed| Entry { template: (*t).clone(), ..Entry::default() };
        meant.iter().filter(|template| keep(template)).map(entry).collect()
    };
    let there = |keep: &dyn Fn(&Offer) -> bool| {
        offered.iter().copied().filter(|offer| keep(offer)).map(Entry::from).collect()
    };
    let is_offered = |template: &Installed| offers.iter().any(|offer| offer.name == template.origin());
    let is_newer = |offer: &Offer| {
        installed.iter().any(|template| {
            template.package.is_none() && template.name == offer.name && template.cmp_to(&offer.evr).is_gt()
        })
    };
    // Those that were installed under another name than their package's are shown under that.
    let newer_of_renamed = || {
        installed
            .iter()
            .filter_map(|template| template.package.as_ref().map(|package| (template, package)))
            .flat_map(|(template, package)| {
                let newer = offered
                    .iter()
                    .filter(move |offer| offer.name == *package && template.cmp_to(&offer.evr).is_gt());
                newer.map(|offer| {
                    let mut entry = Entry::from(*offer);
                    entry.template.name.clone_from(&template.name);
                    entry
                })
            })
    };
    add(Status::Installed, wanted.installed, here(&|_| true));
    add(Status::Available, wanted.available, there(&|_| true));
    add(Status::Extra, wanted.extras, here(&|template| !is_offered(template)));
    let mut upgrades: Vec<Entry> = there(&is_newer);
    upgrades.extend(newer_of_renamed());
    add(Status::Upgradable, wanted.upgrades, upgrades);
    groups
}

impl From<&Offer> for Entry {
    fn from(offer: &Offer) -> Self {
        let template = Installed {
            name: offer.name.clone(),
            epoch: offer.evr.epoch().to_string(),
            version: offer.evr.version().to_owned(),
            release: offer.evr.release().to_owned(),
            repo: offer.repo.to_string(),
            build_time: offer.build_time.to_string(),
            install_time: String::new(),
            license: offer.license.clone(),
            url: offer.url.clone(),
            summary: offer.summary.clone(),
            description: offer.description.clone(),
            package: None,
        };
        Self { template, size: offer.download_size, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::{Evr, RepoId, Timestamp};

    fn offer(name: &str, version: &str) -> Offer {
        Offer {
            name: name.to_owned(),
            evr: Evr::new("0", version, "1").unwrap(),
            repo: RepoId::new("r").unwrap(),
            download_size: 7,
            build_time: Timestamp(0),
            license: String::new(),
            url: String::new(),
            summary: String::new(),
            description: String::new(),
        }
    }

    fn installed(name: &str, version: &str) -> Installed {
        let (epoch, release) = ("0".to_owned(), "1".to_owned());
        Installed {
            name: name.to_owned(),
            epoch,
            version: version.to_owned(),
            release,
            ..Installed::default()
        }
    }

    fn show(wanted: &Wanted) -> Vec<String> {
        let offers = [offer("b", "2"), offer("a", "3"), offer("a", "1"), offer("a", "2")];
        let installed = [installed("a", "1"), installed("c", "1"), installed("half", "")];
        groups(wanted, &offers, &installed)
            .iter()
            .flat_map(|(status, entries)| {
                entries
                    .iter()
                    .map(|e| format!("{} {} {}", status.word(), e.template.name, e.template.version))
            })
            .collect()
    }

    #[test]
    fn groups_come_in_their_order() {
        let all =
            Wanted { installed: true, available: true, extras: true, upgrades: true, ..Wanted::default() };
        let expected = [
            "installed a 1",
            "installed c 1",
            "installed half ",
            "available b 2",
            "available a 3",
            "extra c 1",
            "extra half ",
            "upgradable a 3",
        ];
        assert_eq!(show(&all), expected);
        let upgrades = Wanted { upgrades: true, all_versions: true, ..Wanted::default() };
        assert_eq!(show(&upgrades), ["upgradable a 3", "upgradable a 2"]);
    }

    #[test]
    fn specifications_sort_and_restrict() {
        let specs = vec![TemplateSpec::new("a").unwrap(), TemplateSpec::new("half").unwrap()];
        let wanted =
            Wanted { specs, installed: true, available: true, all_versions: true, ..Wanted::default() };
        // The search has restricted the offers already.
        let expected = [
            "installed a 1",
            "installed half ",
            "available a 1",
            "available a 2",
            "available a 3",
            "available b 2",
        ];
        assert_eq!(show(&wanted), expected);
    }
}
