use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokenward_storage::{
    KeyFinding, KeyJob, KeyJobKind, KeyJobState, KeyJobStep, NewKeyJob, PageRequest, Storage,
};

use crate::storage::StorageFixture;
use crate::storage::samples::data_key;
use crate::storage::tools::{MANY, at_once, furnished};

fn new(id: &str, kind: KeyJobKind) -> NewKeyJob {
    let kek = if kind == KeyJobKind::Rotate { "local:ключ/2" } else { "" };
    NewKeyJob {
        id: id.into(),
        kind,
        kek: kek.into(),
        scope: String::new(),
        created_by: "builtin:admin-ä".into(),
    }
}

async fn begun(storage: &Arc<dyn Storage>, job: &NewKeyJob) -> KeyJob {
    let (job, is_new) = storage.create_key_job(job).await.unwrap();
    assert!(is_new, "{job:?} is in the way");
    job
}

async fn with_keys(fixture: &dyn StorageFixture) -> Arc<dyn Storage> {
    let storage = furnished(fixture).await;
    for (scope, id) in [("a", 1), ("a", 2), ("b", 1), ("_installation", 1)] {
        storage.create_data_key(&data_key(scope, id)).await.unwrap();
    }
    storage
}

fn names(keys: &[tokenward_storage::DataKeyRecord]) -> Vec<(String, i32)> {
    keys.iter().map(|key| (key.scope.clone(), key.id)).collect()
}

fn named<const N: usize>(keys: [(&str, i32); N]) -> Vec<(String, i32)> {
    keys.map(|(scope, id)| (scope.to_owned(), id)).to_vec()
}

pub async fn a_job_keeps_every_field(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    let job = begun(&storage, &new("job_1", KeyJobKind::Rotate)).await;
    assert_eq!((&*job.id, job.kind, &*job.kek), ("job_1", KeyJobKind::Rotate, "local:ключ/2"));
    assert_eq!((&*job.created_by, &*job.scope, &*job.message), ("builtin:admin-ä", "", ""));
    assert_eq!((job.state, job.step), (KeyJobState::Running, KeyJobStep::Spreading));
    assert_eq!((job.total, job.done, job.skipped, job.finished_at), (4, 0, 0, None));
    assert!(job.created_at.as_secs() > 1_700_000_000);
    assert_eq!(storage.get_key_job("job_1").await.unwrap(), Some(job.clone()));
    assert_eq!(storage.running_key_jobs().await.unwrap(), [job]);
    assert_eq!(storage.get_key_job("job_2").await.unwrap(), None);
}

pub async fn a_job_that_is_in_the_way_is_returned(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    let rotation = begun(&storage, &new("job_1", KeyJobKind::Rotate)).await;
    for kind in [KeyJobKind::Rotate, KeyJobKind::RotateData] {
        assert_eq!(storage.create_key_job(&new("job_2", kind)).await.unwrap(), (rotation.clone(), false));
    }
    let check = begun(&storage, &new("job_3", KeyJobKind::Verify)).await;
    let again = storage.create_key_job(&new("job_4", KeyJobKind::Verify)).await.unwrap();
    assert_eq!(again, (check, false));
    storage.finish_key_job("job_1", KeyJobState::Done, "", 0).await.unwrap();
    begun(&storage, &new("job_5", KeyJobKind::RotateData)).await;
}

pub async fn of_many_jobs_at_once_one_begins(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    let begun = at_once(MANY, &storage, |number, storage| async move {
        let kind = if number % 2 == 0 { KeyJobKind::Rotate } else { KeyJobKind::RotateData };
        storage.create_key_job(&new(&format!("job_{number}"), kind)).await.unwrap()
    })
    .await;
    let winners: Vec<_> = begun.iter().filter(|(_, is_new)| *is_new).collect();
    assert_eq!(winners.len(), 1);
    assert!(begun.iter().all(|(job, _)| job.id == winners[0].0.id), "the others learn of it");
}

pub async fn a_job_goes_through_its_states_once(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    begun(&storage, &new("job_1", KeyJobKind::Rotate)).await;
    storage.note_key_job("job_1", "wärtet").await.unwrap();
    assert_eq!(storage.get_key_job("job_1").await.unwrap().unwrap().message, "wärtet");
    assert!(storage.start_working("job_1").await.unwrap());
    assert!(!storage.start_working("job_1").await.unwrap(), "it works already");
    assert!(storage.finish_key_job("job_1", KeyJobState::Failed, "why", 2).await.unwrap());
    assert!(!storage.finish_key_job("job_1", KeyJobState::Done, "", 3).await.unwrap(), "it is over");
    storage.note_key_job("job_1", "later").await.unwrap();
    let job = storage.get_key_job("job_1").await.unwrap().unwrap();
    assert_eq!((job.state, job.step, &*job.message), (KeyJobState::Failed, KeyJobStep::Working, "why"));
    assert!(job.finished_at.is_some());
    assert_eq!(job.skipped, 2);
    assert_eq!(storage.running_key_jobs().await.unwrap(), []);
    assert!(!storage.finish_key_job("unknown", KeyJobState::Done, "", 0).await.unwrap());
}

