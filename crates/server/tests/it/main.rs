//! The daemon over Pebble: its routes in this process, its life as a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod process;
mod routes;
mod stored;
mod world;
