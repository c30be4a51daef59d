//! The thread that owns a device, and what it runs: sequences, the scheduler, and which KV blocks a sequence holds.
//!
//! The server starts one [`Engine`] a device and mounts models on it; a [`EngineHandle`] takes requests and answers
//! with a [`Generation`], a stream of events. Dropping the generation cancels its sequence before the next step. The
//! requests of a model share steps. Nothing here knows HTTP or looks into a tensor.
//!
//! ```text
//!  submit ──▶ bounded queue ──▶ engine thread: scheduler ─▶ one ragged batch ─▶ model ─▶ sampler ──▶ events
//! ```
//!
//! Nothing on the thread waits for a client: the channel of a request has room for all the tokens it may ask for. A
//! panic or an error in a step ends the requests that took part in it, and the model is loaded anew; requests that
//! wait, and those of other models, go on.

mod error;
mod generation;
mod handle;
mod mounted;
mod scheduler;
mod sequence;
mod thread;

pub use error::{MountError, Refused};
pub use generation::{Event, Finish, Finished, Generation, Timings};
pub use handle::{EngineHandle, Request};
pub use mounted::{EngineOptions, Facts};
pub use thread::Engine;
