//! Writes the manual pages and the completions for shells of every command of `flocker-csi`, as packages install them.
//!
//! Both come from the definition of the command line, so the program itself does not carry them.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::{env, fs, io};

use clap::CommandFactory;
use clap_complete::Shell;
use flocker_csi::commands::cli::Cli;

const PROGRAM: &str = "flocker-csi";

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let [directory] = arguments.as_slice() else {
        eprintln!("usage: pages DIRECTORY");
        return ExitCode::from(2);
    };
    match write(Path::new(directory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: cannot write to {}: {error}", directory.display());
            ExitCode::FAILURE
        }
    }
}

/// Writes `man1/*.1` and `completions/*`.
fn write(directory: &Path) -> io::Result<()> {
    let (pages, completions) = (directory.join("man1"), directory.join("completions"));
    fs::create_dir_all(&pages)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(Cli::command(), pages)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        clap_complete::generate_to(shell, &mut Cli::command(), PROGRAM, &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::Command;

    use tempfile::TempDir;

    use super::*;

    fn written() -> TempDir {
        let directory = TempDir::new().unwrap();
        write(directory.path()).unwrap();
        directory
    }

    fn output(command: &mut Command) -> String {
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{command:?}: {text} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    }

    /// Returns the words that bash offers after these.
    fn offered(directory: &Path, words: &[&str]) -> Vec<String> {
        let (word, before) = (words[words.len() - 1], words[words.len() - 2]);
        // As bash calls the function that the file has registered: with the command, the word, and the word before it.
        let script = format!(
            "source '{}'; [[ $(complete -p {PROGRAM}) =~ ' -F '([^ ]+) ]]; COMP_WORDS=({}); COMP_CWORD={}; \
             ${{BASH_REMATCH[1]}} {PROGRAM} '{word}' '{before}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
            directory.join("completions/flocker-csi.bash").display(),
            words.join(" "),
            words.len() - 1,
        );
        output(Command::new("bash").args(["-c", &script]))
            .lines()
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn bash_completes_commands_and_their_options() {
        let directory = written();
        assert_eq!(offered(directory.path(), &[PROGRAM, "vol"]), ["volumes"]);
        assert_eq!(
            offered(directory.path(), &[PROGRAM, "leases", "--output", "j"]),
            ["json"]
        );
        assert_eq!(
            offered(directory.path(), &[PROGRAM, "serve", "--control"]),
            ["--control-service"]
        );
    }

    /// Checks the page of a command and those of its subcommands; returns how many there are.
    fn check(pages: &Path, name: &str, command: &clap::Command) -> usize {
        let page: PathBuf = pages.join(format!("{name}.1"));
        let text = output(
            Command::new("groff")
                .args(["-man", "-ww", "-Tutf8", "-P-cbou", "-rLL=400n"])
                .arg(&page),
        );
        for argument in command.get_arguments() {
            if let Some(long) = argument.get_long() {
                let flag = format!("--{long}");
                let is_there = text
                    .split(|other: char| !other.is_ascii_lowercase() && other != '-')
                    .any(|word| word == flag);
                assert_eq!(is_there, !argument.is_hide_set(), "{name} {flag}: {text}");
            }
        }
        let subcommands = command.get_subcommands().filter(|one| one.get_name() != "help");
        1 + subcommands
            .map(|one| check(pages, &format!("{name}-{}", one.get_name()), one))
            .sum::<usize>()
    }

    #[test]
    fn every_command_has_a_page_with_its_options() {
        let directory = written();
        let pages = directory.path().join("man1");
        let mut command = Cli::command();
        command.build();
        let checked = check(&pages, PROGRAM, &command);
        let written = fs::read_dir(&pages).unwrap();
        let written: Vec<_> = written
            .map(|entry| entry.unwrap().file_name())
            .filter(|name| !name.to_string_lossy().contains("-help"))
            .collect();
        assert_eq!(written.len(), checked, "{written:?}");
    }
}
