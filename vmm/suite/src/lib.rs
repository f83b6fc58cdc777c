#![doc = include_str!("../README.md")]
//!
//! Test runs: which guests are started, what they are asked, and how their answers and the checker's findings become
//! a verdict.

pub mod auto;
pub mod carried;
pub mod cases;
pub mod collector;
pub mod console;
pub mod control;
pub mod doctor;
pub mod drive;
pub mod event;
pub mod exchange;
pub mod expectation;
pub mod files;
pub mod found;
pub mod gdb;
pub mod hello;
pub mod history;
pub mod host;
pub mod job;
pub mod judge;
pub mod known_failures;
pub mod nested;
pub mod own;
pub mod parameters;
pub mod pause;
pub mod port;
pub mod prepare;
pub mod report;
pub mod runner;
pub mod scenario;
mod scene;
pub mod stop;
pub mod suppression;
pub mod test_host;
