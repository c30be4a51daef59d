//! Buffers of f32 that begin on a cache line and are used again and again: what kernels prepare for themselves.
//!
//! A load of sixteen f32 that crosses a line costs two, so what is read many times is copied to where it does not.

#![allow(unsafe_code)]

use std::cell::Cell;

/// f32 to a cache line.
const LINE: usize = 16;

/// A cache line of f32.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

thread_local! {
    /// The thread's buffer while no kernel has it.
    static KEPT: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Numbers whose first lies at the start of a cache line.
#[derive(Debug, Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
}

impl Aligned {
    /// At least `length` numbers, of any value.
    pub(crate) fn numbers(&mut self, length: usize) -> &mut [f32] {
        let lines = length.div_ceil(LINE);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0.0; LINE]));
        }
        let start = self.lines.as_mut_ptr().cast::<f32>();
        // SAFETY: a `Line` is sixteen f32 without padding, and `lines` of them are there; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(start, length) }
    }
}

/// A buffer that this thread keeps between kernels; a second one at the same time is new.
///
/// A guard rather than a function that takes a closure: a closure would be compiled without the instruction set of
/// the kernel around it.
#[derive(Debug)]
pub(crate) struct Scratch(Aligned);

impl Scratch {
    pub(crate) fn take() -> Self {
        Self(Aligned { lines: KEPT.take() })
    }

    /// At least `length` numbers, of any value.
    pub(crate) fn numbers(&mut self, length: usize) -> &mut [f32] {
        self.0.numbers(length)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        KEPT.set(std::mem::take(&mut self.0.lines));
    }
}
