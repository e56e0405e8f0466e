//! Tenants.

use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::tenant_service_server::TenantService;
use tokenward_broker::admin::{NewTenant, TenantChange};
use tokenward_broker::{Broker, Error};
use tokenward_storage::{Tenant, TenantState};
use tonic::{Request, Response, Status};

use super::call::{Call, refuse, refuse_for};
use super::convert::{self, id, read_etag, required};
use super::mask::Mask;
use super::page_token::Listing;

/// The service.
pub(crate) struct Tenants(pub Broker);

const LISTING: Listing<'_> = Listing { method: "ListTenants", filter: &[] };
const CHANGEABLE: &[&str] = &["display_name", "labels", "state"];

fn state(state: i32) -> Result<Option<TenantState>, Error> {
    match api::tenant::State::try_from(state) {
        Ok(api::tenant::State::Unspecified) => Ok(None),
        Ok(api::tenant::State::Active) => Ok(Some(TenantState::Active)),
        Ok(api::tenant::State::Suspended) => Ok(Some(TenantState::Suspended)),
        Err(_) => Err(Error::invalid("state", "must be STATE_ACTIVE or STATE_SUSPENDED")),
    }
}

fn message(tenant: Tenant) -> api::Tenant {
    let state = match tenant.state {
        TenantState::Active => api::tenant::State::Active,
        TenantState::Suspended => api::tenant::State::Suspended,
    };
    api::Tenant {
        tenant_id: tenant.id.as_str().to_owned(),
        display_name: tenant.display_name,
        labels: tenant.labels.into_iter().collect(),
        state: state.into(),
        create_time: Some(convert::timestamp(tenant.created_at)),
        update_time: Some(convert::timestamp(tenant.updated_at)),
        etag: convert::etag(tenant.version),
    }
}

fn new_tenant(request: api::CreateTenantRequest) -> Result<NewTenant, Error> {
    let tenant = required("tenant", request.tenant)?;
    Ok(NewTenant {
        id: id(&tenant.tenant_id)?,
        state: state(tenant.state)?.unwrap_or(TenantState::Active),
        display_name: tenant.display_name,
        labels: convert::read_labels(tenant.labels),
    })
}

fn change(tenant: api::Tenant, mask: &Mask) -> Result<TenantChange, Error> {
    let new_state = mask.pick("state", state(tenant.state)?, Option::is_some);
    Ok(TenantChange {
        display_name: mask.pick("display_name", tenant.display_name, |name| !name.is_empty()),
        labels: mask.pick("labels", convert::read_labels(tenant.labels), |labels| !labels.is_empty()),
        state: match new_state {
            Some(None) => return Err(Error::invalid("state", "must be STATE_ACTIVE or STATE_SUSPENDED")),
            Some(state) => state,
            None => None,
        },
    })
}

#[tonic::async_trait]
impl TenantService for Tenants {
    async fn create_tenant(
        &self,
        request: Request<api::CreateTenantRequest>,
    ) -> Result<Response<api::Tenant>, Status> {
        let (actor, request) = Call::actor(request)?;
        let new = new_tenant(request).map_err(refuse)?;
        let tenant_id = new.id.clone();
        let outcome = self.0.create_tenant(&actor, new).await;
        let tenant = outcome.map_err(|error| refuse_for(tenant_id.as_str(), error))?;
        Ok(Response::new(message(tenant)))
    }

    async fn get_tenant(
        &self,
        request: Request<api::GetTenantRequest>,
    ) -> Result<Response<api::Tenant>, Status> {
        let request = request.into_inner();
        let outcome = async { self.0.get_tenant(&id(&request.tenant_id)?).await }.await;
        let tenant = outcome.map_err(|error| refuse_for(&request.tenant_id, error))?;
        Ok(Response::new(message(tenant)))
    }

    async fn list_tenants(
        &self,
        request: Request<api::ListTenantsRequest>,
    ) -> Result<Response<api::ListTenantsResponse>, Status> {
        let request = request.into_inner();
        let page = LISTING.page(request.page_size, &request.page_token).map_err(refuse)?;
        let page = self.0.list_tenants(&page).await.map_err(refuse)?;
        Ok(Response::new(api::ListTenantsResponse {
            next_page_token: LISTING.next(page.next.as_deref()),
            tenants: page.items.into_iter().map(message).collect(),
        }))
    }

    async fn update_tenant(
        &self,
        request: Request<api::UpdateTenantRequest>,
    ) -> Result<Response<api::Tenant>, Status> {
        let (actor, request) = Call::actor(request)?;
        let tenant = required("tenant", request.tenant).map_err(refuse)?;
        let name = tenant.tenant_id.clone();
        let outcome = async {
            let mask = Mask::new(request.update_mask, CHANGEABLE)?;
            let (tenant_id, seen) = (id(&tenant.tenant_id)?, read_etag(&tenant.etag)?);
            self.0.update_tenant(&actor, &tenant_id, seen, change(tenant, &mask)?).await
        };
        let tenant = outcome.await.map_err(|error| refuse_for(&name, error))?;
        Ok(Response::new(message(tenant)))
    }

    async fn delete_tenant(
        &self,
        request: Request<api::DeleteTenantRequest>,
    ) -> Result<Response<()>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let (tenant, seen) = (id(&request.tenant_id)?, read_etag(&request.etag)?);
            self.0.delete_tenant(&actor, &tenant, seen, request.force).await
        };
        outcome.await.map_err(|error| refuse_for(&request.tenant_id, error))?;
        Ok(Response::new(()))
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    fn mask(paths: &[&str]) -> Mask {
        let mask = FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() };
        Mask::new(Some(mask), CHANGEABLE).unwrap()
    }

    #[test]
    fn an_update_touches_what_its_mask_names() {
        let tenant = api::Tenant { display_name: "Acme".into(), state: 2, ..Default::default() };
        let only_state = change(tenant.clone(), &mask(&["state"])).unwrap();
        assert_eq!(only_state.state, Some(TenantState::Suspended));
        assert_eq!((only_state.display_name, only_state.labels), (None, None));
        let all_set = change(tenant, &mask(&[])).unwrap();
        assert_eq!(all_set.display_name.as_deref(), Some("Acme"));
        assert_eq!(all_set.labels, None);
    }

    #[test]
    fn a_state_cannot_be_taken_away_or_made_up() {
        assert!(change(api::Tenant::default(), &mask(&["state"])).is_err());
        assert!(change(api::Tenant { state: 7, ..Default::default() }, &mask(&["labels"])).is_err());
    }

    #[test]
    fn a_new_tenant_is_active_unless_it_says_otherwise() {
        let tenant = api::Tenant { tenant_id: "acme".into(), ..Default::default() };
        let new = new_tenant(api::CreateTenantRequest { tenant: Some(tenant) }).unwrap();
        assert_eq!(new.state, TenantState::Active);
        assert_eq!(new_tenant(api::CreateTenantRequest::default()).unwrap_err().metadata["field"], "tenant");
    }
}
