//! The tokio runtime of a command, and its end.

use std::future::Future;
use std::process::ExitCode;

use crate::commands::Command;
use crate::failure::Failure;

/// Makes aws-lc the one TLS library of the process; without this, TLS would panic where several are linked.
pub(crate) fn install_crypto() {
    // An error means that one is installed already, which only this function does.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Runs a command to its end. Servers get threads for the work beside the listeners, which have their own; a client does
/// with one.
pub(crate) fn run(command: &Command, work: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    let mut builder = if command.is_server() {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(2).thread_name("tokenward");
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    let result = match builder.enable_all().build() {
        Ok(runtime) => {
            let result = runtime.block_on(work);
            // A prompt or a name lookup that hangs must not keep the process.
            runtime.shutdown_timeout(std::time::Duration::from_secs(1));
            result
        }
        Err(error) => Err(Failure::new(format!("cannot start the runtime: {error}"))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
