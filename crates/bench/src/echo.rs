//! The bare echo service, and the two ways to run it.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use tokenward_server::places;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use proto::echo_service_server::EchoService;
pub use proto::echo_service_server::EchoServiceServer;
pub use proto::{EchoRequest, EchoResponse};

#[expect(
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::pedantic,
    unreachable_pub,
    reason = "generated code"
)]
mod proto {
    tonic::include_proto!("tokenward.bench.v1");
}

/// The method's path.
pub const ECHO_PATH: &str = "/tokenward.bench.v1.EchoService/Echo";

/// The command line of an echo server.
#[derive(Debug, Parser)]
pub struct EchoArgs {
    /// Length in bytes of the message that it answers.
    #[arg(long)]
    pub answer_bytes: usize,
}

/// The service.
#[derive(Clone, Debug)]
pub struct Echo {
    padding: String,
}

impl Echo {
    /// A service that answers messages of so many bytes.
    pub fn service(answer_bytes: usize) -> EchoServiceServer<Self> {
        EchoServiceServer::new(Self { padding: "0".repeat(answer_bytes) })
    }
}

#[tonic::async_trait]
impl EchoService for Echo {
    async fn echo(&self, request: Request<EchoRequest>) -> Result<Response<EchoResponse>, Status> {
        let mut message = request.into_inner().message;
        if let Some(rest) = self.padding.get(message.len()..) {
            message.push_str(rest);
        }
        Ok(Response::new(EchoResponse { message }))
    }
}

/// Tells the parent process where we listen.
fn announce(address: SocketAddr) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout();
    writeln!(out, "{address}").and_then(|()| out.flush()).context("cannot tell the address")
}

async fn bind() -> Result<TcpListener> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("cannot listen on 127.0.0.1")?;
    announce(listener.local_addr()?)?;
    Ok(listener)
}

/// Serves on the current runtime with a default server, as tonic's documentation does.
///
/// # Errors
/// When it cannot listen, or serving ends.
pub async fn serve_plain(args: &EchoArgs) -> Result<()> {
    let incoming = tonic::transport::server::TcpIncoming::from(bind().await?).with_nodelay(Some(true));
    let echo = Echo::service(args.answer_bytes);
    Ok(Server::builder().add_service(echo).serve_with_incoming(incoming).await?)
}

/// Serves with tokenward's layout: a runtime with one thread per processor, which stays there where tokenward's does, and
/// connections dealt out to them in turn by the runtime that this is called on.
///
/// # Errors
/// When it cannot listen, or a thread cannot be started or ends.
pub async fn serve_same(args: &EchoArgs) -> Result<()> {
    let mut threads = Vec::new();
    for (index, place) in places(None, true).into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, receiver) = mpsc::channel::<std::net::TcpStream>(64);
        let echo = Echo::service(args.answer_bytes);
        let serving = Server::builder()
            .max_concurrent_streams(1024)
            .http2_max_header_list_size(16 * 1024)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .http2_keepalive_timeout(Some(Duration::from_secs(20)))
            .add_service(echo)
            .serve_with_incoming(ReceiverStream::new(receiver).map(TcpStream::from_std));
        std::thread::Builder::new().name(format!("echo-{index}")).spawn(move || {
            place.take()?;
            anyhow::Ok(runtime.block_on(serving)?)
        })?;
        threads.push(sender);
    }
    let listener = bind().await?;
    for thread in threads.iter().cycle() {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        thread.send(stream.into_std()?).await.context("a thread ended")?;
    }
    Ok(())
}
