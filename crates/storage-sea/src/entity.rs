//! The tables as SeaORM sees them. `migration` says what each is for and what keeps its rows unique.

macro_rules! entity {
    ($module:ident, $table:literal, { $($(#[$attribute:meta])* $field:ident: $type:ty,)+ }) => {
        pub(crate) mod $module {
            use sea_orm::entity::prelude::*;

            #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
            #[sea_orm(table_name = $table)]
            pub struct Model { $($(#[$attribute])* pub $field: $type,)+ }

            #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
            pub enum Relation {}

            impl ActiveModelBehavior for ActiveModel {}
        }
    };
}

entity!(installation, "installation", {
    #[sea_orm(primary_key, auto_increment = false)]
    slot: i32,
    installation_id: String,
});

entity!(marks, "marks", {
    #[sea_orm(primary_key, auto_increment = false)]
    slot: i32,
    mark: i64,
});

entity!(health_checks, "health_checks", {
    #[sea_orm(primary_key, auto_increment = false)]
    slot: i32,
});

entity!(locks, "locks", {
    #[sea_orm(primary_key, auto_increment = false)]
    slot: i32,
});

entity!(data_keys, "data_keys", {
    #[sea_orm(primary_key, auto_increment = false)]
    scope: String,
    #[sea_orm(primary_key, auto_increment = false)]
    id: i32,
    tenant_id: Option<String>,
    kek: String,
    wrapped: Vec<u8>,
    active: bool,
    seals: i64,
    created_at: i64,
    replaced_at: Option<i64>,
    settled_job: Option<String>,
    checked_job: Option<String>,
});

entity!(kek_checks, "kek_checks", {
    #[sea_orm(primary_key, auto_increment = false)]
    kek: String,
    wrapped: Vec<u8>,
    created_at: i64,
});

entity!(keks, "keks", {
    #[sea_orm(primary_key, auto_increment = false)]
    kek: String,
    state: String,
    created_at: i64,
    activated_at: Option<i64>,
    replaced_at: Option<i64>,
    unused_since: Option<i64>,
    retired_at: Option<i64>,
});

entity!(key_jobs, "key_jobs", {
    #[sea_orm(primary_key, auto_increment = false)]
    id: String,
    kind: String,
    state: String,
    step: String,
    kek: String,
    scope: String,
    created_by: String,
    created_at: i64,
    updated_at: i64,
    finished_at: Option<i64>,
    total: i64,
    done: i64,
    skipped: i64,
    cursor_scope: String,
    cursor_id: i32,
    message: String,
});

entity!(key_findings, "key_findings", {
    #[sea_orm(primary_key, auto_increment = false)]
    job_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    scope: String,
    #[sea_orm(primary_key, auto_increment = false)]
    place: String,
    problem: String,
});

entity!(tenants, "tenants", {
    #[sea_orm(primary_key, auto_increment = false)]
    tenant_id: String,
    display_name: String,
    labels: String,
    state: String,
    created_at: i64,
    updated_at: i64,
    version: i64,
});

entity!(oauth_clients, "oauth_clients", {
    #[sea_orm(primary_key, auto_increment = false)]
    id: String,
    provider: String,
    client_id: String,
    display_name: String,
    scopes: String,
    optional_scopes: String,
    help_url: Option<String>,
    created_at: i64,
    updated_at: i64,
    version: i64,
});

entity!(client_secrets, "client_secrets", {
    #[sea_orm(primary_key, auto_increment = false)]
    oauth_client_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    secret_version: i32,
    state: String,
    sealed: Vec<u8>,
    created_at: i64,
    updated_at: i64,
});

entity!(connections, "connections", {
    #[sea_orm(primary_key, auto_increment = false)]
    tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    id: String,
    provider: String,
    kind: String,
    oauth_client_id: Option<String>,
    oauth_client_key: String,
    account_id: String,
    account_name: String,
    state: String,
    state_reason: String,
    state_since: i64,
    access_token: Option<Vec<u8>>,
    refresh_token: Option<Vec<u8>>,
    token_issued_at: Option<i64>,
    token_expires_at: Option<i64>,
    token_scopes: Option<String>,
    lease_fence: i64,
    grant_fence: i64,
    consent_epoch: i64,
    lease_owner: Option<String>,
    lease_until: Option<i64>,
    created_at: i64,
    updated_at: i64,
    version: i64,
    next_check_at: Option<i64>,
});

entity!(call_budgets, "call_budgets", {
    #[sea_orm(primary_key, auto_increment = false)]
    oauth_client_id: String,
    spent_until: i64,
    pause_number: i64,
    pause_refusals: i32,
    pause_cause: Option<String>,
    pause_until: Option<i64>,
    probe_until: Option<i64>,
});

entity!(attempts, "attempts", {
    #[sea_orm(primary_key, auto_increment = false)]
    tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    connection_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    fence: i64,
    consent_epoch: i64,
    refresh_token: Vec<u8>,
    token_fence: i64,
    secret_version: Option<i32>,
    owner: String,
    started_at: i64,
});

entity!(spares, "spares", {
    #[sea_orm(primary_key, auto_increment = false)]
    tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    connection_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    token_fence: i64,
    refresh_token: Vec<u8>,
    kept_at: i64,
});

entity!(revocations, "revocations", {
    #[sea_orm(primary_key, auto_increment = false)]
    tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    connection_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    grant_fence: i64,
    oauth_client_id: String,
    account_id: String,
    refresh_token: Vec<u8>,
    tries: i32,
    due_at: i64,
});

entity!(connect_links, "connect_links", {
    #[sea_orm(primary_key, auto_increment = false)]
    tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    id: String,
    secret_hash: Vec<u8>,
    oauth_client_id: String,
    account_id: Option<String>,
    return_url: Option<String>,
    created_by: String,
    created_at: i64,
    expires_at: i64,
    used_at: Option<i64>,
});

entity!(connect_attempts, "connect_attempts", {
    #[sea_orm(primary_key, auto_increment = false)]
    tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    state_hash: Vec<u8>,
    cookie_hash: Vec<u8>,
    link_id: String,
    oauth_client_id: String,
    pkce_verifier: Option<Vec<u8>>,
    created_at: i64,
    expires_at: i64,
    used_at: Option<i64>,
});

entity!(pending_grants, "pending_grants", {
    #[sea_orm(primary_key, auto_increment = false)]
    tenant_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    id: String,
    link_id: Option<String>,
    oauth_client_id: String,
    access_token: Vec<u8>,
    refresh_token: Option<Vec<u8>>,
    details: String,
    issued_at: i64,
    refused: Option<String>,
});

entity!(access_rules, "access_rules", {
    #[sea_orm(primary_key, auto_increment = false)]
    id: String,
    principal: String,
    tenant_selector: String,
    tenants: String,
    provider: Option<String>,
    scopes: Option<String>,
    allow_broader: bool,
    description: String,
    created_at: i64,
    updated_at: i64,
    version: i64,
});

entity!(blocked_principals, "blocked_principals", {
    #[sea_orm(primary_key, auto_increment = false)]
    principal: String,
    reason: String,
    blocked_by: String,
    blocked_at: i64,
});

entity!(issuer_keys, "issuer_keys", {
    #[sea_orm(primary_key, auto_increment = false)]
    kid: String,
    sealed: Vec<u8>,
    public_key: Vec<u8>,
    created_at: i64,
});

entity!(change_log, "change_log", {
    #[sea_orm(primary_key, auto_increment = false)]
    slot: i32,
    counter: i64,
    pruned_position: i64,
});

entity!(changes, "changes", {
    #[sea_orm(primary_key, auto_increment = false)]
    id: i64,
    position: i64,
    kind: String,
    subject: String,
    part: String,
    logged_at: i64,
});

entity!(replicas, "replicas", {
    #[sea_orm(primary_key, auto_increment = false)]
    id: String,
    description: String,
    version: String,
    started_at: i64,
    seen_at: i64,
    keks: Option<String>,
});
