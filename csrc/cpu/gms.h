// Computes one tile of the GMS loss, streaming from top to bottom. Included once per instruction
// set, inside its namespace.
//
//   pixels (1 row)  --read_row-->    ring of pixel rows    3 planes: x, y, d = x - y
//   pixel rows      --losses-->      ring of adjoint rows  dL/d(grad x), and for two gradients
//                                                          dL/d(grad y): 2 planes each
//   adjoint rows    --gradient_of--> gradient, one row later
//
// Prewitt's operator is the difference of two pixels along one axis, summed over three lines along
// the other, and divided by 3. The differences come first: those of nearly equal pixels are exact.
// grad x and grad y come from the images and grad d from their difference, since each of the three
// may be small where the others are not; a^2 - b^2 = grad d . (grad x + grad y).
//
// Rows are numbered as in the image. Positions and pixels beyond the border are filled in by the
// border rule; where there is no loss, the adjoint planes are 0.
//
// A mask is of positions: those of m > 0 see no hidden pixel. At the others, which may see NaN, loss
// and adjoint are selected to be 0.

template <class T, int gradients>
class GmsTile {
  using V = Vector<T>;
  static constexpr int N = kLanes<T>;
  static constexpr int kRing = 3;                // the rows that one position sees
  static constexpr int kPlanes = 2 * gradients;  // of the adjoint: along x and y, for each image
  static constexpr int kBlack = kRing;           // the ring slot of rows outside, for "zeros"
  // Positions extend one column beyond the strip on each side, and pixels another one. Each row is
  // one vector longer, because its last vector may run past the end.
  static constexpr int kPositions = int(Tiling::kWidest) + 2 + N;
  static constexpr int kPixels = kPositions + 2 + N;

 public:
  // A few tens of kilobytes, one per thread.
  struct Workspace {
    alignas(64) T pixels[3][kRing + 1][kPixels];  // by plane: x, y, d
    alignas(64) T adjoint[kPlanes + 1][kRing][kPositions + 2];
    alignas(64) T weight[kPositions], mask[kPositions], map[kPositions], gradient[kPositions];
  };

  GmsTile(const Context<T>& context, Workspace& workspace)
      : c(context), p(c.p), w(workspace), left(c.tile.column - 1), positions(c.columns + 2),
        first_row(p.first_row()), end_row(p.end_row()),
        low(int(std::max<int64_t>(0, p.first_row() - left))),
        high(int(std::clamp<int64_t>(p.end_column() - left, low, positions))),
        constant(T(p.metric_parameters[int(Metric::gms)])), third(c.scale / T(3)) {}

  void run(double* sums) {
    const Tile& t = c.tile;
    std::fill(&w.pixels[0][0][0], &w.pixels[0][0][0] + sizeof w.pixels / sizeof(T), T(0));
    // Vectors also hold positions outside the grid. Numbers that lay there before may be subnormal,
    // and multiplying those takes a hundred times as long.
    for (T* each : {w.weight, w.mask}) std::fill(each, each + kPositions, T(0));
    // How many rows of loss beyond the tile its gradient depends on.
    const int reach = gradients ? 1 : 0;
    int64_t next = std::max<int64_t>(0, t.row - reach - 1);  // next row of pixels to read
    for (int64_t row = t.row - reach; row < t.end_row + reach; ++row) {
      if (row >= first_row && row < end_row) {
        if (c.weight.data) read_weight(row);
        for (; next < std::min(row + 2, p.height); ++next) read_row(next);
        const double sum = p.mask.data ? losses<true>(row) : losses<false>(row);
        if (row >= t.row && row < t.end_row) sums[0] += sum;
      } else if constexpr (gradients > 0) {
        for (int k = 0; k < kPlanes; ++k)
          std::fill(w.adjoint[k][slot_of(row)], w.adjoint[k][slot_of(row)] + kPositions, T(0));
      }
      if constexpr (gradients > 0) {
        if (row <= t.row) continue;
        gradient_of(row - 1, 0, p.input_gradient);
        if constexpr (gradients == 2) gradient_of(row - 1, 2, p.target_gradient);
      }
    }
  }

