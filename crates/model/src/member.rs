//! Members of a tenant: their roles with the permissions of each, as data, and how e-mail addresses are compared. Code that
//! checks a permission defines its meaning.

/// Purpose of the keyed hash (MAC) by which a member is found by e-mail address.
pub const EMAIL_MAC: &str = "member_email";

/// The form of an e-mail address by which members are found: two spellings of one address are one member.
pub fn normal_email(email: &str) -> String {
    email.trim().to_lowercase()
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_sorted_and_the_owner_has_all() {
        let owner = find("owner").unwrap();
        for role in ROLES {
            assert!(
                role.permissions.windows(2).all(|pair| pair[0] < pair[1]),
                "{}: binary search needs order",
                role.name
            );
            assert!(role.permissions.iter().all(|p| owner.permissions.contains(p)), "{}", role.name);
        }
        assert!(allows("admin", "users:write"));
        assert!(!allows("member", "users:write"));
        assert!(!allows("admin", "tenant:delete"));
        assert!(!allows("unknown", "data:read"));
    }

    #[test]
    fn addresses_are_compared_without_case_and_spaces() {
        assert_eq!(normal_email(" Ada@Example.COM "), normal_email("ada@example.com"));
    }
}
