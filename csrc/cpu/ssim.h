// Computes one tile of the SSIM loss, together with any pointwise terms, streaming from top to
// bottom. Included once per instruction set, inside its namespace.
//
//   pixels (1 row)  --convolve_row-->  ring of moment rows   4 planes: mean and variance of d, s
//   moment rows     --statistics-->    loss, h planes        kRows at a time: G_y, then pointwise
//   h planes        --adjoint_x-->     ring of adjoint rows  3 or 4 planes
//   adjoint rows    --adjoint_y-->     gradient              kRows at a time, radius rows later
//
// The h planes are the derivatives of the loss with respect to the windowed moments; the transposed
// window (adjoint) turns them into the gradient.
//
// Rows are numbered as in the image. A row beyond the border is only a ring slot: the mirrored
// row's ("reflect"), one with the moments of black ("zeros"), or one of zeros where there is no
// loss.
//
// Shifts for the variances: anywhere in a tile, white may lie next to black, or a defect next to
// pixels that are nearly equal. So each window is shifted by one of its own samples: along x by its
// center pixel, along y by a row that it sees. A window's variance is the mean of its rows'
// variances plus the variance of their means. The adjoint needs one shift that all windows share,
// the tile's (centering.h).

template <class T, int radius, int gradients>
class SsimTile {
  using V = Vector<T>;
  using Window = AxisWindow<T, radius>;
  using Masked = MaskedWindow<T, radius>;
  static constexpr int kRows = Window::kRows;
  static constexpr int kRing = Window::kRing;
  static constexpr int kPlanes = 2 + gradients;  // h planes of the adjoint
  static constexpr int N = kLanes<T>;

  // Window positions extend `radius` columns beyond the strip, and the pixels they see another
  // `radius` columns. Each row is one vector longer, because its last vector may run past the end.
  static constexpr int kPositions = (int(Tiling::kWidest) + 2 * radius + N - 1) / N * N + N;
  static constexpr int kPixels = kPositions + 2 * radius;
  static constexpr int kFold = (radius + N) / N * N;  // distances 0 .. radius from an edge

 public:
  // A few hundred kilobytes, one per thread.
  struct Workspace {
    alignas(64) T x[kPixels], y[kPixels], d[kPixels], s[kPixels];
    alignas(64) typename Window::template Ring<4> moments[kPositions / N];
    alignas(64) T weight[kRows][kPositions];
    alignas(64) T map[kRows][kPositions];
    alignas(64) T h[kRows][kPlanes][kPositions];
    alignas(64) typename Window::template Ring<kPlanes> adjoint[kPositions / N];
    alignas(64) T gradient[kRows][kPlanes][kPositions];
    alignas(64) T fold[radius][kFold];
    PixelRows<T> pixels;
  };

  SsimTile(const Context<T>& context, Workspace& workspace)
      : c(context), p(c.p), w(workspace), left(c.tile.column - radius),
        positions(c.columns + 2 * radius), first_grid_row(p.first_row()), end_grid_row(p.end_row()),
        window(p.taps) {
    constants.c1 = T(p.c1);
    constants.c2 = T(p.c2);
    constants.a = T(p.ssim_scale);
    const Shifts<T> shifts = shifts_of(c);
    constants.shift_d = shifts.d;
    constants.shift_s = shifts.s;
  }

