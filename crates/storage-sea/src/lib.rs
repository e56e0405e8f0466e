//! SQLite and PostgreSQL storage by SeaORM
