//! OAuth clients and their secrets.

use secrecy::SecretString;
use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::o_auth_client_service_server::OAuthClientService;
use tokenward_broker::admin::{NewOAuthClient, OAuthClientChange};
use tokenward_broker::{Broker, Error};
use tokenward_storage::{ClientSecretRecord, ClientSecretState, OAuthClient};
use tonic::{Request, Response, Status};

use super::call::{Call, refuse};
use super::convert::{self, id, read_etag, read_scopes, required};
use super::mask::Mask;
use super::page_token::Listing;

/// The service.
pub(crate) struct OAuthClients(pub Broker);

const LISTING: Listing<'_> = Listing { method: "ListOAuthClients", filter: &[] };
const CHANGEABLE: &[&str] = &["client_id", "display_name", "scopes", "optional_scopes", "help_url"];

impl OAuthClients {
    fn message(&self, client: OAuthClient) -> api::OAuthClient {
        api::OAuthClient {
            redirect_uri: self.0.redirect_uri(&client.id),
            oauth_client_id: client.id.as_str().to_owned(),
            provider: client.provider.as_str().to_owned(),
            client_id: client.client_id,
            display_name: client.display_name,
            scopes: convert::scopes(&client.scopes),
            optional_scopes: convert::scopes(&client.optional_scopes),
            help_url: client.help_url.unwrap_or_default(),
            create_time: Some(convert::timestamp(client.created_at)),
            update_time: Some(convert::timestamp(client.updated_at)),
            etag: convert::etag(client.version),
        }
    }
}

fn secret_message(record: &ClientSecretRecord) -> api::ClientSecret {
    let state = match record.state {
        ClientSecretState::Enabled => api::client_secret::State::Enabled,
        ClientSecretState::Active => api::client_secret::State::Active,
        ClientSecretState::Retired => api::client_secret::State::Retired,
    };
    api::ClientSecret {
        oauth_client_id: record.oauth_client.as_str().to_owned(),
        secret_version: record.secret_version,
        state: state.into(),
        create_time: Some(convert::timestamp(record.created_at)),
        update_time: Some(convert::timestamp(record.updated_at)),
    }
}