  void run(double* sums) {
    const Tile& t = c.tile;
    // How many rows of loss beyond the tile its gradient depends on.
    const int reach = gradients ? radius : 0;
    first = std::max(first_grid_row, t.row - reach);
    end = std::min(end_grid_row, t.end_row + reach);
    prepare();
    int64_t next = std::max<int64_t>(0, first - radius);  // next row to convolve
    int64_t pixel = t.row;                                // next row of pixels to finish
    for (int64_t row = first; pixel < t.end_row; row += kRows) {
      const int rows = int(std::clamp<int64_t>(end - row, 0, kRows));
      if (rows > 0) {
        for (; next < std::min(row + rows + radius, p.height); ++next) convolve_row(next);
        sums[0] += statistics(row, rows);
        if constexpr (gradients > 0)
          for (int q = 0; q < rows; ++q) adjoint_x(row + q, w.h[q]);
      }
      // All windows that contain the rows before `complete` have been processed.
      const int64_t complete = std::min(row + kRows - reach, t.end_row);
      if constexpr (gradients > 0) {
        if (complete > pixel) adjoint_y(row - radius);
      }
      const bool touch_pixels = gradients > 0 || p.terms.pointwise();
      for (; pixel < complete; ++pixel)
        if (touch_pixels) finish_row(pixel, int(pixel - (row - radius)), sums);
    }
  }

 private:
  const Context<T>& c;
  const Params& p;
  Workspace& w;
  const int64_t left;   // image column of window position 0
  const int positions;  // the strip's window positions, and `radius` more on each side
  const int64_t first_grid_row, end_grid_row;
  int64_t first, end;  // rows of loss to compute
  const Window window;
  SsimConstants<T> constants;

  // Fills in what stays constant over the tile: the moments of black rows, the rows without loss,
  // the pixels that are never read, and the taps at mirrored edges.
  void prepare() {
    const T d = c.mask ? T(0) : -constants.shift_d, s = c.mask ? T(0) : -constants.shift_s;
    std::fill(w.d, w.d + kPixels, d);
    std::fill(w.s, w.s + kPixels, s);
    convolve_pixels(kRing, 0, positions);
    // Where there is no loss, so that the arithmetic there meets no subnormal number, which is slow.
    std::fill(&w.weight[0][0], &w.weight[0][0] + sizeof w.weight / sizeof(T), T(0));
    for (auto& column : w.adjoint)
      for (auto& plane : column) store(plane[kRing], V{});
    for (int j = 0; j < radius; ++j)
      for (int t = 0; t < kFold; ++t)
        w.fold[j][t] = t > 0 && t + j <= radius ? window[t + j] : T(0);
  }

  LAMP_NOINLINE void convolve_row(int64_t row) {
    // [low, high) are the image columns that the strip's windows see; the border rule fills the
    // rest.
    const int64_t start = left - radius;
    const int64_t low = std::max<int64_t>(start, 0);
    const int64_t high = std::min<int64_t>(start + positions + 2 * radius, p.width);
    T *d = w.d - start, *s = w.s - start;  // indexed by image column
    const T* x = c.row_of(p.input, row, low, high - low, w.x);
    const T* y = c.row_of(p.target, row, low, high - low, w.y);
    if (row + kRowsAhead < p.height)
      for (const ConstTensorView* image : {&p.input, &p.target})
        prefetch_row(*image, c.tile.image, c.tile.channel, row + kRowsAhead, low, high - low);
    const bool masked = c.mask && !c.mask->is_full(row);
    if (masked)
      center_visible(x, y, c.mask->m(row) + (low - start), high - low, d + low, s + low);
    else
      center(x, y, high - low, d + low, s + low);
    if (p.border == Border::reflect) {
      for (int64_t k = 1; low == 0 && k <= radius && -k >= start; ++k) d[-k] = d[k], s[-k] = s[k];
      const int64_t last = p.width - 1;
      for (int64_t k = 1; high == p.width && k <= radius && last + k < start + kPixels; ++k)
        d[last + k] = d[last - k], s[last + k] = s[last - k];
    }
    if (masked)
      convolve_visible(row);
    else
      convolve_pixels(int(row % kRing), 0, positions);
  }

  void center(const T* __restrict x, const T* __restrict y, int64_t count, T* __restrict d,
              T* __restrict s) const {
    const T scale = c.scale, shift_d = constants.shift_d, shift_s = constants.shift_s;
    for (int64_t j = 0; j < count; ++j) {
      d[j] = (x[j] - y[j]) * scale - shift_d;
      s[j] = (x[j] + y[j]) * scale - shift_s;
    }
  }

