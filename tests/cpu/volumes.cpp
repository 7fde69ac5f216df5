#include "volumes.h"

#include "cpu/volume_launch.h"

namespace {

using lamp_kernels::Volume;
using lamp_kernels::VolumeTiling;

struct Size {
  int64_t depth, height, width;
  int64_t voxels() const { return depth * height * width; }
};

constexpr int kVolumes = 2;  // two images of one channel

// Values by image and voxel, as the kernel sees them: dense, or with gaps and x not innermost.
template <class T>
struct Voxels {
  Size size;
  bool dense;
  std::vector<T> data;

  Voxels(const Size& s, bool dense) : size(s), dense(dense), data(kVolumes * image()) {}
  int64_t column() const { return dense ? 1 : size.height + 2; }
  int64_t row() const { return dense ? size.width : 1; }
  int64_t plane() const { return dense ? size.height * size.width : column() * size.width; }
  int64_t image() const { return plane() * size.depth; }
  T& at(int64_t n, int64_t z, int64_t y, int64_t x) {
    return data[size_t(n * image() + z * plane() + y * row() + x * column())];
  }
  ConstTensorView source() const { return {data.data(), kDtype<T>, image(), 0, row(), column()}; }
  TensorView target() { return {data.data(), image(), 0, row(), column()}; }
};

struct Volumes {
  Size size;
  Border border;
  int radius;
  std::vector<double> taps;
  double eps, factor[kVolumes];
  Voxels<double> x, y, m;  // the images and the weight

  Volumes(const Size& s, Border b, int r, Random& random)
      : size(s), border(b), radius(r), eps(1e-2), factor{0.5 + random.uniform(), random.uniform()},
        x(s, true), y(s, true), m(s, true) {
    double total = 0;
    for (int k = 0; k <= r; ++k) taps.push_back(std::exp(-0.2 * k * k));
    for (int k = -r; k <= r; ++k) total += taps[size_t(std::abs(k))];
    for (double& tap : taps) tap /= total;
    for (size_t i = 0; i < x.data.size(); ++i) {
      y.data[i] = double(float(random.uniform()));
      x.data[i] = double(float(y.data[i] + 0.2 * random.normal()));
      m.data[i] = double(float(random.uniform()));
    }
  }
  int64_t origin() const { return border == Border::valid ? radius : 0; }
  // Calls f(position, tap) for each voxel that a window centered at i sees along an axis.
  template <class F>
  void seen(int64_t i, int64_t size, F f) const {
    for (int k = -radius; k <= radius; ++k) {
      int64_t at = i + k;
      if (border == Border::reflect) at = at < 0 ? -at : at >= size ? 2 * (size - 1) - at : at;
      if (at >= 0 && at < size) f(at, taps[size_t(std::abs(k))]);
    }
  }
  template <class F>
  void window(int64_t z, int64_t y, int64_t x, F f) const {
    seen(z, size.depth, [&](int64_t k, double a) {
      seen(y, size.height, [&](int64_t j, double b) {
        seen(x, size.width, [&](int64_t i, double c) { f(k, j, i, a * b * c); });
      });
    });
  }
};

// ---- The formulas of the textbook --------------------------------------------------------------

struct Expected {
  double sums[kVolumes] = {};
  Voxels<double> map, dx, dy;
};

// (2 mx my + c1) (2 sxy + c2) / ((mx^2 + my^2 + c1) (sx^2 + sy^2 + c2)), and its derivatives.
Expected expected_of(Volumes& v) {
  const double c1 = 1e-4, c2 = 9e-4, a = 0.5;
  Expected e{{}, {v.size, true}, {v.size, true}, {v.size, true}};
  const int64_t o = v.origin();
  for (int64_t n = 0; n < kVolumes; ++n)
    for (int64_t z = o; z < v.size.depth - o; ++z)
      for (int64_t row = o; row < v.size.height - o; ++row)
        for (int64_t column = o; column < v.size.width - o; ++column) {
          double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;
          v.window(z, row, column, [&](int64_t k, int64_t j, int64_t i, double w) {
            const double x = v.x.at(n, k, j, i), y = v.y.at(n, k, j, i);
            mx += w * x, my += w * y, xx += w * x * x, yy += w * y * y, xy += w * x * y;
          });
          const double a1 = 2 * mx * my + c1, a2 = 2 * (xy - mx * my) + c2;
          const double b1 = mx * mx + my * my + c1, b2 = xx - mx * mx + yy - my * my + c2;
          const double s = a1 * a2 / (b1 * b2), loss = a * (1 - s), knee = 1 - v.eps;
          const double amplified =
              loss > knee ? -std::log(v.eps) + (loss - knee) / v.eps : -std::log1p(-loss);
          const double m = v.m.at(n, z, row, column);
          e.map.at(n, z, row, column) = v.factor[0] * amplified;
          e.sums[n] += v.factor[n] * m * amplified;
          const double g = -a * v.factor[n] * m * (loss > knee ? 1 / v.eps : 1 / (1 - loss));
          const double by_xy = 2 * g * a1 / (b1 * b2), by_square = -g * s / b2;
          const double by_mx =
              2 * g * my * a2 / (b1 * b2) - 2 * g * s * mx / b1 - 2 * mx * by_square - my * by_xy;
          const double by_my =
              2 * g * mx * a2 / (b1 * b2) - 2 * g * s * my / b1 - 2 * my * by_square - mx * by_xy;
          v.window(z, row, column, [&](int64_t k, int64_t j, int64_t i, double w) {
            const double x = v.x.at(n, k, j, i), y = v.y.at(n, k, j, i);
            e.dx.at(n, k, j, i) += w * (by_mx + 2 * x * by_square + y * by_xy);
            e.dy.at(n, k, j, i) += w * (by_my + 2 * y * by_square + x * by_xy);
          });
        }
  return e;
}

// ---- The kernel --------------------------------------------------------------------------------

template <class T>
Voxels<T> converted(const Voxels<double>& from, bool dense) {
  Voxels<double> copy = from;
  Voxels<T> to(from.size, dense);
  for (int64_t n = 0; n < kVolumes; ++n)
    for (int64_t z = 0; z < to.size.depth; ++z)
      for (int64_t y = 0; y < to.size.height; ++y)
        for (int64_t x = 0; x < to.size.width; ++x) to.at(n, z, y, x) = T(copy.at(n, z, y, x));
  return to;
}

template <class T>
double relative_error(Voxels<T>& found, Voxels<double>& expected) {
  double error = 0, norm = 0;
  for (int64_t n = 0; n < kVolumes; ++n)
    for (int64_t z = 0; z < found.size.depth; ++z)
      for (int64_t y = 0; y < found.size.height; ++y)
        for (int64_t x = 0; x < found.size.width; ++x) {
          const double value = expected.at(n, z, y, x);
          error += std::pow(double(found.at(n, z, y, x)) - value, 2);
          norm += value * value;
        }
  return std::sqrt(error / norm);
}

template <class T>
void check(const std::string& name, Volumes& v, Expected& expected, bool dense, int wanted) {
  const double limit = sizeof(T) == 4 ? 2e-5 : 1e-10;
  Voxels<T> x = converted<T>(v.x, dense), y = converted<T>(v.y, dense);
  Voxels<T> m = converted<T>(v.m, dense), dx(v.size, dense), dy(v.size, dense), map(v.size, dense);
  const T factors[kVolumes] = {T(v.factor[0]), T(v.factor[1])};
  Params p{};
  p.batch = kVolumes;
  p.channels = 1;
  p.height = v.size.height;
  p.width = v.size.width;
  p.terms.set(Metric::ssim);
  p.amplify = Amplify::log;
  p.amplify_parameters[0] = v.eps;
  p.scale = 1;
  p.radius = v.radius;
  p.border = v.border;
  std::copy(v.taps.begin(), v.taps.end(), p.taps);
  p.c1 = 1e-4;
  p.c2 = 9e-4;
  p.ssim_scale = 0.5;
  p.input = x.source();
  p.target = y.source();
  p.factors = factors;
  const bool of_map = wanted == 0;
  if (of_map)
    p.map = map.target();
  else
    p.weight = m.source();
  if (wanted & 1) p.input_gradient = dx.target();
  if (wanted & 2) p.target_gradient = dy.target();
  const int64_t step = x.plane();
  const Volume volume{p, v.size.depth, sizeof(T), {step, step, step, step, step, step}};

  std::vector<T> sums(kVolumes), again(kVolumes);
  lamp_kernels::compute_volumes<T>(
      volume, sums.data(), Sums::terms,
      [](int64_t begin, int64_t end, int64_t, auto f) { f(begin, end); });
  if (of_map) {
    const double error = relative_error(map, expected.map);
    if (!(error <= limit)) fail(name, "map", error, limit);
    return;
  }
  for (int n = 0; n < kVolumes; ++n) {
    const double error = std::abs(double(sums[size_t(n)]) / expected.sums[n] - 1);
    if (!(error <= limit)) fail(name, "loss", error, limit);
  }
  const std::vector<T> first = (wanted & 1 ? dx : dy).data;
  if (wanted & 1) {
    const double error = relative_error(dx, expected.dx);
    if (!(error <= limit)) fail(name, "gradient of the input", error, limit);
  }
  if (wanted & 2) {
    const double error = relative_error(dy, expected.dy);
    if (!(error <= limit)) fail(name, "gradient of the target", error, limit);
  }
  lamp_kernels::compute_volumes<T>(volume, again.data(), Sums::terms,
                                   [](int64_t begin, int64_t end, int64_t, auto f) {
                                     for (int64_t i = end - 1; i >= begin; --i) f(i, i + 1);
                                   });
  if (again != sums || (wanted & 1 ? dx : dy).data != first)
    fail(name, "depends on the order of the boxes");
}

}  // namespace

