//! From a verified package to the entries of its payload.
