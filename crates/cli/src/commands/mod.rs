//! The commands, one a file: documented arguments, and a function that does it.

pub(crate) mod convert;
pub(crate) mod create;
pub(crate) mod diff;
pub(crate) mod gc;
pub(crate) mod import;
pub(crate) mod inspect;
pub(crate) mod list;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod pack;
pub(crate) mod ps;
pub(crate) mod pull;
pub(crate) mod push;
pub(crate) mod referrers;
pub(crate) mod registry;
pub(crate) mod rm;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod show;
pub(crate) mod stop;
pub(crate) mod tag;
pub(crate) mod tags;
pub(crate) mod validate;
pub(crate) mod verify;
