//! Man pages and completions, for whoever packages the program: `qvm-template docs KIND`.

use std::path::Path;

use anyhow::Context as _;

use super::help;
use crate::report::Failure;

/// Writes what is asked for: a completion script as text, or man pages into a directory.
///
/// # Errors
/// When it is not known what is asked for, or a file cannot be written.
pub fn run(arguments: &[String]) -> Result<String, Failure> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["bash"] => Ok(completion(clap_complete::Shell::Bash)),
        ["zsh"] => Ok(completion(clap_complete::Shell::Zsh)),
        ["fish"] => Ok(completion(clap_complete::Shell::Fish)),
        ["schema", "output"] => Ok(include_str!("schema/output-v1.json").to_owned()),
        ["schema", "progress"] => Ok(include_str!("schema/progress-v1.json").to_owned()),
        ["man", directory] => Ok(man(Path::new(directory))?),
        _ => {
            let forms = "`man DIR`, `bash`, `zsh`, `fish`, `schema output` or `schema progress`";
            Err(Failure::Usage(format!("docs writes {forms}")))
        }
    }
}

fn completion(shell: clap_complete::Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut help::program(), "qvm-template", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// One page for the whole and one for each command.
fn man(directory: &Path) -> anyhow::Result<String> {
    std::fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let program = help::program();
    let mut pages = vec![("qvm-template".to_owned(), program.clone())];
    let visible = program.get_subcommands().filter(|command| !command.is_hide_set());
    pages.extend(visible.map(|command| (format!("qvm-template-{}", command.get_name()), command.clone())));
    let mut names = String::new();
    for (name, command) in pages {
        let path = directory.join(format!("{name}.1"));
        let mut page = Vec::new();
        clap_mangen::Man::new(command).title(name).render(&mut page).context("writing a man page")?;
        std::fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
        names.push_str(&format!("{}\n", path.display()));
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn docs(words: &[&str]) -> Result<String, Failure> {
        run(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn completions_and_pages_know_the_commands() {
        for shell in ["bash", "zsh", "fish"] {
            let script = docs(&[shell]).unwrap();
            assert!(script.contains("migrate-from-rpmdb") && script.contains("all-versions"), "{shell}");
        }
        let place = tempfile::tempdir().unwrap();
        let names = docs(&["man", place.path().to_str().unwrap()]).unwrap();
        assert!(names.lines().count() > 13);
        let page = std::fs::read_to_string(place.path().join("qvm-template-install.1")).unwrap();
        assert!(page.contains("\\-\\-pool"));
        assert!(docs(&["x"]).is_err());
    }
}
