//! The UpdateVM's services: search and download.
