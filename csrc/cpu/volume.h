// Computes one box of the SSIM loss of volumes, together with any pointwise terms, plane by plane
// along z. Included once per instruction set, inside its namespace.
//
//   voxels (1 plane)  --convolve_plane-->  ring of moment planes   4 planes: mean, variance of d, s
//   moment planes     --statistics-->      loss, h planes          kRows at a time: G_z, pointwise
//   h planes          --adjoint_x, _y-->   ring of adjoint planes  3 or 4 planes
//   adjoint planes    --adjoint_z-->       gradient                kRows at a time, radius later
//
// So z plays the part that y has in ssim.h. Within a plane, rows pass through small rings of their
// own. Windows are described in axis_window.h, h planes and shifts in ssim.h and centering.h.
//
// The mirror. With padding="reflect", the windowed mean is K = S W along each axis: S is symmetric,
// and W = diag(1/2, 1, .., 1, 1/2), because the first and the last voxel have no mirror image. So
// the adjoint K^T = W S = W K W^-1 is the mean itself, of h planes whose border is doubled; the
// result's border is halved. Both are exact.
//
// Counts of vector instructions per vector of voxels, for window 11 and one gradient, and how often
// each stage computes a voxel, because of halos and of vectors that are not full, in boxes of
// 32 x 64 pixels in planes of 128 x 128:
//
//   G_x             76   1.84    d and s: differences from the center, sums, squares, taps
//   G_y, G_z       112   1.54    d and s: 11 taps for two planes, and differences and squares
//   loss, h planes 100   1.54
//   G_x^T           66   1.23    3 planes: shuffles, sums, taps
//   G_y^T, G_z^T    66   1.0     3 planes: 11 taps
//   gradient        15   1.0
//
// That is 628 instructions, against 370 for a pixel of a large image in ssim.h. So a voxel should
// take 1.7 times as long as a pixel, if the rings stay in the L2 cache; 1.9 to 2.0 was measured.
//
// Bytes per window position in float32: 4 moments are written once per plane and read
// kRing / kRows = 2.25 times, 52; 3 adjoint planes, 39. What a step reads of a ring for one vector
// is contiguous.

// One plane's parameters, with their context.
template <class T>
struct PlaneContext {
  Params p;
  Context<T> c;

  LAMP_NOINLINE PlaneContext(const Volume& volume, const Tile& t, int64_t z)
      : p(volume.at(z)), c(p, t) {}
};

template <class T, int radius, int gradients>
class SsimVolume {
  using V = Vector<T>;
  using Window = AxisWindow<T, radius>;
  static constexpr int N = kLanes<T>;
  static constexpr int kRows = Window::kRows, kRing = Window::kRing;
  static constexpr int kPlanes = 2 + gradients;  // h planes of the adjoint: ss, dd, s + d, s - d
  // How far beyond the box its gradient depends on losses.
  static constexpr int kReach = gradients ? radius : 0;

  static constexpr int kColumns = int(VolumeTiling::kWidest);
  static constexpr int kHeight = int(VolumeTiling::kHighest);
  static constexpr int kPositions = (kColumns + 2 * kReach + N - 1) / N * N;
  static constexpr int kPixels = kPositions + 2 * radius;
  static constexpr int kH = kColumns + 2 * radius + N;  // the last vector may run past the end
  template <int planes>
  using Ring = typename Window::template Ring<planes>;

 public:
  // A few megabytes, one per thread.
  struct Workspace {
    alignas(64) T x[kPixels], y[kPixels], d[kPixels], s[kPixels];
    alignas(64) T weight[kPositions], map[kPositions];
    alignas(64) Ring<4> rows[kPositions / N];
    alignas(64) Ring<4> moments[kHeight + 2 * kReach][kPositions / N];
    alignas(64) T h[kRows][kPlanes][kH];
    alignas(64) Ring<kPlanes> adjoint_rows[kRows][kColumns / N];
    alignas(64) Ring<kPlanes> adjoint[kHeight][kColumns / N];
    alignas(64) T gradient[kRows][kPlanes][kColumns];
    PixelRows<T> pixels;
  };

