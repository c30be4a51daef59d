//! Lending MLX the bytes of a mapped file. `mount` is the only caller.
//!
//! Metal can use memory of the process as it lies, if it begins on a page: then a weight is not copied. The other
//! devices of MLX copy what they are handed.

use std::ffi::c_void;

use bytes::Bytes;
use mlx_rs::ops::indexing::TryIndexOp;
use mlx_rs::{Array, Dtype};
use mlxctl_backend::{Error, Result};
use mlxctl_weights::Tensor;

use crate::device::{check_room, device_error, dimension};

const OPERATION: &str = "mounting a weight";

/// What a window begins and ends on, in bytes: the page of Apple silicon, elsewhere the smallest page there is, so that
/// a window never reaches into a page that holds nothing of its tensor.
const PAGE: usize = if cfg!(target_os = "macos") { 16 * 1024 } else { 4 * 1024 };

/// A tensor of a file as an array of MLX.
pub(crate) struct Lent {
    /// The elements, in the tensor's shape.
    pub(crate) array: Array,
    /// The whole window that `array` is a part of. While this handle lives, MLX never takes `array`'s memory for the
    /// result of an operation, which it otherwise may: the memory is a file's and cannot be written.
    pub(crate) window: Option<Array>,
}

/// The type of MLX with the layout of the file's.
pub(crate) fn dtype(tensor: &Tensor) -> Result<Dtype> {
    use mlxctl_weights::Dtype as File;
    match tensor.dtype {
        File::F32 => Ok(Dtype::Float32),
        File::F16 => Ok(Dtype::Float16),
        File::BF16 => Ok(Dtype::Bfloat16),
        File::U32 => Ok(Dtype::Uint32),
        other => Err(Error::Unsupported {
            operation: OPERATION,
            expected: "F32, F16, BF16 or packed U32".to_owned(),
            found: other.to_string(),
        }),
    }
}

/// The tensor copied into memory of MLX's own. Its address may be misaligned.
#[allow(unsafe_code)]
pub(crate) fn copied(tensor: &Tensor) -> Result<Array> {
    let dtype = dtype(tensor)?;
    check_size(tensor)?;
    check_room("a weight", tensor.data.len())?;
    let shape = shape(tensor)?;
    // SAFETY: the tensor holds as many bytes as its shape has elements of its type (checked above), and MLX copies
    // them byte by byte before the call returns.
    let array = unsafe { Array::from_raw_data(tensor.data.as_ptr().cast(), &shape, dtype) };
    made(array)
}

/// The tensor where it lies if MLX can use it there, or a copy of it.
///
/// Its window begins and ends on a page: the pages that hold the tensor's first and last byte are mapped, so their
/// other bytes are readable too. A misaligned tensor is copied, as devices cannot read it.
#[allow(unsafe_code)]
pub(crate) fn in_place(tensor: &Tensor) -> Result<Lent> {
    let dtype = dtype(tensor)?;
    let item = tensor.dtype.size();
    let address = tensor.data.as_ptr() as usize;
    let before = address % PAGE;
    let window_bytes = (before + tensor.data.len()).next_multiple_of(PAGE);
    let window_items = i32::try_from(window_bytes / item);
    let (Ok(window_items), true, false) = (window_items, tensor.is_aligned(), tensor.data.is_empty()) else {
        return Ok(Lent { array: copied(tensor)?, window: None });
    };
    check_size(tensor)?;
    let shape = shape(tensor)?;
    // The bytes stay mapped until MLX says, on whichever thread, that it is done with them.
    let keep = Box::into_raw(Box::new(tensor.data.clone()));
    // SAFETY: the window covers whole pages that each hold a byte of the tensor, so all of it is mapped for as long as
    // `keep` holds the tensor's bytes, and MLX lets `release` free `keep` at most once, when it drops the memory or has
    // copied it. MLX does not write to it while `window` lives.
    let window = unsafe {
        let start = tensor.data.as_ptr().sub(before).cast_mut().cast::<c_void>();
        let handle = mlx_sys::mlx_array_new_data_managed_payload(
            start,
            &raw const window_items,
            1,
            dtype.into(),
            keep.cast(),
            Some(release),
        );
        Array::from_ptr(handle)
    };
    let window = made(window)?;
    let first = dimension(OPERATION, before / item)?;
    let end = dimension(OPERATION, before / item + tensor.elements())?;
    let part = window.try_index(first..end).and_then(|part| part.reshape(&shape));
    Ok(Lent { array: part.map_err(device_error(OPERATION))?, window: Some(window) })
}

