//! `grants`, `check-policy`, `status`, `cancel`: what other qubes may ask for, and what became of it.

use super::{Command, CommandDef, Opt, OptDef};

pub(super) static PLAN: OptDef = OptDef::value(
    Opt::Plan,
    "plan",
    "ID",
    "With --via: do exactly what this plan of a dry run says, or nothing",
)
.ours();
pub(super) static ON_HANGUP: OptDef = OptDef::value(
    Opt::OnHangup,
    "on-hangup",
    "WHAT",
    "With --via: `cancel` (default) or `continue` when this program ends early",
)
.ours();
static JOB: OptDef = OptDef::value(Opt::Job, "job", "ID", "Only this job").ours();
static FOLLOW: OptDef =
    OptDef::flag(Opt::Follow, "follow", "Tell how the last job goes until it ends").ours();
static FILE: OptDef =
    OptDef::value(Opt::File, "file", "FILE", "Another file [default: /etc/qubes/qvm-template-grants.toml]")
        .ours();
static TAG: OptDef =
    OptDef::value(Opt::Tag, "tag", "TAG", "A tag that the caller has; may be repeated").ours();

static FOR: OptDef = OptDef::value(
    Opt::For,
    "for",
    "COMMAND",
    "Only what this command needs, with the rules that are missing",
)
.ours();

pub(super) const GRANTS: CommandDef = CommandDef {
    original: false,
    options: &[&FILE, &TAG],
    details: "Other qubes may ask this one for templates as far as /etc/qubes/qvm-template-grants.toml grants it. \
              `grants check` reads that file, remarks what is odd, and prints who may do what with which templates; \
              `grants explain CALLER VERB TEMPLATE` says which line decides.\n\n\
              Examples:\n  qvm-template grants check --file ./new.toml debian-13-xfce\n  \
              qvm-template grants explain help-desk install debian-13-xfce",
    ..CommandDef::new(Command::Grants, "grants", "ACTION", "Check what other qubes may ask for")
};

pub(super) const CHECK_POLICY: CommandDef = CommandDef {
    original: false,
    options: &[&FOR, &TAG],
    details: "Where dom0's policy can be read, tells which commands it lets the management qube QUBE run, and which rules are \
              missing; elsewhere prints the rules that are needed. Either is text to paste into a file in dom0's \
              /etc/qubes/policy.d. Nobody is asked, so no refusal is shown to anybody. Status 1: a rule that the command \
              cannot do without is missing.\n\nExamples:\n  qvm-template check-policy --for install\n  \
              qvm-template check-policy mgmt --tag template-manager   (in dom0)",
    ..CommandDef::new(
        Command::CheckPolicy,
        "check-policy",
        "QUBE",
        "Check or print the policy that commands need",
    )
};

pub(super) const STATUS: CommandDef = CommandDef {
    original: false,
    options: &[&JOB, &FOLLOW],
    details: "Shows the jobs that other qubes began here; with --via, those that this qube began there.",
    ..CommandDef::new(Command::Status, "status", "TEMPLATE", "Show jobs that were asked for by services")
};

pub(super) const CANCEL: CommandDef = CommandDef {
    original: false,
    options: &[&JOB],
    details: "Ends jobs of a template that still run; what they began is undone.",
    ..CommandDef::new(Command::Cancel, "cancel", "TEMPLATE", "End a job that was asked for by a service")
};