  SsimVolume(const Volume& v, const Box& b, Workspace& workspace)
      : volume(v), p(v.plane), box(b), t(b.tile), w(workspace), c(v.plane, b.tile),
        window(v.plane.taps), planes(axis(v.depth, v.first_plane(), b.plane, b.end_plane)),
        rows(axis(p.height, p.first_row(), t.row, t.end_row)),
        columns(axis(p.width, p.first_row(), t.column, t.end_column)),
        positions(int(columns.end - columns.first)) {
    constants.c1 = T(p.c1);
    constants.c2 = T(p.c2);
    constants.a = T(p.ssim_scale);
    const Shifts<T> shifts = shifts_of(v, b, c.scale);
    constants.shift_d = shifts.d;
    constants.shift_s = shifts.s;
  }

  void run(double* sums) {
    prepare();
    int64_t next = std::max<int64_t>(0, planes.first - radius);  // next plane to convolve
    int64_t pixel = box.plane;                                   // next plane of voxels to finish
    for (int64_t z = planes.first; pixel < box.end_plane; z += kRows) {
      const int count = int(std::clamp<int64_t>(planes.end - z, 0, kRows));
      if (count > 0) {
        const int64_t seen = std::min(z + count + radius, volume.depth);
        for (; next < seen; ++next) convolve_plane(next);
        sums[0] += losses(z, count);
      }
      // All windows that contain the planes before `complete` have been processed.
      const int64_t complete = std::min(z + kRows - kReach, box.end_plane);
      if (complete > pixel) {
        finish(z - radius, pixel, complete, sums);
        pixel = complete;
      }
    }
  }

 private:
  // The windows of an axis that the box computes, [first, end), and the axis' size.
  struct Axis {
    int64_t first, end, size;
  };

  const Volume& volume;
  const Params& p;
  const Box& box;
  const Tile& t;
  Workspace& w;
  const Context<T> c;  // of plane 0
  const Window window;
  const Axis planes, rows, columns;
  const int positions;  // columns of windows
  SsimConstants<T> constants;

  static Axis axis(int64_t size, int64_t first_of_grid, int64_t first, int64_t end) {
    first = std::max(first_of_grid, first - kReach);
    return {first, std::max(first, std::min(size - first_of_grid, end + kReach)), size};
  }

  bool reflects() const { return p.border == Border::reflect; }
  bool at_border(int64_t i, const Axis& axis) const {
    return reflects() && (i == 0 || i == axis.size - 1);
  }
  // W^-1 and W of the mirror.
  T doubled(int64_t i, const Axis& axis) const { return at_border(i, axis) ? T(2) : T(1); }
  T halved(int64_t i, const Axis& axis) const { return at_border(i, axis) ? T(0.5) : T(1); }

  // The ring slots of the kRing rows or planes from i on, of which those from `first` to `end` - 1
  // exist. Windows that do not count may get slots of others.
  void slots_of(int64_t i, const Axis& axis, int64_t first, int64_t end, int* slot) const {
    for (int k = 0; k < kRing; ++k, ++i) {
      int64_t at = i;
      if (reflects()) at = i < 0 ? -i : i >= axis.size ? 2 * (axis.size - 1) - i : i;
      slot[k] = at >= first && at < end ? int(at % kRing) : kRing;
    }
  }
  void slots_of_moments(int64_t i, const Axis& axis, int* slot) const {
    slots_of(i, axis, std::max<int64_t>(0, axis.first - radius),
             std::min(axis.end + radius, axis.size), slot);
  }
  void slots_of_adjoint(int64_t i, const Axis& axis, int* slot) const {
    slots_of(i, axis, axis.first, axis.end, slot);
  }

