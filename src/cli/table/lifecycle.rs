//! `switch`, `retire`, `adopt`, `refresh-metadata`, `recover`, `finalize`: commands about the life of a template beyond its installation.

use super::{Command, CommandDef, DRY_RUN, Opt, OptDef};

pub(super) static NAME: OptDef = OptDef::value(
    Opt::Name,
    "name",
    "NAME",
    "Call the new template NAME and not as its package; later commands know it by that",
)
.ours();
static FROM: OptDef = OptDef::value(Opt::From, "from", "OLD", "Template that is given up").ours();
static TO: OptDef = OptDef::value(Opt::To, "to", "NEW", "Template that takes its place").ours();
static UNDO: OptDef = OptDef::value(
    Opt::Undo,
    "undo",
    "FILE",
    "Alone: take back the switch that FILE tells of; else: where the undo file goes",
)
.ours();
static UNDO_FILE: OptDef = OptDef::value(
    Opt::Undo,
    "undo",
    "FILE",
    "Where the undo file goes; it is removed again when all went well",
)
.ours();
static SHUTDOWN: OptDef = OptDef::flag(
    Opt::Shutdown,
    "shutdown",
    "Shut down qubes that have to be off for this, and leave them so",
)
.ours()
.group(3);
static RESTART: OptDef = OptDef::flag(
    Opt::Restart,
    "restart",
    "Shut down qubes that have to be off for this, and start them again afterwards",
)
.ours()
.group(3);
pub(super) const SWITCH: CommandDef = CommandDef {
    options: &[&FROM, &TO, &UNDO, &SHUTDOWN, &RESTART, &DRY_RUN],
    original: false,
    details: "Lets everything that uses the template OLD use NEW: qubes that are based on it, and the default template of the \
                  system. With OLD and NEW that disposables are made from: named disposables, and the default and management \
                  disposables of the system and of qubes. OLD and NEW can stand without --from and --to, in this order.\n\n\
                  The template of a qube can change only while the qube is off, and that of a qube that disposables are made \
                  from only while none of these runs; without --shutdown or --restart the command stops there and names them. \
                  Disposables that dom0 made in advance need not be off: dom0 makes them anew.\n\n\
                  What is going to be changed is written to an undo file first, and its name printed. When a call fails or a \
                  signal comes, everything is taken back at once.\n\n\
                  Examples:\n  qvm-template switch --dry-run --from fedora-42-xfce --to fedora-43-xfce\n  \
                  qvm-template switch --restart --from fedora-42-xfce --to fedora-43-xfce\n  \
                  qvm-template switch --undo ~/.local/state/qvm-template/undo/fedora-42-xfce-to-fedora-43-xfce.1.json",
    ..CommandDef::new(Command::Switch, "switch", "TEMPLATE", "Let what uses a template use another one")
};

pub(super) const RETIRE: CommandDef = CommandDef {
    options: &[&TO, &UNDO_FILE, &SHUTDOWN, &RESTART, &DRY_RUN],
    original: false,
    details: "Does what `switch` does and then removes the template. Where dom0 does not let it go, because something \
                  uses it that we may not see, everything that used it uses it again.\n\n\
                  Example:\n  qvm-template retire fedora-42-xfce --to fedora-43-xfce",
    ..CommandDef::new(
        Command::Retire,
        "retire",
        "TEMPLATE",
        "Let what uses a template use another one, and remove it",
    )
};

pub(super) const ADOPT: CommandDef = CommandDef {
    options: &[&DRY_RUN],
    original: false,
    details: "Takes templates under management that another tool installed, that were cloned, or that lost their mark: what they \
              are is read from their features, and nothing is made up. Where these do not tell the build and its times, the \
              template stays as it is. `list` shows where templates come from.",
    ..CommandDef::new(Command::Adopt, "adopt", "TEMPLATE", "Take templates under management")
};

pub(super) const REFRESH_METADATA: CommandDef = CommandDef {
    options: &[&DRY_RUN],
    original: false,
    details: "Sets summary, description, address and licence of installed templates as the signed header of their package says. \
              Only the beginning of the package is fetched. The repository has to have the very build that is installed.",
    ..CommandDef::new(
        Command::RefreshMetadata,
        "refresh-metadata",
        "TEMPLATE",
        "Take the description of templates from their packages anew",
    )
};

pub(super) const RECOVER: CommandDef = CommandDef {
    original: false,
    details: "Finishes or undoes work on templates that was cut short by a power cut, a kill or the like: a new template is \
              removed, or completed where only its first start was missing; an existing one goes back to its old content and \
              settings, or is completed where the storage pool has not kept them. Without a name, all such work. Every \
              other command tells when there is any, and install, reinstall, upgrade and downgrade do this first for the \
              templates that they are for. Status 3: a template is installed, but not finalized.",
    ..CommandDef::new(Command::Recover, "recover", "TEMPLATE", "Finish or undo work that was cut short")
};

pub(super) const FINALIZE: CommandDef = CommandDef {
    original: false,
    details: "Repeats the first start of templates, in which they tell dom0 what they support, and nothing else. A template \
              whose first start failed has the feature qvm-template-not-finalized until this succeeds. Status 3: it failed \
              again.",
    ..CommandDef::new(Command::Finalize, "finalize", "TEMPLATE", "Repeat the first start of templates")
};
