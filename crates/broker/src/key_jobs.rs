//! Work on the jobs that replace or check keys. Jobs and what is left of them are rows, so whoever comes goes on: several
//! servers at once, or another one after a crash. A row is changed only where it is still as it was read.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokenward_storage::{
    DataKeyRecord, KeyFinding, KeyJob, KeyJobKind, KeyJobState, KeyJobStep, SealedField, SealedSwap, Storage,
    StorageErrorKind,
};

use crate::Error;
use crate::broker::Broker;
use crate::follow::LIVE_WITHIN;
use crate::pace::Pace;
use crate::sealer::{Former, OpenKeys, Reseal, active_of, field_name};

/// How many data keys are handed out at once.
const CLAIM: u32 = 1000;
/// The same where each is wrapped anew, in one transaction that a refresh may have to wait for.
const REWRAPS: u32 = 100;
/// How many ciphertexts one transaction replaces: each time is a burst of work that callers may meet, and that a refresh may
/// have to wait for.
const SWAPS: usize = 500;
/// How many data keys are dealt with at once where what they sealed is read as well, as a rule two ciphertexts each. More
/// would cost less, but a database in this process leaves callers no processor while it commits them.
const BATCH: usize = 100;
/// How many times a server goes through all that is left before it pauses: what changes meanwhile is read again.
const ROUNDS: u32 = 3;
/// How many findings are written in one transaction.
const FINDINGS: usize = 200;
/// How many data keys that were replaced are looked at in one go.
const REPLACED: u32 = 500;
/// How many of them one transaction deletes.
const REMOVED: u32 = 100;
/// After how long a data key that was replaced is looked at: whoever sealed under it has stored that by then.
const SETTLED_AFTER: std::time::Duration = std::time::Duration::from_secs(60);
/// How long jobs that are over can be looked up.
const FORGET_JOBS: std::time::Duration = std::time::Duration::from_secs(90 * 24 * 3600);

/// This process's work on jobs. A check may take long, and what changes keys is not kept waiting by it, nor the other way round.
#[derive(Default)]
pub(crate) struct KeyWork {
    changes: Lane,
    checks: Lane,
    /// All that is read and sealed counts, whatever for.
    pace: Pace,
}

/// Jobs that this process does one after the other.
#[derive(Default)]
struct Lane {
    /// Held by who works.
    one: tokio::sync::Mutex<()>,
    /// Somebody asked for work since jobs were last looked for.
    asked: AtomicBool,
}

impl Broker {
    /// Has this server work on jobs at once.
    pub(crate) fn wake_key_jobs(&self) {
        let broker = self.clone();
        self.spawn(async move { futures::join!(broker.run_key_changes(), broker.run_key_checks()) });
    }

    /// Goes on with every running job that changes keys, as far as it can.
    pub(crate) async fn run_key_changes(&self) {
        self.run_lane(&self.key_work().changes, |kind| kind != KeyJobKind::Verify).await;
    }

    /// Goes on with every running check, as far as it can.
    pub(crate) async fn run_key_checks(&self) {
        self.run_lane(&self.key_work().checks, |kind| kind == KeyJobKind::Verify).await;
    }

    async fn run_lane(&self, lane: &Lane, takes: fn(KeyJobKind) -> bool) {
        lane.asked.store(true, Ordering::SeqCst);
        // Who comes meanwhile leaves it to the one that works, which looks again before it goes, so that a job that has just
        // begun does not wait for the next tick.
        while lane.asked.load(Ordering::SeqCst) {
            let Ok(_one) = lane.one.try_lock() else { return };
            while lane.asked.swap(false, Ordering::SeqCst) {
                self.run_jobs(takes).await;
            }
        }
    }

    async fn run_jobs(&self, takes: fn(KeyJobKind) -> bool) {
        let jobs = match self.storage().running_key_jobs().await {
            Ok(jobs) => jobs,
            Err(error) => {
                tracing::debug!(%error, "cannot read key jobs");
                return;
            }
        };
        let jobs: Vec<_> = jobs.into_iter().filter(|job| takes(job.kind)).collect();
        if jobs.is_empty() {
            return;
        }
        let work = |broker, storage| async move { Worker { broker, storage }.run(&jobs).await };
        self.in_background("key-jobs", work).await;
    }

