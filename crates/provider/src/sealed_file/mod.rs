//! Encrypted files in the format of Tink's streaming AEAD, written and read in constant memory, with reads
//! from any offset. Uses only the key it is given.

pub mod cipher;
pub mod stream;
