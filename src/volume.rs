//! The last stage of the line: a volume in dom0.
