// Included before every file of mlx-c, which calls std::format. Where the standard library lacks <format> (GCC 12
// and older) this stands in for it, with `{}` fields only: all that mlx-c writes.
#pragma once

#if __has_include(<format>)
#include <format>
#else
#include <sstream>
#include <string>
#include <string_view>

namespace std {

template <typename... Args>
string format(string_view pattern, const Args&... args) {
  ostringstream text;
  auto up_to_field = [&] {
    const auto field = pattern.find("{}");
    text << pattern.substr(0, field);
    pattern = field == string_view::npos ? string_view() : pattern.substr(field + 2);
  };
  ((up_to_field(), text << args), ...);
  text << pattern;
  return text.str();
}

} // namespace std
#endif