  // Fills in what stays constant over the box: the moments of black rows and planes, the rows and
  // planes without loss, and the pixels and windows that do not exist.
  void prepare() {
    const V d = V{} - constants.shift_d, s = V{} - constants.shift_s;
    const V black[4] = {d, s, {}, {}};
    for (int k = 0; k < 4; ++k) {
      for (auto& column : w.rows) store(column[k][kRing], black[k]);
      for (auto& row : w.moments)
        for (auto& column : row) store(column[k][kRing], black[k]);
    }
    std::fill(w.d, w.d + kPixels, d[0]);
    std::fill(w.s, w.s + kPixels, s[0]);
    if constexpr (gradients > 0) {
      for (auto& plane : w.h)
        for (auto& row : plane) std::fill(row, row + kH, T(0));
      for (int k = 0; k < kPlanes; ++k) {
        for (auto& plane : w.adjoint_rows)
          for (auto& column : plane) store(column[k][kRing], V{});
        for (auto& row : w.adjoint)
          for (auto& column : row) store(column[k][kRing], V{});
      }
    }
  }

  // ---- Voxels to moments ------------------------------------------------------------------------

  void convolve_plane(int64_t z) {
    const Params at = volume.at(z);
    int64_t next = std::max<int64_t>(0, rows.first - radius);  // next row to convolve
    for (int64_t row = rows.first; row < rows.end; row += kRows) {
      const int count = int(std::min<int64_t>(rows.end - row, kRows));
      const int64_t seen = std::min(row + count + radius, p.height);
      for (; next < seen; ++next) convolve_row(at, next);
      moments_of_rows(row, count, int(z % kRing));
    }
  }

  LAMP_NOINLINE void convolve_row(const Params& at, int64_t row) {
    // [low, high) are the image columns that windows see; the border rule fills the rest.
    const int64_t start = columns.first - radius, end = columns.end + radius;
    const int64_t low = std::max<int64_t>(start, 0), high = std::min(end, p.width);
    T *d = w.d - start, *s = w.s - start;  // indexed by image column
    const T* x = c.row_of(at.input, row, low, high - low, w.x);
    const T* y = c.row_of(at.target, row, low, high - low, w.y);
    if (row + kRowsAhead < p.height)
      for (const ConstTensorView* image : {&at.input, &at.target})
        prefetch_row(*image, t.image, t.channel, row + kRowsAhead, low, high - low);
    center(x, y, high - low, d + low, s + low);
    if (reflects()) {
      for (int64_t k = 1; -k >= start; ++k) d[-k] = d[k], s[-k] = s[k];
      const int64_t last = p.width - 1;
      for (int64_t k = 1; last + k < end; ++k) d[last + k] = d[last - k], s[last + k] = s[last - k];
    }
    const Window g = window;
    const int count = positions, slot = int(row % kRing);
    for (int j = 0; j < count; j += N)
      Window::moments_along_x(g, w.d + j + radius, w.s + j + radius, w.rows[j / N], slot);
  }

  void center(const T* __restrict x, const T* __restrict y, int64_t count, T* __restrict d,
              T* __restrict s) const {
    const T scale = c.scale, shift_d = constants.shift_d, shift_s = constants.shift_s;
    for (int64_t j = 0; j < count; ++j) {
      d[j] = (x[j] - y[j]) * scale - shift_d;
      s[j] = (x[j] + y[j]) * scale - shift_s;
    }
  }

  LAMP_NOINLINE void moments_of_rows(int64_t row, int count, int plane_slot) {
    int slot[kRing];
    slots_of_moments(row - radius, rows, slot);
    for (int j = 0; j < positions; j += N)
      for (int k = 0; k < 2; ++k) {  // of d, of s
        const auto& m = w.rows[j / N];
        V mean[kRows], var[kRows];
        window.moments(m[k], m[2 + k], slot, mean, var);
        for (int i = 0; i < count; ++i) {
          auto& out = w.moments[row + i - rows.first][j / N];
          store(out[k][plane_slot], mean[i]);
          store(out[2 + k][plane_slot], var[i]);
        }
      }
  }

  // ---- Moments to losses and adjoint planes -----------------------------------------------------

