// The shifts of a tile: constants that are subtracted from d = x - y and s = x + y before the
// kernel computes with them. Included once per instruction set, inside its namespace.
//
// Rounding errors in the gradient are proportional to (d - shift): they hurt where the images are
// nearly equal, and matter little where they differ. The shift of d is therefore a mean of d in
// which each pixel is weighted by 1/d^2, where d^2 is summed over eight neighboring pixels. A
// defect in otherwise equal images does not move this mean, whether it covers a hundredth of the
// tile or most of it. Nor do isolated pixels that are equal, such as clipped ones. If all pixels
// differ by the same brightness offset, the mean is that offset. The shift of s is its plain mean.
// Values that are not finite are left out, so that a NaN affects only the windows that see it.

template <class T>
struct Shifts {
  T d, s;  // in units of data_range
};

template <class T>
class ShiftSums {
  using V = Vector<T>;
  V weight = {}, weighted_d = {}, s = {}, count = {};

  template <int by>
  static V with_neighbors(V v) {
    if constexpr (by < std::min(kLanes<T>, 8))
      return with_neighbors<2 * by>(
          v + shifted<by>(v, v, std::make_integer_sequence<int, kLanes<T>>()));
    return v;
  }

 public:
  // Adds a vector of adjacent pixels; those whose `mask` is 0 are left out.
  void add(V x, V y, V mask, T scale) {
    constexpr T kEqual = T(1e-6);  // smaller differences all get the same weight
    V d = (x - y) * scale;
    const V sum = (x + y) * scale, zero = {};
    const auto has = (d - d == zero) & (sum - sum == zero) & (mask != zero);
    d = has ? d : zero;
    const V by_pixel = has ? T(1) / (with_neighbors<1>(d * d) + kEqual * kEqual) : zero;
    weight += by_pixel;
    weighted_d += by_pixel * d;
    s += has ? sum : zero;
    count += has ? zero + T(1) : zero;
  }
  bool empty() const { return sum_of_lanes<T>(count) == 0; }
  // If all differences are so large that 1/d^2 is 0, the shift of d is 0.
  Shifts<T> shifts() const {
    const double weights = sum_of_lanes<T>(weight), pixels = sum_of_lanes<T>(count);
    return {weights > 0 ? T(sum_of_lanes<T>(weighted_d) / weights) : T(0),
            pixels > 0 ? T(sum_of_lanes<T>(s) / pixels) : T(0)};
  }
};

// Samples one-vector pieces of rows all over the tile, and uses the pixels whose weight is not 0,
// or all sampled pixels if every weight is 0. With a mask it never uses hidden pixels; if all that it
// samples are hidden, it looks at the whole tile. The pieces begin at the points (i / g, i / g^2)
// modulo 1, g^3 = g + 1 (Roberts' R2 sequence, in units of 2^-32): they are spread evenly, and do
// not fall into step with any repeating texture.
template <class T>
static Shifts<T> shifts_of(const Context<T>& c) {
  constexpr int N = kLanes<T>;
  const Params& p = c.p;
  const Tile& t = c.tile;
  const bool weighted = p.weight.data;
  const ConstTensorView& seen = c.weight;
  int64_t row = t.row, end_row = t.end_row, column = t.column, end_column = t.end_column;
  if (weighted) {  // the weight may cover only the loss's grid
    row = std::min(std::max(row, p.first_row()), p.end_row() - 1);
    end_row = std::max(std::min(end_row, p.end_row()), row + 1);
    column = std::min(std::max(column, p.first_row()), p.end_column() - 1);
    end_column = std::max(std::min(end_column, p.end_column()), column + 1);
  }
  const int64_t height = end_row - row, width = end_column - column;
  const int64_t starts = std::max<int64_t>(width - N, 0) + 1;
  // A row narrower than a vector is padded with its last pixel.
  auto piece = [&](const ConstTensorView& s, int64_t at, int64_t from) {
    T buffer[N];
    if (width >= N) return load(c.row_of(s, at, from, N, buffer));
    c.read(s, at, from, width, buffer);
    std::fill(buffer + width, buffer + N, buffer[width - 1]);
    return load(buffer);
  };
  ShiftSums<T> sums;
  auto add = [&](int64_t at, int64_t from, bool by_weight) {
    sums.add(piece(p.input, at, from), piece(p.target, at, from),
             by_weight ? piece(seen, at, from) : Vector<T>{} + T(1), c.scale);
  };
  auto sample = [&](bool by_weight) {
    const int64_t pieces = std::clamp<int64_t>(height * width / (32 * N), 256 / N, 512 / N);
    for (int64_t i = 0; i < pieces; ++i) {
      const int64_t at = row + (int64_t(uint32_t(i * 3242174889)) * height >> 32);
      const int64_t from = column + (int64_t(uint32_t(i * 2447445414)) * starts >> 32);
      add(at, from, by_weight);
    }
  };
  sample(seen.data);
  if (sums.empty() && c.mask) {
    for (int64_t at = row; at < end_row; ++at)
      for (int64_t from = 0; from < width; from += N)
        add(at, column + std::min(from, starts - 1), true);
  } else if (sums.empty() && weighted) {
    sample(false);
  }
  return sums.shifts();
}
