use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::failure::Failure;

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tokenward completions bash > /etc/bash_completion.d/tokenward")]
pub(crate) struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::args::Args::command(), "tokenward", &mut script);
    crate::output::print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell, Shell::Elvish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut crate::args::Args::command(), "tokenward", &mut script);
            assert!(String::from_utf8(script).unwrap().contains("connect-link"), "{shell}");
        }
    }
}
