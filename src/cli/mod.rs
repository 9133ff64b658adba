//! Presentation: the command line, what is printed, exit codes.
