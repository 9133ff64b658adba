//! The seam to the untrusted UpdateVM.
