//! The gRPC listeners: one on the main runtime, one dealt out to threads of its own.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::Stream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use super::processors::Place;
use super::socket::{Accepted, Connection, Listener};
use super::tls::Tls;
use super::{ListenError, stopped};
use crate::grpc::CallService;

/// Headers of one call: a caller token of 8 KiB and what else comes with it.
const MAX_HEADERS: u32 = 16 * 1024;
/// A connection that is silent for so long is asked whether it lives,
const KEEPALIVE: Duration = Duration::from_secs(60);
/// and closed when it does not answer in this time.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Connections that wait for a thread to take them.
const HANDOVER: usize = 64;

fn server(name: &'static str, tls: Option<&Tls>, max_streams: u32) -> Result<Server, ListenError> {
    let server = Server::builder()
        .max_concurrent_streams(max_streams)
        .http2_max_header_list_size(MAX_HEADERS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT));
    match tls {
        None => Ok(server),
        Some(tls) => {
            server.tls_config(tls.grpc()).map_err(|error| ListenError::Setup { name, source: error.into() })
        }
    }
}

async fn serve(
    name: &'static str,
    tls: Option<Tls>,
    max_streams: u32,
    service: CallService,
    incoming: impl Stream<Item = Accepted>,
    mut shutdown: watch::Receiver<bool>,
    grace: Duration,
) -> Result<(), ListenError> {
    let incoming = incoming.map(Accepted::into_connection);
    let mut deadline = shutdown.clone();
    let serving = server(name, tls.as_ref(), max_streams)?
        .serve_with_incoming_shutdown::<_, _, _, Connection, io::Error, _>(service, incoming, async move {
            stopped(&mut shutdown).await;
        });
    tokio::select! {
        outcome = serving => outcome.map_err(|error| ListenError::Setup { name, source: error.into() }),
        () = async { stopped(&mut deadline).await; tokio::time::sleep(grace).await } => {
            tracing::warn!(listener = name, "calls were still running when the time to finish them was over");
            Ok(())
        }
    }
}

/// Serves a listener on the current runtime until it is told to stop, and then until its calls are done.
pub(crate) async fn on_this_runtime(
    name: &'static str,
    listener: Listener,
    tls: Option<Tls>,
    max_streams: u32,
    service: CallService,
    shutdown: watch::Receiver<bool>,
    grace: Duration,
) -> Result<(), ListenError> {
    let listener = Arc::new(listener);
    let incoming = futures::stream::unfold(listener, |listener| async move {
        let accepted = listener.accept().await;
        Some((accepted, listener))
    });
    serve(name, tls, max_streams, service, incoming, shutdown, grace).await
}

/// Threads with a runtime each: a call that memory can answer never wakes another thread.
pub(crate) struct Workers {
    name: &'static str,
    senders: Vec<mpsc::Sender<Accepted>>,
    finished: Vec<oneshot::Receiver<Result<(), ListenError>>>,
}

impl Workers {
    /// Starts a thread for each place; `service` makes the services of each.
    pub(crate) fn start(
        name: &'static str,
        places: &[Place],
        tls: Option<&Tls>,
        max_streams: u32,
        mut service: impl FnMut() -> Result<CallService, ListenError>,
        shutdown: &watch::Receiver<bool>,
        grace: Duration,
    ) -> Result<Self, ListenError> {
        let mut workers = Self { name, senders: Vec::new(), finished: Vec::new() };
        for (index, place) in places.iter().copied().enumerate() {
            let thread_name = format!("{name}-{index}");
            let failed = |source| ListenError::Thread { name: thread_name.clone(), source };
            // Made here rather than on the thread, so that a failure is the caller's to report.
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
            let (sender, receiver) = mpsc::channel(HANDOVER);
            let (finish, finished) = oneshot::channel();
            let (incoming, shutdown) = (ReceiverStream::new(receiver), shutdown.clone());
            let serving = serve(name, tls.cloned(), max_streams, service()?, incoming, shutdown, grace);
            thread::Builder::new()
                .name(thread_name.clone())
                .spawn(move || {
                    if let Err(error) = place.take() {
                        tracing::warn!(listener = name, ?place, %error, "a thread does not stay on its processor");
                    }
                    let outcome = runtime.block_on(serving);
                    runtime.shutdown_background();
                    let _ = finish.send(outcome);
                })
                .map_err(failed)?;
            workers.senders.push(sender);
            workers.finished.push(finished);
        }
        Ok(workers)
    }

    /// Deals connections out in turn until told to stop, and waits for the threads to finish their calls.
    pub(crate) async fn serve(
        self,
        listener: Listener,
        mut shutdown: watch::Receiver<bool>,
    ) -> Result<(), ListenError> {
        let Self { name, senders, mut finished } = self;
        let mut turns = Turns { senders, next: 0 };
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut shutdown) => break,
            };
            if !turns.deal(accepted).await {
                return Err(ListenError::Stopped { name });
            }
        }
        drop((listener, turns));
        for worker in &mut finished {
            worker.await.map_err(|_| ListenError::Stopped { name })??;
        }
        Ok(())
    }
}

/// Whoever takes what is dealt out, in turn.
struct Turns<T> {
    senders: Vec<mpsc::Sender<T>>,
    next: usize,
}

impl<T> Turns<T> {
    /// Gives it to the next one; one that is gone loses its turn. `false` when all are gone.
    async fn deal(&mut self, item: T) -> bool {
        let mut waiting = item;
        for _ in 0..self.senders.len() {
            let sender = &self.senders[self.next];
            self.next = (self.next + 1) % self.senders.len();
            match sender.send(waiting).await {
                Ok(()) => return true,
                Err(returned) => waiting = returned.0,
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(count: usize) -> (Turns<usize>, Vec<mpsc::Receiver<usize>>) {
        let (senders, receivers) = (0..count).map(|_| mpsc::channel(HANDOVER)).unzip();
        (Turns { senders, next: 0 }, receivers)
    }

    #[tokio::test]
    async fn everyone_gets_as_much() {
        for count in 1..=5 {
            let (mut turns, receivers) = turns(count);
            for item in 0..4 * count {
                assert!(turns.deal(item).await);
            }
            assert!(receivers.iter().all(|receiver| receiver.len() == 4), "{count} takers");
        }
    }

    #[tokio::test]
    async fn one_that_is_gone_is_passed_over_and_nothing_is_lost() {
        let (mut turns, mut receivers) = turns(3);
        drop(receivers.remove(1));
        for item in 0..6 {
            assert!(turns.deal(item).await);
        }
        assert_eq!(receivers.iter().map(mpsc::Receiver::len).sum::<usize>(), 6);
        assert!(receivers.iter().all(|receiver| receiver.len() >= 2));
        drop(receivers);
        assert!(!turns.deal(6).await);
    }
}
