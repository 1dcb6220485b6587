//! Secrets that the provider hands out. The provider contract is tested in `tests/it`.

use super::*;

#[test]
fn secrets_are_long_and_unique() {
    assert_eq!((token().len(), passwords::random().len()), (43, 24));
    assert_ne!(token(), token());
    assert_ne!(passwords::random(), passwords::random());
}