void volumes(const Arguments& arguments) {
  Random random(arguments.seed);
  int count = 0;
  for (const int radius : arguments.volume_radii.empty() ? arguments.radii : arguments.volume_radii)
    for (const Border border : {Border::reflect, Border::valid, Border::zeros})
      for (int axis = 0; axis < 3; ++axis) {  // along which the volume is longer than a box
        const int64_t least = border == Border::valid     ? 2 * radius + 1
                              : border == Border::reflect ? radius + 1
                                                          : 1;
        int64_t sides[3];
        for (int64_t& side : sides) side = least + random.below(3);
        const int64_t box[] = {2 * VolumeTiling::kShallowest, VolumeTiling::kHighest,
                               VolumeTiling::kWidest};
        // Longer ones would take the textbook long for wide windows.
        if (radius <= 3 || axis == 1) sides[axis] = box[axis] + random.below(2 * radius);
        const Size size{sides[0], sides[1], sides[2]};
        Volumes v(size, border, radius, random);
        Expected expected = expected_of(v);
        for (int wanted = 0; wanted <= 3; ++wanted) {
          const bool dense = random.chance(0.5);
          const std::string name =
              "volume " + std::to_string(size.depth) + " x " + std::to_string(size.height) + " x " +
              std::to_string(size.width) + ", radius " + std::to_string(radius) + ", border " +
              lamp_kernels::kBorderNames[int(border)] + ", gradients " + std::to_string(wanted);
          check<float>(name, v, expected, dense, wanted);
          check<double>(name, v, expected, dense, wanted);
          count += 2;
        }
      }
  std::printf("%d volumes\n", count);
}
