//! One installation's life with every secret known: what works, and what fails.

use std::path::Path;
use std::time::Duration;

use tokenward_api::admin::v1::{GetTenantRequest, RefreshConnectionRequest};
use tokenward_hubspot_sim::{Endpoint, Fault, FaultKind, GrantRequest, Overlap};
use tokenward_tests::{Clients, Consent, Database, Finished, Landed, Sql, Tokenward, Walk, World, get_token};
use tonic::Status;
use url::Url;

use crate::evidence::{Evidence, Source};
use crate::search::Secrets;
use crate::{evidence, starts};

/// A tenant whose name is easily found.
const TENANT: &str = "marker-tenant-3f9c";
/// Accounts of grants that are imported, and of a static token.
const IMPORTED: u64 = 5_000_001;
const STATIC: u64 = 5_000_002;
/// A pause without Retry-After, and the lease of a probe that was cut off.
const MOST_PAUSED_SECONDS: u32 = 30;

/// The installation and what is known of it.
pub(crate) struct Journey {
    world: World,
    evidence: Evidence,
    secrets: Secrets,
    markers: Secrets,
    http: reqwest::Client,
}

impl Journey {
    /// Starts it with its key in the environment, its password in a URL, and the most talkative log.
    pub(crate) async fn start(database: Database, log_format: &str) -> Self {
        let mut secrets = Secrets::default();
        let mut markers = Secrets::default();
        let key = Tokenward::new("key generate").run().await.ok().trim().to_owned();
        secrets.add("key-encryption key", key.split_once(':').expect("a version and a key").1);
        let database = with_password(database, &mut secrets);
        let world = World::start_with(
            database,
            |settings| {
                settings
                    .remove("encryption.key_file")
                    .env("TOKENWARD__ENCRYPTION__KEY", key)
                    .env("RUST_LOG", "trace")
                    .set("log.filter", "trace")
                    .set("log.format", log_format);
            },
            |_| {},
        );
        let world = world.await;
        secrets.add("client secret", World::app().client_secret);
        for (name, token) in [
            ("admin's caller token", &world.admin_token),
            ("operator's caller token", &world.operator_token),
            ("service's caller token", &world.service_token),
        ] {
            secrets.add(name, token);
        }
        markers.add("tenant", TENANT);
        markers.add("method", "GetToken");
        markers.add("configuration file", "tokenward.toml");
        markers.add("option", "encryption.key");
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none());
        Self { world, evidence: Evidence::default(), secrets, markers, http: http.build().unwrap() }
    }

    /// What works: connects, imports, refreshes, asks.
    pub(crate) async fn succeed(&mut self) {
        self.world.set_up_tenant(TENANT).await;
        let landed = self.connect(Consent::Grant(World::HUB_ID)).await;
        assert!(landed.status.is_success(), "{}", landed.html);
        let sim = self.world.sim.handle();
        let request = GrantRequest {
            client_id: World::app().client_id,
            hub_ids: vec![IMPORTED, STATIC],
            ..GrantRequest::default()
        };
        let grants = sim.create_grants(&request).unwrap();
        let scopes = vec!["crm.objects.contacts.read".to_owned()];
        let static_token = sim.add_static_token(STATIC, scopes).unwrap();
        self.secrets.add("imported refresh token", &grants[0].refresh_token);
        self.secrets.add("static token", &static_token);
        let import = format!("connection import {TENANT} --secret-file - --output json");
        let imported = format!("{import} --oauth-client {}", World::OAUTH_CLIENT);
        self.cli(&imported, Some(&grants[0].refresh_token)).await.ok();
        let fixed =
            format!("{import} --account {STATIC} --provider hubspot --scope crm.objects.contacts.read");
        self.cli(&fixed, Some(&static_token)).await.ok();

        for account in [World::HUB_ID, IMPORTED, STATIC] {
            let shown = self.asked(account, "--show-token --output json").run().await.json();
            let token = shown["access_token"].as_str().unwrap();
            assert!(self.world.sim.handle().is_access_token_live(token));
            self.secrets.add("access token", token);
            let call = self.asked(account, "--output json");
            self.record(call.run().await);
        }
        for command in ["connection list", "connect-link list marker-tenant-3f9c", "tenant list", "rule list"]
        {
            self.cli(command, None).await.ok();
            self.cli(&format!("{command} --output json"), None).await.ok();
        }
        self.refresh(true).await;
    }

    /// The vendor refuses, repeats secrets, talks HTML, breaks off.
    pub(crate) async fn fail_at_the_vendor(&mut self) {
        let refresh_token = self.world.sim.handle().grants(World::HUB_ID)[0].refresh_tokens[0].token.clone();
        let app = World::app();
        // A vendor that repeats what it was sent.
        let said = format!("{} {refresh_token} {}", app.client_secret, app.client_id);
        let json = format!(
            r#"{{"error":"invalid_request","error_description":"{said}","error_uri":"https://x/?{said}","status":"ODD","message":"{said}","correlationId":"{said}"}}"#
        );
        let as_codes = format!(r#"{{"error":"{refresh_token}","status":"{}"}}"#, app.client_secret);
        let json_type = Some("application/json".to_owned());
        let status = |status, body: &str, content_type: Option<String>| FaultKind::Status {
            status,
            body: Some(body.to_owned()),
            content_type,
            retry_after: None,
        };
        let trouble = [
            status(400, &json, json_type.clone()),
            status(400, &as_codes, json_type.clone()),
            status(401, &json, json_type.clone()),
            status(500, &json, json_type.clone()),
            status(502, &format!("<html><body>{said}</body></html>"), Some("text/html".to_owned())),
            status(200, &format!(r#"{{"access_token": 7, "refresh_token": "{said}"}}"#), json_type),
            FaultKind::Html { status: None },
            FaultKind::TruncatedBody,
            FaultKind::DropReplyAfterIssue,
            FaultKind::RateLimited { retry_after: Some(1), policy_name: None },
        ];
        for kind in trouble {
            let sim = self.world.sim.handle();
            sim.clear_faults();
            sim.add_fault(Fault::new(kind).on(Endpoint::Token));
            self.refresh(false).await;
        }
        self.world.sim.handle().clear_faults();

        // A client secret that is not valid any more, and one that never was.
        let wrong = "canary-secret-that-the-vendor-never-saw";
        self.secrets.add("wrong client secret", wrong);
        let client = World::OAUTH_CLIENT;
        let add = format!("oauth-client secret add {client} --secret-file -");
        let added = self.world.cli_admin(&add).stdin(wrong).run().await;
        self.record(added);
        let new = "canary-secret-that-is-right-4b7e19";
        self.secrets.add("new client secret", new);
        self.world.sim.handle().set_client_secret(&app.client_id, new, Overlap::None).unwrap();
        self.refresh(false).await;
        let landed = self.connect(Consent::Grant(World::OTHER_HUB_ID)).await;
        assert!(!landed.html.contains("is connected"), "{}", landed.html);
        let added = self.world.cli_admin(&format!("{add} --activate")).stdin(new).run().await;
        self.record(added);
    }

    /// Customers decline, come back with what is not theirs, come back twice.
    pub(crate) async fn fail_in_the_connect_flow(&mut self) {
        self.connect(Consent::Decline).await;
        let (walk, callback) = self.decide(Consent::Grant(World::HUB_ID)).await;
        let mut wrong_code = callback.clone();
        replace(&mut wrong_code, "code", "canary-code-that-the-vendor-never-gave");
        self.secrets.add("wrong code", "canary-code-that-the-vendor-never-gave");
        let mut wrong_state = callback.clone();
        replace(&mut wrong_state, "state", "canary-state-that-nobody-ever-gave-out");
        self.secrets.add("wrong state", "canary-state-that-nobody-ever-gave-out");
        for url in [wrong_state, wrong_code, callback.clone(), callback] {
            let landed = walk.finish(url).await;
            self.page("callback", &landed);
        }
        let unknown = format!("{}/connect/canary-link-that-was-never-made", self.world.settings.public_url());
        self.secrets.add("wrong link", "canary-link-that-was-never-made");
        for url in [unknown.clone(), format!("{unknown}%00"), format!("{unknown}/../x?token=y")] {
            self.fetch(&url).await;
        }
    }

    /// Callers with bad tokens, and without rights.
    pub(crate) async fn fail_as_callers(&mut self) {
        let mut forged = self.world.service_token.clone();
        forged.truncate(forged.len() - 10);
        forged.push_str("AAAAAAAAAA");
        let words = [
            "canary-token-that-is-no-jwt-at-all".to_owned(),
            "eyJhbGciOiJub25lIn0.e30.canary".to_owned(),
            forged,
        ];
        let mut refusals = Vec::new();
        for token in words {
            self.secrets.add("bad caller token", &token);
            for address in [self.world.server().service(), self.world.server().admin()] {
                let caller = Clients::new(&address, &token);
                refusals.push(get_token(&caller, TENANT).await.unwrap_err());
                let get = GetTenantRequest { tenant_id: TENANT.to_owned() };
                refusals.push(caller.tenants().get_tenant(get).await.unwrap_err());
            }
        }
        let ambiguous = get_token(&self.world.service(), TENANT).await;
        refusals.push(ambiguous.expect_err("the tenant has several accounts"));
        let absent = GetTenantRequest { tenant_id: format!("{TENANT}-absent") };
        refusals.push(self.world.operator().tenants().get_tenant(absent).await.unwrap_err());
        refusals.push(
            get_token(&Clients::new(&self.world.server().service(), &self.world.admin_token), "x")
                .await
                .unwrap_err(),
        );
        for status in refusals {
            self.refusal(&status);
        }
        let file = self.world.folder.write("bad-token", "canary-token-of-a-bad-file-77aa");
        self.secrets.add("bad token file", "canary-token-of-a-bad-file-77aa");
        let call = self.world.cli("tenant list").arg("--token-file").arg(file);
        self.record(call.run().await);
    }

    /// The database goes away under the server, and its tables do.
    pub(crate) async fn fail_in_the_database(&mut self) {
        let Database::Postgres { url, .. } = &self.world.database else { return };
        let mut database = evidence::Postgres::connect(url).await;
        database.rename("connections", "connections_gone").await;
        self.cli("connection list", None).await.fails(1);
        let import =
            format!("connection import {TENANT} --oauth-client {} --secret-file -", World::OAUTH_CLIENT);
        let sim = self.world.sim.handle();
        let client_id = World::app().client_id;
        let request = GrantRequest { client_id, hub_ids: vec![5_000_003], ..GrantRequest::default() };
        let grant = sim.create_grants(&request).unwrap().remove(0);
        self.secrets.add("refresh token that cannot be stored", &grant.refresh_token);
        self.cli(&import, Some(&grant.refresh_token)).await;
        let landed = self.connect(Consent::Grant(World::OTHER_HUB_ID)).await;
        assert!(!landed.html.contains("is connected"), "{}", landed.html);
        database.rename("connections_gone", "connections").await;
        database.cut_others_off().await;
        self.refresh(true).await;
    }

    /// The database takes no answer of the vendor, which waits in the journal until it does.
    pub(crate) async fn fail_to_store(&mut self) {
        // Nothing may be throttled any more by what failed before.
        self.refresh(true).await;
        let mut sql = Sql::open(&self.world.database).await;
        let connection_id = self.world.connection(TENANT, World::HUB_ID).await;
        let sim = self.world.sim.handle();
        // The table goes while the vendor thinks.
        sim.add_fault(Fault::new(FaultKind::Latency { ms: 1000 }).on_refresh());
        let asked = sim.stats().refreshes;
        let mut connections = self.world.operator().connections();
        let request = RefreshConnectionRequest { tenant_id: TENANT.to_owned(), connection_id };
        let (refreshed, ()) = tokio::join!(connections.refresh_connection(request), async {
            assert!(self.world.wait_until(|| self.world.sim.handle().stats().refreshes > asked).await);
            sql.run("ALTER TABLE connections RENAME TO connections_gone").await;
        });
        sim.clear_faults();
        if let Err(status) = refreshed {
            self.refusal(&status);
        }
        let journal = self.world.settings.journal_dir();
        let waits =
            self.world.wait_until(|| files(journal).iter().any(|(name, bytes)| is_entry(name, bytes)));
        assert!(waits.await, "no answer waits in the journal");
        self.journal("while an answer waits");
        sql.run("ALTER TABLE connections_gone RENAME TO connections").await;
        self.world.server().process.stderr.wait_for_text("a refreshed token is stored at last").await;
        self.journal("after it was stored");
        let shown = self.asked(World::HUB_ID, "--show-token --output json").run().await.json();
        self.secrets.add("access token that waited", shown["access_token"].as_str().unwrap());
    }

    fn journal(&mut self, when: &str) {
        for (name, bytes) in files(self.world.settings.journal_dir()) {
            self.evidence.add(Source::Journal, format!("{name} {when}"), bytes);
        }
    }

    /// Looks everywhere, stops, looks again, and fails to start.
    pub(crate) async fn end(mut self) -> (Evidence, Secrets, Secrets) {
        for path in ["metrics", "livez", "readyz"] {
            let url = format!("{}/{path}", self.world.server().operations());
            let answer = self.http.get(&url).send().await.unwrap();
            self.evidence.add(Source::Metrics, path, answer.bytes().await.unwrap());
        }
        let arguments = std::fs::read(format!("/proc/{}/cmdline", self.world.server().process.id())).unwrap();
        self.evidence.add(Source::ProcessList, "the server", arguments);
        self.database("while the server runs").await;
        let ended = self.world.take_server().stop().await;
        self.evidence.add(Source::ServerLog, "standard output", ended.stdout);
        self.evidence.add(Source::ServerLog, "standard error", ended.stderr);
        self.database("after the server has stopped").await;
        self.journal("after the server has stopped");
        for hub_id in [World::HUB_ID, World::OTHER_HUB_ID, IMPORTED, 5_000_003] {
            for family in self.world.sim.handle().grants(hub_id) {
                for token in family.refresh_tokens {
                    self.secrets.add("refresh token", token.token);
                }
            }
        }
        starts::with_broken_configurations(&mut self.evidence, &mut self.secrets).await;
        let Self { world, evidence, secrets, .. } = &mut self;
        starts::with_the_wrong_key(&mut world.settings, &world.database, evidence, secrets).await;
        (self.evidence, self.secrets, self.markers)
    }

    async fn database(&mut self, when: &str) {
        match &self.world.database {
            Database::Sqlite(folder) => {
                for file in std::fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
                    let what = format!("{} {when}", file.file_name().display());
                    self.evidence.add(Source::Database, what, std::fs::read(file.path()).unwrap());
                }
            }
            Database::Postgres { url, .. } => {
                for (table, rows) in evidence::Postgres::connect(url).await.rows().await {
                    self.evidence.add(Source::Database, format!("{table} {when}"), rows);
                }
            }
            Database::Mariadb { .. } => panic!("the journey is made on the other two"),
        }
    }

    /// Refreshes all connections by the command line.
    async fn refresh(&mut self, must_succeed: bool) {
        let listed = self.cli("connection list --output json", None).await.json();
        for connection in listed.as_array().unwrap().iter().filter(|connection| connection["kind"] == "oauth")
        {
            let id = connection["connection_id"].as_str().unwrap();
            let refresh = format!("connection refresh {TENANT} {id}");
            let mut refreshed = self.cli(&refresh, None).await;
            // Faults that were ordered before may have throttled the client: come again when the answer says, as often as a
            // pause and its probe may take.
            for _ in 0..MOST_PAUSED_SECONDS {
                if !must_succeed || !refreshed.stderr.contains("PROVIDER_RATE_LIMITED") {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
                refreshed = self.cli(&refresh, None).await;
            }
            assert!(!must_succeed || refreshed.status.success(), "{}", refreshed.stderr);
        }
        let account = World::HUB_ID.to_string();
        let request = tokenward_api::v1::GetTokenRequest {
            tenant_id: TENANT.to_owned(),
            account_id: account,
            ..Default::default()
        };
        match self.world.service().tokens().get_token(request).await {
            Ok(answer) => self.secrets.add("access token", &answer.into_inner().access_token),
            Err(status) => self.refusal(&status),
        }
    }

    /// Opens a new link and decides; notes everything that is secret on the way.
    async fn decide(&mut self, consent: Consent) -> (Walk, Url) {
        let link = self.world.connect_link(TENANT).await;
        self.secrets.add("link", link.rsplit('/').next().unwrap());
        self.fetch(&link).await;
        let walk = Walk::start(&link).await;
        let callback = walk.decide(consent).await;
        self.secrets.add("cookie", walk.cookie.split_once('=').unwrap().1);
        for (key, value) in callback.query_pairs().filter(|(key, _)| key == "code" || key == "state") {
            self.secrets.add(&key, value.as_bytes());
        }
        (walk, callback)
    }

    async fn connect(&mut self, consent: Consent) -> Landed {
        let (walk, callback) = self.decide(consent).await;
        let landed = walk.finish(callback).await;
        self.page("result", &landed);
        landed
    }

    fn page(&mut self, what: &str, landed: &Landed) {
        self.evidence.add(Source::Page, what, format!("{:?}\n{}", landed.headers, landed.html));
    }

    async fn fetch(&mut self, url: &str) {
        let answer = self.http.get(url).send().await.unwrap();
        let head = format!("{:?}\n", answer.headers());
        self.evidence.add(Source::Page, "link", head + &answer.text().await.unwrap());
    }

    fn refusal(&mut self, status: &Status) {
        let shown = format!("{status}\n{status:?}\n{:?}\n", status.metadata());
        self.evidence.add(Source::GrpcError, "refusal", [shown.as_bytes(), status.details()].concat());
    }

    /// A call for one account's token.
    fn asked(&self, account: u64, options: &str) -> Tokenward {
        self.world.cli_service(&format!("token get {TENANT} --account {account} {options}"))
    }

    async fn cli(&mut self, arguments: &str, stdin: Option<&str>) -> Finished {
        let call = self.world.cli(arguments).env("RUST_LOG", "trace");
        let call = stdin.into_iter().fold(call, Tokenward::stdin);
        let finished = call.run().await;
        self.record(finished.clone());
        finished
    }

    fn record(&mut self, finished: Finished) {
        self.evidence.add(Source::ProcessList, "a command", finished.call.clone());
        self.evidence.add(Source::CommandLine, finished.call, finished.stdout + &finished.stderr);
    }
}

/// The names of a folder's files, and what is in them.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let files = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    files.map(|file| (file.file_name().display().to_string(), std::fs::read(file.path()).unwrap())).collect()
}

/// Whether a file of a journal holds an answer; what is free begins with zeros.
fn is_entry(name: &str, bytes: &[u8]) -> bool {
    Path::new(name).extension().is_some_and(|kind| kind == "slot")
        && !bytes.is_empty()
        && !bytes.starts_with(&[0; 4])
}

/// A password in the URL, which a server that trusts this machine does not ask for.
fn with_password(database: Database, secrets: &mut Secrets) -> Database {
    let Database::Postgres { url, .. } = &database else { return database };
    let mut url = Url::parse(url).unwrap();
    if url.password().is_none() {
        url.set_password(Some("canary-password-of-the-database")).unwrap();
    }
    secrets.add("database password", url.password().unwrap());
    database.at(url.as_str())
}

fn replace(url: &mut Url, key: &str, value: &str) {
    let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    let replaced =
        pairs.into_iter().map(|(name, old)| if name == key { (name, value.to_owned()) } else { (name, old) });
    let replaced: Vec<_> = replaced.collect();
    url.query_pairs_mut().clear().extend_pairs(replaced);
}
