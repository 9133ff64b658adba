//! `switch`, `retire`: another template in the place of one.

use crate::admin;
use crate::cli::config::directory;
use crate::cli::run::{Done, Run};
use crate::cli::table::Opt;
use crate::report::Failure;
use crate::state::Directory;
use crate::switch::{self, Desk, Options, Running, Switched};

impl Run<'_> {
    pub(in crate::cli) async fn switch(&self) -> Result<Done, Failure> {
        let names = &self.typed.positionals;
        let (from, to) = (self.typed.last(Opt::From), self.typed.last(Opt::To));
        let undo = self.typed.last(Opt::Undo).map(directory);
        let (from, to) = match (from, to, names.as_slice(), &undo) {
            (Some(from), Some(to), [], _) => (from, to),
            (None, None, [from, to], _) => (from.as_str(), to.as_str()),
            (None, None, [], Some(undo)) => {
                let switched = self.at_desk(None, async |desk| switch::undo(desk, undo).await).await?;
                return Ok(self.told(&switched, "taken back"));
            }
            _ => {
                let text = "the following arguments are required: --from OLD --to NEW, or --undo FILE";
                return Err(Failure::Usage(text.to_owned()));
            }
        };
        let switched = self.at_desk(undo.clone(), async |desk| switch::run(desk, from, to).await).await?;
        Ok(self.told(&switched, "changed"))
    }

    pub(in crate::cli) async fn retire(&self) -> Result<Done, Failure> {
        let ([from], Some(to)) = (self.typed.positionals.as_slice(), self.typed.last(Opt::To)) else {
            let text = "the following arguments are required: one TEMPLATE, --to NEW";
            return Err(Failure::Usage(text.to_owned()));
        };
        let undo = self.typed.last(Opt::Undo).map(directory);
        let retired = self.at_desk(undo, async |desk| switch::retire(desk, from, to).await).await?;
        let mut done = self.told(&retired, "changed");
        let would = if self.typed.has(Opt::DryRun) { "would remove" } else { "removed" };
        done.text.push_str(&format!("{would} {from}\n"));
        Ok(done)
    }

    async fn at_desk(
        &self,
        undo: Option<std::path::PathBuf>,
        work: impl AsyncFnOnce(Desk<'_>) -> Result<Switched, Failure>,
    ) -> Result<Switched, Failure> {
        let options = Options {
            ask: !self.typed.has(Opt::Yes),
            dry_run: self.typed.has(Opt::DryRun),
            running: match () {
                () if self.typed.has(Opt::Restart) => Running::Restart,
                () if self.typed.has(Opt::Shutdown) => Running::ShutDown,
                () => Running::Refuse,
            },
            undo,
            own: nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()),
        };
        let api = admin::connect();
        let state = Directory::open(self.settings.state_dir.value.as_deref())?;
        let desk = Desk {
            api: api.as_ref(),
            reporter: self.terminal,
            cancel: self.cancel,
            ledger: self.ledger,
            state: &state,
            options: &options,
        };
        work(desk).await
    }

    /// What was done, for people; programs read it in the ledger.
    fn told(&self, switched: &Switched, word: &str) -> Done {
        let mut text = String::new();
        if self.typed.has(Opt::DryRun) {
            switched
                .changes
                .iter()
                .for_each(|change| text.push_str(&format!("would change {}\n", change.told())));
        } else if !switched.changes.is_empty() {
            text.push_str(&format!("{word}: {}\n", switched.changes.len()));
        }
        if switched.changes.is_empty() {
            text.push_str("nothing to change\n");
        }
        if let Some(undo) = &switched.undo {
            self.ledger.tell("undo", serde_json::json!(undo.display().to_string()));
            text.push_str(&format!("undo file: {}\n", undo.display()));
        }
        Done::text(crate::untrusted::displayable(&text, true))
    }
}
