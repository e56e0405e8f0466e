//! Secrets come from a file, standard input or a prompt, never from an argument: arguments show in process lists and shell
//! histories.

use std::io::{IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use crate::failure::Failure;

/// The longest secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// Where a command reads a secret.
#[derive(Clone, Debug, Args)]
pub(crate) struct SecretArgs {
    /// File that holds the secret; "-" reads standard input. Without it you are asked at the terminal.
    #[arg(long, value_name = "PATH")]
    pub secret_file: Option<PathBuf>,
}

impl SecretArgs {
    /// The secret; asks `prompt` at a terminal.
    pub(crate) fn read(&self, prompt: &str) -> Result<SecretString, Failure> {
        let secret = match &self.secret_file {
            Some(path) => read(path)?,
            None if std::io::stdin().is_terminal() => ask(prompt)?,
            None => return Err(no_secret()),
        };
        if secret.expose_secret().is_empty() {
            return Err(Failure::new("the secret is empty"));
        }
        Ok(secret)
    }

    /// The secret, or none where no file is given.
    pub(crate) fn read_if_given(&self) -> Result<Option<SecretString>, Failure> {
        self.secret_file.as_ref().map(|_| self.read("")).transpose()
    }
}

fn no_secret() -> Failure {
    Failure::new("no secret was given")
        .hint("use --secret-file PATH, or --secret-file - to read standard input")
}

fn ask(prompt: &str) -> Result<SecretString, Failure> {
    let typed = rpassword::prompt_password(format!("{prompt}: "));
    Ok(typed.map_err(|error| Failure::new(format!("cannot read from the terminal: {error}")))?.into())
}

/// A secret from a file, or standard input for "-"; one line break at its end is dropped.
pub(crate) fn read(path: &Path) -> Result<SecretString, Failure> {
    let shown = path.display();
    let cannot = |error: std::io::Error| Failure::new(format!("cannot read {shown}: {error}"));
    if path == Path::new("-") {
        return read_all(std::io::stdin().lock(), "standard input");
    }
    read_all(std::fs::File::open(path).map_err(cannot)?, &shown.to_string())
}

fn read_all(source: impl Read, name: &str) -> Result<SecretString, Failure> {
    let mut text = String::new();
    source
        .take(MAX_SECRET + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failure::new(format!("cannot read {name}: {error}")))?;
    if text.len() as u64 > MAX_SECRET {
        return Err(Failure::new(format!("{name} holds more than 64 KiB")));
    }
    let end = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(end);
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_break_at_the_end_is_not_part_of_the_secret() {
        for text in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            assert_eq!(read_all(text.as_bytes(), "x").unwrap().expose_secret(), "hunter2");
        }
        assert_eq!(read_all(" spaced \n".as_bytes(), "x").unwrap().expose_secret(), " spaced ");
    }

    #[test]
    fn an_endless_input_is_refused() {
        assert!(read_all(std::io::repeat(b'x'), "x").unwrap_err().to_string().contains("64 KiB"));
    }

    #[test]
    fn an_absent_file_is_named() {
        let args = SecretArgs { secret_file: Some("/nowhere/secret".into()) };
        assert!(args.read("").unwrap_err().to_string().contains("/nowhere/secret"));
    }
}
