//! What the tests share: keys and packages made from a description, and the programs under test.

#![allow(dead_code, reason = "two test programs share this, and neither uses all of it")]

pub mod packages;
pub mod programs;
pub mod sandbox;
pub mod web;
