//! The first schema.

use sea_orm::sea_query::{ColumnDef, Query};
use sea_orm::{DbBackend, DbErr};
use sea_orm_migration::{MigrationName, MigrationTrait, SchemaManager, async_trait};

use super::schema::{Schema, big, boolean, bytes, int, owned_by, refers_to, required, text};

pub(super) struct Migration;

impl MigrationName for Migration {
    fn name(&self) -> &'static str {
        "m0001_initial"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let schema = Schema { manager };
        schema.installation().await?;
        schema.tenants().await?;
        schema.keys().await?;
        schema.oauth_clients().await?;
        schema.connections().await?;
        schema.refreshes().await?;
        schema.connect_flow().await?;
        schema.access().await
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }
}

impl Schema<'_> {
    fn tenant(&self) -> ColumnDef {
        self.key("tenant_id", 128)
    }

    async fn installation(&self) -> Result<(), DbErr> {
        // One row each, at slot 1.
        let installation = required([int("slot"), text("installation_id")]);
        self.table("installation", installation, &["slot"], vec![]).await?;
        let mut claims = required([int("slot"), text("description"), big("expires_at")]);
        claims.push(text("server"));
        self.table("server_claims", claims, &["slot"], vec![]).await?;
        let nobody = Query::insert()
            .into_table("server_claims")
            .columns(["slot", "description", "expires_at"])
            .values_panic([1.into(), "".into(), 0_i64.into()])
            .to_owned();
        self.rows(nobody, "slot").await?;
        self.table("health_checks", required([int("slot")]), &["slot"], vec![]).await?;
        // 256 rows at most, each the lock of the names that hash to it. MySQL has them from the start.
        self.table("locks", required([int("slot")]), &["slot"], vec![]).await?;
        if self.manager.get_database_backend() == DbBackend::MySql {
            let mut slots = Query::insert().into_table("locks").columns(["slot"]).to_owned();
            for slot in 0..=255 {
                slots.values_panic([slot.into()]);
            }
            self.rows(slots, "slot").await?;
        }
        Ok(())
    }

    async fn tenants(&self) -> Result<(), DbErr> {
        let columns = required([
            self.tenant(),
            text("display_name"),
            text("labels"),
            self.key("state", 32),
            big("created_at"),
            big("updated_at"),
            big("version"),
        ]);
        self.table("tenants", columns, &["tenant_id"], vec![]).await
    }

    async fn keys(&self) -> Result<(), DbErr> {
        // The tenant is a column of its own because the scope of the installation is no tenant.
        let mut columns = required([
            self.key("scope", 128),
            int("id"),
            self.key("kek", 512),
            bytes("wrapped"),
            boolean("active"),
            big("seals"),
            big("created_at"),
        ]);
        columns.push(self.tenant());
        let tenant = owned_by("tenants", &[("tenant_id", "tenant_id")]);
        self.table("data_keys", columns, &["scope", "id"], vec![tenant]).await?;
        self.index("data_keys_by_tenant", "data_keys", &["tenant_id"]).await?;
        self.index("data_keys_by_kek", "data_keys", &["kek"]).await?;
        let columns = required([self.key("kek", 512), bytes("wrapped"), big("created_at")]);
        self.table("kek_checks", columns, &["kek"], vec![]).await
    }

    async fn oauth_clients(&self) -> Result<(), DbErr> {
        let mut columns = required([
            self.key("id", 64),
            self.key("provider", 64),
            text("client_id"),
            text("display_name"),
            text("scopes"),
            text("optional_scopes"),
            big("created_at"),
            big("updated_at"),
            big("version"),
        ]);
        columns.push(text("help_url"));
        self.table("oauth_clients", columns, &["id"], vec![]).await?;
        let columns = required([
            self.key("oauth_client_id", 64),
            int("secret_version"),
            self.key("state", 32),
            bytes("sealed"),
            big("created_at"),
            big("updated_at"),
        ]);
        let client = owned_by("oauth_clients", &[("oauth_client_id", "id")]);
        self.table("client_secrets", columns, &["oauth_client_id", "secret_version"], vec![client]).await
    }

    async fn connections(&self) -> Result<(), DbErr> {
        let mut columns = required([
            self.tenant(),
            self.key("id", 64),
            self.key("provider", 64),
            self.key("kind", 32),
            // The client, or nothing: unique indexes take two NULLs for different.
            self.key("oauth_client_key", 64),
            self.key("account_id", 255),
            text("account_name"),
            self.key("state", 32),
            text("state_reason"),
            big("state_since"),
            big("lease_fence"),
            big("grant_fence"),
            big("consent_epoch"),
            big("created_at"),
            big("updated_at"),
            big("version"),
        ]);
        columns.extend([
            self.key("oauth_client_id", 64),
            bytes("access_token"),
            bytes("refresh_token"),
            big("token_issued_at"),
            big("token_expires_at"),
            text("token_scopes"),
            text("lease_owner"),
            big("lease_until"),
        ]);
        let references = vec![
            owned_by("tenants", &[("tenant_id", "tenant_id")]),
            refers_to("oauth_clients", &[("oauth_client_id", "id")]),
        ];
        self.table("connections", columns, &["tenant_id", "id"], references).await?;
        self.unique(
            "connections_by_grant",
            "connections",
            &["tenant_id", "provider", "kind", "oauth_client_key", "account_id"],
        )
        .await?;
        self.index("connections_by_account", "connections", &["provider", "account_id"]).await?;
        self.index("connections_by_client", "connections", &["oauth_client_id", "account_id"]).await?;

        // Revocations outlive their connection.
        let columns = required([
            self.tenant(),
            self.key("connection_id", 64),
            big("grant_fence"),
            self.key("oauth_client_id", 64),
            self.key("account_id", 255),
            bytes("refresh_token"),
            int("tries"),
            big("due_at"),
        ]);
        let tenant = owned_by("tenants", &[("tenant_id", "tenant_id")]);
        let key = ["tenant_id", "connection_id", "grant_fence"];
        self.table("revocations", columns, &key, vec![tenant]).await?;
        self.index("revocations_by_due_time", "revocations", &["due_at"]).await
    }

    async fn refreshes(&self) -> Result<(), DbErr> {
        let connection = || owned_by("connections", &[("tenant_id", "tenant_id"), ("connection_id", "id")]);
        let mut columns = required([
            self.tenant(),
            self.key("connection_id", 64),
            big("fence"),
            big("consent_epoch"),
            bytes("refresh_token"),
            big("token_fence"),
            text("owner"),
            big("started_at"),
        ]);
        columns.push(int("secret_version"));
        let key = ["tenant_id", "connection_id", "fence"];
        self.table("attempts", columns, &key, vec![connection()]).await?;
        self.index("attempts_by_start", "attempts", &["started_at"]).await?;

        let columns = required([
            self.tenant(),
            self.key("connection_id", 64),
            big("token_fence"),
            bytes("refresh_token"),
            big("kept_at"),
        ]);
        let key = ["tenant_id", "connection_id", "token_fence"];
        self.table("spares", columns, &key, vec![connection()]).await
    }

    async fn connect_flow(&self) -> Result<(), DbErr> {
        let tenant = || owned_by("tenants", &[("tenant_id", "tenant_id")]);
        let client = || owned_by("oauth_clients", &[("oauth_client_id", "id")]);
        let mut columns = required([
            self.tenant(),
            self.key("id", 64),
            self.hash("secret_hash"),
            self.key("oauth_client_id", 64),
            text("created_by"),
            big("created_at"),
            big("expires_at"),
        ]);
        columns.extend([self.key("account_id", 255), text("return_url"), big("used_at")]);
        self.table("connect_links", columns, &["tenant_id", "id"], vec![tenant(), client()]).await?;
        self.unique("connect_links_by_secret", "connect_links", &["secret_hash"]).await?;
        self.index("connect_links_by_expiry", "connect_links", &["expires_at"]).await?;
        self.index("connect_links_by_client", "connect_links", &["oauth_client_id"]).await?;

        let mut columns = required([
            self.tenant(),
            self.hash("state_hash"),
            bytes("cookie_hash"),
            self.key("link_id", 64),
            self.key("oauth_client_id", 64),
            big("created_at"),
            big("expires_at"),
        ]);
        columns.extend([bytes("pkce_verifier"), big("used_at")]);
        let key = ["tenant_id", "state_hash"];
        self.table("connect_attempts", columns, &key, vec![tenant(), client()]).await?;
        self.unique("connect_attempts_by_state", "connect_attempts", &["state_hash"]).await?;
        self.index("connect_attempts_by_expiry", "connect_attempts", &["expires_at"]).await?;
        self.index("connect_attempts_by_client", "connect_attempts", &["oauth_client_id"]).await?;

        // Pending grants hold tokens that may live at the vendor: no client or link takes them along.
        let mut columns = required([
            self.tenant(),
            self.key("id", 255),
            self.key("oauth_client_id", 64),
            bytes("access_token"),
            text("details"),
            big("issued_at"),
        ]);
        columns.extend([self.key("link_id", 64), bytes("refresh_token"), text("refused")]);
        self.table("pending_grants", columns, &["tenant_id", "id"], vec![tenant()]).await?;
        self.index("pending_grants_by_time", "pending_grants", &["issued_at"]).await
    }

    async fn access(&self) -> Result<(), DbErr> {
        let mut columns = required([
            self.key("id", 64),
            text("principal"),
            self.key("tenant_selector", 32),
            text("tenants"),
            boolean("allow_broader"),
            text("description"),
            big("created_at"),
            big("updated_at"),
            big("version"),
        ]);
        columns.extend([self.key("provider", 64), text("scopes")]);
        self.table("access_rules", columns, &["id"], vec![]).await?;

        let columns =
            required([self.key("principal", 255), text("reason"), text("blocked_by"), big("blocked_at")]);
        self.table("blocked_principals", columns, &["principal"], vec![]).await?;

        let columns =
            required([self.key("kid", 255), bytes("sealed"), bytes("public_key"), big("created_at")]);
        self.table("issuer_keys", columns, &["kid"], vec![]).await
    }
}