  // Computes the loss of planes z .. z + count - 1 and, for the gradient, their adjoint along x and
  // y. Returns the sum of the losses inside the box.
  double losses(int64_t z, int count) {
    int slot[kRing];
    slots_of_moments(z - radius, planes, slot);
    double total = 0;
    int64_t pixel = t.row;  // next row of voxels to finish
    for (int64_t row = rows.first; pixel < t.end_row; row += kRows) {
      const int64_t end = std::min(row + kRows, rows.end);
      for (int64_t each = row; each < end; ++each) {
        total += statistics(z, count, each, slot);
        if constexpr (gradients > 0)
          for (int q = 0; q < count; ++q) adjoint_x(each, w.h[q], w.adjoint_rows[q]);
      }
      const int64_t complete = std::min(row + kRows - kReach, t.end_row);
      if (complete <= pixel) continue;
      if constexpr (gradients > 0)
        for (int q = 0; q < count; ++q) adjoint_y(row - radius, pixel, complete, z + q, q);
      pixel = complete;
    }
    return total;
  }

  // The same for one row of these planes; writes h planes.
  LAMP_NOINLINE double statistics(int64_t z, int count, int64_t row, const int* slot) {
    const SsimConstants<T> constants = this->constants;
    const Amplification<T> a = c.formula.amplification;
    // [own, own_end) are the windows whose loss belongs to this box.
    const int own = int(std::max(columns.first, t.column) - columns.first);
    const int own_end = std::max(own, int(std::min(columns.end, t.end_column) - columns.first));
    const bool own_row = row >= t.row && row < t.end_row;
    T* const h0 = w.h[0][0] + (columns.first - (t.column - radius));
    T factor[kRows];
    for (int q = 0; q < kRows; ++q)
      factor[q] = c.factor[0] * doubled(z + q, planes) * doubled(row, rows);
    const bool weighted = p.weight.data;

    V total = {};
    for (int j = 0; j < positions; j += N) {
      const auto& m = w.moments[row - rows.first][j / N];
      V mean_d[kRows], mean_s[kRows], variance_d[kRows], variance_s[kRows];
      window.moments(m[0], m[2], slot, mean_d, variance_d);
      window.moments(m[1], m[3], slot, mean_s, variance_s);
      Dissimilarity<V> at[kRows];  // stage by stage, so that the chains of the planes overlap
      Amplified<V> amplified[kRows];
      for (int q = 0; q < kRows; ++q)
        at[q] = ssim(Moments<V>{mean_d[q], mean_s[q], variance_d[q], variance_s[q]}, constants);
      for (int q = 0; q < kRows; ++q) amplified[q] = amplify<T>(at[q].loss, a);
      for (int q = 0; q < count; ++q) {
        V weight = V{} + T(1);
        if (weighted) weight = weight_at(z + q, row, j);
        if (own_row && z + q >= box.plane && z + q < box.end_plane)
          total += within<T>(weight * amplified[q].value, j, own, own_end);
        if constexpr (gradients > 0) {
          T* const h = h0 + q * kPlanes * kH + j;
          const V slope = weight * factor[q] * amplified[q].slope;
          const Adjoint<V> adjoint = ssim_adjoint(mean_d[q], mean_s[q], at[q], slope, constants);
          store(h, adjoint.ss);
          store(h + kH, adjoint.dd);
          store(h + 2 * kH, adjoint.s + adjoint.d);
          if constexpr (gradients == 2) store(h + 3 * kH, adjoint.s - adjoint.d);
        } else if (p.map.data) {
          store(w.map + j, amplified[q].value * c.factor[0]);
          const int from = std::max(own, j), to = std::min(own_end, j + N);
          if (from < to)
            write_row(volume.map(z + q), t.image, t.channel, row, columns.first + from, to - from,
                      w.map + from);
        }
      }
    }
    return sum_of_lanes<T>(total);
  }

  V weight_at(int64_t z, int64_t row, int j) const {
    const int count = std::min(positions - j, N);
    T buffer[N] = {};
    read_row(volume.weight(z), t.image, t.channel, row, columns.first + j, count, buffer);
    return load(buffer);
  }

  // Applies G_x^T to one row of h.
  LAMP_NOINLINE void adjoint_x(int64_t row, T (*h)[kH], Ring<kPlanes>* ring) {
    const Window g = window;
    const int slot = int(row % kRing), count = c.columns;
    for (int k = 0; k < kPlanes; ++k) {
      extend(h[k] - (t.column - radius));
      for (int j = 0; j < count; j += N)
        store(ring[j / N][k][slot], Window::sum_along_x(g, h[k] + j));
      if (reflects()) {
        const int last = int(p.width - 1 - t.column);
        if (t.column == 0) ring[0][k][slot][0] *= T(0.5);
        if (last < count) ring[last / N][k][slot][last % N] *= T(0.5);
      }
    }
  }

