//! Stream adaptors, one a file, one promise an adaptor.