 private:
  const Context<T>& c;
  const Params& p;
  Workspace& w;
  const int64_t left;                // image column of position 0
  const int positions;               // the strip's, and one more on each side
  const int64_t first_row, end_row;  // of the grid
  const int low, high;               // the positions that are inside the grid
  const T constant, third;           // c, and 1/3 in units of data_range

  static int slot_of(int64_t row) { return int((row + kRing) % kRing); }

  // The ring slot of a row of pixels, which may lie one row outside.
  int pixels_of(int64_t row) const {
    if (row >= 0 && row < p.height) return slot_of(row);
    if (p.border != Border::reflect) return kBlack;
    return slot_of(row < 0 ? 1 : p.height - 2);
  }

  LAMP_NOINLINE void read_row(int64_t row) {
    const int64_t start = left - 1;  // image column of the first pixel
    const int64_t from = std::max<int64_t>(start, 0);
    const int64_t end = std::min<int64_t>(left + positions + 1, p.width);
    const int slot = slot_of(row);
    T* const plane[] = {w.pixels[0][slot] - start, w.pixels[1][slot] - start,
                        w.pixels[2][slot] - start};  // indexed by image column
    c.read(p.input, row, from, end - from, plane[0] + from);
    c.read(p.target, row, from, end - from, plane[1] + from);
    if (row + kRowsAhead < p.height)
      for (const ConstTensorView* image : {&p.input, &p.target})
        prefetch_row(*image, c.tile.image, c.tile.channel, row + kRowsAhead, from, end - from);
    if (p.border == Border::reflect)
      for (T* image : {plane[0], plane[1]}) {
        if (start < 0) image[-1] = image[1];
        if (end == p.width) image[p.width] = image[p.width - 2];
      }
    const T *x = w.pixels[0][slot], *y = w.pixels[1][slot];
    for (int j = 0; j < positions + 2; j += N)
      store(w.pixels[2][slot] + j, load(x + j) - load(y + j));
  }

  // For the positions inside the grid. A mask alone is the weight.
  LAMP_NOINLINE void read_weight(int64_t row) {
    const int64_t from = left + low, count = high - low;
    c.read(c.weight, row, from, count, w.weight + low);
    if (p.mask.data && p.weight.data) c.read(p.mask, row, from, count, w.mask + low);
    if (row + kRowsAhead < p.height)
      prefetch_row(c.weight, c.tile.image, c.tile.channel, row + kRowsAhead, from, count);
  }

  struct Gradient {
    V x, y;
  };
  static V dot(const Gradient& a, const Gradient& b) { return a.x * b.x + a.y * b.y; }

  // Of one plane at the positions that begin at `j`. rows: the ring slots above, at and below.
  LAMP_INLINE Gradient gradient_at(const T (*plane)[kPixels], const int* rows, int j, T third) {
    const T *above = plane[rows[0]] + j, *at = plane[rows[1]] + j, *below = plane[rows[2]] + j;
    const V a[] = {load(above), load(above + 1), load(above + 2)};
    const V b[] = {load(below), load(below + 1), load(below + 2)};
    return {((a[2] - a[0]) + (load(at + 2) - load(at)) + (b[2] - b[0])) * third,
            ((b[0] - a[0]) + (b[1] - a[1]) + (b[2] - a[2])) * third};
  }

