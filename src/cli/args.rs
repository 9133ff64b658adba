//! What was typed: the command line taken apart, nothing interpreted.
//!
//! The original reads the line twice, first the command's parser, then the global one over what is left. What follows from that and
//! what people rely on is kept: global options in both places, long options abbreviated as far as they stay unambiguous, `--` ends
//! options, an option of the command wins over a global one of the same beginning, but a beginning that is ambiguous
//! among the global options is refused everywhere. Its accidents are not kept: a global option with its value behind the command,
//! and a name behind an option, mean what they say.

use super::table::{COMMANDS, Command, GLOBAL, Opt, OptDef};
use crate::spelling::similar;

/// A command line, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// The command.
    pub command: Command,
    /// The options in their order, with their values.
    pub options: Vec<(Opt, Option<String>)>,
    /// The other arguments.
    pub positionals: Vec<String>,
}

/// How a command line can end otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Help was asked for, on a command or on the whole.
    Help(Option<Command>),
    /// The version was asked for.
    Version,
    /// It is wrong.
    Usage {
        /// The command whose part is wrong; `None` for the rest.
        command: Option<Command>,
        /// What is wrong, in the original's words.
        message: String,
        /// What may have been meant.
        hint: Option<String>,
    },
}

impl Typed {
    /// Whether this option was given.
    #[must_use]
    pub fn has(&self, opt: Opt) -> bool {
        self.options.iter().any(|(have, _)| *have == opt)
    }

    /// How often this option was given.
    #[must_use]
    pub fn count(&self, opt: Opt) -> usize {
        self.options.iter().filter(|(have, _)| *have == opt).count()
    }

    /// The values given with this option.
    pub fn values(&self, opt: Opt) -> impl Iterator<Item = &str> {
        self.options.iter().filter(move |(have, _)| *have == opt).filter_map(|(_, value)| value.as_deref())
    }

    /// The last value given with this option: the one that counts.
    #[must_use]
    pub fn last(&self, opt: Opt) -> Option<&str> {
        self.values(opt).last()
    }

    /// Takes the arguments (without the program's name) apart.
    ///
    /// # Errors
    /// When help or the version was asked for, or the line is wrong.
    pub fn parse(args: &[String]) -> Result<Self, Stop> {
        Parser {
            args,
            at: 0,
            command: None,
            options: Vec::new(),
            positionals: Vec::new(),
            unknown: Vec::new(),
        }
        .run()
    }
}

struct Parser<'a> {
    args: &'a [String],
    at: usize,
    command: Option<Command>,
    options: Vec<(Opt, Option<String>)>,
    positionals: Vec<String>,
    unknown: Vec<String>,
}

/// An argument that looks like an option, resolved as far as possible.
enum Resolved<'a> {
    /// Not an option.
    Plain,
    /// An option, which the command (or else the whole program) has, and the text behind `=` or behind its letter.
    Known { def: &'static OptDef, own: bool, explicit: Option<&'a str> },
    /// Looks like an option, but is none.
    Unknown,
}

impl<'a> Parser<'a> {
    fn run(mut self) -> Result<Typed, Stop> {
        self.check_global_abbreviations()?;
        while let Some(arg) = self.args.get(self.at) {
            self.at += 1;
            if arg == "--" {
                let rest = &self.args[self.at..];
                self.at = self.args.len();
                for arg in rest {
                    self.plain(arg)?;
                }
                break;
            }
            match self.resolve(arg)? {
                Resolved::Plain => self.plain(arg)?,
                Resolved::Known { def, own, explicit } => self.option(def, own, explicit)?,
                Resolved::Unknown => self.unknown.push(arg.clone()),
            }
        }
        let Some(command) = self.command else {
            return Err(wrong(None, "A command needs to be specified.".to_owned()));
        };
        if !self.unknown.is_empty() {
            let hint = self.unknown.first().and_then(|option| self.similar_option(option));
            let message = format!("unrecognized arguments: {}", self.unknown.join(" "));
            return Err(Stop::Usage { command: None, message, hint });
        }
        Ok(Typed { command, options: self.options, positionals: self.positionals })
    }

    fn plain(&mut self, arg: &str) -> Result<(), Stop> {
        match self.command {
            None => {
                let Some(command) = Command::by_name(arg) else { return Err(invalid_choice(arg)) };
                self.command = Some(command);
            }
            Some(command) if command.def().positional.is_empty() => self.unknown.push(arg.to_owned()),
            Some(_) => self.positionals.push(arg.to_owned()),
        }
        Ok(())
    }

