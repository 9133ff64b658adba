//! One anonymous, bounded file that holds a package until it is imported.
