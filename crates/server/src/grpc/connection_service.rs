//! Connections and connect links.

use secrecy::{ExposeSecret, SecretString};
use tokenward_api::admin::v1 as api;
use tokenward_api::admin::v1::connection_service_server::ConnectionService;
use tokenward_api::admin::v1::import_connection_request::Token as Imported;
use tokenward_broker::{Actor, Broker, Error, NewConnectLink};
use tokenward_storage::{ConnectLink, Connection, ConnectionFilter, ConnectionKind, ConnectionState};
use tonic::{Request, Response, Status};

use super::call::{Call, refuse, refuse_for};
use super::convert::{self, id, optional_id, read_etag, required};
use super::page_token::Listing;

/// The service.
pub(crate) struct Connections(pub Broker);

fn message(connection: Connection) -> api::Connection {
    let kind = match connection.kind {
        ConnectionKind::OAuth => api::connection::Kind::Oauth,
        ConnectionKind::Static => api::connection::Kind::Static,
    };
    let state = match connection.state {
        ConnectionState::Active => api::connection::State::Active,
        ConnectionState::Suspect => api::connection::State::Suspect,
        ConnectionState::ReauthRequired => api::connection::State::ReauthRequired,
        ConnectionState::Revoked => api::connection::State::Revoked,
    };
    let tokens = connection.tokens.as_ref();
    api::Connection {
        scopes: tokens.map(|tokens| convert::scopes(&tokens.scopes)).unwrap_or_default(),
        token_expire_time: tokens.and_then(|tokens| tokens.expires_at).map(convert::timestamp),
        token_issue_time: tokens.map(|tokens| convert::timestamp(tokens.issued_at)),
        tenant_id: connection.tenant.as_str().to_owned(),
        connection_id: connection.id.as_str().to_owned(),
        provider: connection.provider.as_str().to_owned(),
        oauth_client_id: connection.oauth_client.map(|client| client.as_str().to_owned()).unwrap_or_default(),
        account_id: connection.account.as_str().to_owned(),
        account_name: connection.account_name,
        kind: kind.into(),
        state: state.into(),
        state_reason: connection.state_reason,
        state_time: Some(convert::timestamp(connection.state_since)),
        create_time: Some(convert::timestamp(connection.created_at)),
        update_time: Some(convert::timestamp(connection.updated_at)),
        etag: convert::etag(connection.version),
    }
}

fn link_message(link: ConnectLink) -> api::ConnectLink {
    api::ConnectLink {
        connect_link_id: link.id.as_str().to_owned(),
        tenant_id: link.tenant.as_str().to_owned(),
        oauth_client_id: link.oauth_client.as_str().to_owned(),
        account_id: link.account.map(|account| account.as_str().to_owned()).unwrap_or_default(),
        return_url: link.return_url.unwrap_or_default(),
        url: String::new(),
        creator: link.created_by,
        create_time: Some(convert::timestamp(link.created_at)),
        expire_time: Some(convert::timestamp(link.expires_at)),
        use_time: link.used_at.map(convert::timestamp),
    }
}

fn filter(request: &api::ListConnectionsRequest) -> Result<ConnectionFilter, Error> {
    let state = match api::connection::State::try_from(request.state) {
        Ok(api::connection::State::Unspecified) => None,
        Ok(api::connection::State::Active) => Some(ConnectionState::Active),
        Ok(api::connection::State::Suspect) => Some(ConnectionState::Suspect),
        Ok(api::connection::State::ReauthRequired) => Some(ConnectionState::ReauthRequired),
        Ok(api::connection::State::Revoked) => Some(ConnectionState::Revoked),
        Err(_) => return Err(Error::invalid("state", "is not a state of connections")),
    };
    Ok(ConnectionFilter {
        tenant: optional_id(&request.tenant_id)?,
        oauth_client: optional_id(&request.oauth_client_id)?,
        provider: optional_id(&request.provider)?,
        state,
    })
}

impl Connections {
    async fn list(
        &self,
        request: &api::ListConnectionsRequest,
    ) -> Result<api::ListConnectionsResponse, Error> {
        let state = request.state.to_string();
        let parts = [&*request.tenant_id, &*request.oauth_client_id, &*request.provider, &*state];
        let listing = Listing { method: "ListConnections", filter: &parts };
        let page = listing.page(request.page_size, &request.page_token)?;
        let page = self.0.list_connections(&filter(request)?, &page).await?;
        Ok(api::ListConnectionsResponse {
            next_page_token: listing.next(page.next.as_deref()),
            connections: page.items.into_iter().map(message).collect(),
        })
    }

    async fn list_links(
        &self,
        request: &api::ListConnectLinksRequest,
    ) -> Result<api::ListConnectLinksResponse, Error> {
        let parts = [&*request.tenant_id];
        let listing = Listing { method: "ListConnectLinks", filter: &parts };
        let page = listing.page(request.page_size, &request.page_token)?;
        let page = self.0.list_connect_links(&id(&request.tenant_id)?, &page).await?;
        Ok(api::ListConnectLinksResponse {
            next_page_token: listing.next(page.next.as_deref()),
            connect_links: page.items.into_iter().map(link_message).collect(),
        })
    }

    async fn create_link(
        &self,
        actor: &Actor,
        request: api::CreateConnectLinkRequest,
    ) -> Result<api::ConnectLink, Error> {
        let new = NewConnectLink {
            tenant: id(&request.tenant_id)?,
            oauth_client: id(&request.oauth_client_id)?,
            account: optional_id(&request.account_id)?,
            ttl: convert::read_duration("ttl", request.ttl)?,
            return_url: (!request.return_url.is_empty()).then_some(request.return_url),
        };
        let (link, url) = self.0.create_connect_link(actor, new).await?;
        Ok(api::ConnectLink { url: url.expose_secret().to_owned(), ..link_message(link) })
    }

