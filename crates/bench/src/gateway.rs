//! A real `tokenward serve` in a folder of its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use http::{HeaderValue, Uri};
use prost_types::Duration as ProtoDuration;
use tokenward_api::admin::v1::principal_service_client::PrincipalServiceClient;
use tokenward_api::admin::v1::{IssueCallerTokenRequest, Role};
use tokenward_api::v1::GetTokenRequest;
use tokio::process::Command;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::child::{self, Child};
use crate::requests::{Call, Expected};
use crate::sim::Sim;
use crate::world::{self, Ask};

/// GetToken's path.
const GET_TOKEN_PATH: &str = "/tokenward.v1.TokenService/GetToken";
/// Files in the server's folder.
const KEY: &str = "key";
const DATABASE: &str = "tokenward.db";
/// The longest life of a caller token.
const DAY: ProtoDuration = ProtoDuration { seconds: 86_400, nanos: 0 };

/// Adds a caller token to every call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A channel to the admin listener with a caller token.
pub type AdminChannel = InterceptedService<Channel, Bearer>;

/// What a server needs: programs, its folder, its addresses.
#[derive(Clone, Debug)]
pub struct Site {
    program: PathBuf,
    folder: PathBuf,
    /// gRPC for services.
    pub service: SocketAddr,
    admin: SocketAddr,
    public: SocketAddr,
    operations: SocketAddr,
    vendor: String,
    /// Instead of a file.
    postgres: Option<String>,
}

/// A running server.
pub struct Gateway {
    /// Where it is.
    pub site: Site,
    /// Its process.
    pub child: Child,
}

impl Site {
    /// Makes a folder with a key and a configuration.
    ///
    /// # Errors
    /// When that cannot be written.
    pub async fn create(program: &Path, folder: &Path, sim: &Sim) -> Result<Self> {
        Self::create_on(program, folder, sim, None).await
    }

    /// The same on a PostgreSQL, if one is given.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub async fn create_on(
        program: &Path,
        folder: &Path,
        sim: &Sim,
        postgres: Option<String>,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let [service, admin, public, operations] = child::free_addresses()?;
        let site = Self {
            program: program.to_owned(),
            folder: folder.to_owned(),
            service,
            admin,
            public,
            operations,
            vendor: sim.base_url().to_owned(),
            postgres,
        };
        let mut generate = Command::new(program);
        generate.args(["key", "generate", "--file"]).arg(folder.join(KEY));
        child::output(&mut generate).await.context("cannot make a key")?;
        site.write_config()?;
        Ok(site)
    }

    /// Adds a line to the keyring.
    ///
    /// # Errors
    /// When a key cannot be made, or the keyring not be written.
    pub async fn add_key(&self, version: u32) -> Result<()> {
        let mut generate = Command::new(&self.program);
        generate.args(["key", "generate", "--version", &version.to_string()]);
        let line = child::output(&mut generate).await.context("cannot make a key")?;
        let file = self.folder.join(KEY);
        let keyring = std::fs::read_to_string(&file).context("cannot read the keyring")?;
        std::fs::write(file, keyring + line.trim() + "\n").context("cannot write the keyring")
    }

    /// Copies everything but the logs of a server that has stopped into another folder. A database that is no file stays the same.
    ///
    /// # Errors
    /// When that cannot be read or written.
    pub fn copy_to(&self, folder: &Path) -> Result<Self> {
        let cannot = || format!("cannot copy {} to {}", self.folder.display(), folder.display());
        std::fs::create_dir_all(folder).with_context(cannot)?;
        // The log of changes that SQLite has not merged into the database yet belongs to it.
        for name in [KEY.to_owned(), DATABASE.to_owned(), format!("{DATABASE}-wal")] {
            let may_be_missing = name.ends_with("-wal") || (name == DATABASE && self.postgres.is_some());
            match std::fs::copy(self.folder.join(&name), folder.join(&name)) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_be_missing => {}
                other => drop(other.with_context(cannot)?),
            }
        }
        let copied = Self { folder: folder.to_owned(), ..self.clone() };
        copied.write_config()?;
        Ok(copied)
    }

    /// Removes the folder of a server that has stopped.
    ///
    /// # Errors
    /// When that cannot be.
    pub fn remove(self) -> Result<()> {
        std::fs::remove_dir_all(&self.folder)
            .with_context(|| format!("cannot remove {}", self.folder.display()))
    }

    fn write_config(&self) -> Result<()> {
        let Self { folder, service, admin, public, operations, vendor, .. } = self;
        // JSON texts are TOML texts.
        let text = |value: &str| serde_json::Value::from(value).to_string();
        let path = |name: &str| text(&folder.join(name).display().to_string());
        let storage = match &self.postgres {
            Some(url) => format!("kind = \"postgres\"\nurl = {}", text(url)),
            None => format!("kind = \"sqlite\"\npath = {}", path(DATABASE)),
        };
        let config = format!(
            "[storage]\n{storage}\n\n[broker]\njournal_dir = {journal}\n\n\
             [encryption]\nkind = \"local\"\nkey_file = {key}\n\n\
             [providers.hubspot]\napi_base_url = {vendor_url}\nauthorize_url = {authorize}\nallow_http = true\n\
             allow_private_addresses = true\n\n\
             [listen.service]\naddress = \"{service}\"\n\n[listen.admin]\naddress = \"{admin}\"\n\n\
             [listen.public]\naddress = \"{public}\"\n\n[listen.operations]\naddress = \"{operations}\"\n",
            key = path(KEY),
            journal = path("journal"),
            vendor_url = text(vendor),
            authorize = text(&format!("{vendor}/oauth/authorize")),
        );
        std::fs::write(self.config(), config).context("cannot write the configuration")
    }

    fn config(&self) -> PathBuf {
        self.folder.join("tokenward.toml")
    }

    /// Starts the server; it may not listen yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self) -> Result<Gateway> {
        let mut command = Command::new(&self.program);
        command.arg("serve").arg("--config").arg(self.config());
        Ok(Gateway {
            site: self.clone(),
            child: Child::start("tokenward", &self.folder, &mut command, false)?,
        })
    }

    /// Starts the server and waits until it listens.
    ///
    /// # Errors
    /// When it does not.
    pub async fn serve(&self) -> Result<Gateway> {
        let mut gateway = self.start()?;
        gateway.child.listens(self.service).await?;
        Ok(gateway)
    }

    /// A call of GetToken.
    ///
    /// # Errors
    /// When the address makes no URI.
    pub fn call(&self, ask: &Ask, bearer: &HeaderValue, expected: Expected) -> Result<Call> {
        let uri =
            Uri::builder().scheme("http").authority(self.service.to_string()).path_and_query(GET_TOKEN_PATH);
        let message = GetTokenRequest {
            tenant_id: world::tenant_id(ask.tenant),
            provider: "hubspot".to_owned(),
            scopes: ask.scopes.clone(),
            ..GetTokenRequest::default()
        };
        Ok(Call::new(&uri.build()?, Some(bearer), &message, expected))
    }
}