    /// Deals with data keys that were replaced, and forgets old jobs.
    pub(crate) async fn tidy_data_keys(&self) {
        let work = |broker, storage| async move { Worker { broker, storage }.tidy().await };
        if let Some(Err(error)) = self.in_background("tidy-data-keys", work).await {
            tracing::warn!(%error, detail = error.log_detail(), "cannot tidy data keys");
        }
    }

    /// Returns when no more work on jobs is under way, which stops soon after this broker is told to.
    pub(crate) async fn key_jobs_paused(&self) {
        let KeyWork { changes, checks, .. } = self.key_work();
        let _paused = futures::join!(changes.one.lock(), checks.one.lock());
    }
}

/// Who works on jobs.
struct Worker {
    broker: Broker,
    storage: Arc<dyn Storage>,
}

impl Worker {
    async fn run(&self, jobs: &[KeyJob]) {
        for job in jobs {
            if let Err(error) = self.run_job(job).await {
                tracing::warn!(job = job.id, %error, detail = error.log_detail(), "a key job waits");
                let _ = self.storage.note_key_job(&job.id, &error.for_operator().message).await;
            }
        }
    }

    async fn run_job(&self, job: &KeyJob) -> Result<(), Error> {
        if job.step == KeyJobStep::Spreading && !self.spread(job).await? {
            return Ok(());
        }
        let mut rounds = 0;
        while !self.broker.is_stopping() {
            let most = if job.kind == KeyJobKind::Rotate { REWRAPS } else { CLAIM };
            let claim = self.storage.claim_data_keys(&job.id, most).await?;
            if claim.remaining == 0 {
                return self.finish(job).await;
            }
            if claim.keys.is_empty() {
                rounds += 1;
                if rounds >= ROUNDS {
                    return Ok(());
                }
                continue;
            }
            if job.kind == KeyJobKind::Rotate {
                self.rewrap_batch(job, claim.keys).await?;
                continue;
            }
            // No other key becomes the active one while new data keys are made.
            let kek = match job.kind {
                KeyJobKind::RotateData => Some(self.broker.sealer().active_kek().await?),
                KeyJobKind::Rotate | KeyJobKind::Verify => None,
            };
            // What is handed out and not dealt with is handed out again once all else is done.
            for batch in claim.keys.chunks(BATCH).take_while(|_| !self.broker.is_stopping()) {
                match &kek {
                    Some(kek) => self.reseal_batch(job, kek, batch).await?,
                    None => self.verify_batch(job, batch).await?,
                }
            }
        }
        Ok(())
    }

    /// Makes a key the active one once every living server can open what it wraps; whether it is.
    async fn spread(&self, job: &KeyJob) -> Result<bool, Error> {
        let status = self.broker.sealer().refresh_keks().await?;
        self.broker.report_replica().await?;
        let live = self.storage.live_replicas(LIVE_WITHIN).await?;
        let without: Vec<_> = live
            .iter()
            .filter(|live| !live.replica.keks.contains(&job.kek))
            .map(|live| &live.replica)
            .collect();
        if !without.is_empty() {
            let names: Vec<_> = without.iter().map(|replica| &*replica.description).collect();
            let message = format!("{} cannot be opened yet by: {}", job.kek, names.join(", "));
            if job.message != message {
                tracing::info!(job = job.id, kek = job.kek, servers = ?names, "a rotation waits for servers");
                self.storage.note_key_job(&job.id, &message).await?;
            }
            return Ok(false);
        }
        self.broker.sealer().ensure_check(&job.kek, &status).await?;
        let keks = self.storage.list_keks().await?;
        let former = active_of(&keks);
        if former != Some(&*job.kek) {
            if !self.storage.activate_kek(&job.kek, former).await? {
                return Ok(false);
            }
            tracing::info!(job = job.id, kek = job.kek, former, "another encryption key wraps from now on");
        }
        self.storage.start_working(&job.id).await?;
        Ok(true)
    }

