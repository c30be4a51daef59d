//! `mlxserve`, the slim runtime: mounts artifacts by digest and serves them over HTTP.
//!
//! ```text
//!  reference ─▶ catalogue ─▶ files ─▶ model (prompt + engine) ─▶ residency ◀── routes ◀── edge ◀── connections
//! ```
//!
//! The binary parses its flags and calls [`serve()`]; `mlxctl` runs the binary. [`smoke()`] replays a recipe's tests. A
//! request passes the edge (host and origin, request id, log, error shape), is read into a wire type of `api`, becomes
//! requests of the engine (`ask`), and is answered in its dialect (`openai`, `ollama`) as events come (`run`).

mod app;
mod ask;
mod catalogue;
mod clock;
mod error;
mod fault;
mod files;
mod guard;
mod model;
mod ollama;
mod openai;
pub mod options;
mod pull;
mod residency;
mod run;
mod serve;
mod show;
mod smoke;

pub use app::{App, router};
pub use catalogue::Catalogue;
pub use error::Error;
pub use files::ModelFiles;
pub use guard::Guard;
pub use model::{GenerationConfig, LoadedModel, MountOptions, start_engine};
pub use serve::{RunFile, run};
pub use smoke::{SmokeOutcome, SmokeReport, smoke};
