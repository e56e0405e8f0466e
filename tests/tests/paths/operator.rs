//! The operator's whole path by the command line alone.

use serde_json::Value;
use tokenward_tests::{Consent, Database, Finished, Tokenward, Walk, World};

/// Calls one installation as one caller.
struct Cli<'a> {
    world: &'a World,
    token_file: std::path::PathBuf,
}

impl<'a> Cli<'a> {
    fn new(world: &'a World, name: &str, token: &str) -> Self {
        Self { world, token_file: world.folder.write(&format!("{name}-caller-token"), token) }
    }

    fn call(&self, arguments: &str) -> Tokenward {
        Tokenward::new(arguments)
            .env("TOKENWARD_ADDR", self.world.server().admin())
            .env("TOKENWARD_SERVICE_ADDR", self.world.server().service())
            .env("TOKENWARD_TOKEN_FILE", self.token_file.display().to_string())
    }

    async fn json(&self, arguments: &str) -> Value {
        self.call(arguments).arg("--output").arg("json").run().await.json()
    }

    async fn table(&self, arguments: &str) -> String {
        self.call(arguments).run().await.ok()
    }

    async fn run(&self, arguments: &str) -> Finished {
        self.call(arguments).run().await
    }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// A table for people: its header's words, and as many rows as there are things.
fn check_table(table: &str, header: &str, rows: usize) {
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[0].starts_with(header), "{table}");
    assert_eq!(lines.len(), rows + 1, "{table}");
    assert!(!table.contains('\u{1b}'), "a table that is not for a terminal has no colours: {table:?}");
}

async fn register(world: &World, admin: &Cli<'_>) {
    let app = World::app();
    let create = format!(
        "oauth-client create {} --provider hubspot --client-id {} --scope oauth --scope crm.objects.contacts.read",
        World::OAUTH_CLIENT,
        app.client_id
    );
    let secret = world.folder.write("client-secret", &format!("{}\n", app.client_secret));
    let created = admin
        .call(&create)
        .arg("--display-name")
        .arg("Demo Integration")
        .arg("--secret-file")
        .arg(&secret)
        .arg("--output")
        .arg("json")
        .run()
        .await
        .json();
    assert_eq!(text(&created, "redirect_uri"), world.redirect_uri(World::OAUTH_CLIENT));
    check_table(&admin.table("oauth-client list").await, "OAUTH CLIENT ID", 1);
    let again = admin.call(&create).run().await.fails(3);
    assert!(again.contains("ALREADY_EXISTS"), "{again}");
}

async fn set_up(operator: &Cli<'_>) {
    let created = operator.json("tenant create acme --label plan=pro").await;
    assert_eq!(text(&created, "state"), "active");
    assert_eq!(created["labels"]["plan"], "pro");
    operator.json("tenant create globex").await;
    check_table(&operator.table("tenant list").await, "TENANT ID", 2);
    assert_eq!(operator.json("tenant list").await.as_array().unwrap().len(), 2);
    operator.run("tenant get nobody").await.fails(5);

    let rule = operator
        .json("rule create --id billing --principal builtin:billing --tenant-label plan=pro --scope crm.objects.contacts.read")
        .await;
    assert_eq!(rule["tenants"]["plan"], "pro");
    check_table(&operator.table("rule list").await, "RULE ID", 1);
}

async fn connect(operator: &Cli<'_>) -> String {
    let create = format!("connect-link create acme --oauth-client {} --ttl 1h", World::OAUTH_CLIENT);
    let link = operator.json(&create).await;
    let walk = Walk::start(text(&link, "url")).await;
    let callback = walk.decide(Consent::Grant(World::HUB_ID)).await;
    assert!(walk.finish(callback).await.status.is_success());
    let links = operator.json("connect-link list acme").await;
    assert!(links[0]["use_time"].is_string() && links[0]["url"].is_null(), "{links}");

    let connections = operator.json("connection list --tenant acme").await;
    assert_eq!(connections.as_array().unwrap().len(), 1, "{connections}");
    assert_eq!(text(&connections[0], "state"), "active");
    assert_eq!(text(&connections[0], "account_id"), World::HUB_ID.to_string());
    check_table(&operator.table("connection list").await, "TENANT ID", 1);
    text(&connections[0], "connection_id").to_owned()
}