  // The same, and 0 where pixels are hidden, whatever they hold.
  void center_visible(const T* __restrict x, const T* __restrict y, const T* __restrict m,
                      int64_t count, T* __restrict d, T* __restrict s) const {
    const T scale = c.scale, shift_d = constants.shift_d, shift_s = constants.shift_s;
    for (int64_t j = 0; j < count; ++j) {
      const T centered_d = (x[j] - y[j]) * scale - shift_d;
      const T centered_s = (x[j] + y[j]) * scale - shift_s;
      d[j] = m[j] == 0 ? T(0) : centered_d;
      s[j] = m[j] == 0 ? T(0) : centered_s;
    }
  }

  // Convolves a row of the pixels, in stretches of positions that see all, some or none of them.
  void convolve_visible(int64_t row) {
    using Sight = typename MaskTile<T>::Sight;
    const int slot = int(row % kRing);
    for (int j = 0, end; j < positions; j = end) {
      const Sight sight = c.mask->sight(row, j);
      for (end = j + N; end < positions && c.mask->sight(row, end) == sight;) end += N;
      if (sight == Sight::all) convolve_pixels(slot, j, end);
      if (sight == Sight::some)
        Masked::convolve(w.d, w.s, c.mask->m(row), c.mask->share(row), j, end, window, w.moments,
                         slot);
      for (int i = j; sight == Sight::none && i < end; i += N)
        for (auto& plane : w.moments[i / N]) store(plane[slot], V{});
    }
  }

  // Writes the mean and variance of d and s along x to row `slot` of the ring.
  LAMP_NOINLINE void convolve_pixels(int slot, int begin, int end) {
    const Window g = window;
    auto* out = w.moments + begin / N;
    for (int j = begin; j < end; j += N, ++out)
      Window::moments_along_x(g, w.d + j + radius, w.s + j + radius, *out, slot);
  }

  // The ring slot with the moments of image row `row`. Rows from `seen` on are seen by no window
  // that counts.
  int moments_of(int64_t row, int64_t seen) const {
    if (row >= seen) return kRing;  // for a window past the last one: any slot will do
    if (row < 0 || row >= p.height) {
      if (p.border != Border::reflect) return kRing;
      row = row < 0 ? -row : 2 * (p.height - 1) - row;
    }
    return int(row % kRing);
  }

