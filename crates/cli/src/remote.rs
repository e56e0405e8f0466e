//! Calls to a running server.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Request, Status};
use url::{Host, Url};

use crate::failure::Failure;
use crate::output::Output;
use crate::secret_input;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How many rows of a listing are asked for at a time.
pub(crate) const PAGE_SIZE: i32 = 1000;

/// Where the admin API is, and who calls.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct AdminArgs {
    /// Address of the admin API: http://…, https://… or unix:///path.
    #[arg(
        long,
        env = "TOKENWARD_ADDR",
        default_value = "http://127.0.0.1:7602",
        global = true,
        value_name = "URL"
    )]
    pub addr: String,
    #[command(flatten)]
    pub caller: CallerArgs,
}

/// Who calls, and what is trusted.
#[derive(Clone, Debug, Args)]
pub(crate) struct CallerArgs {
    /// File that holds the caller token; "-" reads standard input.
    #[arg(long, env = "TOKENWARD_TOKEN_FILE", global = true, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// Certificate authorities to trust instead of the system's, PEM.
    #[arg(long, env = "TOKENWARD_CA_FILE", global = true, value_name = "PATH")]
    pub ca_file: Option<PathBuf>,
    /// Send the caller token to another machine without TLS.
    #[arg(long, global = true)]
    pub allow_plaintext: bool,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t, global = true, value_name = "FORMAT")]
    pub output: Output,
}

/// A connection that sends the caller token with every call.
pub(crate) type Client = InterceptedService<Channel, Bearer>;

/// Adds the caller token to a call.
#[derive(Clone)]
pub(crate) struct Bearer(MetadataValue<Ascii>);

impl Bearer {
    /// `None` when it cannot be a token.
    fn new(token: &SecretString) -> Option<Self> {
        let mut header: MetadataValue<Ascii> = format!("Bearer {}", token.expose_secret()).parse().ok()?;
        header.set_sensitive(true);
        Some(Self(header))
    }
}

/// A connection to a server on this machine with a token that is at hand.
pub(crate) fn client_with(address: &str, token: &SecretString) -> Result<Client, Failure> {
    let args = CallerArgs { token_file: None, ca_file: None, allow_plaintext: false, output: Output::Table };
    let bearer = Bearer::new(token).ok_or_else(|| Failure::new("that is not a caller token"))?;
    Ok(InterceptedService::new(args.channel(address)?, bearer))
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

impl AdminArgs {
    /// A connection to the admin API.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        self.caller.client(&self.addr)
    }

    /// How results are printed.
    pub(crate) fn output(&self) -> Output {
        self.caller.output
    }
}

impl CallerArgs {
    /// A connection to `address`, made when the first call needs it.
    pub(crate) fn client(&self, address: &str) -> Result<Client, Failure> {
        let channel = self.channel(address)?;
        let Some(file) = &self.token_file else {
            return Err(Failure::new("no caller token was given").hint(
                "use --token-file PATH or TOKENWARD_TOKEN_FILE; `tokenward principal bootstrap-admin` makes the first",
            ));
        };
        let bearer = Bearer::new(&secret_input::read(file)?)
            .ok_or_else(|| Failure::new(format!("{} does not hold a caller token", file.display())))?;
        Ok(InterceptedService::new(channel, bearer))
    }

    fn channel(&self, address: &str) -> Result<Channel, Failure> {
        let wrong = || {
            Failure::new(format!("{address:?} is not an address"))
                .hint("give http://127.0.0.1:7602, https://host:port or unix:///path")
        };
        let url = Url::parse(address).map_err(|_| wrong())?;
        if url.scheme() == "http" && !is_loopback(&url) && !self.allow_plaintext {
            return Err(Failure::new("the caller token would cross the network without TLS")
                .hint("use https://, or --allow-plaintext where something else protects the connection"));
        }
        let mut endpoint = Endpoint::from_shared(address.to_owned())
            .map_err(|_| wrong())?
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .user_agent(concat!("tokenward-cli/", env!("CARGO_PKG_VERSION")))
            .map_err(|_| wrong())?;
        match url.scheme() {
            "https" => {
                let tls = self.tls()?;
                let cannot = |error| Failure::new(format!("cannot set up TLS: {error}"));
                endpoint = endpoint.tls_config(tls).map_err(cannot)?;
            }
            "http" | "unix" => {}
            _ => return Err(wrong()),
        }
        Ok(endpoint.connect_lazy())
    }

    fn tls(&self) -> Result<ClientTlsConfig, Failure> {
        let Some(path) = &self.ca_file else { return Ok(ClientTlsConfig::new().with_native_roots()) };
        let pem = tokenward_plugin::read_secret_bytes(path).map_err(Failure::new)?;
        Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// Collects every page of a listing (the request says how large they are), or the first `limit` rows of it.
macro_rules! all_pages {
    ($client:expr, $method:ident, $request:expr, $items:ident, $limit:expr) => {{
        let mut request = $request;
        let limit: usize = $limit.unwrap_or(usize::MAX);
        let mut rows = Vec::new();
        loop {
            let answer = $client.$method(request.clone()).await?.into_inner();
            rows.extend(answer.$items);
            if answer.next_page_token.is_empty() || rows.len() >= limit {
                break;
            }
            request.page_token = answer.next_page_token;
        }
        rows.truncate(limit);
        rows
    }};
}
pub(crate) use all_pages;

#[cfg(test)]
mod tests {
    use super::*;

    fn args() -> CallerArgs {
        CallerArgs { token_file: None, ca_file: None, allow_plaintext: false, output: Output::Table }
    }

    #[tokio::test]
    async fn a_token_crosses_the_network_in_plaintext_by_choice_only() {
        assert!(args().channel("http://gateway.example.com:7601").is_err());
        assert!(args().channel("http://127.0.0.1:7601").is_ok());
        assert!(args().channel("http://[::1]:7601").is_ok());
        assert!(
            CallerArgs { allow_plaintext: true, ..args() }.channel("http://gateway.example.com:7601").is_ok()
        );
    }

    #[tokio::test]
    async fn an_address_of_another_kind_is_refused() {
        for address in ["127.0.0.1:7602", "ftp://127.0.0.1", ""] {
            assert!(
                args().channel(address).unwrap_err().to_string().contains("is not an address"),
                "{address}"
            );
        }
    }

    #[test]
    fn without_a_token_the_ways_to_give_one_are_named() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _guard = runtime.enter();
        let failure =
            args().client("http://127.0.0.1:1").err().map(|failure| failure.to_string()).unwrap_or_default();
        assert!(failure.contains("--token-file"), "{failure}");
    }
}
