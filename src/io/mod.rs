//! Stream adaptors, one a file, one promise an adaptor. All are blocking `Read` or `Write`.

pub mod at;
pub mod hash;
pub mod limit;
pub mod progress;
pub mod tail;
pub mod zeros;
