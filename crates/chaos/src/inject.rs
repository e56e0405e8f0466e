//! Makes the planned faults happen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::database::Database;
use crate::history::Chronicle;
use crate::plan::{Fault, Planned};
use crate::proxy::{Mode, Proxy};
use crate::replica::Replica;

/// What happened.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    /// Faults by kind.
    pub done: BTreeMap<&'static str, u64>,
    /// Planned ones that met a server that was down or in trouble already.
    pub skipped: u64,
    /// Servers killed.
    pub kills: u64,
    /// Of those, servers that had a refresh in flight at the vendor.
    pub kills_with_attempt_in_flight: u64,
    /// Servers that did not stop in time when asked to.
    pub stuck: u64,
    /// Crashes of the database.
    pub db_crashes: u64,
}

/// What faults happen to.
#[derive(Clone)]
pub struct Victims {
    /// The replicas.
    pub replicas: Vec<Arc<Replica>>,
    /// The database; whoever holds it decides over its life.
    pub database: Arc<tokio::sync::Mutex<Database>>,
    /// What is written down about them.
    pub chronicle: Chronicle,
    /// What happened so far.
    pub tally: Arc<Mutex<Tally>>,
}

impl Victims {
    /// Makes all of it happen, each at its time, and waits until the last is over.
    ///
    /// # Errors
    /// When a process cannot be handled: then the run says nothing.
    pub async fn suffer(self, plan: Vec<Planned>, start: Instant) -> Result<()> {
        let mut under_way = JoinSet::new();
        for planned in plan {
            tokio::time::sleep_until(start + planned.at).await;
            let victims = self.clone();
            under_way.spawn(async move { victims.one(planned.fault).await });
            while let Some(done) = under_way.try_join_next() {
                done??;
            }
        }
        while let Some(done) = under_way.join_next().await {
            done??;
        }
        Ok(())
    }

    async fn one(&self, fault: Fault) -> Result<()> {
        let happened = match fault {
            Fault::Kill { replica, down } => self.kill(replica, down).await?,
            Fault::Strand { replica, how, lives, down } => self.strand(replica, how, lives, down).await?,
            Fault::Terminate { replica, down } => self.terminate(replica, down).await?,
            Fault::Freeze { replica, time } => self.freeze(replica, time).await?,
            Fault::CrashDatabase { down } => self.crash(down).await?,
            Fault::CutStorage { replica, how, time } => self.cut_storage(replica, how, time).await,
            Fault::CutVendor { replica, how, time } => self.cut_vendor(replica, how, time).await,
        };
        let mut tally = self.tally.lock();
        if happened {
            *tally.done.entry(fault.kind()).or_default() += 1;
        } else {
            tally.skipped += 1;
        }
        Ok(())
    }

    fn count_kill(&self, in_flight: usize) {
        let mut tally = self.tally.lock();
        tally.kills += 1;
        tally.kills_with_attempt_in_flight += u64::from(in_flight > 0);
    }

    async fn kill(&self, replica: usize, down: Duration) -> Result<bool> {
        let replica = &self.replicas[replica];
        let Ok(mut hands) = replica.hands.try_lock() else { return Ok(false) };
        let Some(in_flight) = replica.kill(&mut hands).await? else { return Ok(false) };
        self.count_kill(in_flight);
        tokio::time::sleep(down).await;
        replica.bring_up(&mut hands).await?;
        Ok(true)
    }

    async fn strand(&self, index: usize, how: Mode, lives: Duration, down: Duration) -> Result<bool> {
        let replica = &self.replicas[index];
        let Ok(mut hands) = replica.hands.try_lock() else { return Ok(false) };
        let Some(path) = replica.storage.as_ref().filter(|path| path.passes()) else { return Ok(false) };
        self.chronicle.storage_cut(index, true);
        path.set(how);
        tokio::time::sleep(lives).await;
        let killed = replica.kill(&mut hands).await;
        path.set(Mode::Pass);
        self.chronicle.storage_cut(index, false);
        let Some(in_flight) = killed? else { return Ok(false) };
        self.count_kill(in_flight);
        tokio::time::sleep(down).await;
        replica.bring_up(&mut hands).await?;
        Ok(true)
    }

    async fn terminate(&self, replica: usize, down: Duration) -> Result<bool> {
        let replica = &self.replicas[replica];
        let Ok(mut hands) = replica.hands.try_lock() else { return Ok(false) };
        let Some(stopped) = replica.terminate(&mut hands).await? else { return Ok(false) };
        self.tally.lock().stuck += u64::from(!stopped);
        tokio::time::sleep(down).await;
        replica.bring_up(&mut hands).await?;
        Ok(true)
    }

    async fn freeze(&self, replica: usize, time: Duration) -> Result<bool> {
        let replica = &self.replicas[replica];
        let Ok(mut hands) = replica.hands.try_lock() else { return Ok(false) };
        replica.freeze(&mut hands, time).await
    }

    async fn crash(&self, down: Duration) -> Result<bool> {
        let Ok(mut database) = self.database.try_lock() else { return Ok(false) };
        self.chronicle.database_down(true);
        database.crash().await?;
        self.tally.lock().db_crashes += 1;
        tokio::time::sleep(down).await;
        database.recover().await?;
        self.chronicle.database_down(false);
        Ok(true)
    }

    async fn cut_storage(&self, index: usize, how: Mode, time: Duration) -> bool {
        let Some(path) = free(self.replicas[index].storage.as_ref()) else { return false };
        self.chronicle.storage_cut(index, true);
        path.set(how);
        tokio::time::sleep(time).await;
        path.set(Mode::Pass);
        self.chronicle.storage_cut(index, false);
        true
    }

    async fn cut_vendor(&self, index: usize, how: Mode, time: Duration) -> bool {
        let Some(path) = free(self.replicas[index].vendor.as_ref()) else { return false };
        self.chronicle.vendor_cut(index, true);
        path.set(how);
        tokio::time::sleep(time).await;
        path.set(Mode::Pass);
        self.chronicle.vendor_cut(index, false);
        true
    }
}

/// A path that no other fault has cut.
fn free(path: Option<&Proxy>) -> Option<&Proxy> {
    path.filter(|path| path.passes())
}
