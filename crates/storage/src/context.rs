/// What every storage backend is told besides its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageContext {
    /// Whether this process wants the database for itself, as a server or a migration does, where the database is one
    /// that only one process should have: a second one is then refused. A short command that reads or adds a row takes
    /// no such lock.
    pub exclusive: bool,
}
