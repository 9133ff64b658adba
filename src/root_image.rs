//! From a payload to the root image.
