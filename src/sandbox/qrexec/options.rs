//! The options of `qrexec-client-vm`, read as `getopt_long` reads them: short ones joined, long ones cut short, nothing
//! after the first word that is none.

/// What was typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options {
    /// `-t` and its opposite; none: decided by the terminal.
    pub filter_stdout: Option<bool>,
    /// `-T` and its opposite.
    pub filter_stderr: Option<bool>,
    /// `--agent-socket`
    pub agent_socket: Option<Vec<u8>>,
    /// `--prefix-data`
    pub prefix: Option<Vec<u8>>,
    /// `--source-qube`
    pub source: Option<Vec<u8>>,
    /// `--use-stdin-socket`
    pub stdin_socket: bool,
    /// Everything after the options.
    pub words: Vec<Vec<u8>>,
}

/// What reading them came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Parsed {
    /// Go on.
    Run(Options),
    /// `--help`
    Help,
    /// Usage on standard error, after this line.
    Usage(Option<String>),
    /// A line on standard error and this status.
    Fault(String, u8),
    /// A line for the log on standard error, status 1: source line, function, text.
    Logged(&'static str),
}

/// Long options: name, whether they take a value, what they are.
const LONG: [(&str, bool, Opt); 10] = [
    ("buffer-size", true, Opt::Buffer),
    ("filter-escape-chars-stdout", false, Opt::FilterOut),
    ("filter-escape-chars-stderr", false, Opt::FilterErr),
    ("no-filter-escape-chars-stdout", false, Opt::KeepOut),
    ("no-filter-escape-chars-stderr", false, Opt::KeepErr),
    ("agent-socket", true, Opt::Agent),
    ("prefix-data", true, Opt::Prefix),
    ("use-stdin-socket", false, Opt::StdinSocket),
    ("source-qube", true, Opt::Source),
    ("help", false, Opt::Help),
];

/// Short options.
const SHORT: [(u8, bool, Opt); 6] = [
    (b't', false, Opt::FilterOut),
    (b'T', false, Opt::FilterErr),
    (b'a', true, Opt::Agent),
    (b'p', true, Opt::Prefix),
    (b's', true, Opt::Source),
    (b'h', false, Opt::Help),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    Buffer,
    FilterOut,
    FilterErr,
    KeepOut,
    KeepErr,
    Agent,
    Prefix,
    StdinSocket,
    Source,
    Help,
}

/// Reads a command line without its first word, which is `name`.
pub(super) fn parse(name: &str, arguments: &[Vec<u8>], stdin_is_socket: bool) -> Parsed {
    let mut options = Options::default();
    let mut rest = arguments;
    while let [word, after @ ..] = rest {
        if word == b"--" {
            rest = after;
            break;
        }
        if word == b"-" || word.first() != Some(&b'-') {
            break;
        }
        rest = after;
        let found = match word.strip_prefix(b"--") {
            Some(long) => take_long(name, long, &mut rest).map(|one| vec![one]),
            None => take_short(name, &word[1..], &mut rest),
        };
        let found = match found {
            Ok(found) => found,
            Err(line) => return Parsed::Usage(Some(line)),
        };
        for (option, value) in found {
            if let Err(end) = apply(name, &mut options, option, value, stdin_is_socket) {
                return end;
            }
        }
    }
    options.words = rest.to_vec();
    if options.words.len() < 2 {
        return Parsed::Usage(None);
    }
    if options.words.len() > 2 && options.stdin_socket {
        return Parsed::Usage(Some("cannot spawn a local process with --use-stdin-socket".to_owned()));
    }
    Parsed::Run(options)
}

type Found = (Opt, Vec<u8>);

fn take_long(name: &str, word: &[u8], rest: &mut &[Vec<u8>]) -> Result<Found, String> {
    let at = word.iter().position(|byte| *byte == b'=');
    let (key, value) = at.map_or((word, None), |at| (&word[..at], Some(word[at + 1..].to_vec())));
    let shown = String::from_utf8_lossy(key).into_owned();
    let mut fitting: Vec<_> = LONG.iter().filter(|(long, ..)| long.as_bytes().starts_with(key)).collect();
    if let Some(exact) = fitting.iter().copied().find(|(long, ..)| long.as_bytes() == key) {
        fitting = vec![exact];
    }
    let (long, takes_value, option) = match fitting.as_slice() {
        [] => return Err(format!("{name}: unrecognized option '--{}'", String::from_utf8_lossy(word))),
        [one] => **one,
        several => {
            let names: Vec<String> = several.iter().map(|(long, ..)| format!("'--{long}'")).collect();
            return Err(format!(
                "{name}: option '--{shown}' is ambiguous; possibilities: {}",
                names.join(" ")
            ));
        }
    };
    match (takes_value, value) {
        (false, Some(_)) => Err(format!("{name}: option '--{long}' doesn't allow an argument")),
        (false, None) => Ok((option, Vec::new())),
        (true, Some(value)) => Ok((option, value)),
        (true, None) => match *rest {
            [value, after @ ..] => {
                *rest = after;
                Ok((option, value.clone()))
            }
            [] => Err(format!("{name}: option '--{long}' requires an argument")),
        },
    }
}

