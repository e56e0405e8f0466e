//! Configurations of servers under test.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::{Database, Scratch, Tokenward, free_port, write_private};

/// A configuration that is written to a file: listeners on free ports of this machine, a key file, a database.
pub struct Settings {
    values: Table,
    path: PathBuf,
    public_url: String,
    environment: Vec<(String, String)>,
    journal_dir: PathBuf,
}

impl Settings {
    /// A configuration in `folder`, with a key of its own.
    pub async fn new(folder: &Scratch, database: &Database) -> Self {
        let key = folder.file("tokenward.key");
        if !key.exists() {
            Tokenward::new("key generate --file").arg(&key).run().await.ok();
        }
        let port = free_port();
        let public_url = format!("http://localhost:{port}");
        let mut settings = Self {
            values: Table::new(),
            path: folder.file("tokenward.toml"),
            public_url: public_url.clone(),
            environment: Vec::new(),
            journal_dir: folder.file(&format!("journal-{port}")),
        };
        settings.values.insert("storage".into(), Value::Table(database.section()));
        settings
            .set("encryption.key_file", key.display().to_string())
            .set("public.url", public_url)
            .set("listen.public.address", format!("127.0.0.1:{port}"))
            .set("log.format", "json")
            .set("server.shutdown_grace", "10s");
        let journal = settings.journal_dir.display().to_string();
        settings.set("broker.journal_dir", journal);
        for listener in ["service", "admin", "operations"] {
            settings.set(&format!("listen.{listener}.address"), "127.0.0.1:0");
        }
        settings
    }

    /// Where the server keeps results that the database could not take.
    pub fn journal_dir(&self) -> &Path {
        &self.journal_dir
    }

    /// Sets an option by its path, such as `broker.lease`.
    pub fn set(&mut self, option: &str, value: impl Into<Value>) -> &mut Self {
        let mut path: Vec<&str> = option.split('.').collect();
        let key = path.pop().expect("split gives at least one part");
        let mut table = &mut self.values;
        for section in path {
            let entry = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            table = entry.as_table_mut().unwrap_or_else(|| panic!("{section} in {option} is not a section"));
        }
        table.insert(key.to_owned(), value.into());
        self
    }

    /// Takes an option out.
    pub fn remove(&mut self, option: &str) -> &mut Self {
        let (section, key) = option.rsplit_once('.').expect("an option is in a section");
        let mut table = &mut self.values;
        for section in section.split('.') {
            let Some(next) = table.get_mut(section).and_then(Value::as_table_mut) else { return self };
            table = next;
        }
        table.remove(key);
        self
    }

    /// Uses a stand-in HubSpot that listens at `base_url` as the provider `hubspot`.
    pub fn hubspot(&mut self, base_url: &str) -> &mut Self {
        self.set("providers.hubspot.api_base_url", base_url)
            .set("providers.hubspot.authorize_url", format!("{base_url}/oauth/authorize"))
            .set("providers.hubspot.allow_http", true)
            .set("providers.hubspot.allow_private_addresses", true)
    }

    /// Sets an environment variable for the calls that read this configuration.
    pub fn env(&mut self, name: &str, value: impl Into<String>) -> &mut Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// A call of the binary that reads this configuration; the arguments are split at spaces.
    pub fn call(&self, arguments: &str) -> Tokenward {
        let call = Tokenward::new(arguments).arg("--config").arg(self.write());
        self.environment.iter().fold(call, |call, (name, value)| call.env(name, value.as_str()))
    }

    /// Where browsers reach the connect flow.
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Writes the file, and tells where it is.
    pub fn write(&self) -> &Path {
        let text = toml::to_string(&self.values).expect("a table of plain values is TOML");
        write_private(&self.path, &text);
        &self.path
    }
}
