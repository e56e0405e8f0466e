//! Debug without secrets, for messages that carry some.

use std::fmt;

use crate::{admin::v1 as admin, v1};

macro_rules! redacted {
    ($($message:ty { $($shown:ident),* })*) => {$(
        impl fmt::Debug for $message {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($message))$(.field(stringify!($shown), &self.$shown))*.finish_non_exhaustive()
            }
        }
    )*};
}

redacted! {
    v1::GetTokenResponse { connection_id, account_id, fingerprint, expire_time, scopes, warnings }
    admin::ConnectLink { connect_link_id, tenant_id, oauth_client_id, account_id, expire_time }
    admin::CreateOAuthClientRequest { oauth_client }
    admin::AddClientSecretRequest { oauth_client_id, activate }
    admin::ImportedRefreshToken { oauth_client_id }
    admin::ImportedStaticToken { provider, scopes }
    admin::IssueCallerTokenResponse { principal, expire_time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_of_an_answer_shows_no_token() {
        let answer = v1::GetTokenResponse { access_token: "hunter2".into(), ..Default::default() };
        assert!(!format!("{answer:?}").contains("hunter2"));
        let request = admin::ImportConnectionRequest {
            token: Some(admin::import_connection_request::Token::RefreshToken(admin::ImportedRefreshToken {
                refresh_token: "hunter2".into(),
                oauth_client_id: "main".into(),
            })),
            ..Default::default()
        };
        assert!(!format!("{request:?}").contains("hunter2"));
    }
}
