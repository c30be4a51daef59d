//! The wire types of every HTTP dialect that the daemon speaks: OpenAI's in [`openai`], Ollama's in [`ollama`]. The
//! server reads requests and writes answers with them, the client does the opposite; nothing else serialises to them.
//!
//! Requests pass over fields that they do not know, as the originals do, and name the field that is wrong: its type,
//! its range, or a feature that is not there. [`read_request`] is the only way in.

mod invalid;
mod messages;
pub mod ollama;
pub mod openai;
mod shapes;

pub use invalid::{Checked, Invalid, read_request};
pub use messages::{Message, ROLES};
pub use shapes::{KeepAlive, Prompts, Strings};