  // Computes the loss of rows row .. row + rows - 1 and, for the gradient, their h planes. Returns
  // the sum of the losses inside the tile.
  LAMP_NOINLINE double statistics(int64_t row, int rows) {
    const SsimConstants<T> constants = this->constants;
    const Amplification<T> a = c.formula.amplification;
    int slot[kRing];
    for (int t = 0; t < kRing; ++t) slot[t] = moments_of(row - radius + t, row + rows + radius);
    // [low, high) are the window positions that have a loss, [own, own_end) those whose loss
    // belongs to this tile.
    const int low = int(std::max<int64_t>(0, first_grid_row - left));
    const int high = int(std::min<int64_t>(positions, p.end_column() - left));
    // A strip narrower than the "valid" border may have none of its own.
    const int own = std::max(low, radius);
    const int own_end = std::max(own, std::min(high, radius + c.columns));
    const MaskTile<T>* const mask = c.mask;
    const bool weighted = c.weight.data;
    const T* weight[kRows];
    for (int q = 0; weighted && q < rows; ++q) {
      weight[q] = p.weight.data ? w.weight[q] : mask->m(row + q) + radius;
      if (p.weight.data) c.read(p.weight, row + q, left + low, high - low, w.weight[q] + low);
    }
    const T *share[kRing], *inverse[kRows];  // of the mask
    if (mask) {
      for (int t = 0; t < kRing; ++t)
        share[t] = mask->share(t < rows + 2 * radius ? mask->seen_as(row - radius + t) : -1);
      for (int q = 0; q < kRows; ++q) inverse[q] = mask->inverse(q < rows ? row + q : -1);
    }

    // Summed in T within a step, and in double across steps.
    V total = {};
    for (int j = 0; j < positions; j += N) {
      if (mask && mask->is_hidden(row, rows, j)) {
        for (int q = 0; q < rows; ++q) {
          if (gradients == 0 && p.map.data) store(w.map[q] + j, V{});
          for (int k = 0; gradients > 0 && k < kPlanes; ++k) store(w.h[q][k] + j, V{});
        }
        continue;
      }
      const auto& m = w.moments[j / N];
      // Loaded here, because after the many stores of this step a load waits for the stores to
      // addresses that share its low bits.
      V weights[kRows], normalize[kRows];
      if (weighted)
        for (int q = 0; q < rows; ++q) weights[q] = load(weight[q] + j);
      V mean_d[kRows], mean_s[kRows], variance_d[kRows], variance_s[kRows];
      const bool masked = mask && !mask->is_full(row, rows, j);
      if (masked) {
        for (int q = 0; q < rows; ++q) normalize[q] = load(inverse[q] + j);
        for (int v = 0; v < 2; ++v) {
          const typename Masked::Rows of{m[v], m[v + 2], slot, share};
          Masked::along_y(of, inverse, j, window, v ? mean_s : mean_d, v ? variance_s : variance_d);
        }
        for (int q = 0; q < rows; ++q) {  // a hidden center counts for nothing, even beside NaN
          const auto seen = load(mask->m(row + q) + radius + j) != V{};
          for (V* each : {mean_d, mean_s, variance_d, variance_s}) each[q] = seen ? each[q] : V{};
        }
      } else {
        window.moments(m[0], m[2], slot, mean_d, variance_d);
        window.moments(m[1], m[3], slot, mean_s, variance_s);
      }
      // A loop over the rows for each stage: a stage is a long dependency chain, and the chains of
      // different rows overlap only if they are close together in the code.
      Dissimilarity<V> at[kRows];
      Amplified<V> amplified[kRows];
      for (int q = 0; q < kRows; ++q)
        at[q] = ssim(Moments<V>{mean_d[q], mean_s[q], variance_d[q], variance_s[q]}, constants);
      for (int q = 0; q < kRows; ++q) amplified[q] = amplify<T>(at[q].loss, a);
      for (int q = 0; q < rows; ++q) {
        const V weight = weighted ? weights[q] : V{} + T(1);
        if (row + q >= c.tile.row && row + q < c.tile.end_row)
          total += within<T>(weight * amplified[q].value, j, own, own_end);
        if (gradients == 0 && p.map.data) store(w.map[q] + j, amplified[q].value * c.factor[0]);
        if constexpr (gradients > 0) {
          V slope = weight * c.factor[0] * amplified[q].slope;
          if (masked) slope *= normalize[q];
          const Adjoint<V> h = ssim_adjoint(mean_d[q], mean_s[q], at[q], slope, constants);
          store(w.h[q][0] + j, h.ss);
          store(w.h[q][1] + j, h.dd);
          store(w.h[q][2] + j, h.s + h.d);
          if constexpr (gradients == 2) store(w.h[q][3] + j, h.s - h.d);
        }
      }
    }
    if constexpr (gradients > 0) {  // zero h where there is no loss
      for (int q = 0; q < rows; ++q)
        for (int k = 0; k < kPlanes; ++k) {
          std::fill(w.h[q][k], w.h[q][k] + low, T(0));
          std::fill(w.h[q][k] + high, w.h[q][k] + positions, T(0));
        }
    } else if (p.map.data) {
      for (int q = 0; q < rows; ++q)
        write_row(p.map, c.tile.image, c.tile.channel, row + q, left + own, own_end - own,
                  w.map[q] + own);
    }
    return sum_of_lanes<T>(total);
  }

