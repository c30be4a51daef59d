// mlx-c declares its half-precision readers only where the C compiler has ARM's half types. `mlx-rs` calls them on
// every platform, so elsewhere they are defined here, with the bits of the value in an unsigned 16-bit number.
#include "mlx/c/array.h"
#include "mlx/c/error.h"
#include "mlx/c/private/array.h"

#include <cstdint>
#include <cstring>

namespace {

template <typename Half>
int read_item(std::uint16_t* result, const mlx_array array) {
  static_assert(sizeof(Half) == sizeof(std::uint16_t));
  try {
    const Half value = mlx_array_get_(array).item<Half>();
    std::memcpy(result, &value, sizeof value);
    return 0;
  } catch (const std::exception& error) {
    mlx_error("%s", error.what());
    return 1;
  }
}

template <typename Half>
const std::uint16_t* borrow_data(const mlx_array array) {
  try {
    return reinterpret_cast<const std::uint16_t*>(mlx_array_get_(array).data<Half>());
  } catch (const std::exception& error) {
    mlx_error("%s", error.what());
    return nullptr;
  }
}

} // namespace

extern "C" {

#ifndef HAS_FLOAT16
int mlx_array_item_float16(std::uint16_t* result, const mlx_array array) {
  return read_item<mlx::core::float16_t>(result, array);
}

const std::uint16_t* mlx_array_data_float16(const mlx_array array) {
  return borrow_data<mlx::core::float16_t>(array);
}
#endif

#ifndef HAS_BFLOAT16
int mlx_array_item_bfloat16(std::uint16_t* result, const mlx_array array) {
  return read_item<mlx::core::bfloat16_t>(result, array);
}

const std::uint16_t* mlx_array_data_bfloat16(const mlx_array array) {
  return borrow_data<mlx::core::bfloat16_t>(array);
}
#endif

}