    async fn rewrap_batch(&self, job: &KeyJob, keys: Vec<DataKeyRecord>) -> Result<(), Error> {
        let (rewraps, damaged) = self.broker.sealer().rewrap(&job.kek, keys).await?;
        match self.storage.rewrap_data_keys(&job.id, &rewraps).await {
            Ok(_) => {}
            Err(error) if error.kind() == StorageErrorKind::KeyReplaced => {
                let message = format!("{} is not the active key any more", job.kek);
                self.storage.finish_key_job(&job.id, KeyJobState::Failed, &message, 0).await?;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let finding = |(key, problem): &(DataKeyRecord, String)| KeyFinding {
            scope: key.scope.clone(),
            place: format!("data key {}", key.id),
            problem: problem.clone(),
        };
        let keys = damaged.iter().map(|(key, _)| (key.scope.clone(), key.id)).collect();
        self.skip(job, damaged.iter().map(finding).collect(), keys).await
    }

    /// Makes new data keys for the scopes of a batch, whose active ones these are, and seals their fields anew.
    async fn reseal_batch(&self, job: &KeyJob, kek: &str, batch: &[DataKeyRecord]) -> Result<(), Error> {
        let (fields, mut keys) = self.read_scopes(&scopes_of(batch), batch).await?;
        let mut seals: HashMap<&str, i64> = HashMap::new();
        for field in &fields {
            *seals.entry(&field.scope).or_default() += 1;
        }
        // Those that have sealed nothing are work as well.
        let idle = batch.len().saturating_sub(seals.len());
        let former = batch.iter().map(|key| {
            let seals = seals.get(&*key.scope).copied().unwrap_or_default();
            Former { scope: key.scope.clone(), id: key.id, seals }
        });
        let (made, new): (Vec<_>, Vec<_>) =
            self.broker.sealer().successors(kek, former.collect()).await?.into_iter().unzip();
        for (record, key) in made.iter().zip(new) {
            keys.activate(record.scope.clone(), key);
        }
        let (mut swaps, mut findings) = self.seal_anew(fields, &keys);
        drop(keys);
        let mut later = swaps.split_off(swaps.len().min(SWAPS));
        // What others seal under the former ones meanwhile is swept in the end.
        let stored = self.storage.replace_data_keys(Some(&job.id), &made, &swaps).await?;
        let stored: HashSet<_> = stored.into_iter().collect();
        for scope in &stored {
            self.broker.sealer().forget(scope);
        }
        self.rest_after(swaps.len() + idle).await;
        // Another one replaced the others, and seals their fields anew.
        later.retain(|swap| stored.contains(&swap.former.scope));
        self.swap(&later).await?;
        findings.retain(|finding| stored.contains(&finding.scope));
        self.report(job, findings).await
    }

    /// Reads everything of some scopes, and opens the data keys that it needs. `known` are those of these scopes as far as they
    /// were read before.
    async fn read_scopes(
        &self,
        scopes: &[String],
        known: &[DataKeyRecord],
    ) -> Result<(Vec<SealedField>, OpenKeys), Error> {
        let fields = self.storage.read_sealed(scopes).await?;
        let names: HashSet<_> = known.iter().map(|key| (&*key.scope, Some(key.id))).collect();
        let is_known = |field: &SealedField| names.contains(&(&*field.scope, field.sealed.data_key()));
        if !known.is_empty() && fields.iter().all(is_known) {
            return Ok((fields, self.broker.sealer().open_keys(known).await?));
        }
        // After the fields: a data key that was made meanwhile is among them.
        let keys = self.storage.list_data_keys_of(scopes).await?;
        Ok((fields, self.broker.sealer().open_keys(&keys).await?))
    }

    /// Seals everything of some scopes under their active data keys; what cannot be opened is reported.
    async fn reseal_scopes(&self, scopes: &[String]) -> Result<Vec<KeyFinding>, Error> {
        let (fields, keys) = self.read_scopes(scopes, &[]).await?;
        let (swaps, findings) = self.seal_anew(fields, &keys);
        drop(keys);
        self.broker.sealer().count_seals(&swaps);
        self.swap(&swaps).await?;
        Ok(findings)
    }

    fn seal_anew(&self, fields: Vec<SealedField>, keys: &OpenKeys) -> (Vec<SealedSwap>, Vec<KeyFinding>) {
        let (mut swaps, mut findings) = (Vec::new(), damaged_keys(keys));
        for field in fields {
            match self.broker.sealer().reseal(keys, field) {
                Reseal::Swap(swap) => swaps.push(swap),
                Reseal::Current => {}
                Reseal::Damaged(field, problem) => {
                    findings.push(KeyFinding { place: field_name(&field), scope: field.scope, problem });
                }
            }
        }
        (swaps, findings)
    }

    /// What a server that stops leaves is swept by whoever goes on with the job.
    async fn swap(&self, swaps: &[SealedSwap]) -> Result<(), Error> {
        for swaps in swaps.chunks(SWAPS).take_while(|_| !self.broker.is_stopping()) {
            self.storage.swap_sealed(swaps).await?;
            self.rest_after(swaps.len()).await;
        }
        Ok(())
    }

    /// Leaves callers the processors for a while, after work on so many fields.
    async fn rest_after(&self, fields: usize) {
        let rate = self.broker.settings().max_key_job_rate;
        let rest = self.broker.key_work().pace.rest(fields, rate, self.broker.clock().monotonic());
        if !rest.is_zero() {
            tokio::select! {
                () = self.broker.timer().sleep(rest) => {}
                () = self.broker.stopping() => {}
            }
        }
    }

    /// Seals anew what is under replaced data keys after all: a server stopped halfway, or sealed something before it learnt of
    /// the new ones. Returns how many former data keys are still needed, because something that they sealed does not open; `None`
    /// when this server stops before that is known.
    async fn sweep(&self, job: &KeyJob) -> Result<Option<u64>, Error> {
        let mut damaged = BTreeSet::new();
        let mut rounds = 0;
        loop {
            let behind = self.storage.former_data_keys_in_use(only(&job.scope).as_deref()).await?;
            let scopes: BTreeSet<_> = behind.iter().map(|(scope, _)| scope.clone()).collect();
            let scopes: Vec<_> = scopes.difference(&damaged).cloned().collect();
            if scopes.is_empty() || rounds == ROUNDS {
                return Ok(Some(u64::try_from(behind.len()).unwrap_or(u64::MAX)));
            }
            rounds += 1;
            for scopes in scopes.chunks(BATCH) {
                if self.broker.is_stopping() {
                    return Ok(None);
                }
                let findings = self.reseal_scopes(scopes).await?;
                damaged.extend(findings.iter().map(|finding| finding.scope.clone()));
                self.report(job, findings).await?;
            }
        }
    }

    async fn verify_batch(&self, job: &KeyJob, batch: &[DataKeyRecord]) -> Result<(), Error> {
        let scopes = scopes_of(batch);
        let (fields, keys) = self.read_scopes(&scopes, &[]).await?;
        let read = fields.len().max(batch.len());
        let mut findings = damaged_keys(&keys);
        for field in fields {
            if let Err(problem) = self.broker.sealer().check_field(&keys, &field) {
                findings.push(KeyFinding { place: field_name(&field), scope: field.scope, problem });
            }
        }
        let (mut good, mut bad) = (Vec::new(), Vec::new());
        for key in batch {
            let is_damaged = findings.iter().any(|finding| finding.scope == key.scope);
            if is_damaged { &mut bad } else { &mut good }.push((key.scope.clone(), key.id));
        }
        self.storage.settle_data_keys(&job.id, &good, false).await?;
        self.skip(job, findings, bad).await?;
        self.rest_after(read).await;
        Ok(())
    }

    /// Reports what a job could not deal with, and is through with it.
    async fn skip(
        &self,
        job: &KeyJob,
        findings: Vec<KeyFinding>,
        keys: Vec<(String, i32)>,
    ) -> Result<(), Error> {
        self.report(job, findings).await?;
        Ok(self.storage.settle_data_keys(&job.id, &keys, true).await?)
    }

    async fn report(&self, job: &KeyJob, findings: Vec<KeyFinding>) -> Result<(), Error> {
        for finding in &findings {
            tracing::warn!(
                job = job.id,
                scope = finding.scope,
                place = finding.place,
                problem = finding.problem,
                "stored data does not decrypt"
            );
        }
        for findings in findings.chunks(FINDINGS) {
            self.storage.add_key_findings(&job.id, findings).await?;
        }
        Ok(())
    }

    async fn finish(&self, job: &KeyJob) -> Result<(), Error> {
        let skipped = match job.kind {
            KeyJobKind::Rotate => 0,
            KeyJobKind::RotateData => {
                let Some(skipped) = self.sweep(job).await? else { return Ok(()) };
                skipped
            }
            KeyJobKind::Verify => {
                self.report_orphans(job).await?;
                0
            }
        };
        self.storage.note_unused_keks().await?;
        if self.storage.finish_key_job(&job.id, KeyJobState::Done, "", skipped).await? {
            tracing::info!(job = job.id, kind = ?job.kind, "a key job is done");
        }
        Ok(())
    }

    /// Fields whose data key has no row at all, which going through the rows does not find.
    async fn report_orphans(&self, job: &KeyJob) -> Result<(), Error> {
        let counted = self.storage.count_sealed(only(&job.scope).as_deref()).await?;
        let mut by_scope: BTreeMap<String, Vec<(i32, u64)>> = BTreeMap::new();
        for (scope, id, fields) in counted {
            by_scope.entry(scope).or_default().push((id, fields));
        }
        let all: Vec<String> = by_scope.keys().cloned().collect();
        let mut known: HashMap<String, BTreeSet<i32>> = HashMap::new();
        for scopes in all.chunks(SWAPS) {
            for key in self.storage.list_data_keys_of(scopes).await? {
                known.entry(key.scope).or_default().insert(key.id);
            }
        }
        let mut findings = Vec::new();
        for (scope, used) in by_scope {
            for (id, fields) in used {
                if !known.get(&scope).is_some_and(|known| known.contains(&id)) {
                    let problem = format!("is not there, and {fields} stored fields name it");
                    findings.push(KeyFinding {
                        scope: scope.clone(),
                        place: format!("data key {id}"),
                        problem,
                    });
                }
            }
        }
        self.skip(job, findings, Vec::new()).await
    }

    /// Deals with data keys that were replaced: what was stored under one of them meanwhile is sealed anew, and those which
    /// nothing needs any more are deleted after a while.
    async fn tidy(&self) -> Result<(), Error> {
        self.reseal_settled().await?;
        let removed = self.remove_old().await?;
        if removed > 0 {
            tracing::info!(removed, "deleted data keys that nothing needs any more");
        }
        self.storage.forget_key_jobs(FORGET_JOBS).await?;
        Ok(self.storage.note_unused_keks().await?)
    }

    /// Seals anew what is still under data keys that were replaced a while ago.
    async fn reseal_settled(&self) -> Result<(), Error> {
        let mut looked_at = 0;
        while !self.broker.is_stopping() {
            let replaced = self.storage.replaced_data_keys(SETTLED_AFTER, looked_at, REPLACED).await?;
            if replaced.is_empty() {
                return Ok(());
            }
            looked_at = looked_at.saturating_add(REPLACED);
            let scopes: BTreeSet<_> = replaced.iter().map(|(scope, _)| scope.clone()).collect();
            let scopes: Vec<_> = scopes.into_iter().collect();
            let replaced: BTreeSet<_> = replaced.into_iter().collect();
            let in_use = self.storage.former_data_keys_in_use(Some(&scopes)).await?.into_iter();
            let behind: BTreeSet<_> =
                in_use.filter(|key| replaced.contains(key)).map(|(scope, _)| scope).collect();
            self.reseal_scopes(&behind.into_iter().collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// Deletes data keys that were replaced so long ago that no journal brings back anything under them; how many. Those that
    /// something damaged still names stay, and are passed over.
    async fn remove_old(&self) -> Result<u64, Error> {
        let keep = self.broker.settings().keep_replaced_data_keys;
        let (mut removed, mut stay) = (0, 0);
        while !self.broker.is_stopping() {
            let old = self.storage.replaced_data_keys(keep, stay, REMOVED).await?;
            if old.is_empty() {
                break;
            }
            let gone = self.storage.remove_data_keys(&old).await?;
            removed += gone;
            let left = old.len().saturating_sub(usize::try_from(gone).unwrap_or(usize::MAX));
            stay = stay.saturating_add(u32::try_from(left).unwrap_or(u32::MAX));
            self.rest_after(old.len()).await;
        }
        Ok(removed)
    }
}

/// The scope that a job is about, unless it is about all.
fn only(scope: &str) -> Option<Vec<String>> {
    (!scope.is_empty()).then(|| vec![scope.to_owned()])
}

fn scopes_of(keys: &[DataKeyRecord]) -> Vec<String> {
    let mut scopes: Vec<_> = keys.iter().map(|key| key.scope.clone()).collect();
    scopes.dedup();
    scopes
}

/// Data keys that do not open.
fn damaged_keys(keys: &OpenKeys) -> Vec<KeyFinding> {
    let damaged = keys.damaged();
    damaged
        .map(|(scope, id, problem)| KeyFinding {
            scope: scope.to_owned(),
            place: format!("data key {id}"),
            problem: problem.to_owned(),
        })
        .collect()
}