    async fn import(
        &self,
        actor: &Actor,
        request: api::ImportConnectionRequest,
    ) -> Result<Connection, Error> {
        // Out of the message first, so that no refusal leaves it where it is not wiped.
        let imported = match required("token", request.token)? {
            Imported::RefreshToken(token) => {
                Ok((token.oauth_client_id, SecretString::from(token.refresh_token)))
            }
            Imported::StaticToken(token) => {
                Err((token.provider, SecretString::from(token.access_token), token.scopes))
            }
        };
        let tenant = id(&request.tenant_id)?;
        let account = optional_id(&request.account_id)?;
        match imported {
            Ok((client, token)) => {
                self.0.import_refresh_token(actor, &tenant, &id(&client)?, token, account).await
            }
            Err((provider, token, scopes)) => {
                let scopes = convert::read_scopes("scopes", &scopes)?;
                self.0.import_static_token(actor, &tenant, &id(&provider)?, token, scopes, account).await
            }
        }
    }
}

#[tonic::async_trait]
impl ConnectionService for Connections {
    async fn get_connection(
        &self,
        request: Request<api::GetConnectionRequest>,
    ) -> Result<Response<api::Connection>, Status> {
        let request = request.into_inner();
        let outcome =
            async { self.0.get_connection(&id(&request.tenant_id)?, &id(&request.connection_id)?).await };
        let connection = outcome.await.map_err(|error| refuse_for(&request.tenant_id, error))?;
        Ok(Response::new(message(connection)))
    }

    async fn list_connections(
        &self,
        request: Request<api::ListConnectionsRequest>,
    ) -> Result<Response<api::ListConnectionsResponse>, Status> {
        self.list(&request.into_inner()).await.map(Response::new).map_err(refuse)
    }

    async fn create_connect_link(
        &self,
        request: Request<api::CreateConnectLinkRequest>,
    ) -> Result<Response<api::ConnectLink>, Status> {
        let (actor, request) = Call::actor(request)?;
        let tenant = request.tenant_id.clone();
        let outcome = self.create_link(&actor, request).await;
        outcome.map(Response::new).map_err(|error| refuse_for(&tenant, error))
    }

    async fn list_connect_links(
        &self,
        request: Request<api::ListConnectLinksRequest>,
    ) -> Result<Response<api::ListConnectLinksResponse>, Status> {
        let request = request.into_inner();
        let outcome = self.list_links(&request).await;
        outcome.map(Response::new).map_err(|error| refuse_for(&request.tenant_id, error))
    }

    async fn delete_connect_link(
        &self,
        request: Request<api::DeleteConnectLinkRequest>,
    ) -> Result<Response<()>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let (tenant, link) = (id(&request.tenant_id)?, id(&request.connect_link_id)?);
            self.0.delete_connect_link(&actor, &tenant, &link).await
        };
        outcome.await.map_err(|error| refuse_for(&request.tenant_id, error))?;
        Ok(Response::new(()))
    }

    async fn import_connection(
        &self,
        request: Request<api::ImportConnectionRequest>,
    ) -> Result<Response<api::Connection>, Status> {
        let (actor, request) = Call::actor(request)?;
        let tenant = request.tenant_id.clone();
        let connection = self.import(&actor, request).await.map_err(|error| refuse_for(&tenant, error))?;
        Ok(Response::new(message(connection)))
    }

    async fn refresh_connection(
        &self,
        request: Request<api::RefreshConnectionRequest>,
    ) -> Result<Response<api::Connection>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let (tenant, connection) = (id(&request.tenant_id)?, id(&request.connection_id)?);
            self.0.refresh_connection(&actor, &tenant, &connection).await
        };
        let connection = outcome.await.map_err(|error| refuse_for(&request.tenant_id, error))?;
        Ok(Response::new(message(connection)))
    }

    async fn disconnect_connection(
        &self,
        request: Request<api::DisconnectConnectionRequest>,
    ) -> Result<Response<api::Connection>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let (tenant, connection) = (id(&request.tenant_id)?, id(&request.connection_id)?);
            let seen = read_etag(&request.etag)?;
            self.0.disconnect(&actor, &tenant, &connection, seen, &request.reason).await
        };
        let connection = outcome.await.map_err(|error| refuse_for(&request.tenant_id, error))?;
        Ok(Response::new(message(connection)))
    }

    async fn delete_connection(
        &self,
        request: Request<api::DeleteConnectionRequest>,
    ) -> Result<Response<()>, Status> {
        let (actor, request) = Call::actor(request)?;
        let outcome = async {
            let (tenant, connection) = (id(&request.tenant_id)?, id(&request.connection_id)?);
            self.0.delete_connection(&actor, &tenant, &connection).await
        };
        outcome.await.map_err(|error| refuse_for(&request.tenant_id, error))?;
        Ok(Response::new(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_filter_filters_nothing_and_a_wrong_one_is_named() {
        let all = filter(&api::ListConnectionsRequest::default()).unwrap();
        assert!(
            all.tenant.is_none()
                && all.oauth_client.is_none()
                && all.provider.is_none()
                && all.state.is_none()
        );
        let suspects =
            api::ListConnectionsRequest { state: 2, tenant_id: "acme".into(), ..Default::default() };
        assert_eq!(filter(&suspects).unwrap().state, Some(ConnectionState::Suspect));
        let wrong = api::ListConnectionsRequest { state: 99, ..Default::default() };
        assert_eq!(filter(&wrong).unwrap_err().metadata["field"], "state");
    }
}