  // Applies G_x^T to one row of h.
  LAMP_NOINLINE void adjoint_x(int64_t row, const T (*h)[kPositions]) {
    const Window g = window;
    const int columns = c.columns, slot = int(row % kRing);
    for (int k = 0; k < kPlanes; ++k) {
      const T* in = h[k];
      auto* out = w.adjoint;
      for (int j = 0; j < columns; j += N, ++out)
        store((*out)[k][slot], Window::sum_along_x(g, in + j));
      if (p.border == Border::reflect) fold_columns(in, k, slot);
    }
  }

  // Adds what windows saw beyond the edge to the pixels mirrored there: the mirror image of the
  // pixel at distance t from the edge is seen by the windows at distances j = 0 .. radius - t,
  // through tap t + j. Lane t holds the sum for distance t.
  void fold_columns(const T* in, int plane, int slot) {
    const int64_t last = p.width - 1;
    in -= left;  // index by image column
    for (int side = 0; side < 2; ++side) {
      const int64_t edge = side ? last : 0, step = side ? -1 : 1;
      const int64_t nearest = edge + step, farthest = edge + radius * step;
      if (std::max(nearest, farthest) < c.tile.column ||
          std::min(nearest, farthest) >= c.tile.end_column)
        continue;
      alignas(64) T sum[kFold];
      for (int i = 0; i < kFold; i += N) {
        V v = {};
        for (int j = 0; j < radius; ++j) v += in[edge + step * j] * load(w.fold[j] + i);
        store(sum + i, v);
      }
      for (int t = 1; t <= radius; ++t) {
        const int64_t j = edge + step * t - c.tile.column;
        if (j >= 0 && j < c.columns) w.adjoint[j / N][plane][slot][j % N] += sum[t];
      }
    }
  }

  int adjoint_of(int64_t row) const { return row >= first && row < end ? int(row % kRing) : kRing; }

  // Applies G_y^T, for pixel rows row .. row + kRows - 1.
  LAMP_NOINLINE void adjoint_y(int64_t row) {
    int slot[kRing];
    for (int t = 0; t < kRing; ++t) slot[t] = adjoint_of(row - radius + t);
    for (int j = 0; j < c.columns; j += N)
      for (int k = 0; k < kPlanes; ++k) {
        V sum[kRows];
        window.sums(w.adjoint[j / N][k], slot, sum);
        for (int q = 0; q < kRows; ++q) store(w.gradient[q][k] + j, sum[q]);
      }
    if (p.border == Border::reflect)
      for (int q = 0; q < kRows; ++q) fold_rows(row + q, w.gradient[q]);
  }

  // Like fold_columns, for the rows mirrored onto pixel row t.
  void fold_rows(int64_t t, T (*out)[kPositions]) const {
    const int64_t last = p.height - 1;
    if (t < 0 || t > last) return;
    if (t >= 1)
      for (int64_t j = 0; j <= std::min<int64_t>(radius - t, last); ++j)
        add_row(j, window[t + j], out);
    if (t < last)
      for (int64_t j = std::max<int64_t>(0, 2 * last - t - radius); j <= last; ++j)
        add_row(j, window[2 * last - t - j], out);
  }

  void add_row(int64_t row, T factor, T (*out)[kPositions]) const {
    const int slot = adjoint_of(row);
    for (int j = 0; j < c.columns; j += N)
      for (int k = 0; k < kPlanes; ++k)
        store(out[k] + j, load(out[k] + j) + factor * load(w.adjoint[j / N][k][slot]));
  }

  void finish_row(int64_t row, int q, double* sums) {
    if constexpr (gradients > 0) {
      AdjointRow<T, gradients> ssim;
      for (int k = 0; k < kPlanes; ++k) ssim.plane[k] = w.gradient[q][k];
      ssim.shift_d = constants.shift_d;
      ssim.shift_s = constants.shift_s;
      pixel_row<T, gradients>(c, row, c.tile.column, c.columns, &ssim, w.pixels, sums);
    } else {
      pixel_row<T, 0>(c, row, c.tile.column, c.columns, nullptr, w.pixels, sums);
    }
  }
};