  // Computes the loss of one row and, for the gradient, its adjoint planes. Returns the sum of the
  // losses inside the tile's columns.
  template <bool masked>
  LAMP_NOINLINE double losses(int64_t row) {
    const int rows[] = {pixels_of(row - 1), pixels_of(row), pixels_of(row + 1)};
    const int slot = slot_of(row), low = this->low, high = this->high;
    const int own = std::max(low, 1), own_end = std::max(own, std::min(high, 1 + c.columns));
    const T constant = this->constant, third = this->third, factor = c.factor[int(Metric::gms)];
    const Amplification<T> a = c.formula.amplification;
    const bool weighted = c.weight.data;
    const T* const mask = p.weight.data ? w.mask : w.weight;
    V total = {};
    for (int j = 0; j < positions; j += N) {
      const auto hidden = load(mask + j) == V{};
      if (masked && all_lanes<T>(hidden)) {
        if (gradients == 0 && p.map.data) store(w.map + j, V{});
        for (int k = 0; k < kPlanes; ++k) store(w.adjoint[k][slot] + j, V{});
        continue;
      }
      const Gradient x = gradient_at(w.pixels[0], rows, j, third);
      const Gradient y = gradient_at(w.pixels[1], rows, j, third);
      const Gradient d = gradient_at(w.pixels[2], rows, j, third);
      const V apart = dot(d, {x.x + y.x, x.y + y.y});
      const Gms<V> at = gms(dot(x, x), dot(y, y), apart, constant);
      const Amplified<V> amplified = amplify<T>(at.loss, a);
      const V weight = weighted ? load(w.weight + j) : V{} + T(1);
      auto seen = [&](V value) LAMP_INLINE_LAMBDA {
        if constexpr (masked) return hidden ? V{} : value;
        return value;
      };
      total += within<T>(seen(weight * amplified.value), j, own, own_end);
      if (gradients == 0 && p.map.data) store(w.map + j, seen(amplified.value * factor));
      if constexpr (gradients > 0) {
        const V slope = weight * factor * amplified.slope;
        const V by_x = slope * at.by_x, by_y = slope * at.by_y;
        const V planes[] = {by_x * x.x, by_x * x.y, by_y * y.x, by_y * y.y};
        for (int k = 0; k < kPlanes; ++k)
          store(w.adjoint[k][slot] + j, within<T>(seen(planes[k]), j, low, high));
      }
    }
    if (gradients == 0 && p.map.data) c.write(p.map, row, left + own, own_end - own, w.map + own);
    return sum_of_lanes<T>(total);
  }

  // Applies Prewitt's adjoint to two adjoint planes, for one row of pixels.
  //
  // Where the image is mirrored at an edge, a position on the edge sees its inner neighbor twice.
  // Along the difference the two cancel: that component is 0 there. Along the sum the neighbor
  // counts twice.
  LAMP_NOINLINE void gradient_of(int64_t row, int plane, const TensorView& to) {
    const bool mirrored = p.border == Border::reflect;
    const int64_t last_row = p.height - 1, last_column = p.width - 1;
    const T third = this->third;
    const T up = mirrored && row == 1 ? T(2) : T(1);
    const T down = mirrored && row == last_row - 1 ? T(2) : T(1);
    const int above = slot_of(row - 1), at = slot_of(row), below = slot_of(row + 1);
    const T *ax = w.adjoint[plane][above], *x = w.adjoint[plane][at];
    const T* bx = w.adjoint[plane][below];
    const T *ay = w.adjoint[plane + 1][above], *by = w.adjoint[plane + 1][below];
    auto along_x = [&](int j) { return load(x + j) + up * load(ax + j) + down * load(bx + j); };
    for (int j = 0; j < c.columns; j += N) {
      V sum = along_x(j) - along_x(j + 2);
      for (int k = 0; k < 3; ++k) sum += load(ay + j + k) - load(by + j + k);
      store(w.gradient + j, sum * third);
    }
    if (mirrored) {
      auto twice = [&](int64_t column, int64_t edge) {
        if (column < c.tile.column || column >= c.tile.end_column) return;
        w.gradient[column - c.tile.column] += (ay[edge - left] - by[edge - left]) * third;
      };
      twice(1, 0);
      twice(last_column - 1, last_column);
    }
    c.write(to, row, c.tile.column, c.columns, w.gradient);
    if (row + kRowsAhead < p.height)
      prefetch_row<T>(to, c.tile.image, c.tile.channel, row + kRowsAhead, c.tile.column, c.columns);
  }
};