/// What an `authorization` header says.
///
/// # Errors
/// When the token has characters that it cannot have.
pub fn bearer(token: &str) -> Result<HeaderValue> {
    Ok(HeaderValue::from_str(&format!("Bearer {}", token.trim()))?)
}

impl Gateway {
    /// A channel for calls of the admin API with a caller token.
    async fn channel(&self, token: &str) -> Result<AdminChannel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.site.admin))?;
        let channel = endpoint.connect().await.context("the admin listener does not answer")?;
        let bearer = Bearer(format!("Bearer {}", token.trim()).parse()?);
        Ok(InterceptedService::new(channel, bearer))
    }

    /// The first admin, by the command line; then an operator, by the admin API.
    ///
    /// # Errors
    /// When either cannot be made.
    pub async fn people(&self) -> Result<People> {
        let mut bootstrap = Command::new(&self.site.program);
        bootstrap.args(["principal", "bootstrap-admin", "--ttl", "24h", "--config"]).arg(self.site.config());
        let token = child::output(&mut bootstrap).await.context("cannot bootstrap an admin")?;
        let admin = self.channel(&token).await?;
        let issued = issue(&admin, "operator", Role::Operator).await?;
        Ok(People { operator: self.channel(&issued).await?, admin })
    }

    /// What it tells of itself.
    ///
    /// # Errors
    /// When the operations listener does not answer.
    pub async fn metrics(&self) -> Result<String> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("http://{}/metrics", self.site.operations);
        Ok(http.get(url).send().await?.error_for_status()?.text().await?)
    }
}

/// Who sets things up.
#[derive(Clone)]
pub struct People {
    /// Makes OAuth clients and caller tokens.
    pub admin: AdminChannel,
    /// Makes tenants, connections and rules.
    pub operator: AdminChannel,
}

/// Issues a caller token that lives for a day.
///
/// # Errors
/// When the server refuses.
pub async fn issue(admin: &AdminChannel, subject: &str, role: Role) -> Result<String> {
    let request = IssueCallerTokenRequest { subject: subject.to_owned(), role: role.into(), ttl: Some(DAY) };
    let answer = PrincipalServiceClient::new(admin.clone()).issue_caller_token(request).await;
    Ok(answer.context("cannot issue a caller token")?.into_inner().caller_token)
}
