//! From a spooled package to a verified one.
