//! Real processes: killed at any instant, and several at once.
