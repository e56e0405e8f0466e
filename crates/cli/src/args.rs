//! The command line.

use clap::Parser;

use crate::commands::Command;
use crate::failure::EXIT_CODES;

/// A multi-tenant OAuth token gateway: services ask it, by tenant, for access tokens that work.
///
/// `tokenward dev` runs everything on this machine with a stand-in HubSpot. `tokenward serve` runs the server. The other
/// commands manage a running server over its admin API.
#[derive(Debug, Parser)]
#[command(name = "tokenward", version, after_help = EXIT_CODES)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_that_does_something_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let parts: Vec<_> = command.get_subcommands().filter(|part| part.get_name() != "help").collect();
            if parts.is_empty() {
                let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
                assert!(help.contains(path.trim()), "no example in the help of{path}: {help:?}");
            }
            for part in parts {
                check(part, &path);
            }
        }
        check(&Args::command(), "");
    }

    #[test]
    fn no_argument_takes_a_secret() {
        fn check(command: &clap::Command) {
            for argument in command.get_arguments() {
                let id = argument.get_id().as_str();
                let names_a_secret =
                    ["secret", "token", "key", "password"].iter().any(|word| id.contains(word));
                let is_safe = id.ends_with("_file")
                    || id.ends_with("_lifetime")
                    || !argument.get_action().takes_values();
                assert!(!names_a_secret || is_safe, "{} --{id}", command.get_name());
            }
            command.get_subcommands().for_each(check);
        }
        check(&Args::command());
    }
}
