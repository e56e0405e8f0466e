//! What the broker does by itself, and how often.

use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::{ConnectionState, Storage};
use tokenward_types::ProviderName;

use crate::broker::{Broker, state_name};
use crate::follow;
use crate::metrics::ConnectionLabels;
use crate::pauses::NewsReader;

/// How often links and attempts that expired are removed, and connections are counted.
const HOUSEKEEPING: Duration = Duration::from_secs(60);
/// How often is looked for what is due, and for what others left.
const EACH_SECOND: Duration = Duration::from_secs(1);
/// When the rest of the maintenance begins after the start, and how often most of it comes.
const FIRST_TICK: Duration = Duration::from_secs(5);
/// How long expired links and attempts are kept, so that they can still be explained to whoever opens them.
const KEEP_EXPIRED: Duration = Duration::from_secs(7 * 24 * 3600);

const STATES: [ConnectionState; 4] = [
    ConnectionState::Active,
    ConnectionState::Suspect,
    ConnectionState::ReauthRequired,
    ConnectionState::Revoked,
];

impl Broker {
    /// Starts all of it on the broker's runtime.
    pub(crate) fn start_maintenance(&self, news: NewsReader) {
        // A shutdown does not wait for it: it goes on for refreshes that are still under way then.
        self.share_pauses(news);
        self.every(follow::LOOK_EVERY, follow::LOOK_EVERY, |broker| {
            Box::pin(async move { broker.look().await })
        });
        self.every(follow::REPORT_EVERY, follow::REPORT_EVERY, |broker| {
            Box::pin(async move {
                if let Err(error) = broker.report_replica().await {
                    tracing::debug!(%error, "cannot report that this server lives");
                }
            })
        });
        // Each by itself: what waits for a slow provider keeps nothing else waiting.
        self.every(FIRST_TICK, FIRST_TICK, |broker| Box::pin(async move { broker.run_revocations().await }));
        self.every(FIRST_TICK, FIRST_TICK, |broker| Box::pin(async move { broker.run_checks().await }));
        self.every(FIRST_TICK, HOUSEKEEPING, |broker| {
            Box::pin(async move { broker.resume_pending_grants().await })
        });
        // Not at once but for attempts that others left: the first callers after a start come first.
        self.every(EACH_SECOND, EACH_SECOND, |broker| Box::pin(async move { broker.run_due() }));
        self.every(Duration::ZERO, EACH_SECOND, |broker| {
            Box::pin(async move {
                if let Err(error) = broker.resolve_attempts().await {
                    tracing::warn!(%error, "cannot resolve attempts");
                }
            })
        });
        self.every(FIRST_TICK, FIRST_TICK, |broker| {
            Box::pin(async move {
                if let Err(error) = broker.check_mark().await {
                    tracing::warn!(%error, detail = error.log_detail(), "cannot move the installation's mark");
                }
            })
        });
        self.every(EACH_SECOND, EACH_SECOND, |broker| {
            Box::pin(async move { broker.run_key_changes().await })
        });
        self.every(EACH_SECOND, EACH_SECOND, |broker| Box::pin(async move { broker.run_key_checks().await }));
        self.every(FIRST_TICK, HOUSEKEEPING, |broker| Box::pin(async move { broker.tidy_data_keys().await }));
        self.every(FIRST_TICK, HOUSEKEEPING, |broker| Box::pin(async move { broker.housekeeping().await }));
        self.every(FIRST_TICK, HOUSEKEEPING, |broker| Box::pin(async move { broker.go_through_all().await }));
    }

    async fn housekeeping(&self) {
        if let Err(error) = self.sealer().flush_seal_counts().await {
            tracing::warn!(%error, detail = error.log_detail(), "cannot write seal counts");
        }
        self.sealer().drop_expired();
        if let Err(error) = self.storage().delete_expired(self.now() - KEEP_EXPIRED).await {
            tracing::warn!(%error, "cannot delete expired links");
        }
        if let Err(error) = self.plan_suspects().await {
            tracing::warn!(%error, "cannot read suspects");
        }
        self.prune_log().await;
    }

    /// Goes through all rows there are, behind callers.
    async fn go_through_all(&self) {
        self.compare_memory().await;
        let work = |broker: Self, storage: Arc<dyn Storage>| async move {
            broker.count_connections(&*storage).await;
        };
        self.in_background("count", work).await;
    }

    async fn count_connections(&self, storage: &dyn Storage) {
        let counts = match storage.count_connections().await {
            Ok(counts) => counts,
            Err(error) => {
                tracing::warn!(%error, "cannot count connections");
                return;
            }
        };
        for provider in &self.provider_names() {
            for state in STATES {
                let is_this = |name: &ProviderName, other| name == provider && other == state;
                let count = counts.iter().find(|(name, other, _)| is_this(name, *other));
                let labels = ConnectionLabels { provider: provider.to_string(), state: state_name(state) };
                let count = count.map_or(0, |(_, _, count)| *count);
                let gauge = self.metrics().connections.get_or_create(&labels);
                gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
            }
        }
    }
}
