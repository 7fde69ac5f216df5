// Vectors of LAMP_VECTOR_BYTES bytes, based on GCC's vector extension, which clang supports too.
// Included once per instruction set, inside its namespace; see kernel_avx2.cpp.

#define LAMP_INLINE static inline __attribute__((always_inline))
#define LAMP_INLINE_LAMBDA __attribute__((always_inline))
#define LAMP_UNROLL _Pragma("GCC unroll 16")
#define LAMP_NOINLINE __attribute__((noinline))  // allocates registers separately for each stage

template <class T>
struct vector_of;
template <>
struct vector_of<float> {
  typedef float type __attribute__((vector_size(LAMP_VECTOR_BYTES)));
};
template <>
struct vector_of<double> {
  typedef double type __attribute__((vector_size(LAMP_VECTOR_BYTES)));
};
template <class T>
using Vector = typename vector_of<T>::type;
template <class T>
constexpr int kLanes = LAMP_VECTOR_BYTES / sizeof(T);

// The integer type that holds a value's bits.
template <class V>
struct bits {
  typedef decltype(V{} < V{}) type;  // for a vector: signed integers of the same size
};
template <>
struct bits<float> {
  typedef int32_t type;
};
template <>
struct bits<double> {
  typedef int64_t type;
};
template <class V>
LAMP_INLINE typename bits<V>::type as_bits(V v) {
  typename bits<V>::type i;
  static_assert(sizeof i == sizeof v);
  __builtin_memcpy(&i, &v, sizeof v);
  return i;
}
template <class V>
LAMP_INLINE V as_value(typename bits<V>::type i) {
  V v;
  __builtin_memcpy(&v, &i, sizeof v);
  return v;
}
template <class V>
LAMP_INLINE V to_value(typename bits<V>::type i) {
  if constexpr (sizeof(V) > sizeof(double)) {
    return __builtin_convertvector(i, V);
  } else {
    return V(i);
  }
}

template <class V>
LAMP_INLINE V quotient(V a, V b) {
  return a / b;
}

template <class V>
LAMP_INLINE V at_least_zero(V v) {
  return v < V{} ? V{} : v;
}

template <class T>
LAMP_INLINE Vector<T> load(const T* p) {
  Vector<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
template <class T>
LAMP_INLINE void store(T* p, Vector<T> v) {
  __builtin_memcpy(p, &v, sizeof v);
}
template <class T>
LAMP_INLINE double sum_of_lanes(Vector<T> v) {
  double sum = 0;
  for (int l = 0; l < kLanes<T>; ++l) sum += v[l];
  return sum;
}
// Whether all lanes of a comparison are true.
template <class T>
LAMP_INLINE bool all_lanes(typename bits<Vector<T>>::type lanes) {
  typedef int8_t Bytes __attribute__((vector_size(kLanes<T>)));
  const Bytes bytes = __builtin_convertvector(lanes, Bytes);
  uint64_t words[2] = {~uint64_t(0), ~uint64_t(0)};
  static_assert(sizeof bytes <= sizeof words);
  __builtin_memcpy(words, &bytes, sizeof bytes);
  return (words[0] & words[1]) == ~uint64_t(0);
}
// Lane i of `v` belongs to column `column` + i. Zeroes the lanes outside columns first .. end - 1.
template <class T>
LAMP_INLINE Vector<T> within(Vector<T> v, int column, int first, int end) {
  if (column >= first && column + kLanes<T> <= end) return v;
  using I = typename bits<Vector<T>>::type;
  I lane;
  for (int l = 0; l < kLanes<T>; ++l) lane[l] = l;
  return ((lane >= first - column) & (lane < end - column)) ? v : Vector<T>{};
}
// Lanes k .. k + lanes - 1 of the concatenation of two vectors. Clang's name for this builtin also
// works in GCC 12 and later.
template <int k, class V, int... lane>
LAMP_INLINE V shifted(V a, V b, std::integer_sequence<int, lane...>) {
#if __has_builtin(__builtin_shufflevector)
  return __builtin_shufflevector(a, b, (lane + k)...);
#else
  return __builtin_shuffle(a, b, typename bits<V>::type{(lane + k)...});
#endif
}
// The unaligned vector that starts `offset` elements into a row, assembled from the row's aligned
// vectors.
template <class T, int offset>
LAMP_INLINE Vector<T> at_offset(const Vector<T>* v) {
  constexpr int k = offset % kLanes<T>;
  if constexpr (k == 0)
    return v[offset / kLanes<T>];
  else
    return shifted<k>(v[offset / kLanes<T>], v[offset / kLanes<T> + 1],
                      std::make_integer_sequence<int, kLanes<T>>());
}
