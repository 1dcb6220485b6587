//! Derives ids from a resource, so that a repeated step writes the same rows without reading them first.

use sha2::{Digest, Sha256};
use tenantry_model::id::{Id, IdKind, ResourceId};
use uuid::{Builder, Uuid};

/// Derives the id of an object that belongs to one generation of a resource. `what` distinguishes several
/// objects of the same resource. The id is a UUIDv7 with the resource's timestamp.
pub fn id<K: IdKind>(resource: ResourceId, generation: i64, what: &str) -> Id<K> {
    let mut hash = Sha256::new();
    hash.update(resource.uuid());
    hash.update(generation.to_be_bytes());
    hash.update(K::PREFIX);
    hash.update(":");
    hash.update(what);
    let digest: [u8; 32] = hash.finalize().into();
    let mut random = [0u8; 10];
    random.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    let millis = u64::try_from(resource.uuid().as_u128() >> 80).unwrap_or(0);
    let uuid: Uuid = Builder::from_unix_timestamp_millis(millis, &random).into_uuid();
    Id::from_uuid(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tenantry_model::id::{CustomerId, SubscriptionId};

    #[test]
    fn equal_inputs_give_equal_ids_and_others_do_not() {
        let (a, b) = (ResourceId::new(), ResourceId::new());
        let first: CustomerId = id(a, 1, "x");
        assert_eq!(first, id(a, 1, "x"));
        for other in [id(b, 1, "x"), id(a, 2, "x"), id(a, 1, "y")] {
            assert_ne!(first, other);
        }
        let of_another_kind: SubscriptionId = id(a, 1, "x");
        assert_ne!(first.uuid(), of_another_kind.uuid());
        assert_eq!(first.uuid().get_version_num(), 7);
        assert_eq!(first.uuid().as_u128() >> 80, a.uuid().as_u128() >> 80, "sorts with the resource");
    }
}
