// Processes one row of pixels: computes the pointwise terms, and the gradient from these terms and
// from SSIM's adjoint planes. Included once per instruction set, inside its namespace.

template <class T>
class MaskTile;

// Everything that is constant over a tile, in the compute type.
template <class T>
struct Context {
  const Params& p;
  Tile tile;
  ConstTensorView weight;             // includes the mask
  const MaskTile<T>* mask = nullptr;  // for SSIM
  int columns;                        // of the tile
  LossFormula<T> formula;
  T scale;
  T factor[kAllMetrics];  // of this image, by metric

  Context(const Params& params, const Tile& t)
      : p(params), tile(t), weight(params.weight.data ? params.weight : params.mask),
        columns(int(t.end_column - t.column)), formula(loss_formula<T>(params)),
        scale(params.scale_of<T>(t.image)) {
    const T* factors = (const T*)p.factors;
    if (factors && !p.map.data) factors += tile.image * p.terms.count();
    int k = 0;  // position
    for (int m = 0; m < kAllMetrics; ++m) {
      factor[m] = T(0);
      if (!p.terms.has(Metric(m))) continue;
      factor[m] = factors ? factors[k] : T(p.shared_factors[k]);
      ++k;
    }
  }

  void read(const ConstTensorView& s, int64_t row, int64_t column, int64_t count, T* to) const {
    read_row(s, tile.image, tile.channel, row, column, count, to);
  }
  // Returns the row in place if it is contiguous in memory and already has the compute type;
  // otherwise copies it to `buffer`.
  const T* row_of(const ConstTensorView& s, int64_t row, int64_t column, int64_t count,
                  T* buffer) const {
    if (s.column == 1 && s.dtype == dtype_of<T>)
      return (const T*)s.data + tile.image * s.batch + tile.channel * s.channel + row * s.row +
             column;
    read(s, row, column, count, buffer);
    return buffer;
  }
  void write(const TensorView& s, int64_t row, int64_t column, int64_t count, const T* from) const {
    write_row(s, tile.image, tile.channel, row, column, count, from);
  }
};

// Buffers for rows of pixels, one vector longer than a row: the last vector may run past its end.
template <class T>
struct PixelRows {
  static constexpr int kPixels = int(Tiling::kWidest), kLength = kPixels + kLanes<T>;
  alignas(64) T x[kLength], y[kLength], weight[kLength], mask[kLength];
  alignas(64) T first[kLength], second[kLength];  // the gradients, or the map
};

// One row of the planes of SSIM's adjoint, and the shifts that its s' and d' are relative to.
template <class T, int gradients>
struct AdjointRow {
  const T* plane[2 + gradients];  // ss, dd, s + d, s - d
  T shift_d, shift_s;
};

