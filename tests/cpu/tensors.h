// Heap tensors whose allocations end exactly where their strides do, so that AddressSanitizer
// detects an access one element beyond.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include "params.h"

using lamp_kernels::Amplify;
using lamp_kernels::ConstTensorView;
using lamp_kernels::Dtype;
using lamp_kernels::kMetricNames;
using lamp_kernels::kMetrics;
using lamp_kernels::Metric;
using lamp_kernels::Params;
using lamp_kernels::TensorView;

struct Random {
  std::mt19937_64 engine;

  explicit Random(uint64_t seed) : engine(seed) {}
  // std:: distributions differ between standard libraries; these do not.
  double uniform() { return double(engine() >> 11) * 0x1p-53; }
  int64_t below(int64_t n) { return int64_t(engine() % uint64_t(n)); }
  bool chance(double p) { return uniform() < p; }
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
  template <class T>
  const T& of(const std::vector<T>& list) {
    return list[size_t(below(int64_t(list.size())))];
  }
};

struct Shape {
  int64_t batch, channels, height, width;
  int64_t size() const { return batch * channels * height * width; }
};

// Strides, plus the offset of the first element in its allocation.
struct Layout {
  int64_t batch, channel, row, column, lead = 0;

  int64_t at(int64_t n, int64_t c, int64_t i, int64_t j) const {
    return lead + n * batch + c * channel + i * row + j * column;
  }
  int64_t length(const Shape& s) const {
    return s.size() ? at(s.batch - 1, s.channels - 1, s.height - 1, s.width - 1) + 1 : 0;
  }
};

inline Layout contiguous(const Shape& s) {
  return {s.channels * s.height * s.width, s.height * s.width, s.width, 1};
}
inline Layout channels_last(const Shape& s) {
  return {s.channels * s.height * s.width, 1, s.width * s.channels, s.channels};
}
inline Layout transposed(const Shape& s) {
  return {s.channels * s.height * s.width, s.height * s.width, 1, s.height};
}
// A slice of a larger tensor: unaligned, with gaps between rows and planes.
inline Layout sliced(const Shape& s) {
  const int64_t row = s.width + 3, plane = row * s.height + 5;
  return {plane * s.channels + 1, plane, row, 1, 1};
}
inline Layout some_layout(const Shape& s, Random& random) {
  switch (random.below(6)) {
    case 0: return channels_last(s);
    case 1: return transposed(s);
    case 2: return sliced(s);
    default: return contiguous(s);
  }
}

inline double from_bits16(Dtype dtype, uint16_t bits) {
  const int fraction_bits = dtype == Dtype::float16 ? 10 : 7;
  const int exponents = dtype == Dtype::float16 ? 31 : 255, bias = exponents / 2;
  const int exponent = (bits >> fraction_bits) & exponents;
  const int fraction = bits & ((1 << fraction_bits) - 1);
  const double sign = bits & 0x8000 ? -1 : 1;
  if (exponent == exponents) return fraction ? NAN : sign * INFINITY;
  const int whole = exponent ? 1 << fraction_bits : 0;
  return sign * std::ldexp(whole + fraction, std::max(exponent, 1) - bias - fraction_bits);
}

// Rounds to nearest; supports normal numbers, NaN and infinity of the half-precision type.
inline uint16_t to_bits16(Dtype dtype, double value) {
  const int fraction_bits = dtype == Dtype::float16 ? 10 : 7;
  const int exponents = dtype == Dtype::float16 ? 31 : 255, bias = exponents / 2;
  const int sign = std::signbit(value) ? 0x8000 : 0;
  if (std::isnan(value)) return uint16_t(sign | 0x7fff);
  if (std::isinf(value)) return uint16_t(sign | exponents << fraction_bits);
  int exponent;
  const double fraction = std::frexp(std::abs(value), &exponent);  // in [1/2, 1)
  if (exponent - 1 + bias <= 0) return uint16_t(sign);
  const int rounded = int(std::lround(std::ldexp(fraction, fraction_bits + 1)));
  return uint16_t(sign | (((exponent - 2 + bias) << fraction_bits) + rounded));
}

// A tensor that a kernel reads.
class Input {
 public:
  Input() = default;
  Input(Dtype dtype, const Layout& layout, const Shape& shape)
      : dtype_(dtype), layout_(layout), data_(new char[size_t(layout.length(shape) * bytes())]) {
    for (int64_t i = 0; i < layout.length(shape); ++i) write(i, NAN);  // also fills the gaps
  }

