// Fits with Armadillo: reads a number of iterations a line, fits from the same start, writes the parameters.
#include <armadillo>
#include <iostream>
#include <string>

static arma::mat read(const std::string& path, arma::uword rows, arma::uword columns) {
  arma::mat values;
  values.load(path, arma::raw_binary);
  values.reshape(rows, columns);
  return values;
}

template <class Model, class Covariances>
static bool fit(const arma::mat& X, const arma::mat& means, const Covariances& covariances, const arma::rowvec& weights,
                arma::uword n_iter, const std::string& folder) {
  Model model;
  model.set_params(means, covariances, weights);
  // no k-means, and a floor of the variances that is never reached
  if (!model.learn(X, means.n_cols, arma::maha_dist, arma::keep_existing, 0, n_iter, 1e-300, false)) return false;
  model.hefts.save(folder + "/weights.out", arma::raw_binary);
  model.means.save(folder + "/means.out", arma::raw_binary);
  if constexpr (std::is_same_v<Covariances, arma::cube>)
    model.fcovs.save(folder + "/covariances.out", arma::raw_binary);
  else
    model.dcovs.save(folder + "/covariances.out", arma::raw_binary);
  return true;
}

int main(int argc, char** argv) {
  if (argc < 6) {
    std::cout << arma::arma_version::as_string() << std::endl;
    return 0;
  }
  const bool full = std::string(argv[1]) == "full";
  const arma::uword n = std::stoull(argv[2]), d = std::stoull(argv[3]), k = std::stoull(argv[4]);
  const std::string folder = argv[5];
  const arma::mat X = read(folder + "/X", d, n), means = read(folder + "/means", d, k);
  const arma::rowvec weights = read(folder + "/weights", 1, k);
  const arma::mat flat = read(folder + "/covariances", full ? d * d : d, k);
  const arma::cube cube(flat.memptr(), full ? d : 0, full ? d : 0, full ? k : 0);
  arma::uword n_iter;
  while (std::cin >> n_iter) {
    const bool fine = full ? fit<arma::gmm_full>(X, means, cube, weights, n_iter, folder)
                           : fit<arma::gmm_diag>(X, means, flat, weights, n_iter, folder);
    std::cout << (fine ? "done" : "failed") << std::endl;
  }
}
