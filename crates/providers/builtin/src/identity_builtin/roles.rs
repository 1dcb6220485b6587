//! The roles that every tenant begins with, and what each may do (S3.12, S4.31). Data, so that it can be listed and
//! compared; what a permission means is decided where it is checked.

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Role {
    /// The word in tokens and rows.
    pub name: &'static str,
    /// Whether its bearer may be a tenant's first administrator.
    pub administers: bool,
    /// What it allows, in alphabetical order.
    pub permissions: &'static [&'static str],
}

/// All of them, the mightiest first.
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

/// The role of this name.
pub fn find(name: &str) -> Option<&'static Role> {
    ROLES.iter().find(|role| role.name == name)
}

/// Whether the role allows it. An unknown role allows nothing.
pub fn allows(role: &str, permission: &str) -> bool {
    find(role).is_some_and(|role| role.permissions.binary_search(&permission).is_ok())
}
