//! Wire types of every HTTP dialect that mlxserve speaks.