    fn option(&mut self, def: &'static OptDef, own: bool, explicit: Option<&str>) -> Result<(), Stop> {
        let blame = self.command.filter(|_| own);
        let mut def = def;
        let mut explicit = explicit;
        // Letters may stand together: `-vq`.
        while let (None, Some(text)) = (def.value, explicit) {
            let letter = text.chars().next();
            let next = GLOBAL.iter().find(|next| next.short.is_some() && next.short == letter);
            let (Some(_), Some(next)) = (def.short.filter(|_| !self.last_arg_is_long()), next) else {
                let message = format!("argument {}: ignored explicit argument '{text}'", def.display());
                return Err(wrong(blame, message));
            };
            self.act(def, None)?;
            def = next;
            explicit = Some(&text[1..]).filter(|rest| !rest.is_empty());
        }
        let value = match (def.value, explicit) {
            (None, _) => None,
            (Some(_), Some(text)) => Some(text.to_owned()),
            (Some(_), None) => {
                let next = self.args.get(self.at).filter(|next| next.as_str() != "--");
                let plain = next.map(|next| self.resolve(next)).transpose()?;
                let (Some(value), Some(Resolved::Plain)) = (next, plain) else {
                    return Err(wrong(blame, format!("argument {}: expected one argument", def.display())));
                };
                self.at += 1;
                Some(value.clone())
            }
        };
        let readable = |text: &str| match def.opt {
            Opt::Retries | Opt::RequireMaxAge => integer(text).map(drop).ok_or("int"),
            Opt::MaxImageSize => size(text).map(drop).ok_or("size"),
            _ => Ok(()),
        };
        if let Some((text, Err(kind))) = value.as_deref().map(|text| (text, readable(text))) {
            return Err(wrong(blame, format!("argument {}: invalid {kind} value: '{text}'", def.display())));
        }
        self.act(def, value)
    }

    fn act(&mut self, def: &'static OptDef, value: Option<String>) -> Result<(), Stop> {
        match def.opt {
            Opt::Help => return Err(Stop::Help(self.command)),
            Opt::Version => return Err(Stop::Version),
            _ => {}
        }
        if def.group != 0 {
            let own = self.command.map_or(&[][..], |command| command.def().options);
            let other = self.options.iter().find_map(|(have, _)| {
                own.iter()
                    .find(|other| other.opt == *have && other.opt != def.opt && other.group == def.group)
            });
            if let Some(other) = other {
                let message =
                    format!("argument {}: not allowed with argument {}", def.display(), other.display());
                return Err(wrong(self.command, message));
            }
        }
        self.options.push((def.opt, value));
        Ok(())
    }

    fn last_arg_is_long(&self) -> bool {
        self.at.checked_sub(1).and_then(|at| self.args.get(at)).is_some_and(|arg| arg.starts_with("--"))
    }

    fn resolve(&self, arg: &'a str) -> Result<Resolved<'a>, Stop> {
        if !arg.starts_with('-') || arg.len() == 1 {
            return Ok(Resolved::Plain);
        }
        let own: &[&'static OptDef] = self.command.map_or(&[], |command| command.def().options);
        if let Some(long) = arg.strip_prefix("--") {
            let (name, explicit) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            if let Some(def) = own.iter().find(|def| def.long == name) {
                return Ok(Resolved::Known { def, own: true, explicit });
            }
            if let Some(def) = GLOBAL.iter().find(|def| def.long == name) {
                return Ok(Resolved::Known { def, own: is_in_both(def), explicit });
            }
            let known: Vec<&OptDef> =
                own.iter().copied().chain(GLOBAL.iter().filter(|d| is_in_both(d))).collect();
            match abbreviated(&known, name)[..] {
                [] => {}
                [def] => return Ok(Resolved::Known { def, own: true, explicit }),
                ref many => return Err(ambiguous(self.command, arg, many)),
            }
            let global: Vec<&OptDef> = GLOBAL.iter().collect();
            if let [def] = abbreviated(&global, name)[..] {
                return Ok(Resolved::Known { def, own: false, explicit });
            }
        } else if let Some(letter) = arg.chars().nth(1)
            && let Some(def) = GLOBAL.iter().find(|def| def.short == Some(letter))
        {
            let explicit = Some(&arg[2..]).filter(|rest| !rest.is_empty());
            return Ok(Resolved::Known { def, own: true, explicit });
        }
        Ok(if is_negative_number(arg) || arg.contains(' ') { Resolved::Plain } else { Resolved::Unknown })
    }

    /// The original looks at every argument before `--` with the global parser first, whatever place it has.
    fn check_global_abbreviations(&self) -> Result<(), Stop> {
        let global: Vec<&'static OptDef> = GLOBAL.iter().collect();
        for arg in self.args.iter().take_while(|arg| *arg != "--") {
            let Some(long) = arg.strip_prefix("--") else { continue };
            let name = long.split_once('=').map_or(long, |(name, _)| name);
            let exact =
                COMMANDS.iter().flat_map(|c| c.options.iter().copied()).chain(GLOBAL).any(|d| d.long == name);
            if let (false, many @ [_, _, ..]) = (exact, &abbreviated(&global, name)[..]) {
                return Err(ambiguous(None, arg, many));
            }
        }
        Ok(())
    }

    fn similar_option(&self, typed: &str) -> Option<String> {
        let name = typed.trim_start_matches('-').split('=').next().unwrap_or_default();
        if typed == "-y" {
            return Some("did you mean `--yes`?".to_owned());
        }
        let own = self.command.map_or(&[][..], |command| command.def().options);
        let known = own.iter().copied().chain(GLOBAL).filter(|def| def.visible).map(|def| def.long);
        if let Some(meant) = similar(name, known) {
            return Some(format!("did you mean `--{meant}`?"));
        }
        let holders: Vec<&str> = COMMANDS
            .iter()
            .filter(|c| c.visible && c.options.iter().any(|def| def.long == name && def.visible))
            .map(|c| c.name)
            .collect();
        (!holders.is_empty()).then(|| format!("`--{name}` belongs to: {}", holders.join(", ")))
    }
}

/// The original's command parsers have these five of the global options too.
fn is_in_both(def: &OptDef) -> bool {
    matches!(def.opt, Opt::Verbose | Opt::Quiet | Opt::ForceRoot | Opt::Version | Opt::Help)
}

fn abbreviated<'d>(known: &[&'d OptDef], beginning: &str) -> Vec<&'d OptDef> {
    if beginning.is_empty() {
        return Vec::new();
    }
    known.iter().copied().filter(|def| def.original && def.long.starts_with(beginning)).collect()
}

