//! The half-precision types and readers that mlx-c leaves out where the C compiler has no ARM half types.
//!
//! Names and shapes are those that bindgen gives them on ARM, as `mlx-rs` expects; `native/half.cpp` holds the bodies.

#![allow(non_camel_case_types)]

use crate::mlx_array;

/// The bits of an IEEE half-precision number.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct __BindgenFloat16(pub u16);

/// An IEEE half-precision number as mlx-c passes it.
pub type float16_t = __BindgenFloat16;

/// The bits of a bfloat16 number as mlx-c passes it.
pub type bfloat16_t = u16;

// SAFETY: `native/half.cpp` defines these four with these signatures; `__BindgenFloat16` has the layout of its u16.
#[allow(unsafe_code)]
unsafe extern "C" {
    /// Reads the one element of a float16 array into `res`; a status other than 0 is an error.
    pub fn mlx_array_item_float16(res: *mut float16_t, arr: mlx_array) -> std::os::raw::c_int;
    /// Reads the one element of a bfloat16 array into `res`; a status other than 0 is an error.
    pub fn mlx_array_item_bfloat16(res: *mut bfloat16_t, arr: mlx_array) -> std::os::raw::c_int;
    /// The elements of an evaluated float16 array, borrowed from it; null on error.
    pub fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t;
    /// The elements of an evaluated bfloat16 array, borrowed from it; null on error.
    pub fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t;
}
