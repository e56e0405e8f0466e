//! Every method of the API, and the roles that may call it. What is not in the table is not served.

use tokenward_auth::Role;

/// A method of the API.
#[derive(Debug)]
pub(crate) struct Method {
    /// The service's full name, a slash, and the method's name.
    pub name: &'static str,
    /// Who may call it.
    pub roles: &'static [Role],
    /// Whether it changes something: such a call is finished even if its caller goes away, so that no change is made without
    /// its audit event, or with caches that do not know of it.
    pub changes: bool,
    /// Whether it belongs to the admin API: such a call always waits for the database, so it needs a place.
    pub is_admin: bool,
}

struct Rights {
    roles: &'static [Role],
    changes: bool,
    is_admin: bool,
}

impl Rights {
    const fn to_administer(roles: &'static [Role], changes: bool) -> Self {
        Self { roles, changes, is_admin: true }
    }
}

/// Whoever may get tokens, given an access rule. Operators can grant access to themselves; auditors only read.
const ASK: Rights =
    Rights { roles: &[Role::Service, Role::Operator, Role::Admin], changes: false, is_admin: false };
const READ: Rights = Rights::to_administer(&[Role::Operator, Role::Admin, Role::Auditor], false);
const OPERATE: Rights = Rights::to_administer(&[Role::Operator, Role::Admin], true);
const ADMINISTER: Rights = Rights::to_administer(&[Role::Admin], true);

macro_rules! methods {
    ($($service:literal { $($method:literal: $rights:ident,)* })*) => {
        /// The table.
        pub(crate) const METHODS: &[Method] = &[
            $($(Method {
                name: concat!($service, "/", $method),
                roles: $rights.roles,
                changes: $rights.changes,
                is_admin: $rights.is_admin,
            },)*)*
        ];
    };
}

methods! {
    "tokenward.v1.TokenService" {
        "GetToken": ASK,
        "ReportRejectedToken": ASK,
    }
    "tokenward.admin.v1.TenantService" {
        "CreateTenant": OPERATE,
        "GetTenant": READ,
        "ListTenants": READ,
        "UpdateTenant": OPERATE,
        "DeleteTenant": OPERATE,
    }
    "tokenward.admin.v1.OAuthClientService" {
        "CreateOAuthClient": ADMINISTER,
        "GetOAuthClient": READ,
        "ListOAuthClients": READ,
        "UpdateOAuthClient": ADMINISTER,
        "DeleteOAuthClient": ADMINISTER,
        "AddClientSecret": ADMINISTER,
        "ActivateClientSecret": ADMINISTER,
        "RetireClientSecret": ADMINISTER,
        "ListClientSecrets": READ,
    }
    "tokenward.admin.v1.ConnectionService" {
        "GetConnection": READ,
        "ListConnections": READ,
        "CreateConnectLink": OPERATE,
        "ListConnectLinks": READ,
        "DeleteConnectLink": OPERATE,
        "ImportConnection": OPERATE,
        "RefreshConnection": OPERATE,
        "DisconnectConnection": OPERATE,
        "DeleteConnection": OPERATE,
    }
    "tokenward.admin.v1.AccessRuleService" {
        "CreateAccessRule": OPERATE,
        "GetAccessRule": READ,
        "ListAccessRules": READ,
        "UpdateAccessRule": OPERATE,
        "DeleteAccessRule": OPERATE,
    }
    "tokenward.admin.v1.PrincipalService" {
        "IssueCallerToken": ADMINISTER,
        "BlockPrincipal": ADMINISTER,
        "UnblockPrincipal": ADMINISTER,
        "ListBlockedPrincipals": READ,
    }
    "tokenward.admin.v1.KeyService" {
        "ListEncryptionKeys": READ,
        "ListDataKeys": READ,
        "RotateEncryptionKey": ADMINISTER,
        "RotateDataKeys": ADMINISTER,
        "VerifyStoredSecrets": ADMINISTER,
        "RetireEncryptionKey": ADMINISTER,
        "GetKeyJob": READ,
        "ListKeyJobs": READ,
        "ListKeyFindings": READ,
    }
}

/// Whether a path belongs to gRPC health or reflection, which need no caller token.
pub(crate) fn is_open(path: &str) -> bool {
    path.starts_with("/grpc.health.v1.Health/") || path.starts_with("/grpc.reflection.")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn every_method_of_the_api_has_its_roles_and_nothing_else_has() {
        let set = FileDescriptorSet::decode(tokenward_api::DESCRIPTORS).unwrap();
        let mut described = BTreeSet::new();
        for file in set.file.iter().filter(|file| file.package().starts_with("tokenward.")) {
            for service in &file.service {
                for method in &service.method {
                    described.insert(format!("{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let listed: BTreeSet<_> = METHODS.iter().map(|method| method.name.to_owned()).collect();
        assert_eq!(listed, described);
        assert_eq!(listed.len(), METHODS.len(), "a method is listed twice");
        assert!(METHODS.iter().all(|method| !method.roles.is_empty()));
    }

    #[test]
    fn an_auditor_changes_nothing_and_gets_no_token() {
        for method in METHODS.iter().filter(|method| method.roles.contains(&Role::Auditor)) {
            let (_, name) = method.name.split_once('/').unwrap();
            assert!(name.starts_with("Get") || name.starts_with("List"), "{}", method.name);
            assert_ne!(method.name, "tokenward.v1.TokenService/GetToken");
            assert!(!method.changes);
        }
    }

    #[test]
    fn what_belongs_to_the_admin_api_needs_a_place_and_nothing_else_does() {
        for method in METHODS {
            assert_eq!(method.is_admin, method.name.starts_with("tokenward.admin."), "{}", method.name);
        }
    }

    #[test]
    fn only_health_and_reflection_are_open() {
        assert!(is_open("/grpc.health.v1.Health/Check"));
        assert!(is_open("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"));
        assert!(METHODS.iter().all(|method| !is_open(&format!("/{}", method.name))));
        assert!(!is_open("/grpc.health.v1.Healthier/Check"));
    }
}