fn wrong(command: Option<Command>, message: String) -> Stop {
    Stop::Usage { command, message, hint: None }
}

fn ambiguous(command: Option<Command>, arg: &str, many: &[&OptDef]) -> Stop {
    let names: Vec<String> = many.iter().map(|def| format!("--{}", def.long)).collect();
    wrong(command, format!("ambiguous option: {arg} could match {}", names.join(", ")))
}

fn invalid_choice(typed: &str) -> Stop {
    let names: Vec<String> =
        COMMANDS.iter().filter(|c| c.original).map(|c| format!("'{}'", c.name)).collect();
    let message = format!("argument command: invalid choice: '{typed}' (choose from {})", names.join(", "));
    let meant = similar(typed, COMMANDS.iter().filter(|c| c.visible).map(|c| c.name));
    Stop::Usage { command: None, message, hint: meant.map(|name| format!("did you mean `{name}`?")) }
}

fn is_negative_number(arg: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    arg.strip_prefix('-').is_some_and(|rest| match rest.split_once('.') {
        None => !rest.is_empty() && digits(rest),
        Some((whole, part)) => digits(whole) && !part.is_empty() && digits(part),
    })
}

/// A number of bytes, with one of the letters K, M, G or T for a power of 1024 behind it, or as in `GiB`.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_suffix("iB").unwrap_or(unit);
    let power = ["", "K", "M", "G", "T"].iter().position(|letter| unit.eq_ignore_ascii_case(letter))?;
    number.parse::<u64>().ok()?.checked_mul(1024_u64.pow(u32::try_from(power).ok()?))
}

