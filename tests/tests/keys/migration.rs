//! Every data key moves from one real backend to the next, and back, while callers and refreshes go on.

use serde_json::{Value as Json, json};
use tokenward_tests::{Database, Kms, REGION, World, parts};
use toml::{Table, Value};

use crate::life::Traffic;
use crate::world::{assert_everything_opens, finished, key, status, tenant, with_tenants};

const TENANTS: u64 = 6;

/// The root of an OpenBao, who makes an engine for one test.
pub(crate) struct Bao {
    address: String,
    mount: String,
}

impl Bao {
    pub(crate) async fn new(address: String) -> Self {
        let bao = Self { address, mount: format!("transit-{}", tokenward_tests::free_port()) };
        bao.call("POST", &format!("sys/mounts/{}", bao.mount), json!({"type": "transit"})).await;
        bao.call("POST", &format!("{}/keys/tokenward", bao.mount), json!({"type": "aes256-gcm96"})).await;
        bao
    }

    async fn call(&self, method: &str, path: &str, body: Json) -> Json {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method.parse().unwrap(), format!("{}/v1/{path}", self.address));
        let answer = request.header("x-vault-token", "root").json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Json::Null)
    }

    /// What Tokenward calls the key.
    pub(crate) fn kek(&self) -> String {
        format!("openbao:{}/tokenward:1", self.mount)
    }

    /// The section for a token that may do this with the key, beside reading what there is to know of it.
    pub(crate) async fn section(&self, may: &[&str]) -> Table {
        let Self { address, mount } = self;
        let read = format!("path \"{mount}/keys/tokenward\" {{ capabilities = [\"read\"] }}\n");
        let allow = |action: &&str| {
            format!("path \"{mount}/{action}/tokenward\" {{ capabilities = [\"update\"] }}\n")
        };
        let policy = may.iter().map(allow).fold(read, |policy, path| policy + &path);
        let name = format!("{mount}-{}", may.join("-"));
        self.call("PUT", &format!("sys/policies/acl/{name}"), json!({"policy": policy})).await;
        let order = json!({"policies": [name], "ttl": "1h", "no_parent": true});
        let created = self.call("POST", "auth/token/create", order).await;
        let token = created["auth"]["client_token"].as_str().unwrap();
        section(&[("kind", "openbao"), ("address", address), ("mount", mount), ("token", token)])
    }
}