  // Zeroes a row of h beyond the windows, or mirrors it. `h` is indexed by image column.
  void extend(T* h) const {
    const int64_t start = t.column - radius, end = t.column + c.columns + radius;
    const int64_t last = p.width - 1;
    std::fill(h + columns.end, h + start + kH, T(0));
    if (!reflects()) return;
    // Doubled before they are mirrored: in a narrow volume, one border is the other's mirror image.
    if (columns.first == 0) h[0] *= T(2);
    if (columns.end == p.width) h[last] *= T(2);
    for (int64_t k = 1; -k >= start; ++k) h[-k] = h[k];
    for (int64_t k = 1; last + k < end; ++k) h[last + k] = h[last - k];
  }

  // Applies G_y^T to one plane of h, for pixel rows base .. base + kRows - 1, of which those from
  // `first` to `end` - 1 count.
  LAMP_NOINLINE void adjoint_y(int64_t base, int64_t first, int64_t end, int64_t z, int q) {
    int slot[kRing];
    slots_of_adjoint(base - radius, rows, slot);
    const int plane_slot = int(z % kRing);
    for (int j = 0; j < c.columns; j += N)
      for (int k = 0; k < kPlanes; ++k) {
        V sum[kRows];
        window.sums(w.adjoint_rows[q][j / N][k], slot, sum);
        for (int64_t row = first; row < end; ++row)
          store(w.adjoint[row - t.row][j / N][k][plane_slot], sum[row - base] * halved(row, rows));
      }
  }

  // ---- Adjoint planes to the gradient -----------------------------------------------------------

  using Plane = PlaneContext<T>;
  struct Planes {
    Plane plane[kRows];
    template <int... q>
    Planes(const Volume& volume, const Tile& t, int64_t base, std::integer_sequence<int, q...>)
        : plane{Plane(volume, t, std::clamp<int64_t>(base + q, 0, volume.depth - 1))...} {}
  };

  // Finishes the voxels of planes first .. end - 1: their gradient and their pointwise terms. With
  // gradients, `first` is at least `base`, and `end` at most `base` + kRows.
  void finish(int64_t base, int64_t first, int64_t end, double* sums) {
    if constexpr (gradients > 0) {
      const Planes at(volume, t, base, std::make_integer_sequence<int, kRows>());
      int slot[kRing];
      slots_of_adjoint(base - radius, planes, slot);
      for (int64_t row = t.row; row < t.end_row; ++row) {
        adjoint_z(base, row, slot);
        for (int64_t z = first; z < end; ++z) {
          AdjointRow<T, gradients> ssim;
          for (int k = 0; k < kPlanes; ++k) ssim.plane[k] = w.gradient[z - base][k];
          ssim.shift_d = constants.shift_d;
          ssim.shift_s = constants.shift_s;
          pixel_row<T, gradients>(at.plane[z - base].c, row, t.column, c.columns, &ssim, w.pixels,
                                  sums);
        }
      }
    } else if (p.terms.pointwise()) {
      for (int64_t z = first; z < end; ++z) {
        const Plane at(volume, t, z);
        for (int64_t row = t.row; row < t.end_row; ++row)
          pixel_row<T, 0>(at.c, row, t.column, c.columns, nullptr, w.pixels, sums);
      }
    }
  }

  // Applies G_z^T to one row of voxels of planes base .. base + kRows - 1.
  LAMP_NOINLINE void adjoint_z(int64_t base, int64_t row, const int* slot) {
    T half[kRows];
    for (int q = 0; q < kRows; ++q) half[q] = halved(base + q, planes);
    for (int j = 0; j < c.columns; j += N)
      for (int k = 0; k < kPlanes; ++k) {
        V sum[kRows];
        window.sums(w.adjoint[row - t.row][j / N][k], slot, sum);
        for (int q = 0; q < kRows; ++q) store(w.gradient[q][k] + j, sum[q] * half[q]);
      }
  }
};
