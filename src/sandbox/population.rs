//! Systems described by a population file.
