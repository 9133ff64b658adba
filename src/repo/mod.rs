//! Repositories: files, keys, and the wire format of search and download.
