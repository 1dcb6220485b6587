//! The roles of every tenant and their permissions, as data. Callers that check a permission define its
//! meaning.

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Role {
    /// Name in tokens and rows.
    pub name: &'static str,
    /// Whether a tenant's first administrator may have this role.
    pub administers: bool,
    /// Permissions, in alphabetical order.
    pub permissions: &'static [&'static str],
}

/// All roles, the most powerful first.
pub const ROLES: &[Role] = &[
    Role {
        name: "owner",
        administers: true,
        permissions: &[
            "applications:read",
            "applications:write",
            "billing:read",
            "billing:write",
            "data:read",
            "data:write",
            "tenant:admin",
            "tenant:delete",
            "users:read",
            "users:write",
        ],
    },
    Role {
        name: "admin",
        administers: true,
        permissions: &[
            "applications:read",
            "applications:write",
            "billing:read",
            "data:read",
            "data:write",
            "tenant:admin",
            "users:read",
            "users:write",
        ],
    },
    Role { name: "member", administers: false, permissions: &["data:read", "data:write", "users:read"] },
];

/// The role with this name.
pub fn find(name: &str) -> Option<&'static Role> {
    ROLES.iter().find(|role| role.name == name)
}

/// Whether the role has the permission. An unknown role has none.
pub fn allows(role: &str, permission: &str) -> bool {
    find(role).is_some_and(|role| role.permissions.binary_search(&permission).is_ok())
}
