// Copies rows of tensors of any dtype and strides to and from contiguous rows of T. Included once
// per instruction set, inside its namespace.

// float16 and bfloat16 are converted by integer arithmetic on their bits, so that no special
// instructions are required.
LAMP_INLINE float from_bfloat16(uint16_t h) { return as_value<float>(int32_t(uint32_t(h) << 16)); }
// Moves sign, exponent and fraction to their places in a float32. Multiplying by 2^112 then
// corrects the exponent, also of subnormal numbers. All exponent bits set mean infinity or NaN in
// both formats.
LAMP_INLINE float from_float16(uint16_t h) {
  const uint32_t magnitude = uint32_t(h & 0x7fff) << 13;
  const float finite = as_value<float>(int32_t(magnitude)) * 0x1p112f;
  const uint32_t value =
      magnitude >= 0x0f800000 ? magnitude | 0x7f800000 : uint32_t(as_bits(finite));
  return as_value<float>(int32_t(value | uint32_t(h & 0x8000) << 16));
}

template <class T>
constexpr Dtype dtype_of = sizeof(T) == sizeof(float) ? Dtype::float32 : Dtype::float64;

template <class T, class E, class F>
LAMP_INLINE void copy_row(const E* from, int64_t stride, int64_t count, T* to, F convert) {
  if (stride == 1)
    for (int64_t j = 0; j < count; ++j) to[j] = convert(from[j]);
  else
    for (int64_t j = 0; j < count; ++j) to[j] = convert(from[j * stride]);
}

// Rows are prefetched this far ahead, which about covers memory latency. With cold caches, as in
// training, prefetching saves a sixth of the kernel's time.
constexpr int kRowsAhead = 4;

// Must be inlined: GCC considers a function that only prefetches to have no side effects, and drops
// calls to it.
template <bool to_write>
LAMP_INLINE void prefetch(const char* row, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, to_write);
}
LAMP_INLINE void prefetch_row(const ConstTensorView& s, int64_t image, int64_t channel, int64_t row,
                              int64_t column, int64_t count) {
  if (s.column != 1) return;
  const int64_t size = size_of(s.dtype);
  const int64_t at = image * s.batch + channel * s.channel + row * s.row + column;
  prefetch<false>((const char*)s.data + at * size, count * size);
}
template <class T>
LAMP_INLINE void prefetch_row(const TensorView& s, int64_t image, int64_t channel, int64_t row,
                              int64_t column, int64_t count) {
  if (s.column != 1) return;
  const int64_t at = image * s.batch + channel * s.channel + row * s.row + column;
  prefetch<true>((const char*)((T*)s.data + at), count * sizeof(T));
}

template <class T>
static void read_row(const ConstTensorView& s, int64_t image, int64_t channel, int64_t row,
                     int64_t column, int64_t count, T* to) {
  const int64_t at = image * s.batch + channel * s.channel + row * s.row + column * s.column;
  switch (s.dtype) {
    case Dtype::float32:
      return copy_row((const float*)s.data + at, s.column, count, to, [](float v) { return T(v); });
    case Dtype::float64:
      return copy_row((const double*)s.data + at, s.column, count, to,
                      [](double v) { return T(v); });
    case Dtype::float16:
      return copy_row((const uint16_t*)s.data + at, s.column, count, to,
                      [](uint16_t v) { return T(from_float16(v)); });
    case Dtype::bfloat16:
      return copy_row((const uint16_t*)s.data + at, s.column, count, to,
                      [](uint16_t v) { return T(from_bfloat16(v)); });
  }
}

template <class T>
static void write_row(const TensorView& s, int64_t image, int64_t channel, int64_t row,
                      int64_t column, int64_t count, const T* from) {
  T* to = (T*)s.data + image * s.batch + channel * s.channel + row * s.row + column * s.column;
  if (s.column == 1)
    __builtin_memcpy(to, from, count * sizeof(T));
  else
    for (int64_t j = 0; j < count; ++j) to[j * s.column] = from[j];
}