pub async fn jobs_are_listed_in_order_of_their_identifiers(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    for id in ["job_2", "job_1", "job_3"] {
        begun(&storage, &new(id, KeyJobKind::Verify)).await;
        storage.finish_key_job(id, KeyJobState::Done, "", 0).await.unwrap();
    }
    let first = storage.list_key_jobs(&PageRequest { size: 2, after: None }).await.unwrap();
    let ids = |jobs: &[KeyJob]| jobs.iter().map(|job| job.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&first.items), ["job_1", "job_2"]);
    let rest = storage.list_key_jobs(&PageRequest { size: 2, after: first.next }).await.unwrap();
    assert_eq!((ids(&rest.items), rest.next), (vec!["job_3".to_owned()], None));
}

pub async fn data_keys_are_handed_out_once_then_again(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    begun(&storage, &new("job_1", KeyJobKind::Verify)).await;
    let first = storage.claim_data_keys("job_1", 3).await.unwrap();
    assert_eq!((names(&first.keys), first.remaining), (named([("_installation", 1), ("a", 1), ("a", 2)]), 4));
    let second = storage.claim_data_keys("job_1", 3).await.unwrap();
    assert_eq!((names(&second.keys), second.remaining), (named([("b", 1)]), 4));
    let end = storage.claim_data_keys("job_1", 3).await.unwrap();
    assert_eq!((names(&end.keys), end.remaining), (named([]), 4), "the end");
    storage.settle_data_keys("job_1", &named([("a", 1), ("a", 2), ("b", 1)]), false).await.unwrap();
    let again = storage.claim_data_keys("job_1", 3).await.unwrap();
    assert_eq!((names(&again.keys), again.remaining), (named([("_installation", 1)]), 1));
    storage.settle_data_keys("job_1", &named([("_installation", 1)]), true).await.unwrap();
    let nothing = storage.claim_data_keys("job_1", 3).await.unwrap();
    assert_eq!((names(&nothing.keys), nothing.remaining), (named([]), 0));
}

pub async fn of_a_hundred_claims_at_once_each_gets_others(fixture: &dyn StorageFixture) {
    let storage = furnished(fixture).await;
    for id in 1..=100 {
        storage.create_data_key(&data_key("a", id)).await.unwrap();
    }
    begun(&storage, &new("job_1", KeyJobKind::Verify)).await;
    let claims = at_once(MANY, &storage, |_, storage| async move {
        storage.claim_data_keys("job_1", 1).await.unwrap().keys.remove(0).id
    })
    .await;
    assert_eq!(claims.into_iter().collect::<BTreeSet<_>>().len(), MANY);
}

pub async fn a_settled_data_key_counts_once(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    begun(&storage, &new("job_1", KeyJobKind::Verify)).await;
    for _ in 0..2 {
        storage.settle_data_keys("job_1", &named([("a", 1), ("b", 1), ("unknown", 1)]), false).await.unwrap();
        storage.settle_data_keys("job_1", &named([("a", 2)]), true).await.unwrap();
        let job = storage.get_key_job("job_1").await.unwrap().unwrap();
        assert_eq!((job.done, job.skipped), (3, 1));
    }
    let settled = at_once(MANY, &storage, |_, storage| async move {
        storage.settle_data_keys("job_1", &named([("_installation", 1)]), false).await.unwrap();
    })
    .await;
    assert_eq!(settled.len(), MANY);
    assert_eq!(storage.get_key_job("job_1").await.unwrap().unwrap().done, 4);
}

