//! One output buffer that many threads write, each its own places.

use std::marker::PhantomData;

/// A slice whose parts are handed to the tasks of one operation. The tasks of the pool run at the same time, so each
/// place must belong to one task; who calls [`Scatter::part`] answers for that.
pub(crate) struct Scatter<'a> {
    start: *mut f32,
    length: usize,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: a `Scatter` is an exclusive borrow that is split by `part`, whose callers keep the parts apart; f32 is Send.
#[allow(unsafe_code)]
unsafe impl Send for Scatter<'_> {}
// SAFETY: as above.
#[allow(unsafe_code)]
unsafe impl Sync for Scatter<'_> {}

impl<'a> Scatter<'a> {
    pub(crate) fn new(data: &'a mut [f32]) -> Self {
        Self { start: data.as_mut_ptr(), length: data.len(), _borrow: PhantomData }
    }

    /// The places `start..start + length`; panics where they are out of bounds.
    ///
    /// # Safety
    /// No other part that overlaps this one may be alive.
    #[allow(unsafe_code, clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, length: usize) -> &mut [f32] {
        assert!(start.checked_add(length).is_some_and(|end| end <= self.length), "a part lies within its buffer");
        // SAFETY: in bounds by the check above, within a live exclusive borrow, disjoint by the caller's word.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(start), length) }
    }
}
