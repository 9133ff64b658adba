//! One file for each family of commands: plain values from the command line to a use case, and its outcome made showable.

mod adopt;
mod ensure;
mod grants;
mod install;
mod jobs;
mod list;
mod policy;
mod remove;
mod switch;
mod trust;
mod upkeep;
mod upright;
mod via;