/// A whole number as Python's `int` reads it.
#[must_use]
pub fn integer(text: &str) -> Option<i64> {
    let text = text.trim();
    let (sign, digits) = match text.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    let lonely = |part: &str| part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit());
    if digits.split('_').any(lonely) {
        return None;
    }
    digits.replace('_', "").parse::<i64>().ok().map(|number| sign * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<Typed, Stop> {
        let args: Vec<String> = line.iter().map(|arg| (*arg).to_owned()).collect();
        Typed::parse(&args)
    }

    fn error(line: &[&str]) -> String {
        match parse(line) {
            Err(Stop::Usage { command, message, .. }) => {
                format!("{}: {message}", command.map_or("", |command| command.def().name))
            }
            other => panic!("{line:?} gave {other:?}"),
        }
    }

    #[test]
    fn options_stand_before_and_after_the_command() {
        let typed =
            parse(&["--enablerepo", "a", "install", "--disablerepo=b", "x", "--repoid", "c"]).unwrap();
        let repos: Vec<(Opt, &str)> =
            typed.options.iter().map(|(o, v)| (*o, v.as_deref().unwrap())).collect();
        assert_eq!(repos, [(Opt::EnableRepo, "a"), (Opt::DisableRepo, "b"), (Opt::RepoId, "c")]);
        assert_eq!(typed.positionals, ["x"]);
    }

    #[test]
    fn the_originals_accidents_are_accepted() {
        assert_eq!(parse(&["install", "--enablerepo", "a", "x"]).unwrap().positionals, ["x"]);
        assert_eq!(parse(&["install", "a", "--yes", "b"]).unwrap().positionals, ["a", "b"]);
    }

    #[test]
    fn abbreviations_must_be_unambiguous() {
        assert!(parse(&["list", "--inst"]).unwrap().has(Opt::Installed));
        assert_eq!(parse(&["--enable", "a", "list"]).unwrap().last(Opt::EnableRepo), Some("a"));
        assert!(parse(&["repolist", "--enable"]).unwrap().has(Opt::Enabled));
        assert_eq!(parse(&["--c=/x", "list"]).unwrap().last(Opt::CacheDir), Some("/x"));
        assert_eq!(
            error(&["install", "--re=3", "x"]),
            ": ambiguous option: --re=3 could match --repo-files, --repoid, --releasever, --refresh"
        );
        assert_eq!(
            error(&["list", "--al"]),
            "list: ambiguous option: --al could match --all, --all-versions"
        );
        assert_eq!(
            error(&["list", "--machine"]),
            "list: ambiguous option: --machine could match --machine-readable, --machine-readable-json"
        );
        assert_eq!(error(&["list", "--jso"]), ": unrecognized arguments: --jso");
    }

    #[test]
    fn what_is_wrong_is_said_as_the_original_says_it() {
        for (line, expected) in [
            (&[][..], ": A command needs to be specified."),
            (&["-q"], ": A command needs to be specified."),
            (&["--releasever", "list"], ": A command needs to be specified."),
            (&["--nogpgcheck", "install", "x"], ": unrecognized arguments: --nogpgcheck"),
            (&["reinstall", "--pool", "p", "x"], ": unrecognized arguments: --pool"),
            (&["install", "-y", "x"], ": unrecognized arguments: -y"),
            (&["install", "---"], ": unrecognized arguments: ---"),
            (&["clean", "x"], ": unrecognized arguments: x"),
            (&["install", "--retries=x", "y"], "install: argument --retries: invalid int value: 'x'"),
            (
                &["install", "--allow-pv=1", "x"],
                "install: argument --allow-pv: ignored explicit argument '1'",
            ),
            (&["install", "x", "--yes=1"], ": argument --yes: ignored explicit argument '1'"),
            (&["install", "x", "--enablerepo"], ": argument --enablerepo: expected one argument"),
            (&["install", "--pool", "--yes"], "install: argument --pool: expected one argument"),
            (
                &["repolist", "--all", "--disabled"],
                "repolist: argument --disabled: not allowed with argument --all",
            ),
        ] {
            assert_eq!(error(line), expected, "{line:?}");
        }
        assert!(
            error(&["inst", "x"])
                .starts_with(": argument command: invalid choice: 'inst' (choose from 'install', ")
        );
    }

    #[test]
    fn two_dashes_end_the_options() {
        assert_eq!(parse(&["--yes", "install", "--", "-x"]).unwrap().positionals, ["-x"]);
        assert_eq!(parse(&["install", "a", "--", "--"]).unwrap().positionals, ["a", "--"]);
        assert_eq!(parse(&["install", "", "-1", "-a b"]).unwrap().positionals, ["", "-1", "-a b"]);
    }

    #[test]
    fn letters_may_stand_together() {
        let typed = parse(&["-vv", "list", "-vq"]).unwrap();
        assert_eq!((typed.count(Opt::Verbose), typed.count(Opt::Quiet)), (3, 1));
        assert_eq!(error(&["-vx", "list"]), ": argument --verbose/-v: ignored explicit argument 'x'");
        assert_eq!(parse(&["list", "-vh"]), Err(Stop::Help(Some(Command::List))));
    }

    #[test]
    fn what_may_have_been_meant_is_said() {
        let hint = |line: &[&str]| match parse(line) {
            Err(Stop::Usage { hint, .. }) => hint,
            other => panic!("{other:?}"),
        };
        assert_eq!(hint(&["intsall", "x"]).as_deref(), Some("did you mean `install`?"));
        assert_eq!(hint(&["install", "--skip-strat"]).as_deref(), Some("did you mean `--skip-start`?"));
        assert_eq!(hint(&["upgrade", "--pool=x"]).as_deref(), Some("`--pool` belongs to: install, ensure"));
        assert_eq!(hint(&["frobnicate"]), None);
    }

    #[test]
    fn integers_are_pythons() {
        for (text, number) in
            [("5", Some(5)), (" -3 ", Some(-3)), ("+1_0", Some(10)), ("1__0", None), ("", None), ("x", None)]
        {
            assert_eq!(integer(text), number, "{text:?}");
        }
    }

    #[test]
    fn every_command_is_in_the_table() {
        for def in COMMANDS {
            assert_eq!(Command::by_name(def.name), Some(def.command));
            assert_eq!(def.command.def().name, def.name);
        }
    }
}
