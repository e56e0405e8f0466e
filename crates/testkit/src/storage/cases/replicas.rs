use std::time::Duration;

use tokenward_storage::Replica;

use crate::storage::StorageFixture;
use crate::storage::tools::{MANY, at_once, ready, soon};

const LONG: Duration = Duration::from_hours(1);

fn replica(id: &str) -> Replica {
    Replica {
        id: id.into(),
        description: format!("{id} on Wärter-1, process 7"),
        version: "0.1.0".into(),
        keks: vec!["local:1".into()],
    }
}

pub async fn a_replica_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    assert_eq!(storage.report_replica(&replica("one"), LONG).await.unwrap(), 1);
    let live = storage.live_replicas(LONG).await.unwrap();
    assert_eq!(live.len(), 1);
    assert_eq!(live[0].replica, replica("one"));
    assert!(live[0].seen_at >= live[0].started_at && live[0].started_at.as_secs() > 1_700_000_000);
}

pub async fn a_later_report_keeps_the_start_and_replaces_the_rest(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.report_replica(&replica("one"), LONG).await.unwrap();
    let before = storage.live_replicas(LONG).await.unwrap().remove(0);
    let changed = Replica {
        description: "elsewhere".into(),
        version: "0.2.0".into(),
        keks: vec!["local:2".into()],
        ..replica("one")
    };
    soon(async || {
        assert_eq!(storage.report_replica(&changed, LONG).await.unwrap(), 1);
        let after = storage.live_replicas(LONG).await.unwrap().remove(0);
        assert_eq!((&after.replica, after.started_at), (&changed, before.started_at));
        after.seen_at > before.seen_at
    })
    .await;
}

pub async fn live_replicas_are_counted_and_listed_in_order(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    for (number, id) in ["b", "B", "a"].iter().enumerate() {
        let count = storage.report_replica(&replica(id), LONG).await.unwrap();
        assert_eq!(usize::try_from(count), Ok(number + 1));
    }
    let live = storage.live_replicas(LONG).await.unwrap();
    assert_eq!(live.iter().map(|live| &*live.replica.id).collect::<Vec<_>>(), ["B", "a", "b"]);
}

pub async fn a_replica_that_is_silent_is_not_live(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.report_replica(&replica("one"), LONG).await.unwrap();
    soon(async || storage.live_replicas(Duration::ZERO).await.unwrap().is_empty()).await;
    assert_eq!(storage.report_replica(&replica("two"), LONG).await.unwrap(), 2);
}

pub async fn a_removed_replica_is_gone(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    for id in ["one", "two"] {
        storage.report_replica(&replica(id), LONG).await.unwrap();
    }
    storage.remove_replica("one").await.unwrap();
    storage.remove_replica("one").await.unwrap();
    let live = storage.live_replicas(LONG).await.unwrap();
    assert_eq!(live.iter().map(|live| &*live.replica.id).collect::<Vec<_>>(), ["two"]);
}

pub async fn replicas_that_were_silent_for_long_are_forgotten(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    storage.report_replica(&replica("one"), LONG).await.unwrap();
    assert_eq!(storage.forget_replicas(LONG).await.unwrap(), 0);
    soon(async || storage.forget_replicas(Duration::ZERO).await.unwrap() == 1).await;
    assert!(storage.live_replicas(LONG).await.unwrap().is_empty());
}

pub async fn of_a_hundred_replicas_that_report_at_once_all_count(fixture: &dyn StorageFixture) {
    let storage = ready(fixture).await;
    for _ in 0..2 {
        at_once(MANY, &storage, |number, storage| async move {
            storage.report_replica(&replica(&format!("r{number}")), LONG).await.unwrap();
        })
        .await;
        assert_eq!(storage.live_replicas(LONG).await.unwrap().len(), MANY);
    }
}