fn non_empty(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn new_client(client: api::OAuthClient) -> Result<NewOAuthClient, Error> {
    Ok(NewOAuthClient {
        id: id(&client.oauth_client_id)?,
        provider: id(&client.provider)?,
        client_id: client.client_id,
        display_name: client.display_name,
        scopes: read_scopes("scopes", &client.scopes)?,
        optional_scopes: read_scopes("optional_scopes", &client.optional_scopes)?,
        help_url: non_empty(client.help_url),
    })
}

fn change(client: api::OAuthClient, mask: &Mask) -> Result<OAuthClientChange, Error> {
    let scopes = read_scopes("scopes", &client.scopes)?;
    let optional = read_scopes("optional_scopes", &client.optional_scopes)?;
    Ok(OAuthClientChange {
        client_id: mask.pick("client_id", client.client_id, |text| !text.is_empty()),
        display_name: mask.pick("display_name", client.display_name, |text| !text.is_empty()),
        scopes: mask.pick("scopes", scopes, |scopes| !scopes.is_empty()),
        optional_scopes: mask.pick("optional_scopes", optional, |scopes| !scopes.is_empty()),
        help_url: mask.pick("help_url", non_empty(client.help_url), Option::is_some),
    })
}

#[tonic::async_trait]
impl OAuthClientService for OAuthClients {
    async fn create_o_auth_client(
        &self,
        request: Request<api::CreateOAuthClientRequest>,
    ) -> Result<Response<api::OAuthClient>, Status> {
        let (actor, request) = Call::actor(request)?;
        let secret = non_empty(request.client_secret).map(SecretString::from);
        let outcome = async {
            let new = new_client(required("oauth_client", request.oauth_client)?)?;
            self.0.create_oauth_client(&actor, new, secret).await
        };
        Ok(Response::new(self.message(outcome.await.map_err(refuse)?)))
    }

    async fn get_o_auth_client(
        &self,
        request: Request<api::GetOAuthClientRequest>,
    ) -> Result<Response<api::OAuthClient>, Status> {
        let client_id = id(&request.into_inner().oauth_client_id).map_err(refuse)?;
        let client = self.0.get_oauth_client(&client_id).await.map_err(refuse)?;
        Ok(Response::new(self.message(client)))
    }

    async fn list_o_auth_clients(
        &self,
        request: Request<api::ListOAuthClientsRequest>,
    ) -> Result<Response<api::ListOAuthClientsResponse>, Status> {
        let request = request.into_inner();
        let page = LISTING.page(request.page_size, &request.page_token).map_err(refuse)?;
        let page = self.0.list_oauth_clients(&page).await.map_err(refuse)?;
        Ok(Response::new(api::ListOAuthClientsResponse {
            next_page_token: LISTING.next(page.next.as_deref()),
            oauth_clients: page.items.into_iter().map(|client| self.message(client)).collect(),
        }))
    }

    async fn update_o_auth_client(
        &self,
        request: Request<api::UpdateOAuthClientRequest>,
    ) -> Result<Response<api::OAuthClient>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let client = required("oauth_client", request.oauth_client)?;
            let mask = Mask::new(request.update_mask, CHANGEABLE)?;
            let (client_id, seen) = (id(&client.oauth_client_id)?, read_etag(&client.etag)?);
            self.0.update_oauth_client(&actor, &client_id, seen, change(client, &mask)?).await
        };
        Ok(Response::new(self.message(outcome.await.map_err(refuse)?)))
    }

    async fn delete_o_auth_client(
        &self,
        request: Request<api::DeleteOAuthClientRequest>,
    ) -> Result<Response<()>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let (client_id, seen) = (id(&request.oauth_client_id)?, read_etag(&request.etag)?);
            self.0.delete_oauth_client(&actor, &client_id, seen).await
        };
        outcome.await.map_err(refuse)?;
        Ok(Response::new(()))
    }

    async fn add_client_secret(
        &self,
        request: Request<api::AddClientSecretRequest>,
    ) -> Result<Response<api::ClientSecret>, Status> {
        let (actor, request) = Call::actor(request)?;
        let secret = SecretString::from(request.client_secret);
        let client_id = id(&request.oauth_client_id).map_err(refuse)?;
        let outcome = self.0.add_client_secret(&actor, &client_id, &secret, request.activate).await;
        Ok(Response::new(secret_message(&outcome.map_err(refuse)?)))
    }

    async fn activate_client_secret(
        &self,
        request: Request<api::ActivateClientSecretRequest>,
    ) -> Result<Response<api::ClientSecret>, Status> {
        let (actor, request) = Call::actor(request)?;
        let client_id = id(&request.oauth_client_id).map_err(refuse)?;
        let outcome = self.0.activate_client_secret(&actor, &client_id, request.secret_version).await;
        Ok(Response::new(secret_message(&outcome.map_err(refuse)?)))
    }

    async fn retire_client_secret(
        &self,
        request: Request<api::RetireClientSecretRequest>,
    ) -> Result<Response<api::ClientSecret>, Status> {
        let (actor, request) = Call::actor(request)?;
        let client_id = id(&request.oauth_client_id).map_err(refuse)?;
        let outcome = self.0.retire_client_secret(&actor, &client_id, request.secret_version).await;
        Ok(Response::new(secret_message(&outcome.map_err(refuse)?)))
    }

    async fn list_client_secrets(
        &self,
        request: Request<api::ListClientSecretsRequest>,
    ) -> Result<Response<api::ListClientSecretsResponse>, Status> {
        let client_id = id(&request.into_inner().oauth_client_id).map_err(refuse)?;
        let secrets = self.0.list_client_secrets(&client_id).await.map_err(refuse)?;
        let client_secrets = secrets.iter().map(secret_message).collect();
        Ok(Response::new(api::ListClientSecretsResponse { client_secrets }))
    }
}

#[cfg(test)]
mod tests {
    use prost_types::FieldMask;

    use super::*;

    #[test]
    fn help_can_be_taken_away_by_naming_it_in_the_mask() {
        let mask = Mask::new(Some(FieldMask { paths: vec!["help_url".into()] }), CHANGEABLE).unwrap();
        let taken = change(api::OAuthClient::default(), &mask).unwrap();
        assert_eq!(taken.help_url, Some(None));
        assert_eq!(taken.client_id, None);
        let kept = change(api::OAuthClient::default(), &Mask::Set).unwrap();
        assert_eq!(kept.help_url, None);
    }

    #[test]
    fn provider_and_identifier_are_not_among_the_changeable() {
        let mask = Some(FieldMask { paths: vec!["provider".into()] });
        assert!(Mask::new(mask, CHANGEABLE).is_err());
    }

    #[test]
    fn a_malformed_scope_is_named_with_its_field() {
        let client = api::OAuthClient {
            oauth_client_id: "main".into(),
            provider: "hubspot".into(),
            optional_scopes: vec!["a b".into()],
            ..Default::default()
        };
        assert_eq!(new_client(client).unwrap_err().metadata["field"], "optional_scopes");
    }
}