/// Gives back the bytes that [`in_place`] lent.
#[allow(unsafe_code)]
extern "C" fn release(keep: *mut c_void) {
    // SAFETY: `keep` is the box that `in_place` made, and MLX calls this once. `Bytes` may be dropped on any thread,
    // and dropping it does not unwind.
    drop(unsafe { Box::from_raw(keep.cast::<Bytes>()) });
}

/// An array that MLX could not make has no contents; it said why to the error handler, which has no way back here.
fn made(array: Array) -> Result<Array> {
    if array.as_ptr().ctx.is_null() {
        return Err(Error::OutOfMemory { what: OPERATION.to_owned() });
    }
    Ok(array)
}

fn shape(tensor: &Tensor) -> Result<Vec<i32>> {
    tensor.shape.iter().map(|&size| dimension(OPERATION, size)).collect()
}

/// Holds the tensor's bytes against its shape: the memory safety of both ways rests on it.
fn check_size(tensor: &Tensor) -> Result<()> {
    let expected = tensor.dtype.bytes_of(&tensor.shape);
    if expected == Some(tensor.data.len()) {
        return Ok(());
    }
    Err(Error::Unsupported {
        operation: OPERATION,
        expected: format!("{:?} of {}", tensor.shape, tensor.dtype),
        found: format!("{} bytes", tensor.data.len()),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use mlx_rs::with_stream;

    use super::*;
    use crate::{Device, Mlx, Options};

    fn open() -> Mlx {
        Mlx::open(Options { device: Some(Device::Cpu), precision: None }).unwrap()
    }

    /// `pages` whole pages that begin on one, so that no window reaches beyond them.
    fn pages(pages: usize) -> Bytes {
        let bytes: Vec<u8> = (0..(pages + 1) * PAGE).map(|index| (index * 7 % 251) as u8).collect();
        let bytes = Bytes::from(bytes);
        let start = bytes.as_ptr().align_offset(PAGE);
        bytes.slice(start..start + pages * PAGE)
    }

    #[test]
    fn a_window_shows_the_tensor_wherever_it_lies() {
        let mlx = open();
        let file = pages(12);
        for offset in [0, 2, 4, 64, PAGE - 4, PAGE, PAGE + 8, PAGE + 1, 3] {
            for rows in [1, 3, PAGE] {
                let data = file.slice(offset..offset + rows * 2 * 4);
                let words = data.chunks_exact(4).map(|bytes| u32::from_le_bytes(bytes.try_into().unwrap()));
                let expected: Vec<u32> = words.collect();
                let tensor = Tensor { dtype: mlxctl_weights::Dtype::U32, shape: vec![rows, 2], data };
                let lent = with_stream(&mlx.stream, || in_place(&tensor).unwrap());
                assert_eq!(lent.window.is_some(), offset % 4 == 0, "only what is misaligned is copied");
                for array in [lent.array, copied(&tensor).unwrap()] {
                    assert_eq!(array.shape(), [rows as i32, 2]);
                    let array = with_stream(&mlx.stream, || array.contiguous().unwrap());
                    assert_eq!(array.as_slice::<u32>(), expected, "{rows} rows at {offset}");
                }
            }
        }
    }

    #[test]
    fn the_file_is_given_back_when_its_last_array_goes() {
        struct Owner(Bytes, mpsc::Sender<()>);
        impl AsRef<[u8]> for Owner {
            fn as_ref(&self) -> &[u8] {
                &self.0
            }
        }
        impl Drop for Owner {
            fn drop(&mut self) {
                // Nobody listens any more when the test has failed already.
                let _ = self.1.send(());
            }
        }
        let mlx = open();
        let (sender, dropped) = mpsc::channel();
        let data = Bytes::from_owner(Owner(pages(1), sender));
        let tensor = Tensor { dtype: mlxctl_weights::Dtype::F32, shape: vec![PAGE / 4], data };
        let lent = with_stream(&mlx.stream, || in_place(&tensor).unwrap());
        drop(tensor);
        drop(lent);
        dropped.recv_timeout(Duration::from_secs(10)).expect("the bytes were never given back");
    }

    #[test]
    fn a_tensor_that_lies_about_its_size_is_refused() {
        let _mlx = open();
        let data = Bytes::from(vec![0; 64]);
        let tensor = Tensor { dtype: mlxctl_weights::Dtype::F32, shape: vec![1 << 20], data };
        assert!(matches!(in_place(&tensor), Err(Error::Unsupported { .. })));
        assert!(matches!(copied(&tensor), Err(Error::Unsupported { .. })));
    }
}
