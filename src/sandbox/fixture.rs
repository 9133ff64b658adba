//! Systems described by the head of a recording.