pub async fn a_job_goes_through_the_data_keys_that_it_is_about(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    let of_a = NewKeyJob { scope: "a".into(), ..new("job_1", KeyJobKind::RotateData) };
    assert_eq!(begun(&storage, &of_a).await.total, 1, "the active one");
    let claim = storage.claim_data_keys("job_1", 10).await.unwrap();
    assert_eq!((names(&claim.keys), claim.remaining), (named([("a", 2)]), 1));
    let next = [data_key("b", 3), data_key("a", 3)];
    assert_eq!(storage.replace_data_keys(Some("job_1"), &next, &[]).await.unwrap(), ["a"]);
    let keys = storage.list_data_keys("a").await.unwrap();
    let keys: Vec<_> = keys.iter().map(|key| (key.id, key.active)).collect();
    assert_eq!(keys, [(3, true), (2, false), (1, false)]);
    assert_eq!(storage.get_key_job("job_1").await.unwrap().unwrap().done, 1);
    let claim = storage.claim_data_keys("job_1", 10).await.unwrap();
    assert_eq!((names(&claim.keys), claim.remaining), (named([]), 0), "the new one is none of its");
    assert_eq!(storage.replace_data_keys(Some("job_1"), &next, &[]).await.unwrap(), [""; 0]);
    assert_eq!(storage.get_key_job("job_1").await.unwrap().unwrap().done, 1, "once");
    storage.finish_key_job("job_1", KeyJobState::Done, "", 0).await.unwrap();
    let claim = storage.claim_data_keys("job_1", 10).await.unwrap();
    assert_eq!((claim.keys.len(), claim.remaining), (0, 0), "a job that is over hands out nothing");
    let of_b = NewKeyJob { scope: "b".into(), ..new("job_2", KeyJobKind::Verify) };
    begun(&storage, &of_b).await;
    assert_eq!(names(&storage.claim_data_keys("job_2", 10).await.unwrap().keys), named([("b", 1)]));
}

pub async fn a_finding_is_kept_as_it_was_first_reported(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    begun(&storage, &new("job_1", KeyJobKind::Verify)).await;
    let finding = |scope: &str, place: &str, problem: &str| KeyFinding {
        scope: scope.into(),
        place: place.into(),
        problem: problem.into(),
    };
    let first = [finding("b", "data key 1", "wëg"), finding("a", "connection c1 access_token", "altered")];
    storage.add_key_findings("job_1", &first).await.unwrap();
    storage.add_key_findings("job_1", &[finding("b", "data key 1", "other")]).await.unwrap();
    storage.add_key_findings("job_2", &[finding("b", "data key 2", "other")]).await.unwrap();
    let [second, first] = first;
    assert_eq!(storage.list_key_findings("job_1", 10).await.unwrap(), [first.clone(), second]);
    assert_eq!(storage.list_key_findings("job_1", 1).await.unwrap(), [first]);
}

pub async fn a_job_that_is_over_is_forgotten_after_a_while(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    for id in ["job_1", "job_2"] {
        begun(&storage, &new(id, KeyJobKind::Verify)).await;
        storage.finish_key_job(id, KeyJobState::Done, "", 0).await.unwrap();
    }
    begun(&storage, &new("job_3", KeyJobKind::Verify)).await;
    for id in ["job_1", "job_3"] {
        let finding = KeyFinding { scope: "a".into(), place: "data key 1".into(), problem: "altered".into() };
        storage.add_key_findings(id, &[finding]).await.unwrap();
    }
    assert_eq!(storage.forget_key_jobs(Duration::from_secs(3600)).await.unwrap(), 0);
    assert!(storage.get_key_job("job_1").await.unwrap().is_some(), "it has just ended");
    assert_eq!(storage.forget_key_jobs(Duration::ZERO).await.unwrap(), 2);
    assert_eq!(storage.get_key_job("job_1").await.unwrap(), None);
    assert_eq!(storage.list_key_findings("job_1", 10).await.unwrap(), []);
    assert_eq!(storage.running_key_jobs().await.unwrap().len(), 1, "what runs stays");
    assert_eq!(storage.list_key_findings("job_3", 10).await.unwrap().len(), 1);
    assert_eq!(storage.forget_key_jobs(Duration::ZERO).await.unwrap(), 0);
}

pub async fn storage_in_the_background_is_the_same(fixture: &dyn StorageFixture) {
    let storage = with_keys(fixture).await;
    let Some(background) = storage.in_background().await.unwrap() else { return };
    begun(&background, &new("job_1", KeyJobKind::Verify)).await;
    let finding = |scope: &str, number: usize| KeyFinding {
        scope: scope.into(),
        place: format!("data key {number}"),
        problem: "altered".into(),
    };
    // Neither keeps the other from writing.
    let report = |scope: &'static str| {
        move |number, storage: Arc<dyn Storage>| async move {
            storage.add_key_findings("job_1", &[finding(scope, number)]).await
        }
    };
    let reports =
        futures::join!(at_once(MANY, &storage, report("a")), at_once(MANY, &background, report("b")),);
    for reported in reports.0.into_iter().chain(reports.1) {
        reported.unwrap();
    }
    // The one outlives the other.
    drop(storage);
    let all = background.list_key_findings("job_1", 1000).await.unwrap();
    assert_eq!(all.len(), 2 * MANY);
    assert_eq!(fixture.open().await.list_key_findings("job_1", 1000).await.unwrap(), all);
}