// Processes pixels column .. column + count - 1 of a row. Adds the sums of the pointwise terms to
// `sums`, where they come after SSIM's if SSIM is a term.
// gradients: 0 for values only, 1 for the input's gradient, 2 for both.
template <class T, int gradients>
LAMP_NOINLINE static void pixel_row(const Context<T>& c, int64_t row, int64_t column, int count,
                                    const AdjointRow<T, gradients>* ssim, PixelRows<T>& b,
                                    double* sums) {
  using V = Vector<T>;
  const Params& p = c.p;
  const bool pointwise = p.terms.pointwise();
  // Vector loads from a row used in place must not run past its end: copy unless whole vectors fit.
  const bool whole = count % kLanes<T> == 0;
  if (!whole) {
    c.read(p.input, row, column, count, b.x);
    c.read(p.target, row, column, count, b.y);
  }
  const T* const row_x = whole ? c.row_of(p.input, row, column, count, b.x) : b.x;
  const T* const row_y = whole ? c.row_of(p.target, row, column, count, b.y) : b.y;
  if (pointwise && c.weight.data) c.read(c.weight, row, column, count, b.weight);
  if (p.mask.data && !whole) c.read(p.mask, row, column, count, b.mask);
  const T* const row_mask =
      p.mask.data && whole ? c.row_of(p.mask, row, column, count, b.mask) : b.mask;
  const bool add_to_map = p.map.data && p.ssim();
  if (add_to_map) {
    const TensorView& m = p.map;
    c.read({m.data, dtype_of<T>, m.batch, m.channel, m.row, m.column}, row, column, count, b.first);
  }

  if (row + kRowsAhead < p.height)
    for (const TensorView* gradient : {&p.input_gradient, &p.target_gradient})
      if (gradient->data)
        prefetch_row<T>(*gradient, c.tile.image, c.tile.channel, row + kRowsAhead, column, count);

  // Local copies: no store can change them, so the loop keeps them in registers.
  const LossFormula<T> formula = c.formula;
  T factor[kMetrics];
  std::copy(c.factor, c.factor + kMetrics, factor);
  V total[kMetrics] = {};
  // Compiled once for the common amplifications, without the code of the others, and once for each
  // without a mask.
  auto vectors = [&](auto common, auto masked) LAMP_INLINE_LAMBDA {
    if (common && !is_common(formula.amplification.kind)) __builtin_unreachable();
    for (int j = 0; j < count; j += kLanes<T>) {
      V x = load(row_x + j), y = load(row_y + j), mask = {};
      if constexpr (masked) {  // hidden pixels may hold anything
        mask = load(row_mask + j);
        x = mask == V{} ? V{} : x;
        y = mask == V{} ? V{} : y;
      }
      const V d = (x - y) * c.scale;
      V grad_x = {}, grad_y = {};
      PointwiseSum<V> sum;
      if (pointwise) {
        const V weight = c.weight.data ? load(b.weight + j) : V{} + T(1);
        sum = pointwise_terms(d, weight, formula, factor,
                              [&](int m, V value) { total[m] += within<T>(value, j, 0, count); });
      }
      if constexpr (gradients > 0) {
        if (ssim) {
          const V s = (x + y) * c.scale - ssim->shift_s, centered = d - ssim->shift_d;
          const V s_term = T(2) * s * load(ssim->plane[0] + j);
          const V d_term = T(2) * centered * load(ssim->plane[1] + j);
          grad_x = load(ssim->plane[2] + j) + s_term + d_term;
          if constexpr (gradients == 2) grad_y = load(ssim->plane[3] + j) + s_term - d_term;
          if constexpr (masked) {
            grad_x = mask == V{} ? V{} : mask * grad_x;
            grad_y = mask == V{} ? V{} : mask * grad_y;
          }
        }
        store(b.first + j, (grad_x + sum.dloss_dd) * c.scale);
        if constexpr (gradients == 2) store(b.second + j, (grad_y - sum.dloss_dd) * c.scale);
      } else if (p.map.data) {
        store(b.first + j, add_to_map ? load(b.first + j) + sum.value : sum.value);
      }
    }
  };
  auto for_mask = [&](auto masked) LAMP_INLINE_LAMBDA {
    if (is_common(formula.amplification.kind))
      vectors(std::true_type(), masked);
    else
      vectors(std::false_type(), masked);
  };
  if (p.mask.data)
    for_mask(std::true_type());
  else
    for_mask(std::false_type());
  for (int m = 1, k = int(p.ssim()); m < kMetrics; ++m)
    if (p.terms.has(Metric(m))) sums[k++] += sum_of_lanes<T>(total[m]);
  if (p.map.data) c.write(p.map, row, column, count, b.first);
  if constexpr (gradients > 0) c.write(p.input_gradient, row, column, count, b.first);
  if constexpr (gradients == 2) c.write(p.target_gradient, row, column, count, b.second);
}

// Processes a tile of a loss without SSIM.
template <class T, int gradients>
static void pixel_tile(const Context<T>& c, PixelRows<T>& rows, double* sums) {
  const Tile& t = c.tile;
  for (int64_t row = t.row; row < t.end_row; ++row)
    for (int64_t column = t.column; column < t.end_column; column += PixelRows<T>::kPixels) {
      const int64_t count = std::min<int64_t>(PixelRows<T>::kPixels, t.end_column - column);
      pixel_row<T, gradients>(c, row, column, int(count), nullptr, rows, sums);
    }
}
