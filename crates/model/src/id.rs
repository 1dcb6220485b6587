//! Typed ids: a prefix for the kind and a UUIDv7, in TypeID form (`ten_01h2xcejqtf2nbrexx3vqjhp41`). The
//! suffix is the 128 bits in Crockford base 32: 26 lower-case characters (TypeID specification 0.3).

use std::fmt;
use std::hash::{Hash, Hasher};
use std::marker::PhantomData;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Kind of an id.
pub trait IdKind: 'static {
    /// The text before the underscore.
    const PREFIX: &'static str;
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident, $alias:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug)]
        pub enum $kind {}
        impl IdKind for $kind { const PREFIX: &'static str = $prefix; }
        $(#[$doc])*
        pub type $alias = Id<$kind>;
    )*};
}

kinds! {
    /// A tenant.
    Tenant, TenantId, "ten";
    /// An operation.
    Operation, OperationId, "op";
    /// A resource of a tenant.
    Resource, ResourceId, "res";
    /// An event.
    EventKind, EventId, "evt";
    /// An audit record.
    AuditKind, AuditId, "aud";
    /// An API key.
    Key, KeyId, "key";
    /// A user, who can sign in.
    User, UserId, "usr";
    /// An invitation to a tenant.
    Invitation, InvitationId, "inv";
    /// A session of a member.
    Session, SessionId, "ses";
    /// A customer in the billing ledger.
    Customer, CustomerId, "cus";
    /// A subscription in the billing ledger.
    Subscription, SubscriptionId, "sub";
    /// An invoice in the billing ledger.
    Invoice, InvoiceId, "in";
    /// A message in the outbox.
    Message, MessageId, "msg";
    /// A signal to an operation.
    SignalKind, SignalId, "sig";
    /// A report of an isolation check.
    IsolationReport, IsolationReportId, "iso";
    /// An archive of a tenant: an export, a backup or an import.
    Archive, ArchiveId, "arc";
    /// A certificate of a tenant's deletion.
    Certificate, CertificateId, "cert";
}

/// An id of kind `K`. Ordered by time of creation, to the millisecond.
pub struct Id<K>(Uuid, PhantomData<fn() -> K>);

impl<K: IdKind> Id<K> {
    /// A new id: a UUIDv7 of the system clock.
    pub fn new() -> Self {
        Self::from_uuid(Uuid::now_v7())
    }

    /// The id with these 128 bits.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid, PhantomData)
    }

    /// The 128 bits.
    pub const fn uuid(self) -> Uuid {
        self.0
    }

    /// The 26 characters after the prefix, valid in names of databases, roles, buckets and hosts.
    pub fn suffix(self) -> String {
        encode(self.0.as_u128())
    }
}

impl<K: IdKind> Default for Id<K> {
    fn default() -> Self {
        Self::new()
    }
}
impl<K> Clone for Id<K> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<K> Copy for Id<K> {}
impl<K> PartialEq for Id<K> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<K> Eq for Id<K> {}
impl<K> PartialOrd for Id<K> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<K> Ord for Id<K> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}
impl<K> Hash for Id<K> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl<K: IdKind> fmt::Display for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}_{}", K::PREFIX, self.suffix())
    }
}
impl<K: IdKind> fmt::Debug for Id<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not an id of kind `K`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Another prefix, or none.
    #[error("must begin with `{0}_`")]
    Prefix(&'static str),
    /// Not 26 characters of the alphabet that fit in 128 bits.
    #[error("must have 26 characters of base 32 (0-9, a-z without i, l, o, u) after the underscore")]
    Suffix,
}

impl<K: IdKind> FromStr for Id<K> {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let (prefix, suffix) = text.rsplit_once('_').ok_or(IdError::Prefix(K::PREFIX))?;
        if prefix != K::PREFIX {
            return Err(IdError::Prefix(K::PREFIX));
        }
        decode(suffix).map(|bits| Self::from_uuid(Uuid::from_u128(bits))).ok_or(IdError::Suffix)
    }
}

impl<K: IdKind> Serialize for Id<K> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
impl<'de, K: IdKind> Deserialize<'de> for Id<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
impl<K: IdKind> schemars::JsonSchema for Id<K> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("{}_id", K::PREFIX).into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "type": "string", "pattern": format!("^{}_[0-7][0-9a-hjkmnp-tv-z]{{25}}$", K::PREFIX) })
    }
}

fn encode(bits: u128) -> String {
    (0..26).rev().map(|i| ALPHABET[((bits >> (5 * i)) & 31) as usize] as char).collect()
}

fn decode(text: &str) -> Option<u128> {
    // 26 digits have 130 bits, so the first digit is at most 7.
    if text.len() != 26 || text.as_bytes()[0] > b'7' {
        return None;
    }
    text.bytes().try_fold(0u128, |bits, c| {
        let digit = ALPHABET.iter().position(|a| *a == c)?;
        Some((bits << 5) | digit as u128)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typeid_vectors() {
        // From the TypeID specification's valid.yml and invalid.yml.
        for (text, uuid) in [
            ("00000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
            ("00000000000000000000000001", "00000000-0000-0000-0000-000000000001"),
            ("0000000000000000000000000a", "00000000-0000-0000-0000-00000000000a"),
            ("0000000000000000000000000g", "00000000-0000-0000-0000-000000000010"),
            ("00000000000000000000000010", "00000000-0000-0000-0000-000000000020"),
            ("7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
            ("0123456789abcdefghjkmnpqrs", "0110c853-1d09-52d8-d73e-1194e95b5f19"),
            ("01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ] {
            let uuid: Uuid = uuid.parse().unwrap();
            assert_eq!(encode(uuid.as_u128()), text);
            assert_eq!(decode(text), Some(uuid.as_u128()));
        }
        for bad in [
            "",
            "1234567890123456789012345",
            "123456789012345678901234567",
            "8zzzzzzzzzzzzzzzzzzzzzzzzz",
            "0123456789ABCDEFGHJKMNPQRS",
            "ooooooiiiiiiuuuuuuulllllll",
            "0123456789abcdefghjkmnpqr ",
            "0é23456789abcdefghjkmnpqr",
        ] {
            assert_eq!(decode(bad), None, "{bad}");
        }
    }

    #[test]
    fn prefix_is_checked() {
        let id = TenantId::new();
        assert_eq!(id.to_string().parse::<TenantId>(), Ok(id));
        assert_eq!(id.to_string().parse::<OperationId>(), Err(IdError::Prefix("op")));
        assert_eq!(id.suffix().parse::<TenantId>(), Err(IdError::Prefix("ten")));
        assert!(id < TenantId::from_uuid(Uuid::max()));
    }
}
