//! `tokenward serve` as a process.

use crate::{Ended, Process, Settings, Signal, Tokenward};

/// Where a running server listens, as it says itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The service API.
    pub service: String,
    /// The admin API.
    pub admin: String,
    /// The connect pages.
    pub public: String,
    /// Health and metrics.
    pub operations: String,
}

impl Addresses {
    /// Reads the event of a server that has started, from a log of either format.
    fn find(log: &str) -> Option<Self> {
        let line = log.lines().find(|line| line.contains("serving") && line.contains("operations"))?;
        let address = |key: &str| {
            // `"service":"…"` in JSON, `service="…"` in text.
            let rest =
                line.split_once(&format!("{key}\":\"")).or_else(|| line.split_once(&format!("{key}=\"")));
            Some(rest?.1.split_once('"')?.0.to_owned())
        };
        Some(Self {
            service: address("service")?,
            admin: address("admin")?,
            public: address("public")?,
            operations: address("operations")?,
        })
    }
}

/// A running server; it is killed when this is dropped.
pub struct Serve {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub addresses: Addresses,
}

impl Serve {
    /// Starts a server and waits until it serves.
    pub async fn start(settings: &Settings) -> Self {
        Self::of(&Self::call(settings)).await
    }

    /// The call that starts a server.
    pub fn call(settings: &Settings) -> Tokenward {
        settings.call("serve")
    }

    /// Makes a call and waits until the server serves.
    pub async fn of(call: &Tokenward) -> Self {
        let process = call.start();
        let addresses = process.stderr.wait_for(Addresses::find).await;
        let addresses = addresses.unwrap_or_else(|log| panic!("the server did not start:\n{log}"));
        Self { process, addresses }
    }

    /// Its service API for gRPC clients.
    pub fn service(&self) -> String {
        format!("http://{}", self.addresses.service)
    }

    /// Its admin API for gRPC clients.
    pub fn admin(&self) -> String {
        format!("http://{}", self.addresses.admin)
    }

    /// Health and metrics.
    pub fn operations(&self) -> String {
        format!("http://{}", self.addresses.operations)
    }

    /// Stops it in order; it must succeed.
    pub async fn stop(self) -> Ended {
        let ended = self.process.end(Signal::Terminate).await;
        assert!(ended.status.success(), "the server stopped with {}:\n{}", ended.status, ended.stderr);
        ended
    }

    /// Kills it, as a crash would.
    pub async fn crash(self) -> Ended {
        self.process.end(Signal::Kill).await
    }
}
