//! What several tests share: programs, temporary places, packages.
