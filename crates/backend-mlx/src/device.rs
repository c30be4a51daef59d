//! Opening a device: the error handler, the stream and what the device says of itself.

use mlx_rs::error::Exception;
use mlx_rs::{Array, Dtype, Stream, with_stream};
use mlxctl_backend::{Error, Result};

/// Where MLX computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU: a reference for correctness, far slower than the CPU backend.
    Cpu,
    /// The GPU that this build of MLX drives: Metal's or CUDA's.
    Gpu,
}

/// The type of activations, of keys and values, and of weights that are not packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 32 bits: for comparisons, and for the CPU, where MLX accumulates products in this type.
    Float32,
    /// 16 bits, 5 of them exponent.
    Float16,
    /// 16 bits, 8 of them exponent: what most models are published in.
    Bfloat16,
}

impl Precision {
    pub(crate) const fn dtype(self) -> Dtype {
        match self {
            Self::Float32 => Dtype::Float32,
            Self::Float16 => Dtype::Float16,
            Self::Bfloat16 => Dtype::Bfloat16,
        }
    }

    /// Bytes of one number.
    pub(crate) const fn bytes(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Float32 => "f32",
            Self::Float16 => "f16",
            Self::Bfloat16 => "bf16",
        }
    }
}

/// How [`Mlx::open`] opens a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The device; the GPU where this build of MLX has one, when nothing is said.
    pub device: Option<Device>,
    /// The type of activations; f32 on a CPU and bf16 on a GPU, when nothing is said.
    pub precision: Option<Precision>,
}

/// An MLX device, owned by the thread that opened it.
///
/// MLX keeps its streams by thread, so neither this nor any result of it goes to another thread.
pub struct Mlx {
    pub(crate) stream: Stream,
    pub(crate) device: Device,
    pub(crate) precision: Precision,
}

impl Mlx {
    /// Opens the device for the calling thread.
    ///
    /// # Errors
    /// [`Error::Device`] where MLX cannot be started, or has no such device in this build or on this machine.
    pub fn open(options: Options) -> Result<Self> {
        // mlx-c starts with an error handler that exits the process. `mlx-rs` sets its own with the first call that
        // can fail, and not with the calls that make a stream; so this call comes before any other.
        mlx_rs::Device::try_default().map_err(device_error("opening MLX"))?;
        let has_gpu = is_available(Device::Gpu)?;
        let device = options.device.unwrap_or(if has_gpu { Device::Gpu } else { Device::Cpu });
        if device == Device::Gpu && !has_gpu {
            return Err(Error::Device {
                operation: "opening MLX",
                message: "this build of MLX finds no GPU; `cargo xtask mlx --variant` chooses another build".to_owned(),
            });
        }
        let default = if device == Device::Gpu { Precision::Bfloat16 } else { Precision::Float32 };
        let precision = options.precision.unwrap_or(default);
        let native = match device {
            Device::Cpu => mlx_rs::Device::cpu(),
            Device::Gpu => mlx_rs::Device::gpu(),
        };
        // The thread's default stream: every further stream of a CPU would be a thread that MLX never ends.
        let stream = Stream::try_default_on_device(&native).map_err(device_error("opening MLX"))?;
        Ok(Self { stream, device, precision })
    }

    /// Describes operations on this device's stream; `operation` names them in an error.
    pub(crate) fn run<T>(
        &self,
        operation: &'static str,
        graph: impl FnOnce() -> std::result::Result<T, Exception>,
    ) -> Result<T> {
        with_stream(&self.stream, graph).map_err(device_error(operation))
    }

    /// Names the library, the device and the type of the numbers.
    pub(crate) fn describe(&self) -> String {
        let device = match self.device {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        };
        format!("mlx-{}/{device}-{}/{}", version(), std::env::consts::ARCH, self.precision.name())
    }
}

/// Turns MLX's own words into an error of the vocabulary.
pub(crate) fn device_error(operation: &'static str) -> impl Fn(Exception) -> Error {
    move |exception| {
        let said = exception.what();
        // MLX has no code for it; these are the words of its allocators.
        let exhausted = ["Unable to allocate", "malloc", "out of memory", "OutOfMemory", "maximum allowed buffer size"];
        if exhausted.iter().any(|words| said.contains(words)) {
            Error::OutOfMemory { what: format!("{operation}: {said}") }
        } else {
            Error::Device { operation, message: said.to_owned() }
        }
    }
}

/// Fails where `bytes` more would go beyond what MLX allows itself, a part of the machine's memory. Its CPU allocator
/// does not look at what it got, so this is asked before anything large is made.
pub(crate) fn check_room(what: &str, bytes: usize) -> Result<()> {
    let operation = "asking for memory";
    let limit = mlx_rs::memory::memory_limit().map_err(device_error(operation))?;
    let active = mlx_rs::memory::active_memory().map_err(device_error(operation))?;
    if active.saturating_add(bytes) <= limit {
        return Ok(());
    }
    Err(Error::OutOfMemory { what: format!("{what}: {bytes} bytes beside {active} in use, of {limit} allowed") })
}

/// A dimension, an index or a position as MLX takes it: 32 bits with a sign.
pub(crate) fn dimension(operation: &'static str, size: usize) -> Result<i32> {
    i32::try_from(size).map_err(|_| Error::Unsupported {
        operation,
        expected: format!("at most {} along a dimension", i32::MAX),
        found: size.to_string(),
    })
}

/// An index or a position to each element, `[numbers]`.
pub(crate) fn integers(operation: &'static str, numbers: impl IntoIterator<Item = usize>) -> Result<Array> {
    let numbers = numbers.into_iter().map(|number| dimension(operation, number)).collect::<Result<Vec<_>>>()?;
    let length = dimension(operation, numbers.len())?;
    Ok(Array::from_slice(&numbers, &[length]))
}

#[allow(unsafe_code)]
fn is_available(device: Device) -> Result<bool> {
    let kind = match device {
        Device::Cpu => mlx_sys::mlx_device_type__MLX_CPU,
        Device::Gpu => mlx_sys::mlx_device_type__MLX_GPU,
    };
    let mut available = false;
    // SAFETY: the device is made here and freed once, `available` outlives the call that writes it, and the error
    // handler of `mlx-rs` is set (see `Mlx::open`).
    let status = unsafe {
        let native = mlx_sys::mlx_device_new_type(kind, 0);
        let status = mlx_sys::mlx_device_is_available(&raw mut available, native);
        mlx_sys::mlx_device_free(native);
        status
    };
    if status == 0 {
        Ok(available)
    } else {
        Err(Error::Device { operation: "opening MLX", message: format!("{device:?} cannot be asked for") })
    }
}

/// The version of the MLX library that was loaded.
#[allow(unsafe_code)]
fn version() -> String {
    // SAFETY: the string is made here and freed once, after its bytes were copied; the text MLX gives ends with a zero
    // byte and is not touched in between.
    unsafe {
        let mut text = mlx_sys::mlx_string_new();
        let known = mlx_sys::mlx_version(&raw mut text) == 0;
        let data = mlx_sys::mlx_string_data(text);
        let version = if known && !data.is_null() {
            std::ffi::CStr::from_ptr(data).to_string_lossy().into_owned()
        } else {
            "unknown".to_owned()
        };
        mlx_sys::mlx_string_free(text);
        version
    }
}
