//! `ensure`, `default`: commands that say how things should be.

use super::{
    ALLOW_OLDER, ALLOW_PV, ALLOW_REPOSITORY_CHANGE, ALLOW_SIGNER_CHANGE, Command, CommandDef, DISASSOC,
    DRY_RUN, MAX_IMAGE_SIZE, NEWEST, Opt, OptDef, POOL, REQUIRE_MAX_AGE, RETRIES, SKIP_START,
};

static ABSENT: OptDef =
    OptDef::flag(Opt::Absent, "absent", "See to it that there is no such template").ours();
static ANY: OptDef =
    OptDef::flag(Opt::Any, "any", "Let a template do that this tool does not manage, as a clone").ours();
static FINALIZED: OptDef = OptDef::flag(
    Opt::Finalized,
    "finalized",
    "Only see to it that the first start of one that is there went as it should; repeat it where it did not",
)
.ours();
static BUILD: OptDef =
    OptDef::value(Opt::Build, "build", "BUILD", "Exactly this build: [EPOCH:]VERSION[-RELEASE]").ours();
static MIN_BUILD: OptDef =
    OptDef::value(Opt::MinBuild, "min-build", "BUILD", "This build or a newer one").ours();
static REPOSITORY: OptDef =
    OptDef::value(Opt::Repository, "repository", "REPO", "A build of this repository").ours();
static SIGNER: OptDef =
    OptDef::value(Opt::Signer, "signer", "FINGERPRINT", "A build that this certificate signed").ours();
static OVERWRITE: OptDef =
    OptDef::flag(Opt::Overwrite, "overwrite", "Replace what is there, with all changes inside it").ours();
static TEMPLATE: OptDef =
    OptDef::value(Opt::Template, "template", "NAME", "Template of new qubes; empty: none").ours();
static DISPVM: OptDef =
    OptDef::value(Opt::Dispvm, "dispvm", "NAME", "Disposable template of the system; empty: none").ours();
static MANAGEMENT_DISPVM: OptDef = OptDef::value(
    Opt::ManagementDispvm,
    "management-dispvm",
    "NAME",
    "Disposable template that qubes are managed from; empty: none",
)
.ours();

pub(super) const ENSURE: CommandDef = CommandDef {
    options: &[
        &ABSENT,
        &DISASSOC,
        &ANY,
        &FINALIZED,
        &BUILD,
        &MIN_BUILD,
        &NEWEST,
        &REPOSITORY,
        &SIGNER,
        &OVERWRITE,
        &POOL,
        &ALLOW_PV,
        &SKIP_START,
        &RETRIES,
        &ALLOW_OLDER,
        &ALLOW_REPOSITORY_CHANGE,
        &ALLOW_SIGNER_CHANGE,
        &REQUIRE_MAX_AGE,
        &MAX_IMAGE_SIZE,
        &DRY_RUN,
    ],
    original: false,
    details: "Installs a template where it is missing. One that is there and is not as asked stays as it is, and the command \
              fails and says why; with --overwrite it is replaced, and all changes inside it are lost. Where all is as asked \
              nothing is done and no repository is asked, so that the command can be repeated at any time, without network \
              too; with --newest the repositories are asked each time. --signer of what is there already is answered from \
              what this qube remembers of its own installations. Made for Salt and its like.\n\n\
              Examples:\n  \
              qvm-template ensure debian-13-minimal --min-build=4.3.0 --dry-run\n  \
              qvm-template ensure fedora-43-xfce --newest --overwrite\n  \
              qvm-template ensure fedora-42-xfce --absent",
    ..CommandDef::new(Command::Ensure, "ensure", "TEMPLATE", "Make a template as it should be")
};

pub(super) const DEFAULT: CommandDef = CommandDef {
    options: &[&TEMPLATE, &DISPVM, &MANAGEMENT_DISPVM, &DRY_RUN],
    original: false,
    details: "Sets default_template, default_dispvm and management_dispvm of the system; what is not named is left alone, and \
              what is so already is not set again. All names are checked before the first change; when a change fails those \
              before it are taken back.\n\n\
              Example:\n  qvm-template default --template=debian-13-xfce --dry-run",
    ..CommandDef::new(Command::Default, "default", "", "Set what the system takes where nobody chose")
};
