//! Content-addressed stores as small traits, and the one graph copy between them.
