//! Merges the sources.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};

use config::{Environment, File, FileFormat};
use serde_json::{Map, Value};
use tokenward_plugin::{Problems, Section, parse_rest};

use crate::{Config, Listen};

const PREFIX: &str = "TOKENWARD";
const SEPARATOR: &str = "__";

/// The largest configuration file, in bytes.
const MAX_FILE: u64 = 1024 * 1024;

/// Where the configuration comes from; the later field wins.
#[derive(Clone, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The environment; only `TOKENWARD__…` counts.
    pub environment: Vec<(OsString, OsString)>,
    /// Options by path, such as `listen.service.address`, from flags.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// A file and this process's environment.
    pub fn of_process(file: Option<PathBuf>) -> Self {
        Self { file, environment: std::env::vars_os().collect(), overrides: Vec::new() }
    }
}

/// Reads and checks everything but the backends' sections. The configuration is what could be made of it; the problems say
/// what could not, so that the caller can add those of the backends and report all at once.
///
/// # Errors
/// When nothing can be made of it: an unreadable file, or one that is not TOML.
pub fn load(sources: &Sources) -> Result<(Config, Problems), Problems> {
    let mut problems = Problems::new();
    let values = merge(sources, &mut problems)?;
    let whole = Section { at: String::new(), name: String::new(), values };
    let config: Config = parse_rest(&whole, &mut problems).unwrap_or_default();
    config.check(&mut problems);
    Ok((config, problems))
}

fn merge(sources: &Sources, problems: &mut Problems) -> Result<Map<String, Value>, Problems> {
    let mut builder = config::Config::builder();
    let defaults = Listen::default();
    for (name, address) in [
        ("service", defaults.service.address),
        ("admin", defaults.admin.address),
        ("public", defaults.public.address),
        ("operations", defaults.operations.address),
    ] {
        let option = format!("listen.{name}.address");
        builder = builder.set_default(&option, address).map_err(|_| problem(&option, "is not an option"))?;
    }
    if let Some(path) = &sources.file {
        let text = read(path).map_err(|message| problem("config", &message))?;
        // Parsed here first, because the message of the config crate repeats the line, which may hold a secret.
        config::Config::builder()
            .add_source(File::from_str(&text, FileFormat::Toml))
            .build()
            .map_err(|error| problem("config", &format!("{}: {}", path.display(), without_lines(&error))))?;
        builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
    }
    let environment = environment(sources, problems);
    let names: Vec<_> = environment.keys().cloned().collect();
    builder = builder.add_source(
        // No try_parsing: it would turn the secret "000123" into the number 123.
        Environment::with_prefix(PREFIX).separator(SEPARATOR).source(Some(environment)),
    );
    for (option, value) in &sources.overrides {
        builder =
            builder.set_override(option, value.as_str()).map_err(|_| problem(option, "is not an option"))?;
    }
    // The errors of the config crate may repeat values, so they are not shown.
    let unusable = |_| {
        let names = names.join(", ");
        problem("environment", &format!("cannot be merged: check the names of these variables: {names}"))
    };
    let merged = builder.build().map_err(unusable)?;
    merged.try_deserialize().map_err(|_| problem("config", "must be a table of sections"))
}

fn problem(at: &str, message: &str) -> Problems {
    let mut problems = Problems::new();
    problems.add(at, message);
    problems
}

fn read(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| format!("cannot read {shown}: {error}"))?;
    match file.take(MAX_FILE + 1).read_to_string(&mut text) {
        Ok(_) if text.len() as u64 > MAX_FILE => Err(format!("{shown} is larger than 1 MiB")),
        Ok(_) => Ok(text),
        Err(error) => Err(format!("cannot read {shown}: {error}")),
    }
}

fn environment(sources: &Sources, problems: &mut Problems) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for (name, value) in &sources.environment {
        let Some(name) = name.to_str().filter(|name| name.starts_with("TOKENWARD__")) else { continue };
        match value.to_str() {
            Some(value) => {
                found.insert(name.to_owned(), value.to_owned());
            }
            None => problems.add(name, "is not UTF-8 text"),
        }
    }
    found
}

/// Takes the quoted lines of the file out of a TOML error, and puts the rest on one line.
fn without_lines(error: &config::ConfigError) -> String {
    let text = error.to_string();
    let lines =
        text.lines().filter(|line| !line.trim_start().starts_with(|c: char| c == '|' || c.is_ascii_digit()));
    lines.map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(": ")
}
