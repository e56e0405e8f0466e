//! The pages and the operations endpoints over real sockets, with a scripted connect flow behind them.

mod callback;
mod fake;
mod limits;
mod link;
mod operations;