async fn use_it(world: &World, operator: &Cli<'_>, service: &Cli<'_>, connection: &str) {
    let sim = world.sim.handle();
    let get = "token get acme --scope crm.objects.contacts.read";
    let shown = service.json(get).await;
    assert_eq!(text(&shown, "connection_id"), connection);
    assert!(shown.get("access_token").is_none(), "the token is shown only when asked for: {shown}");
    let raw = service.table(&format!("{get} --raw")).await;
    assert!(sim.is_access_token_live(raw.trim_end()));
    let told = service.json(&format!("{get} --show-token")).await;
    assert_eq!(text(&told, "access_token"), raw.trim_end());
    // A label gives the access: globex has none. And a service changes nothing.
    service.run("token get globex --scope crm.objects.contacts.read").await.fails(4);
    service.run("tenant list").await.fails(4);

    let refreshed = operator.json(&format!("connection refresh acme {connection}")).await;
    assert_eq!(text(&refreshed, "state"), "active");
    assert_eq!(sim.stats().refreshes, 1);
    let newer = service.table(&format!("{get} --raw")).await;
    assert!(newer != raw && sim.is_access_token_live(newer.trim_end()));
}

async fn rotate_the_secret(world: &World, admin: &Cli<'_>, operator: &Cli<'_>, connection: &str) {
    let sim = world.sim.handle();
    let app = World::app();
    let new = "00000000-1111-4222-8333-444444444444";
    sim.set_client_secret(&app.client_id, new, tokenward_hubspot_sim::Overlap::None).unwrap();
    let refresh = format!("connection refresh acme {connection}");
    let refused = operator.run(&refresh).await;
    assert!(!refused.status.success() && !refused.stderr.contains(&app.client_secret), "{}", refused.stderr);

    let client = World::OAUTH_CLIENT;
    let add = format!("oauth-client secret add {client} --activate --secret-file - --output json");
    let added = admin.call(&add).stdin(format!("{new}\n")).run().await.json();
    assert_eq!((text(&added, "state"), &added["secret_version"]), ("active", &Value::from(2)));
    operator.json(&refresh).await;
    admin.json(&format!("oauth-client secret retire {client} 1")).await;
    let listed = admin.json(&format!("oauth-client secret list {client}")).await;
    let states: Vec<&str> = listed.as_array().unwrap().iter().map(|secret| text(secret, "state")).collect();
    assert!(states.contains(&"active") && states.contains(&"retired"), "{states:?}");
    check_table(&admin.table(&format!("oauth-client secret list {client}")).await, "SECRET VERSION", 2);
}

async fn end_it(world: &World, operator: &Cli<'_>, service: &Cli<'_>, connection: &str) {
    let refresh_token = world.sim.handle().grants(World::HUB_ID)[0].refresh_tokens[0].token.clone();
    let disconnect =
        operator.call(&format!("connection disconnect acme {connection} --output json --reason"));
    assert_eq!(text(&disconnect.arg("the customer left").run().await.json(), "state"), "revoked");
    let dead = world.wait_until(|| !world.sim.handle().is_refresh_token_live(&refresh_token)).await;
    assert!(dead, "the grant lives on at the vendor");
    service.run("token get acme --scope crm.objects.contacts.read").await.fails(3);
    operator.run(&format!("connection delete acme {connection}")).await.ok();
    operator.run("tenant delete acme").await.ok();
    operator.run("tenant get acme").await.fails(5);
}

async fn an_operator_runs_an_installation_by_the_command_line(database: Database) {
    let world = World::bare(database, |_| {}, |_| {}).await;
    let first = world.bootstrap_admin().await;
    let admin = Cli::new(&world, "admin", &first);
    let issue = async |subject: &str, role: &str| {
        let issued = admin.json(&format!("principal issue {subject} --role {role} --ttl 2h")).await;
        assert_eq!(text(&issued, "principal"), format!("builtin:{subject}"));
        text(&issued, "caller_token").to_owned()
    };
    let operator = Cli::new(&world, "operator", &issue("ada", "operator").await);
    let service = Cli::new(&world, "service", &issue("billing", "service").await);
    let auditor = Cli::new(&world, "auditor", &issue("eve", "auditor").await);

    register(&world, &admin).await;
    set_up(&operator).await;
    let connection = connect(&operator).await;
    use_it(&world, &operator, &service, &connection).await;
    rotate_the_secret(&world, &admin, &operator, &connection).await;

    auditor.json("connection list").await;
    auditor.run(&format!("connection refresh acme {connection}")).await.fails(4);
    admin.json("principal block builtin:billing --reason leaked").await;
    service.run("token get acme").await.fails(4);
    check_table(&admin.table("principal list-blocked").await, "PRINCIPAL", 1);
    admin.run("principal unblock builtin:billing").await.ok();
    service.json("token get acme --scope crm.objects.contacts.read").await;

    let named = operator.json("rule update billing --tenant acme").await;
    assert_eq!(named["tenants"], serde_json::json!(["acme"]));
    end_it(&world, &operator, &service, &connection).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_runs_an_installation_by_the_command_line_on_sqlite() {
    an_operator_runs_an_installation_by_the_command_line(Database::sqlite()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_runs_an_installation_by_the_command_line_on_postgresql() {
    let Some(database) = Database::postgres().await else { return };
    an_operator_runs_an_installation_by_the_command_line(database).await;
}