/// The section for a key of its own at AWS, and the key's name.
async fn at_aws(kms: &Kms, world: &mut World) -> (Table, String) {
    let made = kms.call("CreateKey", json!({})).await;
    let arn = made["KeyMetadata"]["Arn"].as_str().unwrap();
    let mut aws = section(&[("kind", "aws-kms"), ("region", REGION), ("endpoint_url", &kms.0)]);
    aws.insert("key_ids".to_owned(), Value::Array(vec![arn.into()]));
    world.settings.env("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "example");
    (aws, format!("aws-kms:{arn}"))
}

/// The section for a keyring in the world's folder.
pub(crate) fn keyring(world: &World, name: &str) -> Table {
    let file = world.folder.file(name).display().to_string();
    section(&[("kind", "local"), ("key_file", &file)])
}

fn section(options: &[(&str, &str)]) -> Table {
    options.iter().map(|(option, value)| ((*option).to_owned(), (*value).into())).collect()
}

/// A section with another one in it.
pub(crate) fn with(section: &Table, name: &str, further: &Table) -> Table {
    let mut section = section.clone();
    section.insert(name.to_owned(), Value::Table(further.clone()));
    section
}

pub(crate) async fn configure(world: &mut World, encryption: Table) {
    world.settings.set("encryption", encryption);
    world.restart().await;
}

async fn all_tokens(world: &World) {
    for number in 0..TENANTS {
        world.get_token(&tenant(number)).await.unwrap();
    }
}

/// As the documentation tells it, from the first restart to the end of the former backend.
async fn moved(world: &mut World, from: (&Table, &str), to: (&Table, &str)) {
    let kind = to.0["kind"].as_str().unwrap();
    configure(world, with(from.0, "next", to.0)).await;
    let traffic = Traffic::start(world, TENANTS).await;
    let done = finished(key(world, &format!("migrate --to {kind}")).await);
    assert!(traffic.end().await >= TENANTS);
    assert_eq!((&done["encryption_key"], &done["done_count"]), (&to.1.into(), &(TENANTS + 1).into()));
    assert_eq!(status(world, to.1).await["state"], "active");

    configure(world, with(to.0, "previous", from.0)).await;
    assert_everything_opens(world).await;
    key(world, &format!("retire {}", from.1)).await.ok();
    configure(world, to.0.clone()).await;
    all_tokens(world).await;
    assert_everything_opens(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_move_from_a_keyring_to_openbao_to_aws_kms_and_to_another_keyring() {
    let Some(address) = parts::openbao_address() else { return };
    let Some(url) = parts::moto_url() else { return };
    let (bao, kms) = (Bao::new(address).await, Kms(url));
    let mut world = with_tenants(Database::sqlite(), TENANTS).await;
    let (first, last) = (keyring(&world, "tokenward.key"), keyring(&world, "last.key"));
    let generate = tokenward_tests::Tokenward::new("key generate --version 7 --file");
    generate.arg(world.folder.file("last.key")).run().await.ok();
    let transit = bao.section(&["encrypt", "decrypt"]).await;
    let (aws, at_aws) = at_aws(&kms, &mut world).await;
    let at_bao = bao.kek();
    moved(&mut world, (&first, "local:1"), (&transit, &at_bao)).await;
    moved(&mut world, (&transit, &at_bao), (&aws, &at_aws)).await;
    moved(&mut world, (&aws, &at_aws), (&last, "local:7")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_move_back_to_the_key_that_they_came_from_while_it_is_not_retired() {
    let Some(address) = parts::openbao_address() else { return };
    let Some(url) = parts::moto_url() else { return };
    let (bao, kms) = (Bao::new(address).await, Kms(url));
    let mut world = with_tenants(Database::sqlite(), TENANTS).await;
    let local = keyring(&world, "tokenward.key");
    let transit = bao.section(&["encrypt", "decrypt"]).await;
    let (aws, at_aws) = at_aws(&kms, &mut world).await;
    let at_bao = bao.kek();
    let first = status(&world, "local:1").await["activate_time"].clone();
    let way = [
        (&local, "local:1"),
        (&transit, &*at_bao),
        (&aws, &*at_aws),
        (&transit, &*at_bao),
        (&local, "local:1"),
    ];
    for step in way.windows(2) {
        let [(from, former), (to, name)] = step else { panic!("there are two") };
        configure(&mut world, with(from, "next", to)).await;
        let kind = to["kind"].as_str().unwrap();
        finished(key(&world, &format!("migrate --to {kind}")).await);
        assert_eq!(status(&world, name).await["state"], "active");
        assert_eq!(status(&world, former).await["state"], "decrypt_only");
        all_tokens(&world).await;
        assert_everything_opens(&world).await;
    }
    let local = status(&world, "local:1").await;
    assert_eq!(local["activate_time"], first, "backups that were made meanwhile may need it: {local}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_moves_to_a_backend_that_does_not_open_what_it_wraps() {
    let Some(address) = parts::openbao_address() else { return };
    let bao = Bao::new(address).await;
    let mut world = with_tenants(Database::sqlite(), TENANTS).await;
    let local = keyring(&world, "tokenward.key");
    for (may, lacks) in [("decrypt", "encrypt"), ("encrypt", "decrypt")] {
        configure(&mut world, with(&local, "next", &bao.section(&[may]).await)).await;
        let told = key(&world, "migrate --to openbao").await.fails(3);
        for part in [&*bao.kek(), "a trial failed", "permission denied: its policy must allow", lacks] {
            assert!(told.contains(part), "{part:?} in {told}");
        }
        assert_eq!(status(&world, "local:1").await["state"], "active");
        all_tokens(&world).await;
    }
}
