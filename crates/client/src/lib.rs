//! A typed client of a running mlxserve.
