//! Everything that an installation has let out.

use crate::search::Secrets;

/// A way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// A server's standard output and error.
    ServerLog,
    /// Outputs of commands, but for those that are asked to print a secret.
    CommandLine,
    /// Answers of the public listener, but for the cookie and the address of the vendor's page.
    Page,
    /// What callers are told when a call fails.
    GrpcError,
    /// Metrics and health.
    Metrics,
    /// Arguments, which everybody on the machine can read.
    ProcessList,
    /// The database's files, or all of its rows.
    Database,
    /// The files in which answers wait that the database could not take.
    Journal,
    /// What a server says that cannot start.
    FailedStart,
}

/// What was let out, by way.
#[derive(Default)]
pub(crate) struct Evidence(Vec<(Source, String, Vec<u8>)>);

/// A secret where it does not belong.
pub(crate) struct Finding {
    /// Which one.
    pub(crate) secret: String,
    at: String,
    around: String,
}

impl Evidence {
    /// Adds what came out.
    pub(crate) fn add(&mut self, source: Source, what: impl Into<String>, bytes: impl Into<Vec<u8>>) {
        self.0.push((source, what.into(), bytes.into()));
    }

    /// Everything that came out by a way, as text.
    pub(crate) fn text(&self, source: Source) -> String {
        self.of(source).map(|(_, bytes)| String::from_utf8_lossy(bytes)).collect()
    }

    /// What is found in what came out by a way.
    pub(crate) fn find(&self, source: Source, secrets: &Secrets) -> Vec<Finding> {
        let found = |(what, bytes): (&str, &[u8])| {
            let findings = secrets.find(bytes).into_iter();
            let at = what.to_owned();
            findings.map(move |(secret, around)| Finding { secret, at: at.clone(), around })
        };
        self.of(source).flat_map(found).collect()
    }

    /// What is found anywhere, for people.
    pub(crate) fn find_all(&self, secrets: &Secrets) -> Vec<String> {
        let mut sources: Vec<Source> = Vec::new();
        for (source, ..) in &self.0 {
            if !sources.contains(source) {
                sources.push(*source);
            }
        }
        let tell = |source: Source| {
            let findings = self.find(source, secrets).into_iter();
            findings.map(move |Finding { secret, at, around }| {
                format!("{secret} in {source:?} ({at}): …{around}…")
            })
        };
        sources.into_iter().flat_map(tell).collect()
    }

    fn of(&self, source: Source) -> impl Iterator<Item = (&str, &[u8])> {
        let of_source = self.0.iter().filter(move |(from, ..)| *from == source);
        of_source.map(|(_, what, bytes)| (what.as_str(), bytes.as_slice()))
    }
}

/// A PostgreSQL database from beside the server.
pub(crate) struct Postgres(sqlx::PgConnection);

impl Postgres {
    /// Connects.
    pub(crate) async fn connect(url: &str) -> Self {
        use sqlx::Connection;
        Self(sqlx::PgConnection::connect(url).await.unwrap())
    }

    /// All rows of all tables, as PostgreSQL prints them: bytes are hexadecimal.
    pub(crate) async fn rows(&mut self) -> Vec<(String, String)> {
        let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'";
        let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut self.0).await.unwrap();
        assert!(!tables.is_empty(), "there are no tables");
        let mut rows = Vec::new();
        for table in tables {
            let query = sqlx::AssertSqlSafe(format!("SELECT t::text FROM \"{table}\" t"));
            let found: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut self.0).await.unwrap();
            rows.push((table, found.join("\n")));
        }
        rows
    }

    /// Gives a table another name.
    pub(crate) async fn rename(&mut self, table: &str, name: &str) {
        self.execute(format!("ALTER TABLE {table} RENAME TO {name}")).await;
    }

    /// Ends every other connection to the database.
    pub(crate) async fn cut_others_off(&mut self) {
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.execute(others.to_owned()).await;
    }

    async fn execute(&mut self, statement: String) {
        use sqlx::Executor;
        self.0.execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement))).await.unwrap();
    }
}