fn take_short(name: &str, letters: &[u8], rest: &mut &[Vec<u8>]) -> Result<Vec<Found>, String> {
    let mut found = Vec::new();
    for (at, letter) in letters.iter().enumerate() {
        let Some((_, takes_value, option)) = SHORT.iter().find(|(short, ..)| short == letter) else {
            return Err(format!("{name}: invalid option -- '{}'", char::from(*letter)));
        };
        if !takes_value {
            found.push((*option, Vec::new()));
            continue;
        }
        let value = match (&letters[at + 1..], *rest) {
            ([], [value, after @ ..]) => {
                *rest = after;
                value.clone()
            }
            ([], []) => {
                return Err(format!("{name}: option requires an argument -- '{}'", char::from(*letter)));
            }
            (joined, _) => joined.to_vec(),
        };
        found.push((*option, value));
        break;
    }
    Ok(found)
}

fn apply(
    name: &str,
    options: &mut Options,
    option: Opt,
    value: Vec<u8>,
    is_socket: bool,
) -> Result<(), Parsed> {
    match option {
        Opt::FilterOut => options.filter_stdout = Some(true),
        Opt::FilterErr => options.filter_stderr = Some(true),
        Opt::KeepOut => options.filter_stdout = Some(false),
        Opt::KeepErr => options.filter_stderr = Some(false),
        Opt::Agent => options.agent_socket = Some(value),
        Opt::Help => return Err(Parsed::Help),
        Opt::Buffer => check_size(&value)?,
        Opt::Prefix if options.prefix.is_some() => return Err(Parsed::Usage(None)),
        Opt::Prefix => options.prefix = Some(value),
        Opt::Source if options.source.is_some() => return Err(Parsed::Usage(None)),
        Opt::Source => options.source = Some(value),
        Opt::StdinSocket if options.stdin_socket => {
            return Err(Parsed::Fault(format!("{name}: --use-stdin-socket passed twice"), 2));
        }
        Opt::StdinSocket if !is_socket => {
            let line = format!("{name}: --use-stdin-socket passed, but stdin not a socket");
            return Err(Parsed::Fault(line, 2));
        }
        Opt::StdinSocket => options.stdin_socket = true,
    }
    Ok(())
}

/// Checks a buffer's size as `strtoul` with base 0 reads it; sockets need none.
fn check_size(value: &[u8]) -> Result<(), Parsed> {
    if !value.first().is_some_and(u8::is_ascii_digit) {
        return Err(Parsed::Fault("Bad buffer size: does not begin with a number".to_owned(), 1));
    }
    let is_hex =
        value.len() > 2 && value[0] == b'0' && value[1] | 0x20 == b'x' && value[2].is_ascii_hexdigit();
    let (digits, base) = match value {
        [_, _, digits @ ..] if is_hex => (digits, 16),
        [b'0', ..] => (value, 8),
        _ => (value, 10),
    };
    let mut size: Option<u64> = Some(0);
    let mut read = 0;
    for digit in digits.iter().map_while(|byte| char::from(*byte).to_digit(base)) {
        size = size.and_then(|size| size.checked_mul(u64::from(base))?.checked_add(u64::from(digit)));
        read += 1;
    }
    if size.is_none_or(|size| i32::try_from(size).is_err()) {
        return Err(Parsed::Logged("qrexec-client-vm.c:175:main: strtoul: Numerical result out of range"));
    }
    if read < digits.len() {
        return Err(Parsed::Fault("Bad buffer size: trailing junk".to_owned(), 1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> Parsed {
        let words: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        parse("qrexec-client-vm", &words, false)
    }

    #[test]
    fn options_end_at_the_first_word() {
        let Parsed::Run(options) = read(&["-tp", "x", "--buffer", "0x10", "a", "b", "-T"]) else { panic!() };
        assert_eq!(options.filter_stdout, Some(true));
        assert_eq!(options.prefix.as_deref(), Some(b"x".as_slice()));
        assert_eq!(options.words, [b"a".to_vec(), b"b".to_vec(), b"-T".to_vec()]);
        let Parsed::Run(options) = read(&["-pabc", "--", "-a", "b"]) else { panic!() };
        assert_eq!(options.prefix.as_deref(), Some(b"abc".as_slice()));
        assert_eq!(options.words.len(), 2);
    }

    #[test]
    fn sizes_are_read_as_in_c() {
        for good in ["0", "010", "0x7fffffff", "2147483647"] {
            assert_eq!(check_size(good.as_bytes()), Ok(()), "{good}");
        }
        for (bad, logged) in [("08", false), ("0x", false), ("2147483648", true), ("1 ", false)] {
            assert_eq!(matches!(check_size(bad.as_bytes()), Err(Parsed::Logged(_))), logged, "{bad}");
            assert!(check_size(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn faults_are_named() {
        let usage = |words: &[&str]| match read(words) {
            Parsed::Usage(line) => line.unwrap_or_default(),
            other => panic!("{other:?}"),
        };
        assert!(usage(&["--no", "a", "b"]).contains("ambiguous"));
        assert!(usage(&["--help=1", "a", "b"]).contains("doesn't allow"));
        assert!(usage(&["--prefix-data"]).contains("requires an argument"));
        assert_eq!(usage(&["a"]), "");
    }
}