  explicit operator bool() const { return bool(data_); }
  // `corner`: row and column of this tensor's first element in the image.
  ConstTensorView source(int64_t corner = 0) const {
    if (!data_) return {};
    const int64_t first = layout_.at(0, 0, -corner, -corner);
    const uintptr_t address = uintptr_t(data_.get()) + uintptr_t(first * bytes());
    return {(const void*)address, dtype_,      layout_.batch,
            layout_.channel,      layout_.row, layout_.column};
  }
  void set(int64_t n, int64_t c, int64_t i, int64_t j, double v) {
    write(layout_.at(n, c, i, j), v);
  }
  double get(int64_t n, int64_t c, int64_t i, int64_t j) const {
    const char* from = &data_[size_t(layout_.at(n, c, i, j) * bytes())];
    switch (dtype_) {
      case Dtype::float32: return as<float>(from);
      case Dtype::float64: return as<double>(from);
      default: return from_bits16(dtype_, as<uint16_t>(from));
    }
  }

 private:
  Dtype dtype_ = Dtype::float32;
  Layout layout_{};
  std::unique_ptr<char[]> data_;

  int64_t bytes() const { return dtype_ == Dtype::float32 ? 4 : dtype_ == Dtype::float64 ? 8 : 2; }
  template <class T>
  static T as(const char* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  template <class T>
  void put(int64_t i, T value) {
    std::memcpy(&data_[size_t(i) * sizeof value], &value, sizeof value);
  }
  void write(int64_t i, double v) {
    switch (dtype_) {
      case Dtype::float32: return put(i, float(v));
      case Dtype::float64: return put(i, v);
      default: return put(i, to_bits16(dtype_, v));
    }
  }
};

// A tensor that a kernel writes, filled beforehand with a NaN pattern that no kernel produces.
template <class T>
class Output {
 public:
  Output() = default;
  Output(const Layout& layout, const Shape& shape)
      : layout_(layout), shape_(shape), data_(new T[size_t(layout.length(shape))]) {
    poison();
  }

  explicit operator bool() const { return bool(data_); }
  void poison() {
    for (int64_t i = 0; i < length(); ++i) std::memcpy(&data_[size_t(i)], &kPoison, sizeof(T));
  }
  TensorView sink(int64_t corner = 0) {
    if (!data_) return {};
    const int64_t first = layout_.at(0, 0, -corner, -corner);
    const uintptr_t address = uintptr_t(data_.get()) + uintptr_t(first * int64_t(sizeof(T)));
    return {(void*)address, layout_.batch, layout_.channel, layout_.row, layout_.column};
  }
  T get(int64_t n, int64_t c, int64_t i, int64_t j) const {
    return data_[size_t(layout_.at(n, c, i, j))];
  }
  void set(int64_t n, int64_t c, int64_t i, int64_t j, T value) {
    data_[size_t(layout_.at(n, c, i, j))] = value;
  }
  const Shape& shape() const { return shape_; }
  int64_t length() const { return layout_.length(shape_); }
  // Whether every element of the tensor was written, and nothing in the gaps.
  bool written_exactly() const {
    int64_t written = 0;
    for (int64_t i = 0; i < length(); ++i)
      written += std::memcmp(&data_[size_t(i)], &kPoison, sizeof(T)) != 0;
    bool all = written == shape_.size();
    for (int64_t n = 0; n < shape_.batch; ++n)
      for (int64_t c = 0; c < shape_.channels; ++c)
        for (int64_t i = 0; i < shape_.height; ++i)
          for (int64_t j = 0; j < shape_.width; ++j) {
            const T value = get(n, c, i, j);
            all = all && std::memcmp(&value, &kPoison, sizeof(T)) != 0;
          }
    return all;
  }
  // The memory's contents, for bitwise comparison.
  std::vector<char> bits() const {
    const char* from = (const char*)data_.get();
    return {from, from + length() * int64_t(sizeof(T))};
  }

 private:
  static constexpr uint64_t kPoison = 0x7ff9cafe7fc9cafe;  // NaN, as is its lower half
  Layout layout_{};
  Shape shape_{};
  std::unique_ptr<T[]> data_;
};
