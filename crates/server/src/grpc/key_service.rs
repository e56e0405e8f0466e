//! Keys, and the jobs that replace or check them.

use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::key_service_server::KeyService;
use tokenward_broker::admin::{KekInfo, SilentBackend};
use tokenward_broker::{Broker, Error};
use tokenward_storage::{DataKeyState, KekState, KeyFinding, KeyJob, KeyJobKind, KeyJobState, KeyJobStep};
use tokenward_types::{TenantId, Timestamp};
use tonic::{Request, Response, Status};

use super::call::{Call, refuse, refuse_for};
use super::convert::{self, id};
use super::page_token::Listing;

/// The service.
pub(crate) struct Keys(pub Broker);

const DATA_KEYS: Listing<'_> = Listing { method: "ListDataKeys", filter: &[] };
const JOBS: Listing<'_> = Listing { method: "ListKeyJobs", filter: &[] };
/// How many findings an answer has at the most.
const MAX_FINDINGS: u32 = 1000;

fn count(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn time(time: Option<Timestamp>) -> Option<prost_types::Timestamp> {
    time.map(convert::timestamp)
}

fn encryption_key(info: KekInfo) -> api::EncryptionKey {
    use api::encryption_key::State;
    let known = info.known.as_ref();
    api::EncryptionKey {
        state: match known.map(|kek| kek.state) {
            None => State::New,
            Some(KekState::DecryptOnly) => State::DecryptOnly,
            Some(KekState::Active) => State::Active,
            Some(KekState::Retired) => State::Retired,
        }
        .into(),
        available: info.available.unwrap_or_default(),
        availability_unknown: info.available.is_none(),
        data_key_count: count(info.data_keys),
        create_time: time(known.map(|kek| kek.created_at)),
        activate_time: time(known.and_then(|kek| kek.activated_at)),
        replace_time: time(known.and_then(|kek| kek.replaced_at)),
        unused_time: time(known.and_then(|kek| kek.unused_since)),
        retire_time: time(known.and_then(|kek| kek.retired_at)),
        name: info.name,
    }
}

fn silent_backend(backend: SilentBackend) -> api::SilentBackend {
    api::SilentBackend { kind: backend.kind.to_owned(), problem: backend.problem }
}

fn data_key((key, fields): (DataKeyState, u64)) -> api::DataKey {
    api::DataKey {
        scope: key.scope,
        data_key_id: key.id,
        encryption_key: key.kek,
        active: key.active,
        seal_count: key.seals,
        secret_count: count(fields),
        create_time: Some(convert::timestamp(key.created_at)),
        replace_time: time(key.replaced_at),
    }
}

fn key_job(job: KeyJob) -> api::KeyJob {
    use api::key_job::{Kind, State};
    api::KeyJob {
        kind: match job.kind {
            KeyJobKind::Rotate => Kind::RotateEncryptionKey,
            KeyJobKind::RotateData => Kind::RotateDataKeys,
            KeyJobKind::Verify => Kind::Verify,
        }
        .into(),
        state: match (job.state, job.step) {
            (KeyJobState::Running, KeyJobStep::Spreading) => State::Spreading,
            (KeyJobState::Running, KeyJobStep::Working) => State::Running,
            (KeyJobState::Done, _) => State::Done,
            (KeyJobState::Failed, _) => State::Failed,
        }
        .into(),
        key_job_id: job.id,
        encryption_key: job.kek,
        tenant_id: job.scope,
        creator: job.created_by,
        total_count: count(job.total),
        done_count: count(job.done),
        skipped_count: count(job.skipped),
        message: job.message,
        create_time: Some(convert::timestamp(job.created_at)),
        update_time: Some(convert::timestamp(job.updated_at)),
        finish_time: time(job.finished_at),
    }
}

fn finding(finding: KeyFinding) -> api::KeyFinding {
    api::KeyFinding { scope: finding.scope, place: finding.place, problem: finding.problem }
}

/// A job's identifier as this program makes them: anything else names none, and stays out of statements and messages.
fn job_id(text: &str) -> Result<&str, Error> {
    let is_one = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_one && !text.is_empty() {
        Ok(text)
    } else {
        Err(Error::invalid("key_job_id", "is no job's identifier"))
    }
}

/// A tenant, or nothing for all.
fn tenant(text: &str) -> Result<Option<TenantId>, Error> {
    if text.is_empty() { Ok(None) } else { id(text).map(Some) }
}

#[tonic::async_trait]
impl KeyService for Keys {
    async fn list_encryption_keys(
        &self,
        _: Request<api::ListEncryptionKeysRequest>,
    ) -> Result<Response<api::ListEncryptionKeysResponse>, Status> {
        let status = self.0.key_status().await.map_err(refuse)?;
        Ok(Response::new(api::ListEncryptionKeysResponse {
            encryption_keys: status.keks.into_iter().map(encryption_key).collect(),
            silent_backends: status.silent.into_iter().map(silent_backend).collect(),
        }))
    }

    async fn list_data_keys(
        &self,
        request: Request<api::ListDataKeysRequest>,
    ) -> Result<Response<api::ListDataKeysResponse>, Status> {
        let request = request.into_inner();
        let page = DATA_KEYS.page(request.page_size, &request.page_token).map_err(refuse)?;
        let page = self.0.list_data_keys(&page).await.map_err(refuse)?;
        Ok(Response::new(api::ListDataKeysResponse {
            next_page_token: DATA_KEYS.next(page.next.as_deref()),
            data_keys: page.items.into_iter().map(data_key).collect(),
        }))
    }

    async fn rotate_encryption_key(
        &self,
        request: Request<api::RotateEncryptionKeyRequest>,
    ) -> Result<Response<api::KeyJob>, Status> {
        let (actor, request) = Call::actor(request)?;
        let to = Some(&*request.backend).filter(|backend| !backend.is_empty());
        if to.is_some_and(|to| to.len() > 64 || !to.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(refuse(Error::invalid("backend", "is no kind of encryption backend")));
        }
        let job = self.0.rotate_keys(&actor, to).await.map_err(refuse)?;
        Ok(Response::new(key_job(job)))
    }

    async fn rotate_data_keys(
        &self,
        request: Request<api::RotateDataKeysRequest>,
    ) -> Result<Response<api::KeyJob>, Status> {
        let (actor, request) = Call::actor(request)?;
        let tenant = tenant(&request.tenant_id).map_err(refuse)?;
        let outcome = self.0.rotate_data_keys(&actor, tenant.as_ref()).await;
        Ok(Response::new(key_job(outcome.map_err(|error| refuse_for(&request.tenant_id, error))?)))
    }

    async fn verify_stored_secrets(
        &self,
        request: Request<api::VerifyStoredSecretsRequest>,
    ) -> Result<Response<api::KeyJob>, Status> {
        let (actor, request) = Call::actor(request)?;
        let tenant = tenant(&request.tenant_id).map_err(refuse)?;
        let outcome = self.0.verify_keys(&actor, tenant.as_ref()).await;
        Ok(Response::new(key_job(outcome.map_err(|error| refuse_for(&request.tenant_id, error))?)))
    }

    async fn retire_encryption_key(
        &self,
        request: Request<api::RetireEncryptionKeyRequest>,
    ) -> Result<Response<api::EncryptionKey>, Status> {
        let (actor, request) = Call::actor(request)?;
        // A name is the caller's text, of whatever length, until the database knows it.
        if request.name.is_empty() || request.name.len() > 512 || request.name.chars().any(char::is_control) {
            return Err(refuse(Error::invalid("name", "is no name of an encryption key, such as local:1")));
        }
        self.0.retire_kek(&actor, &request.name).await.map_err(refuse)?;
        let status = self.0.key_status().await.map_err(refuse)?;
        let key = status.keks.into_iter().find(|key| key.name == request.name);
        let key = key.ok_or_else(|| refuse(Error::not_found("encryption key", &request.name)))?;
        Ok(Response::new(encryption_key(key)))
    }

    async fn get_key_job(
        &self,
        request: Request<api::GetKeyJobRequest>,
    ) -> Result<Response<api::KeyJob>, Status> {
        let request = request.into_inner();
        let job = self.0.get_key_job(job_id(&request.key_job_id).map_err(refuse)?).await.map_err(refuse)?;
        Ok(Response::new(key_job(job)))
    }

    async fn list_key_jobs(
        &self,
        request: Request<api::ListKeyJobsRequest>,
    ) -> Result<Response<api::ListKeyJobsResponse>, Status> {
        let request = request.into_inner();
        let page = JOBS.page(request.page_size, &request.page_token).map_err(refuse)?;
        let page = self.0.list_key_jobs(&page).await.map_err(refuse)?;
        Ok(Response::new(api::ListKeyJobsResponse {
            next_page_token: JOBS.next(page.next.as_deref()),
            key_jobs: page.items.into_iter().map(key_job).collect(),
        }))
    }

    async fn list_key_findings(
        &self,
        request: Request<api::ListKeyFindingsRequest>,
    ) -> Result<Response<api::ListKeyFindingsResponse>, Status> {
        let job = request.into_inner().key_job_id;
        let job = job_id(&job).map_err(refuse)?;
        let mut findings = self.0.list_key_findings(job, MAX_FINDINGS + 1).await.map_err(refuse)?;
        let more = findings.len() > MAX_FINDINGS as usize;
        findings.truncate(MAX_FINDINGS as usize);
        let key_findings = findings.into_iter().map(finding).collect();
        Ok(Response::new(api::ListKeyFindingsResponse { key_findings, more }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tenant_stands_for_all() {
        assert_eq!(tenant("").unwrap(), None);
        assert_eq!(tenant("acme").unwrap().unwrap().as_str(), "acme");
        assert!(tenant("_installation").is_err());
    }

    #[test]
    fn a_key_that_only_a_backend_knows_is_new() {
        let info = KekInfo { known: None, name: "local:2".into(), available: Some(true), data_keys: 0 };
        let key = encryption_key(info);
        assert_eq!((key.state(), &*key.name), (api::encryption_key::State::New, "local:2"));
    }

    #[test]
    fn a_key_whose_backend_does_not_answer_is_told_from_one_that_is_not_there() {
        for (available, told) in
            [(Some(true), (true, false)), (Some(false), (false, false)), (None, (false, true))]
        {
            let info = KekInfo { known: None, name: "local:2".into(), available, data_keys: 0 };
            let key = encryption_key(info);
            assert_eq!((key.available, key.availability_unknown), told);
        }
    }
}
