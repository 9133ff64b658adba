//! A whole Qubes system in one directory.
