//! The real things that tests run against: each is detected, installed if need be, started, and handed to the
//! tests as an environment variable.

mod apt;
mod chromium;
mod mariadb;
mod moto;
mod node;
mod openbao;
mod pgbouncer;
mod postgres;
mod python;
mod server;
mod softhsm;
mod stamp;

use std::ffi::OsString;

use anyhow::{Result, bail};

pub(crate) use python::programs;
use server::Server;

use crate::shell::Stopwatch;
use crate::workspace::Workspace;

/// One thing that tests need and that may be missing.
pub(crate) struct Part {
    /// The word that tests write into the skip log.
    pub(crate) name: &'static str,
    /// The variable that tells tests where it is; unset means that it is missing.
    pub(crate) variable: &'static str,
    set_up: fn(&Workspace, &Setup) -> Result<Ready>,
}

/// Every part, in the order in which they are set up.
pub(crate) const ALL: &[Part] = &[
    postgres::PART,
    postgres::PART_18,
    pgbouncer::PART,
    mariadb::PART,
    python::PART,
    node::PART,
    chromium::PART,
    openbao::PART,
    openbao::PROGRAM,
    softhsm::PART,
    moto::PART,
];

/// A part that tests can use now.
struct Ready {
    value: OsString,
    /// Stops what was started when it is dropped.
    server: Option<Server>,
    /// Another variable that goes with it.
    also: Option<(&'static str, OsString)>,
}

impl Ready {
    fn installed(value: impl Into<OsString>) -> Self {
        Self { value: value.into(), server: None, also: None }
    }

    fn started(url: String, server: Server) -> Self {
        Self { value: url.into(), server: Some(server), also: None }
    }
}

/// What setting up found: variables for the tests, and what is missing.
pub(crate) struct Setup {
    variables: Vec<(&'static str, Option<OsString>)>,
    /// Parts that were wanted and are not there.
    pub(crate) missing: Vec<&'static str>,
    servers: Vec<Server>,
}

impl Setup {
    /// Sets up the named parts, or all of them if none is named. A part whose variable is set already is used as
    /// it is; one that cannot be had is reported and noted.
    pub(crate) fn run(workspace: &Workspace, only: &[String]) -> Result<Self> {
        check_names(only)?;
        let mut setup = Self { variables: Vec::new(), missing: Vec::new(), servers: Vec::new() };
        for part in ALL {
            let wanted = only.is_empty() || only.iter().any(|name| name == part.name);
            let value = if wanted { setup.one(workspace, part) } else { None };
            setup.variables.push((part.variable, value));
        }
        Ok(setup)
    }

    fn one(&mut self, workspace: &Workspace, part: &Part) -> Option<OsString> {
        if let Some(given) = std::env::var_os(part.variable).filter(|value| !value.is_empty()) {
            println!("{}: as {} says", part.name, part.variable);
            return Some(given);
        }
        let watch = Stopwatch::start();
        match (part.set_up)(workspace, self) {
            Ok(Ready { value, server, also }) => {
                println!("{}: {} ({})", part.name, value.to_string_lossy(), watch.elapsed());
                self.servers.extend(server);
                self.variables.extend(also.map(|(name, value)| (name, Some(value))));
                Some(value)
            }
            Err(reason) => {
                println!("{}: MISSING: {reason:#}", part.name);
                self.missing.push(part.name);
                None
            }
        }
    }

    /// The value of a part that was set up before.
    fn value(&self, variable: &str) -> Option<&OsString> {
        self.variables.iter().find(|(name, _)| *name == variable)?.1.as_ref()
    }

    /// Tells a command where the parts are; those that are missing or unwanted are unset.
    pub(crate) fn apply(&self, command: &mut std::process::Command) {
        for (name, value) in &self.variables {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
    }
}

fn check_names(only: &[String]) -> Result<()> {
    let names: Vec<_> = ALL.iter().map(|part| part.name).collect();
    if let Some(unknown) = only.iter().find(|name| !names.contains(&name.as_str())) {
        bail!("there is no part `{unknown}`; there are: {}", names.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_part_is_refused_with_the_list_of_those_there_are() {
        let error = check_names(&["oracle".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("oracle") && error.contains("mariadb, python, node, chromium"), "{error}");
        assert!(check_names(&["postgres".to_owned()]).is_ok());
    }
}
