//! Sequences, the scheduler and the thread that owns a device.
