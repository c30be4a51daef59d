//! Model architectures, generic over the backend.
